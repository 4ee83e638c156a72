"""How the slices of a DICOM series stack into a volume."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom_slice import CONVERT, Slice
from segtool.geometry import Geometry

GAP_TOLERANCE_MM = 0.1
GAP_TOLERANCE = 0.01
"""Positions may miss an even stack by the larger of both: tags are rounded, those of thick slices more."""

_SAME_POSITION_MM = 1e-3
_SAME_DIRECTION = 1e-3


def grid_of(slices: Sequence[Slice]) -> tuple[npt.NDArray[np.intp], Geometry]:
    """How slices stack into a volume.

    The affine follows from the positions: columns i, rows j and slices k, the latter in the direction of
    ``row x column``; DICOM's LPS becomes RAS. See PS3.3 C.7.6.2.1.1.

    Returns:
        The order of the slices, and the grid ``(columns, rows, slices)``; for a single slice without a place
        in the patient a picture ``(rows, columns)``.

    Raises:
        UnreadableFileError: The slices do not form one even stack.
    """
    first = slices[0]
    if len(slices) == 1 and not first.is_placed:
        return np.zeros(1, np.intp), Geometry.of_pixels(first.size)
    row, column = _plane(slices)
    positions = np.array([s.position for s in slices], np.float64)
    normal = np.cross(row, column)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    if len(slices) == 1:
        step = normal * first.thickness
    else:
        _check_gaps(positions, normal, _where(slices))
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * first.spacing[1], column * first.spacing[0], step
    affine[:3, 3] = positions[0]
    affine[:2] *= -1
    try:
        return order, Geometry.of_volume((first.size[1], first.size[0], len(slices)), affine)
    except ValueError as error:
        raise UnreadableFileError(f"{_where(slices)}: the header is no grid ({error})", CONVERT) from error


def in_order(stack: AnyArray, order: npt.NDArray[np.intp]) -> AnyArray:
    """``stack[order]`` along the first axis, moved within ``stack``, so that there is no second one in memory."""
    moved = np.zeros(len(order), bool)
    for start in range(len(order)):
        if moved[start] or order[start] == start:
            continue
        held, place = stack[start].copy(), start
        while order[place] != start:
            stack[place] = stack[order[place]]
            moved[place] = True
            place = order[place]
        stack[place] = held
        moved[place] = True
    return stack


def _where(slices: Sequence[Slice]) -> str:
    return f"{slices[0].path.parent}: series of {len(slices)} files"


def _plane(slices: Sequence[Slice]) -> tuple[AnyArray, AnyArray]:
    """Unit vectors of rows and columns, the same for all slices."""
    where = _where(slices)
    first = slices[0]
    unplaced = sum(not s.is_placed for s in slices)
    if unplaced:
        raise UnreadableFileError(f"{where}: {unplaced} say nowhere in the patient they lie", "Leave them out.")
    sizes = sorted({s.size for s in slices})
    if len(sizes) > 1:
        found = " and ".join(f"{rows}x{columns}" for rows, columns in sizes[:2])
        raise UnreadableFileError(f"{where}: slices of {found} pixels in one series", "Leave out the localizers.")
    axes = np.array([(*(s.row or ()), *(s.column or ())) for s in slices], np.float64)
    if np.abs(axes - axes[0]).max() > _SAME_DIRECTION:
        raise UnreadableFileError(f"{where}: slices of several orientations in one series", "Leave out the localizers.")
    if np.abs(np.array([s.spacing for s in slices]) / first.spacing - 1).max() > _SAME_DIRECTION:
        raise UnreadableFileError(f"{where}: slices of several pixel spacings in one series", CONVERT)
    row, column = axes[0, :3], axes[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise UnreadableFileError(f"{where}: ImageOrientationPatient is not two perpendicular directions", CONVERT)
    return row / lengths[0], column / lengths[1]


def _check_gaps(positions: npt.NDArray[np.float64], normal: AnyArray, where: str) -> None:
    """Hold sorted ``positions`` ``(N, 3)`` in mm against an even stack along ``normal``."""
    gaps = np.diff(positions @ normal)
    doubled = int((gaps < _SAME_POSITION_MM).sum())
    if doubled:
        raise UnreadableFileError(
            f"{where}: {doubled} slices lie where another one lies (several acquisitions in one series)",
            "Split them, for instance with dcm2niix.",
        )
    usual = float(np.median(gaps))
    tolerance = max(GAP_TOLERANCE_MM, GAP_TOLERANCE * usual)
    worst = int(np.abs(gaps - usual).argmax())
    if abs(gaps[worst] - usual) > tolerance:
        raise UnreadableFileError(
            f"{where}: a gap of {gaps[worst]:.2f} mm after slice {worst + 1}, the others are {usual:.2f} mm",
            "Add the missing slices or convert the series with dcm2niix.",
        )
    even = np.linspace(positions[0], positions[-1], len(positions))
    if np.abs(positions - even).max() > tolerance:
        raise UnreadableFileError(f"{where}: slices do not lie on a straight line", CONVERT)
