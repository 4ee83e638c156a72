"""Brings a prediction, made by any tool, onto the grid of its reference."""

import itertools

import numpy as np

from segtool.case import LabelMap
from segtool.errors import GridError
from segtool.geometry import Geometry
from segtool.regrid import is_placeholder, resample, turn_between

_REMEDY = "Save both on one grid, or check that they belong to the same scan."


def align_labels(
    label_map: LabelMap, geometry: Geometry, name: str, *, strict: bool = False
) -> tuple[LabelMap, tuple[str, ...]]:
    """Bring a label map onto ``geometry``.

    The same grid in another orientation is turned, which moves no voxel in the patient. Between grids of one
    shape at different places labels are resampled to the nearest voxel, with background outside; unless one
    of the affines is a placeholder, which says nothing about the place: then voxels are taken as they lie.

    Args:
        label_map: Labels ``(*S)`` anywhere.
        geometry: The wanted grid.
        name: What messages call the label map.
        strict: Refuse to resample and to guess.

    Returns:
        The label map on ``geometry``, and notes that say what was done to it.

    Raises:
        GridError: Another kind or shape, no place in common, or what ``strict`` forbids.
    """
    have = label_map.geometry
    if have.kind == geometry.kind and have.same_grid(geometry):
        return LabelMap(label_map.labels, geometry), ()
    move = turn_between(have, geometry)
    if move:
        note = f"{name} turned from {have.orientation} to {geometry.orientation}"
        return LabelMap(move.apply(label_map.labels), geometry), (note,)
    if have.kind != geometry.kind or have.shape != geometry.shape:
        raise GridError(f"{name} lies on {have.describe()}, the reference on {geometry.describe()}", _REMEDY)
    shift = _largest_shift_mm(have, geometry)
    if strict:
        raise GridError(f"{name} has the reference's shape but lies up to {shift:.3g} mm elsewhere", _REMEDY)
    if is_placeholder(have) or is_placeholder(geometry):
        note = f"{name} and its reference have different affines, one a placeholder; voxels taken as they lie"
        return LabelMap(label_map.labels, geometry), (note,)
    if not _may_overlap(have, geometry):
        raise GridError(f"{name} lies outside its reference in the patient", _REMEDY)
    labels = resample(label_map.labels, have, geometry, "nearest")
    return LabelMap(labels, geometry), (f"{name} resampled onto its reference (nearest voxel, up to {shift:.3g} mm)",)


def _corners(geometry: Geometry) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Indices of the eight outermost voxels, ``(8, 4)`` homogeneous."""
    return np.array(list(itertools.product(*((0, n - 1) for n in geometry.shape), (1,))), np.float64)


def _largest_shift_mm(one: Geometry, other: Geometry) -> float:
    """How far a voxel of one grid lies from that of the same index in another of the same shape."""
    shifts = _corners(one) @ (one.affine - other.affine).T
    return float(np.linalg.norm(shifts[:, :3], axis=1).max())


def _may_overlap(have: Geometry, want: Geometry) -> bool:
    """False where the box around ``want``, in the indices of ``have``, misses ``have`` altogether."""
    indices = (_corners(want) @ np.linalg.solve(have.affine, want.affine).T)[:, :3]
    inside = (indices.max(axis=0) > -0.5) & (indices.min(axis=0) < np.array(have.shape) - 0.5)
    return bool(inside.all())
