"""Brings images and label maps onto one grid: by turning axes where that is enough, else by interpolation."""

import itertools
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap
from segtool.errors import GridError
from segtool.geometry import Geometry, Reorientation, pasted
from segtool.limits import DEFAULT_LIMITS

Order = Literal["linear", "nearest"]

_SAME_LENGTH_MM = 1e-3


def turn_between(have: Geometry, want: Geometry) -> Reorientation | None:
    """The axis moves that carry ``have`` onto ``want`` voxel by voxel; None where none do."""
    if have.kind != "volume" or want.kind != "volume":
        return None
    move = have.reorientation_to(want.orientation)
    return move if have.moved(move).same_grid(want) else None


def resample(array: npt.NDArray[Any], have: Geometry, want: Geometry, order: Order) -> npt.NDArray[Any]:
    """Interpolate a volume at the voxel centres of another grid, through patient coordinates.

    Args:
        array: ``(I, J, K)`` on ``have``.
        have: Grid of ``array``, a volume.
        want: Grid of the result, a volume.
        order: ``linear`` between the eight neighbours gives float32; ``nearest`` keeps values and dtype.

    Returns:
        ``want.shape``; 0 outside ``have``.
    """
    # Half a second that most runs do without: scans of one case usually share their grid.
    from scipy import ndimage

    index_to_index = np.linalg.solve(have.affine, want.affine)
    is_linear = order == "linear"
    resampled: npt.NDArray[Any] = ndimage.affine_transform(
        array.astype(np.float32, copy=False) if is_linear else array,
        index_to_index[:3, :3],
        index_to_index[:3, 3],
        output_shape=want.shape,
        order=1 if is_linear else 0,
        # Not "constant": that blackens the outermost voxels where rounding puts them at -1e-15.
        mode="grid-constant",
        cval=0,
    )
    return resampled


def is_placeholder(geometry: Geometry) -> bool:
    """True for an affine that software writes when it knows no better.

    That is 1 mm along each axis in its order, in either direction, from index 0 or from the last index.
    """
    steps, origin = np.abs(geometry.affine[:3, :3]), np.abs(geometry.affine[:3, 3])
    last = np.array(geometry.shape, np.float64) - 1
    at_corner = (origin < _SAME_LENGTH_MM) | (np.abs(origin - last) < _SAME_LENGTH_MM)
    return np.allclose(steps, np.eye(3), atol=_SAME_LENGTH_MM) and bool(at_corner.all())


def fit_channel(
    array: npt.NDArray[Any],
    have: Geometry,
    want: Geometry,
    *,
    names: tuple[str, str],
    where: str,
    strict: bool,
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Bring one channel onto the grid of another.

    Args:
        array: ``(*S)`` on ``have``.
        have: Grid of ``array``.
        want: Grid to bring it onto.
        names: The channel, and the one whose grid is ``want``.
        where: How messages call the file.
        strict: Refuse interpolation.

    Returns:
        The channel on ``want``, and what the report must say of it.

    Raises:
        GridError: Pictures of different size, a picture and a volume, no common place; with ``strict`` any
            volumes that turning axes does not reconcile.
    """
    name, first = names
    if have.kind == want.kind and have.same_grid(want):
        return array, ()
    move = turn_between(have, want)
    if move:
        return move.apply(array), (f"{name} turned into the orientation of {first}",)
    problem = f"{where}: {first} has {want.describe()}, {name} has {have.describe()}"
    if have.kind != want.kind or have.kind != "volume":
        raise GridError(problem, "Bring the images onto one grid.")
    if have.shape == want.shape and have.describe() == want.describe():
        problem += " at another place"
    if strict:
        raise GridError(problem, "Register the images onto one grid, or run without --strict.")
    resampled = resample(array, have, want, "linear")
    if not resampled.any():
        raise GridError(f"{problem}; they have no place in common", "Check that both are of one patient.")
    return resampled, (f"{name} resampled onto {first}",)


def fit_labels(
    label_map: LabelMap, want: Geometry, *, names: tuple[str, str], where: str, strict: bool, is_part: bool = False
) -> tuple[LabelMap, tuple[str, ...]]:
    """Bring a label map onto the grid of what it belongs to, such as a reference onto that of its scan.

    The same grid in another orientation is turned, which moves no voxel in the patient. With ``is_part``,
    voxels that are some of the wanted ones, or more than those, take their places, with background elsewhere. Between
    grids of one shape at different places labels are resampled to the nearest voxel, with background outside; unless
    one of the affines is a placeholder, which says nothing about the place: then voxels are taken as they lie.

    Args:
        label_map: Labels ``(*S)`` anywhere.
        want: The wanted grid.
        names: What messages call the label map, and that to which it belongs.
        where: How messages call the file of the label map.
        strict: Refuse interpolation and guesses.
        is_part: Such label maps cover no more than what is labelled: no word of the rest, and any shape will do.

    Returns:
        The label map on ``want``, and what the report must say of it.

    Raises:
        GridError: Another shape or kind, no place in common, or what ``strict`` forbids.
    """
    have, labels = label_map.geometry, label_map.labels
    name, other = names
    if have.kind == want.kind and have.same_grid(want):
        return LabelMap(labels, want), ()
    move = turn_between(have, want)
    if move:
        return LabelMap(move.apply(labels), want), (f"{name} turned into the orientation of the {other}",)
    in_place = _put_in_place(label_map, want) if is_part else None
    if in_place is not None:
        lost = int(np.count_nonzero(labels)) - int(np.count_nonzero(in_place))
        notes = (f"{lost} labelled voxels of the {name} lie outside the {other}",) if lost else ()
        return LabelMap(in_place, want), notes
    remedy = f"Give a {name} on the grid of its {other}, and check that both are of one patient."
    is_same_shape = have.shape == want.shape
    if have.kind != want.kind or not (is_same_shape or (is_part and have.kind == "volume" and not strict)):
        raise GridError(f"{where}: the {name} has {have.describe()}, the {other} {want.describe()}", remedy)
    shift = f"up to {_largest_shift_mm(have, want):.3g} mm" if is_same_shape else "from another grid"
    if strict:
        raise GridError(
            f"{where}: the {name} has the shape of the {other} but lies {shift} elsewhere",
            f"Copy the affine of the {other} into the {name} where it is wrong, or run without --strict.",
        )
    if is_same_shape and (is_placeholder(have) or is_placeholder(want)):
        note = f"{name} has another affine than the {other}, one of them a placeholder; voxels taken as they lie"
        return LabelMap(labels, want), (note,)
    resampled = resample(labels, have, want, "nearest")
    if not _may_overlap(have, want) or (labels.any() and not resampled.any()):
        raise GridError(f"{where}: by its affine the {name} lies outside the {other}", remedy)
    return LabelMap(resampled, want), (f"{name} resampled onto the {other} (nearest voxel, moved {shift})",)


def around(one: Geometry, other: Geometry) -> Geometry:
    """The grid ``one``, extended so that it also covers ``other``; ``one`` where their voxels do not coincide.

    Raises:
        LimitError: They lie so far apart that a grid around both would have too many voxels.
    """
    place = other.place_in(one)
    if place is None:
        return one
    box = tuple(slice(min(0, box.start), max(n, box.stop)) for box, n in zip(place, one.shape, strict=True))
    shape = [side.stop - side.start for side in box]
    claim = f"{'x'.join(map(str, shape))} voxels around both grids"
    DEFAULT_LIMITS.check("voxels", math.prod(shape), "grids far apart", claim)
    return one.cropped(box)


def _put_in_place(label_map: LabelMap, want: Geometry) -> npt.NDArray[Any] | None:
    """Labels on ``want`` where they are some of its voxels, or more than those; None where that cannot be told."""
    have = label_map.geometry
    if have.kind != "volume" or want.kind != "volume":
        return None
    if have.moved(have.reorientation_to(want.orientation)).shape == want.shape:
        return None  # elsewhere: one of both affines may be wrong
    return pasted(label_map.labels, have, want)


def _corners(geometry: Geometry) -> npt.NDArray[np.float64]:
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
