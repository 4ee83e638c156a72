"""DICOM Segmentation and Label Map Segmentation: frames of one segment each, or of segment numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels.utils import pixel_array

from segtool.case import LabelMap, Source
from segtool.errors import GridError, UnreadableFileError
from segtool.formats.arrays import MAX_LABEL, AnyArray, narrow
from segtool.formats.dicom.codestreams import check_frames
from segtool.formats.dicom.elements import digest
from segtool.formats.dicom.odd import parsed, parsing
from segtool.formats.dicom.plain import HIGHEST
from segtool.formats.dicom.repair import tolerance_mm
from segtool.formats.dicom.slice import check_voxels
from segtool.formats.dicom.stack import SAME_POSITION_MM
from segtool.geometry import Geometry, pasted

LABEL = "label value {}"
"""Description of a segment, from which reading knows the value that label maps have for it."""

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"

_LABEL = re.compile(LABEL.format(r"(\d{1,5})"))
_FINEST_MM = 1e-6
_SAME_DIRECTION = 1e-3
_SAME_AXIS = 0.99
"""Cosine above which an axis of the scan runs across the frames."""
_CONVERT = "Convert it to NIfTI, for instance with dcmqi."

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Frames:
    """Voxels of a segmentation and where they lie, in mm, LPS.

    Args:
        pixels: ``(N, rows, columns)``: True or segment numbers.
        segments: ``(N,)`` segment of each frame; 0 where the pixels are segment numbers.
        positions: ``(N, 3)`` centres of the first pixels; None of a picture.
        axes: Directions in which columns and rows are counted, ``(2, 3)``.
        spacing: Distance of rows, of columns.
        between: Distance of slices as the header claims it, else None.
        thickness: Of a slice, else None.
    """

    pixels: AnyArray
    segments: npt.NDArray[np.intp]
    positions: Floats | None
    axes: Floats
    spacing: Floats
    between: float | None
    thickness: float | None


class DicomSegFormat:
    """References as binary, fractional and label map segmentations of volumes and pictures.

    A segment of ours has the label that its description names, any other one that of its number. Where segments
    overlap, the later one counts; fractions count from 0.5. Between the lowest and the highest frame those that are
    not there are background.
    """

    name: ClassVar[str] = "dicom-seg"

    def read_labels(self, source: Source) -> LabelMap:
        """Labels on a grid of their own, as :class:`~segtool.formats.dicom.series.DicomFormat` has those of scans.

        Raises:
            UnreadableFileError: Broken, another kind of object, of a microscopy slide, or no even stack.
            LimitError: It claims more voxels, frames or segments than the source's limits allow.
        """
        return _read(source, None, "")

    def read_labels_on(self, source: Source, geometry: Geometry, frame_of_reference: str = "") -> LabelMap:
        """The same on ``geometry``, or on a grid of its own where the voxels of both do not coincide.

        Args:
            source: Where the segmentation lies.
            geometry: Of the scan. The frames may be several of its slices apart.
            frame_of_reference: Digest of the scan's, as of :class:`~segtool.case.Image`; empty where not known.

        Raises:
            UnreadableFileError: As for :meth:`read_labels`.
            GridError: The segmentation was made in another frame of reference.
        """
        read = _read(source, geometry, frame_of_reference)
        labels = pasted(read.labels, read.geometry, geometry)
        if labels is None:
            return read
        lost = int(np.count_nonzero(read.labels)) - int(np.count_nonzero(labels))
        beyond = (f"{lost} labelled voxels lie outside the scan",) if lost else ()
        return LabelMap(labels, geometry, (*read.notes, *beyond))


def _read(source: Source, scan: Geometry | None, frame_of_reference: str) -> LabelMap:
    path = source.path
    with parsing(path):
        dataset = parsed(path, path.read_bytes(), source.limits)
        _check_kind(dataset, path)
        own = digest(str(dataset.get("FrameOfReferenceUID") or ""))
        if frame_of_reference and own and own != frame_of_reference:
            raise GridError(
                f"{path}: the segmentation has another frame of reference than the scan",
                "Give the scan on which it was made.",
            )
        notes: list[str] = []
        _check_claims(dataset, source)
        frames = _frames(dataset, path, notes)
        values = _values(dataset.SegmentSequence)
    places, geometry = _grid(frames, source, scan)
    labels = _labels(frames, places, geometry, values, notes)
    return LabelMap(narrow(labels), geometry, tuple(notes))


def _check_kind(dataset: Dataset, path: Path) -> None:
    kind = dataset.get("SOPClassUID", "")
    if kind not in (SEGMENTATION, LABEL_MAP):
        name = getattr(kind, "name", "") or "not DICOM"
        raise UnreadableFileError(f"{path}: {name}, wanted a DICOM segmentation", _CONVERT)
    is_tiled = str(dataset.get("DimensionOrganizationType", "")).startswith("TILED")
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if is_tiled or any("PlanePositionSlideSequence" in group for group in groups):
        raise UnreadableFileError(f"{path}: a segmentation of a microscopy slide, not of a scan", "Leave it out.")
    if not groups:
        raise UnreadableFileError(f"{path}: a segmentation without frames", "Export it again.")


def _check_claims(dataset: Dataset, source: Source) -> None:
    """Hold what decoding takes memory for against the limits."""
    path, limits = source.path, source.limits
    claimed = [len(dataset.PerFrameFunctionalGroupsSequence), int(dataset.Rows), int(dataset.Columns)]
    segments = len(dataset.SegmentSequence)
    limits.check("labels", segments, str(path), f"{segments} segments")
    limits.check("labels", claimed[0], str(path), f"{claimed[0]} frames")
    check_voxels(path, claimed, "voxels in its frames", limits)
    if int(dataset.get("NumberOfFrames") or 1) != claimed[0]:
        raise UnreadableFileError(
            f"{path}: {dataset.get('NumberOfFrames')} frames and {claimed[0]} places", "Export it again."
        )
    check_frames(dataset, (claimed[1], claimed[2], 1), int(dataset.BitsAllocated), path)


def _frames(dataset: Dataset, path: Path, notes: list[str]) -> _Frames:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = [_Group(shared, own) for own in dataset.PerFrameFunctionalGroupsSequence]
    try:
        pixels = pixel_array(dataset)
    except StopIteration:  # pydicom's, where compressed frames are missing
        raise UnreadableFileError(
            f"{path}: fewer compressed frames than the {len(groups)} that it claims", "Export it again."
        ) from None
    if len(groups) == 1:
        pixels = pixels.reshape(1, *pixels.shape[-2:])
    if len(pixels) != len(groups):
        raise UnreadableFileError(f"{path}: {len(pixels)} frames and {len(groups)} places", "Export it again.")
    is_label_map = dataset.SegmentationType == "LABELMAP"
    if dataset.SegmentationType == "FRACTIONAL":
        whole = int(dataset.MaximumFractionalValue)
        if whole < 1:
            raise UnreadableFileError(f"{path}: fractions of {whole}", "Export it again.")
        if ((pixels > 0) & (pixels < whole)).any():
            notes.append("fractional segmentation: taken from a share of 0.5 upwards")
        pixels = pixels * np.float32(2) >= whole
    segments = [
        0 if is_label_map else _label(g.item("SegmentIdentificationSequence").ReferencedSegmentNumber) for g in groups
    ]
    if not any(group.has("PlanePositionSequence") for group in groups):
        nowhere = np.zeros((2, 3))
        return _Frames(pixels, np.array(segments), None, nowhere, np.ones(2), None, None)
    axes = _numbers([group.item("PlaneOrientationSequence").ImageOrientationPatient for group in groups])
    measures = [group.item("PixelMeasuresSequence") for group in groups]
    spacing = _numbers([measure.PixelSpacing for measure in measures])
    if max(np.ptp(axes, axis=0).max(), np.ptp(spacing, axis=0).max()) > _SAME_DIRECTION or spacing.min() <= 0:
        raise UnreadableFileError(f"{path}: frames of several directions or spacings", _CONVERT)
    return _Frames(
        pixels,
        np.array(segments),
        _numbers([group.item("PlanePositionSequence").ImagePositionPatient for group in groups]),
        axes[0].reshape(2, 3) / np.linalg.norm(axes[0].reshape(2, 3), axis=1, keepdims=True),
        spacing[0],
        _length(measures[0].get("SpacingBetweenSlices")),
        _length(measures[0].get("SliceThickness")),
    )


def _length(value: object) -> float | None:
    """Millimetres; None where there are none, or none that a slice can have."""
    mm = abs(float(str(value or 0)))
    return mm if _FINEST_MM <= mm <= HIGHEST else None


def _label(value: object) -> int:
    """A number of a segment.

    Raises:
        ValueError: No label is so high.
    """
    number = int(str(value))
    if not 0 <= number <= MAX_LABEL:
        raise ValueError("segment number")
    return number


@dataclass(frozen=True)
class _Group:
    """What the header says of one frame, be it for this one or for all."""

    shared: Dataset
    own: Dataset

    def has(self, keyword: str) -> bool:
        return keyword in self.own or keyword in self.shared

    def item(self, keyword: str) -> Any:  # noqa: ANN401 - a data set, whose attributes are its tags
        return getattr(self.own if keyword in self.own else self.shared, keyword)[0]


def _numbers(rows: Sequence[Sequence[float]]) -> Floats:
    numbers = np.array(rows, np.float64)
    if not (np.abs(numbers) < HIGHEST).all():
        raise ValueError("no such place")
    return numbers


def _values(segments: Sequence[Dataset]) -> dict[int, int]:
    """The label of each segment by its number."""
    values = {}
    for segment in segments:
        match = _LABEL.fullmatch(str(segment.get("SegmentDescription") or ""))
        number = _label(segment.SegmentNumber)
        values[number] = _label(match[1]) if match else number
    if len(set(values.values())) < len(values):
        return {number: number for number in values}
    return values


def _grid(frames: _Frames, source: Source, scan: Geometry | None) -> tuple[npt.NDArray[np.intp], Geometry]:
    """The slice of each frame, and the grid ``(columns, rows, slices)``; of a picture ``(rows, columns)``."""
    path, (rows, columns) = source.path, frames.pixels.shape[1:]
    if frames.positions is None:
        if len(set(frames.segments.tolist())) < len(frames.segments):
            raise UnreadableFileError(f"{path}: several frames that say nowhere where they lie", _CONVERT)
        return np.zeros(len(frames.pixels), np.intp), Geometry.of_pixels((rows, columns))
    normal = np.cross(*frames.axes)
    mm = frames.positions @ normal
    lowest, highest = frames.positions[mm.argmin()], frames.positions[mm.argmax()]
    gap = _gap(mm - mm.min(), frames, normal, scan)
    if not gap:
        raise UnreadableFileError(f"{path}: frames at uneven distances", _CONVERT)
    places = np.rint((mm - mm.min()) / gap).astype(np.intp)
    count = int(places.max()) + 1
    check_voxels(path, (count, rows, columns), "voxels between its lowest and its highest frame", source.limits)
    step = (highest - lowest) / (count - 1) if count > 1 else normal * gap
    missed = np.linalg.norm(frames.positions - (lowest + places[:, np.newaxis] * step), axis=1).max()
    if missed > tolerance_mm(gap):
        raise UnreadableFileError(f"{path}: frames up to {missed:.2f} mm beside an even stack", _CONVERT)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = frames.axes * frames.spacing[::-1, np.newaxis]
    affine[:3, 2], affine[:3, 3] = step, lowest
    affine[:2] *= -1  # LPS to RAS
    try:
        return places, Geometry.of_volume((columns, rows, count), affine)
    except ValueError as error:
        raise UnreadableFileError(f"{path}: {error}", "Correct the file's header.") from error


def _gap(mm: Floats, frames: _Frames, normal: Floats, scan: Geometry | None) -> float | None:
    """Distance of slices in mm of which every frame is a multiple away from the lowest; None where there is none.

    That of the scan comes first: a header may claim anything, and of a small lesion every second slice may be empty.

    Args:
        mm: Heights of the frames above the lowest.
        frames: The segmentation.
        normal: Unit vector across the frames.
        scan: Grid on which it is wanted.
    """
    found: list[float | None] = []
    if scan is not None and scan.kind == "volume":
        steps = scan.affine[:3, :3].T * (-1, -1, 1)
        across = np.abs(steps @ normal)
        found += [float(mm) for mm, length in zip(across, scan.spacing_mm, strict=True) if mm > _SAME_AXIS * length]
    heights = np.sort(mm)
    gaps = np.diff(heights)
    gaps = gaps[gaps > SAME_POSITION_MM]
    found += [frames.between, float(gaps.min()) if len(gaps) else frames.thickness or 1.0]
    for gap in found:
        if gap and np.abs(heights / gap - np.rint(heights / gap)).max() * gap <= tolerance_mm(gap):
            return gap
    return None


def _labels(
    frames: _Frames, places: npt.NDArray[np.intp], geometry: Geometry, values: dict[int, int], notes: list[str]
) -> AnyArray:
    """The label map on ``geometry``."""
    # Frames may have numbers of which no segment tells, and so may the pixels of a label map.
    highest = max((*values.values(), int(frames.segments.max()), int(frames.pixels.max(initial=0)), 1))
    labels = np.zeros((int(places.max()) + 1, *frames.pixels.shape[1:]), np.min_scalar_type(highest))
    overlapping = 0
    # By segment, whatever the order of the file: the later one counts.
    for frame in np.argsort(frames.segments, kind="stable"):
        pixels, slice_ = frames.pixels[frame], labels[places[frame]]
        if not frames.segments[frame]:
            for number in np.unique(pixels[pixels > 0]).tolist():
                slice_[pixels == number] = values.get(number, number)
            continue
        inside = pixels > 0
        value = values.get(int(frames.segments[frame]), int(frames.segments[frame]))
        before = slice_[inside]
        overlapping += int(np.count_nonzero((before != 0) & (before != value)))
        slice_[inside] = value
    if overlapping:
        voxels = "1 voxel lies" if overlapping == 1 else f"{overlapping} voxels lie"
        notes.append(f"{voxels} in several segments; the last one counts")
    return labels[0] if geometry.kind == "image" else labels.T
