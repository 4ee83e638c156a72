"""Brings images of one patient onto one grid: by turning axes where that is enough, else by interpolation."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segtool.errors import GridError
from segtool.geometry import Geometry, Reorientation

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


def fit_reference(
    labels: npt.NDArray[Any], have: Geometry, want: Geometry, *, where: str, strict: bool
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Bring a reference onto the grid of its scan.

    Args:
        labels: ``(*S)`` on ``have``.
        have: Grid of ``labels``.
        want: Grid of the scan.
        where: How messages call the file.
        strict: Refuse interpolation and guesses.

    Returns:
        The labels on ``want``, and what the report must say of them.

    Raises:
        GridError: Another shape or kind, or no common place; with ``strict`` another affine that turning axes
            does not reconcile.
    """
    if have.kind == want.kind and have.same_grid(want):
        return labels, ()
    move = turn_between(have, want)
    if move:
        return move.apply(labels), ()
    if have.kind != want.kind or have.shape != want.shape:
        raise GridError(
            f"{where}: the reference has {have.describe()}, the scan {want.describe()}",
            "Give the reference that was drawn on this scan, on the scan's own grid.",
        )
    if strict:
        raise GridError(
            f"{where}: the reference has {have.describe()}, the scan {want.describe()}, at another place",
            "Copy the scan's affine into the reference, or run without --strict.",
        )
    if is_placeholder(have) or is_placeholder(want):
        return labels, ("reference has another affine; its voxels were taken as they lie",)
    resampled = resample(labels, have, want, "nearest")
    if labels.any() and not resampled.any():
        raise GridError(
            f"{where}: by its affine the reference lies outside the scan",
            "Give the reference that was drawn on this scan.",
        )
    return resampled, ("reference resampled onto the scan (nearest voxel)",)
