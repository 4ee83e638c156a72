"""Brings a label map onto another grid of the same patient, without inventing voxels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap
from segtool.errors import GridError
from segtool.geometry import Geometry

_VOXELS_AT_ONCE = 2_000_000  # of coordinates while resampling: about 50 MB, whatever the volume
_REMEDY = "Save both on one grid, or check that they belong to the same scan."


def align_labels(
    label_map: LabelMap, geometry: Geometry, name: str, *, strict: bool = False
) -> tuple[LabelMap, tuple[str, ...]]:
    """Bring a label map onto ``geometry``.

    The same grid in another orientation is turned, which moves no voxel in the patient. A grid of the same
    shape that lies elsewhere is resampled to the nearest voxel; outside of it is background.

    Args:
        label_map: Labels ``(*S)`` anywhere.
        geometry: The wanted grid.
        name: What messages call the label map.
        strict: Refuse to resample.

    Returns:
        The label map on ``geometry``, and notes that say what was done to it.

    Raises:
        GridError: Another shape, no common voxel, or a resampling that ``strict`` forbids.
    """
    have = label_map.geometry
    if have.same_grid(geometry):
        return LabelMap(label_map.labels, geometry), ()
    if have.is_physical and geometry.is_physical:
        move = have.reorientation_to(geometry.orientation)
        turned = LabelMap(move.apply(label_map.labels), have.moved(move))
        note = f"{name} turned from {have.orientation} to {geometry.orientation}"
        if turned.geometry.same_grid(geometry):
            return LabelMap(turned.labels, geometry), (note,)
        if geometry.shape in (have.shape, turned.geometry.shape):
            return _resampled(label_map, geometry, name, strict)
    raise GridError(f"{name} lies on {have.describe()}, wanted {geometry.describe()}", _REMEDY)


def _resampled(
    label_map: LabelMap, geometry: Geometry, name: str, strict: bool
) -> tuple[LabelMap, tuple[str, ...]]:
    shift = float(np.abs(_corners(label_map.geometry) - _corners(geometry)).max())
    if strict:
        raise GridError(f"{name} has the right shape but lies up to {shift:.3g} mm elsewhere", _REMEDY)
    labels, inside = nearest(label_map.labels, label_map.geometry, geometry)
    if not inside:
        raise GridError(f"{name} does not overlap its reference in the patient", _REMEDY)
    share = 100.0 * inside / labels.size
    return LabelMap(labels, geometry), (
        f"{name} resampled onto the reference's grid ({share:.3g} % of the grids overlap)",
    )


def _corners(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Lowest and highest patient coordinate of the voxel centres, ``(2, 3)``."""
    extent = np.array(geometry.shape) - 1
    steps = geometry.affine[:3, :3] * extent
    low, high = np.minimum(steps, 0).sum(axis=1), np.maximum(steps, 0).sum(axis=1)
    bounds: npt.NDArray[np.float64] = geometry.affine[:3, 3] + np.stack([low, high])
    return bounds


def nearest(labels: npt.NDArray[Any], have: Geometry, want: Geometry) -> tuple[npt.NDArray[Any], int]:
    """Resample labels to the nearest voxel, through patient coordinates.

    Args:
        labels: ``(I, J, K)`` on ``have``.
        have: A volume's grid.
        want: Another volume's grid.

    Returns:
        Labels on ``want``, 0 where ``have`` does not reach; and how many voxels of ``want`` it reaches.
    """
    between = np.linalg.inv(have.affine) @ want.affine  # index on want -> index on have
    result = np.zeros(want.shape, labels.dtype)
    reached = 0
    slab = max(1, _VOXELS_AT_ONCE // (want.shape[1] * want.shape[2]))
    for start in range(0, want.shape[0], slab):
        i, j, k = np.ogrid[start : min(start + slab, want.shape[0]), : want.shape[1], : want.shape[2]]
        index, inside = [], np.True_
        for axis in range(3):
            a, b, c, offset = between[axis]
            # A hair towards the lower voxel, so that rounding noise does not decide ties.
            at = np.ceil(a * i + b * j + c * k + (offset - 0.5 - 1e-6)).astype(np.int32)
            inside = inside & (at >= 0) & (at < have.shape[axis])
            index.append(at)
        reached += int(np.count_nonzero(inside))
        slice_of = result[start : start + slab]
        slice_of[inside] = labels[tuple(at[inside] for at in index)]
    return result, reached
