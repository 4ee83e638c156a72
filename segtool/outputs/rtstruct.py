"""DICOM RT Structure Sets, as PS3.3 A.19 has them: labels and regions as contours for planning systems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage

from segtool.case import Source
from segtool.errors import OutputError
from segtool.formats.png import PALETTE
from segtool.formats.rtstruct import LABEL, REGION
from segtool.outputs.base import Result
from segtool.outputs.contours import outlines
from segtool.outputs.dicom_codes import code_of, code_of_name, concept
from segtool.outputs.dicom_common import (
    MANUFACTURER,
    SourceSeries,
    derived_uid,
    instance_uid,
    long_string,
    patient_and_study,
    save,
    series_uid,
    source_series,
    writing,
)
from segtool.spec import Code, ModelSpec
from segtool.version import __version__

_SERIES_NUMBER = 9002
_STUDY = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, retired; the standard says so of RT Referenced Study Sequence."""
_CONTOUR_DATA = Tag("ContourData")
_LabelArray = npt.NDArray[np.integer]


@dataclass(frozen=True)
class _Structure:
    """One ROI: its labels' voxels together.

    Args:
        number: Of the ROI; of a label its value.
        name: Shown to the planner.
        description: What reading knows it by.
        values: Of its labels.
        code: Of what it is.
        colour: Red, green and blue.
    """

    number: int
    name: str
    description: str
    values: tuple[int, ...]
    code: Code
    colour: tuple[int, int, int]


class RtStructOutput:
    """One structure (ROI) a label, and one a region of several labels, all unapproved and made by software.

    Contours follow the edges of the pixels, each with its holes in one closed polygon; :mod:`segtool.outputs.contours`
    says how. A structure without a voxel is there without contours: looked for, and not found. What it is to
    radiotherapy (interpreted type) stays empty, since the model knows nothing of it.

    Where a scan was repaired on reading, contours lie on the images that exist, once at each position.
    """

    name: ClassVar[str] = "rtstruct"

    def suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.rtstruct.dcm``."""
        return ".rtstruct.dcm"

    def write(self, path: Path, result: Result) -> None:
        """Write an RTSTRUCT file that refers to every image of its source.

        Raises:
            OutputError: The source is no DICOM series or says not where it lies, or the file cannot be written.
        """
        source = source_series(result, self.name)
        _check_frame(source, result)
        with writing(result, self.name):
            dataset = _structure_set(source, result)
            save(path, dataset, source)


def _check_frame(source: SourceSeries, result: Result) -> None:
    named = source.first.get("FrameOfReferenceUID") or ""
    if not source.is_placed or named == derived_uid("frame of reference", source.first.SeriesInstanceUID):
        what = "frame of reference" if source.is_placed else "place in the patient"
        raise OutputError(
            f"case {result.name}: its images name no {what}, which contours need",
            "Leave rtstruct out, or take the NIfTI result.",
        )


def _structure_set(source: SourceSeries, result: Result) -> Dataset:
    spec, first = result.spec, source.first
    structures = list(_structures(spec))
    new = patient_and_study(source)
    new.file_meta = FileMetaDataset()
    # Lengths of explicit types have 16 bits, which a contour of some thousand points exceeds.
    new.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    new.SOPClassUID = RTStructureSetStorage
    new.SOPInstanceUID = instance_uid(source, result, RtStructOutput.name)
    new.Modality = "RTSTRUCT"
    new.SeriesInstanceUID = series_uid(source, result, RtStructOutput.name)
    new.SeriesNumber = _SERIES_NUMBER
    new.SeriesDescription = long_string(f"segtool {spec.name}")
    new.SeriesDate = new.SeriesTime = new.OperatorsName = ""
    new.Manufacturer = new.ManufacturerModelName = MANUFACTURER
    new.SoftwareVersions = __version__
    new.FrameOfReferenceUID = first.FrameOfReferenceUID
    new.PositionReferenceIndicator = first.get("PositionReferenceIndicator") or ""
    new.InstanceNumber = 1
    new.StructureSetLabel = long_string(spec.name[:16])
    new.StructureSetName = long_string(f"{spec.name} {spec.version}")
    new.StructureSetDate = new.StructureSetTime = ""
    new.ReferencedFrameOfReferenceSequence = [_referenced(source)]
    new.StructureSetROISequence = [_described(one, source, spec) for one in structures]
    new.ROIContourSequence = _contoured(structures, source, result)
    new.RTROIObservationsSequence = [_observed(one) for one in structures]
    new.ApprovalStatus = "UNAPPROVED"
    return new


def _structures(spec: ModelSpec) -> Iterator[_Structure]:
    """The labels, and the regions that are not one label alone."""
    for label in spec.labels:
        code = code_of(label)
        colour = code.colour or _colour(label.value)
        yield _Structure(
            label.value, long_string(label.name), LABEL.format(label.value), (label.value,), code.type, colour
        )
    number = max(label.value for label in spec.labels)
    taken = {label.name for label in spec.labels}
    for name, values in spec.regions.items():
        if len(set(values)) > 1:
            number += 1
            shown = f"{name} (region)" if name in taken else name
            description = REGION.format(", ".join(map(str, values)))
            yield _Structure(number, long_string(shown), description, values, code_of_name(name)[1], _colour(number))


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = PALETTE[3 * (number % 256) :][:3]
    return red, green, blue


def _referenced(source: SourceSeries) -> Dataset:
    """The frame of reference with every image of the series."""
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ContourImageSequence = [_image(image) for image in source.images]
    study.ReferencedSOPClassUID = _STUDY
    study.ReferencedSOPInstanceUID = source.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


def _described(structure: _Structure, source: SourceSeries, spec: ModelSpec) -> Dataset:
    item = Dataset()
    item.ROINumber = structure.number
    item.ReferencedFrameOfReferenceUID = source.first.FrameOfReferenceUID
    item.ROIName = structure.name
    item.ROIDescription = structure.description
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = long_string(f"segtool {__version__}, {spec.name} {spec.version}")
    return item


def _observed(structure: _Structure) -> Dataset:
    code, item = Dataset(), Dataset()
    term = concept(structure.code)
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = term.value, term.scheme_designator, term.meaning
    item.ObservationNumber = item.ReferencedROINumber = structure.number
    item.RTROIIdentificationCodeSequence = [code]
    item.RTROIInterpretedType = item.ROIInterpreter = ""
    return item


def _contoured(structures: list[_Structure], source: SourceSeries, result: Result) -> list[Dataset]:
    plan = result.plan
    # By height, each position once: contours that lie twice in one place would cancel out.
    images = [source.images[file] for file in plan.order]
    slices = plan.to_slices(result.label_map.labels)[plan.order]
    boxes = ndimage.find_objects(slices)
    items = []
    for structure in structures:
        item = Dataset()
        item.ReferencedROINumber = structure.number
        item.ROIDisplayColor = list(structure.colour)
        contours = list(_contours(slices, _box(boxes, structure.values), structure.values, images))
        if contours:
            item.ContourSequence = contours
            for number, contour in enumerate(contours, start=1):
                contour.ContourNumber = number
        items.append(item)
    return items


def _box(boxes: Sequence[tuple[slice, ...] | None], values: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Around all of some labels; None where none of them occurs."""
    found = [box for value in values if value <= len(boxes) and (box := boxes[value - 1]) is not None]
    if not found:
        return None
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*found, strict=True))


def _contours(
    slices: _LabelArray, box: tuple[slice, ...] | None, values: tuple[int, ...], images: list[Dataset]
) -> Iterator[Dataset]:
    """One an outline, in the order of the slices.

    Args:
        slices: Labels ``(N, rows, columns)``.
        box: Outside which none of ``values`` lies.
        values: Of the structure.
        images: ``N`` headers.
    """
    if box is None:
        return
    polygons = outlines(np.isin(slices[box], values))
    for image, those in zip(images[box[0]], polygons, strict=True):
        first, axes = _axes(image)
        first = first + np.array([box[2].start, box[1].start]) @ axes
        for polygon in those:
            points = first + polygon @ axes
            contour = Dataset()
            contour.ContourImageSequence = [_image(image)]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            # As bytes: pydicom takes many times as long to check every number.
            text = (b"%.4f\\" * points.size)[:-1] % tuple((points.round(4) + 0.0).ravel().tolist())
            text += b" " * (len(text) % 2)
            contour[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)
            yield contour


def _axes(image: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centre of the first pixel, and the steps to the next column and the next row ``(2, 3)``; mm, LPS."""
    directions = np.array(image.ImageOrientationPatient, np.float64).reshape(2, 3)
    # Rounded ones are not quite of length 1, and the grid of the labels has them so.
    across, down = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    between_rows, between_columns = (float(mm) for mm in image.PixelSpacing)
    first = np.array(image.ImagePositionPatient, np.float64)
    return first, np.stack([across * between_columns, down * between_rows])
