"""DICOM RT Structure Sets: structures as contours in the slices of a scan."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataelem import RawDataElement

from segtool.case import LabelMap, Source
from segtool.errors import GridError, UnreadableFileError
from segtool.formats.arrays import narrow
from segtool.formats.contour_claims import check_work, reach
from segtool.formats.dicom.elements import digest
from segtool.formats.dicom.odd import parsed, parsing
from segtool.formats.dicom.plain import HIGHEST
from segtool.formats.polygons import Mask, polygons_mask
from segtool.geometry import Geometry

LABEL = "label value {}"
REGION = "region of label values {}"
"""Descriptions of structures (ROI Description) by which reading knows what ours stand for."""

_FloatArray = npt.NDArray[np.float64]
_LABEL = re.compile(LABEL.format(r"(\d{1,5})"))
_REGION = re.compile(REGION.format(r"[\d, ]+"))
_HIGHEST = 2**16 - 1

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_NO_AREA = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")

_BESIDE, _FAR_BESIDE = 0.02, 0.25
"""Slices by which a contour may miss its slice: without a word, and at all."""
_FLAT = 0.1
"""Slices over which the points of one contour may spread."""

_PIECE = 2**20
"""Bytes of a contour that are parsed at once: numbers take a multiple of their text until they are an array."""

_OTHER_SCAN = "Give the scan on which the contours were drawn."


@dataclass(frozen=True, eq=False)
class _Structure:
    """One ROI as the file has it.

    Args:
        number: Of the ROI.
        description: Free text; only ours is understood.
        frame: SHA-256 of the UID of its frame of reference, hexadecimal; empty where there is none.
        contours: Each ``(P, 3)`` points in mm, LPS.
        without_area: How many points and lines it has beside.
    """

    number: int
    description: str
    frame: str
    contours: tuple[_FloatArray, ...]
    without_area: int


class RtStructFormat:
    """References drawn as contours. They have no voxels of their own, so they are read onto the grid of their scan.

    A voxel belongs to a structure if its centre lies inside an odd number of the structure's contours in its slice,
    whether holes are contours of their own or joined to the outer one by a channel, or if it lies on a contour.

    A structure of ours has the label that its description names, and our regions are passed over. Any other has the
    number of its ROI, or where that is taken or no label, the next free one.
    """

    name: ClassVar[str] = "rtstruct"

    def read_labels(self, source: Source) -> LabelMap | None:
        """Not possible: contours say nothing of the grid.

        Raises:
            UnreadableFileError: Always.
        """
        raise UnreadableFileError(
            f"{source.path}: contours (RTSTRUCT) are no label map without the scan on which they were drawn",
            "Give the scan beside them, or label maps on its grid to compare with.",
        )

    def read_labels_on(self, source: Source, geometry: Geometry, frame_of_reference: str = "") -> LabelMap:
        """The structures as a label map on a grid; the later one where several claim a voxel.

        Args:
            source: The file.
            geometry: Grid of a volume in whose slices, along any of its axes, the contours lie.
            frame_of_reference: Of the scan, as :class:`~segtool.case.Image` has it; empty where it is not known.

        Raises:
            UnreadableFileError: It is damaged or no RTSTRUCT.
            LimitError: It claims more structures or contours, or more to draw, than the source's limits allow.
            GridError: The contours were not drawn on this grid.
        """
        if not geometry.is_physical:
            raise GridError(f"{source.path}: contours in millimetres for a picture without a place", _OTHER_SCAN)
        with parsing(source.path):
            dataset = parsed(source.path, source.path.read_bytes(), source.limits)
            if dataset.get("Modality") != "RTSTRUCT":
                raise UnreadableFileError(f"{source.path}: no structure set (RTSTRUCT)", "Leave it out.")
            _check_claims(dataset, source)
            structures = list(_structures(dataset))
        if any(frame_of_reference and one.frame and one.frame != frame_of_reference for one in structures):
            raise GridError(f"{source.path}: its contours have another frame of reference than the scan", _OTHER_SCAN)
        values, notes = _values(structures)
        without_area = sum(one.without_area for one in structures)
        if without_area:
            notes.append(f"{without_area} points and lines of the structure set left out, which enclose nothing")
        drawn = [one for one in structures if one.number in values]
        axis, placed, beside = _placed(drawn, geometry, source)
        if beside:
            notes.append(beside)
        labels = np.zeros(geometry.shape, np.uint16)
        claimed_twice = 0
        for number in sorted(values):
            # (slices, rows, columns) whichever axis the slices lie along.
            planes = np.moveaxis(labels, axis, 0)
            for where, mask in _masks(placed[number], planes.shape[1:]):
                claimed_twice += int(np.count_nonzero(planes[where][mask]))
                planes[where][mask] = values[number]
        if claimed_twice:
            notes.append(f"{claimed_twice} voxels lie in several structures and have the label of the last")
        return LabelMap(narrow(labels), geometry, tuple(notes))


def _check_claims(dataset: pydicom.Dataset, source: Source) -> None:
    """Hold what each takes an object for against the limits."""
    drawn = dataset.get("ROIContourSequence") or ()
    contours = sum(len(item.get("ContourSequence") or ()) for item in drawn)
    structures = max(len(dataset.StructureSetROISequence), len(drawn))
    source.limits.check("labels", structures, str(source.path), f"{structures} structures")
    if structures > _HIGHEST:
        raise UnreadableFileError(
            f"{source.path}: {structures} structures, and label maps hold {_HIGHEST}", "Split the structure set."
        )
    source.limits.check("labels", contours, str(source.path), f"{contours} contours")


def _structures(dataset: pydicom.Dataset) -> Iterator[_Structure]:
    contours = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or ()}
    for roi in dataset.StructureSetROISequence:
        number, frame = int(roi.ROINumber), str(roi.get("ReferencedFrameOfReferenceUID") or "")
        closed, without_area = [], 0
        for contour in (contours[number].get("ContourSequence") or ()) if number in contours else ():
            if contour.ContourGeometricType in _NO_AREA:
                without_area += 1
            elif contour.ContourGeometricType in _CLOSED:
                closed.append(_points(contour))
            else:
                raise ValueError("ContourGeometricType")
        yield _Structure(
            number=number,
            description=str(roi.get("ROIDescription") or ""),
            frame=digest(frame),
            contours=tuple(points for points in closed if len(points)),
            without_area=without_area,
        )


def _points(contour: pydicom.Dataset) -> _FloatArray:
    """``(P, 3)``, of the bytes as they lie in the file: pydicom takes a while to make an object of each number."""
    element: Any = contour.get_item("ContourData")
    if isinstance(element, RawDataElement):
        numbers = np.concatenate([np.array([], np.float64), *_parsed(element.value or b"")])
    else:
        numbers = np.array([float(number) for number in (element.value if element is not None else None) or ()])
    points: _FloatArray = numbers.astype(np.float64).reshape(-1, 3)
    if not (np.abs(points) < HIGHEST).all():
        raise ValueError("ContourData")
    return points


def _parsed(text: bytes) -> Iterator[_FloatArray]:
    """The numbers of a text, piece by piece."""
    start = 0
    while start < len(text):
        end = text.find(b"\\", start + _PIECE)
        end = len(text) if end < 0 else end
        yield np.array([float(number) for number in text[start:end].split(b"\\") if number.strip(b" \0")], np.float64)
        start = end + 1


def _values(structures: Sequence[_Structure]) -> tuple[dict[int, int], list[str]]:
    """Label of each ROI number, and what to say of those that could not keep theirs."""
    values: dict[int, int] = {}
    foreign = []
    for one in sorted(structures, key=lambda one: one.number):
        ours = _LABEL.fullmatch(one.description)
        if ours and 1 <= int(ours[1]) <= _HIGHEST:
            values[one.number] = int(ours[1])
        elif not _REGION.fullmatch(one.description) and one.contours:
            foreign.append(one.number)
    taken, notes = set(values.values()), []
    own = set(foreign)
    free = (one for one in count(1) if one not in taken and one not in own)
    for number in foreign:
        value = number
        if value in taken or not 1 <= value <= _HIGHEST:
            value = next(free)
            notes.append(f"structure number {number} has the label {value}")
        values[number] = value
        taken.add(value)
    return values, notes


_Placed = dict[int, dict[int, list[_FloatArray]]]
"""By number of the ROI and by slice the polygons ``(P, 2)``, x along the last axis of the slice."""


def _placed(structures: Sequence[_Structure], geometry: Geometry, source: Source) -> tuple[int, _Placed, str]:
    """Along which axis the slices lie, the polygons in them, and what to say of contours beside their slices."""
    placed: _Placed = {one.number: defaultdict(list) for one in structures}
    contours = [(one.number, points) for one in structures for points in one.contours]
    if not contours:
        return 2, placed, ""
    starts = np.cumsum([0, *(len(points) for _, points in contours)])
    everything = np.concatenate([points for _, points in contours]) * (-1, -1, 1)  # RAS
    inverse = np.linalg.inv(geometry.affine)
    indices = everything @ inverse[:3, :3].T + inverse[:3, 3]
    low, high = (one.reduceat(indices, starts[:-1]) for one in (np.minimum, np.maximum))
    spread = (high - low).max(axis=0)
    axis = int(spread.argmin())
    if spread[axis] > _FLAT:
        raise GridError(f"{source.path}: contours that lie in no plane of the scan's grid", _OTHER_SCAN)
    middle = (low[:, axis] + high[:, axis]) / 2
    slices = np.rint(middle).astype(np.intp)
    beside = np.abs(middle - slices)
    worst = int(beside.argmax())
    if beside[worst] > _FAR_BESIDE:
        raise GridError(
            f"{source.path}: a contour lies {beside[worst] * geometry.spacing_mm[axis]:.2f} mm beside the nearest "
            f"slice of the scan, which are {geometry.spacing_mm[axis]:.2f} mm apart",
            _OTHER_SCAN,
        )
    outside = int(((slices < 0) | (slices >= geometry.shape[axis])).sum())
    if outside:
        raise GridError(f"{source.path}: {outside} of {len(slices)} contours lie outside the scan", _OTHER_SCAN)
    rows, columns = (other for other in range(3) if other != axis)
    flat = indices[:, [columns, rows]]
    # One mask is drawn of all contours of a structure in a slice.
    numbers = np.unique([number for number, _ in contours], return_inverse=True)[1]
    check_work(flat, starts, numbers, slices, (geometry.shape[rows], geometry.shape[columns]), source)
    for (number, _), k, start, stop in zip(contours, slices.tolist(), starts[:-1], starts[1:], strict=True):
        placed[number][k].append(flat[start:stop])
    moved = int((beside > _BESIDE).sum())
    said = f"{moved} contours lie up to {beside[worst]:.2f} slices beside the nearest slice, in which they were put"
    return axis, placed, said if moved else ""


def _masks(
    polygons: dict[int, list[_FloatArray]], shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, slice, slice], Mask]]:
    """Slice, rows and columns of all that polygons may reach, and the mask of it."""
    for k, those in polygons.items():
        points, size = np.concatenate(those), (shape[0], shape[1])
        low, high = points.min(axis=0, keepdims=True), points.max(axis=0, keepdims=True)
        rows, columns = (slice(*side) for side in reach(low, high, size)[:, 0].tolist())
        mask = polygons_mask(those, size, with_border=True)
        yield (k, rows, columns), mask[rows, columns]
