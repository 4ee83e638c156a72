"""What slices must have in common to stack into a volume: refused with numbers, or repaired where that is wanted."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from segtool.errors import UnreadableFileError
from segtool.formats.dicom.repair import Floats, Indices, tolerance_mm
from segtool.formats.dicom.slice import CONVERT, Slice

MAX_TILT_DEGREES = 0.1
MAX_DRIFT = 0.5
"""A stack is upright where its slope is below the one, or its last slice lies less than the other, in pixels, beside
the first. Directions rounded to three decimals tilt it by 0.03 degrees."""

_HIGHEST_TILT_DEGREES = 45.0
"""No gantry tilts beyond 30."""

_SAME_DIRECTION = 1e-3
_SPLIT = "Split the series, for instance with dcm2niix"


def where_of(slices: Sequence[Slice]) -> str:
    """How messages call a series."""
    return f"{slices[0].path.parent}: series of {len(slices)} files"


def counted(count: int) -> str:
    """``1 slice``, ``2 slices``."""
    return f"{count} slice" if count == 1 else f"{count} slices"


def axes_of(slices: Sequence[Slice]) -> Floats:
    """Unit vectors of rows, columns and normal as columns of a matrix, the same for all slices."""
    where = where_of(slices)
    unplaced = [s.path.name for s in slices if not s.is_placed]
    if unplaced:
        raise UnreadableFileError(
            f"{where}: {len(unplaced)} say nowhere in the patient they lie, such as {unplaced[0]}",
            "Leave them out, or export the series again.",
        )
    sizes = Counter(s.size for s in slices).most_common()
    if len(sizes) > 1:
        found = " and ".join(f"{rows}x{columns} ({count} of {len(slices)})" for (rows, columns), count in sizes[:2])
        more = f" and {len(sizes) - 2} sizes more" if len(sizes) > 2 else ""
        odd = next(s.path.name for s in slices if s.size == sizes[-1][0])
        raise UnreadableFileError(
            f"{where}: slices of {found} pixels{more} in one series, such as {odd}",
            "Leave out those that are no slices of the scan, or export the series again.",
        )
    axes = np.array([(*(s.row or ()), *(s.column or ())) for s in slices], np.float64)
    turned = np.abs(axes - axes[0]).max(axis=1) > _SAME_DIRECTION
    if turned.any():
        raise UnreadableFileError(
            f"{where}: slices of several orientations in one series ({turned.sum()} unlike the first)",
            "Leave out the localizers.",
        )
    spacings = np.array([s.spacing for s in slices])
    unlike = np.abs(spacings / spacings[0] - 1).max(axis=1)
    if unlike.max() > _SAME_DIRECTION:
        found = " and ".join("x".join(f"{mm:g}" for mm in spacings[i]) for i in (0, int(unlike.argmax())))
        raise UnreadableFileError(f"{where}: slices of several pixel spacings in one series ({found} mm)", f"{_SPLIT}.")
    row, column = axes[0, :3], axes[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise UnreadableFileError(f"{where}: ImageOrientationPatient is not two perpendicular directions", CONVERT)
    normal = np.cross(row, column)
    return np.stack([row / lengths[0], column / lengths[1], normal / np.linalg.norm(normal)], axis=1)


def one_frame(slices: Sequence[Slice], *, lenient: bool) -> list[str]:
    """What to say of slices whose coordinates have several origins."""
    frames = {s.frame_of_reference for s in slices} - {""}
    if len(frames) < 2:
        return []
    if not lenient:
        raise UnreadableFileError(
            f"{where_of(slices)}: {len(frames)} frames of reference, whose positions do not compare",
            f"{_SPLIT}, or pass --lenient to take them as one.",
        )
    return [f"{len(frames)} frames of reference in one series were taken as one"]


def check_repeated(
    places: Floats, order: Indices, position: Indices, slices: Sequence[Slice], *, lenient: bool
) -> None:
    """Several files at one position are refused, unless they repeat each other and may be left out."""
    count = len(position) - len(order)
    if not count:
        return
    beside = np.abs(places[:, :2] - places[order[position], :2]).max()
    held = np.bincount(position)
    full = np.flatnonzero(held > 1)
    named = ", ".join(f"{places[order[i], 2]:.1f}" for i in full[:3])
    more = f" and {len(full) - 3} more" if len(full) > 3 else ""
    problem = (
        f"{where_of(slices)}: {counted(count)} at positions that another one has, at {named}{more} mm along the normal "
        "(several acquisitions)"
    )
    if beside > MAX_DRIFT * min(slices[0].spacing):
        raise UnreadableFileError(f"{problem}, up to {beside:.1f} mm beside it", f"{_SPLIT}.")
    if not lenient:
        raise UnreadableFileError(problem, f"{_SPLIT}, or pass --lenient to take the first file of each position.")


def sideways_of(kept: Floats, slices: Sequence[Slice], *, lenient: bool) -> str:
    """What to say of slices that do not lie upon each other along the normal; empty where they do."""
    if len(kept) == 1:
        return ""
    drift = kept[-1, :2] - kept[0, :2]
    height = kept[-1, 2] - kept[0, 2]
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(drift), height)))
    line = kept[0, :2] + np.outer((kept[:, 2] - kept[0, 2]) / height, drift)
    off = float(np.linalg.norm(kept[:, :2] - line, axis=1).max())
    is_tilted = degrees > MAX_TILT_DEGREES and np.linalg.norm(drift) > MAX_DRIFT * min(slices[0].spacing)
    if off > tolerance_mm(height / (len(kept) - 1)):
        problem = f"slices do not lie on a straight line, but up to {off:.2f} mm beside it"
        repaired = f"slices that lay up to {off:.2f} mm beside a straight line were shifted in their plane"
    elif is_tilted:
        problem = f"the stack is tilted by {degrees:.2f} degrees against the normal of its slices (gantry tilt)"
        repaired = f"gantry tilt of {degrees:.2f} degrees corrected by shifting slices in their plane"
    else:
        return ""
    # (2,): how far the slices spread along rows and along columns, in pixels.
    spread = (kept[:, :2].max(axis=0) - kept[:, :2].min(axis=0)) / slices[0].spacing[::-1]
    if degrees > _HIGHEST_TILT_DEGREES or (spread > slices[0].size[::-1]).any():
        raise UnreadableFileError(f"{where_of(slices)}: {problem}, too far to shift them upright", CONVERT)
    if not lenient:
        raise UnreadableFileError(f"{where_of(slices)}: {problem}", "Pass --lenient to shift the slices upright.")
    return repaired
