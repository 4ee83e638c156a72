"""DICOM Segmentation and Label Map Segmentation, as PS3.3 A.51 has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import DS

from segtool.case import Source
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.seg import LABEL
from segtool.formats.dicom.stack import StackPlan
from segtool.outputs.base import Result
from segtool.outputs.dicom_codes import BRAIN, code_of, concept
from segtool.outputs.dicom_common import (
    SourceSeries,
    derived_uid,
    equipment,
    import_highdicom,
    instance_uid,
    long_string,
    save,
    series_uid,
    source_series,
    tracking,
    writing,
)
from segtool.spec import LabelSpec

Kind = Literal["BINARY", "FRACTIONAL", "LABELMAP"]

_SERIES_NUMBER = 9001


class SegOutput:
    """One segment a label in the spec's order, a bit a voxel; with probabilities 8 bits a voxel of each label.

    Frames lie where the images do, so that slices which reading made up for missing ones have none, and those of a
    corrected tilt lie where they were taken. Frames without a voxel of their segment are left out. Where a scan has no
    labelled voxel at all, the file has one empty frame a segment, since one without frames would not be valid.
    """

    name: ClassVar[str] = "dicom-seg"

    def suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.seg.dcm``."""
        return ".seg.dcm"

    def write(self, path: Path, result: Result) -> None:
        """Write a SEG file that refers to every image of its source.

        Raises:
            OutputError: The source is no DICOM series, or the file cannot be written.
            MissingDependencyError: highdicom is not installed.
        """
        _write(path, result, self.name, _kind_of(result))


class LabelMapOutput:
    """The labels as one picture a slice whose values are the segments' numbers: smaller, but few viewers know it yet.

    Slices without a label are left out, but for the first where all are without.
    """

    name: ClassVar[str] = "dicom-labelmap"

    def suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.labelmap.dcm``."""
        return ".labelmap.dcm"

    def write(self, path: Path, result: Result) -> None:
        """Write a label map SEG file that refers to every image of its source.

        Raises:
            OutputError: The source is no DICOM series, or the file cannot be written.
            MissingDependencyError: highdicom is not installed.
        """
        _write(path, result, self.name, "LABELMAP")


def _kind_of(result: Result) -> Kind:
    return "BINARY" if result.probabilities is None else "FRACTIONAL"


def segmentation_uid(source: SourceSeries, result: Result) -> str:
    """SOP instance UID of the file that :class:`SegOutput` writes of a result, whether or not it does.

    Segment ``n`` of it is the label at place ``n - 1`` of the spec.
    """
    return instance_uid(source, result, SegOutput.name, _frames(result, _kind_of(result)))


def _write(path: Path, result: Result, name: str, kind: Kind) -> None:
    import_highdicom()
    source = source_series(result, name)
    with writing(result, name):
        _even_out(source, result)
        # Of files that repeat a position one has frames: no place has two of a segment.
        images = [source.images[file] for file in np.sort(result.plan.order)]
        frames = _frames(result, kind)
        uid = instance_uid(source, result, name, frames)
        dataset = _segmentation(frames, images, source, result, name, kind, uid)
        if kind == "FRACTIONAL":
            _put_shares(dataset, frames, images)
        _name_dimensions(dataset, uid)
        save(path, dataset, source)


def _frames(result: Result, kind: Kind) -> AnyArray:
    """What the file holds for the first image of each position, in the order of its files, uint8.

    Segment numbers ``(N, rows, columns)``; of a fractional one shares of 255 ``(segments, N, rows, columns)``.
    """
    if kind == "FRACTIONAL":
        assert result.probabilities is not None
        shares = (np.rint(share * np.float32(255)).astype(np.uint8) for share in result.probabilities)
        return np.stack([_slices(share, result.plan) for share in shares])
    frames = _slices(result.label_map.labels, result.plan).astype(np.uint8, copy=False)
    labels = result.spec.labels
    if kind == "LABELMAP" or [label.value for label in labels] == list(range(1, len(labels) + 1)):
        return frames
    numbers = np.zeros(256, np.uint8)
    for number, label in enumerate(labels, start=1):
        numbers[label.value] = number
    numbered: AnyArray = numbers[frames]
    return numbered


def _slices(voxels: AnyArray, plan: StackPlan) -> AnyArray:
    slices = plan.to_slices(voxels)
    return slices if len(plan.order) == len(slices) else slices[np.sort(plan.order)]


def _segmentation(
    frames: AnyArray,
    images: Sequence[Dataset],
    source: SourceSeries,
    result: Result,
    name: str,
    kind: Kind,
    uid: str,
) -> Dataset:
    """The object; of a fractional one with 255 wherever a share is not 0."""
    from highdicom.seg import Segmentation

    spec, is_empty = result.spec, not frames.any()
    used = 1 if is_empty else len(images)
    with_frames = {id(image) for image in images[:used]}
    # Of shares highdicom would sort every single one.
    voxels = np.moveaxis(frames[:, :used] > 0, 0, -1).view(np.uint8) if kind == "FRACTIONAL" else frames[:used]
    if kind == "LABELMAP":
        numbered = {label.value: label for label in sorted(spec.labels, key=lambda label: label.value)}
    else:
        numbered = dict(enumerate(spec.labels, start=1))
    segmentation: Dataset = Segmentation(
        source_images=images[:used],
        further_source_images=[image for image in source.images if id(image) not in with_frames] or None,
        pixel_array=voxels,
        segmentation_type=kind,
        segment_descriptions=[_described(label, number, source, result) for number, label in numbered.items()],
        series_instance_uid=series_uid(source, result, name),
        series_number=_SERIES_NUMBER,
        series_description=long_string(f"segtool {spec.name}"),
        sop_instance_uid=uid,
        instance_number=1,
        content_label="SEGMENTATION",
        content_description=long_string(f"{spec.name} {spec.version}"),
        content_date=source.date,
        content_time=source.time,
        omit_empty_frames=not is_empty,
        **equipment(),
    )
    return segmentation


def _put_shares(dataset: Dataset, frames: AnyArray, images: Sequence[Dataset]) -> None:
    """Write ``frames`` ``(segments, N, rows, columns)`` in the order in which the object has their places."""
    # Careless tools give all slices one UID: the position tells them apart.
    index_of = {(image.SOPInstanceUID, _position(image)): index for index, image in enumerate(images)}
    shared = dataset.SharedFunctionalGroupsSequence[0]
    parts = []
    for item in dataset.PerFrameFunctionalGroupsSequence:
        of_segment = shared if "SegmentIdentificationSequence" in shared else item
        number = of_segment.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        image = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        places = item.get("PlanePositionSequence") or shared.get("PlanePositionSequence") or [Dataset()]
        parts.append(frames[number - 1, index_of[image, _position(places[0])]].tobytes())
    content = b"".join(parts)
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset.SegmentsOverlap = "UNDEFINED"


def _position(image: Dataset) -> tuple[float, ...]:
    """Millimetres; none of a picture."""
    return tuple(map(float, image.get("ImagePositionPatient") or ()))


def _described(label: LabelSpec, number: int, source: SourceSeries, result: Result) -> Any:  # noqa: ANN401 - likewise
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    spec, sha256, code = result.spec, result.model_sha256, code_of(label)
    track_id, track_uid = tracking(source, result, label.name)
    described = SegmentDescription(
        segment_number=number,
        segment_label=long_string(label.name),
        segmented_property_category=concept(code.category),
        segmented_property_type=concept(code.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(spec.name),
            family=codes.DCM.ArtificialIntelligence,
            version=long_string(spec.version),
            source=long_string(f"{spec.name[:46]} {sha256[:16]}"),
            parameters={"model_sha256": sha256},
        ),
        anatomic_regions=[concept(BRAIN)],
        tracking_id=track_id,
        tracking_uid=track_uid,
        display_color=CIELabColor.from_rgb(*code.colour) if code.colour else None,
    )
    described.SegmentDescription = LABEL.format(label.value)
    return described


def _even_out(source: SourceSeries, result: Result) -> None:
    """Give all images the measures and the direction of the stack that reading made of them.

    highdicom wants directions equal to the last digit and takes the distance of slices from the first header, which
    often claims another one than positions have.
    """
    if not source.is_placed:
        return
    between = DS(result.label_map.geometry.spacing_mm[2], auto_format=True)
    source.first.SpacingBetweenSlices = between
    if not source.first.get("SliceThickness"):
        source.first.SliceThickness = between
    for image in source.images[1:]:
        image.ImageOrientationPatient = source.first.ImageOrientationPatient


def _name_dimensions(dataset: Dataset, uid: str) -> None:
    """Give the organisation of dimensions a UID that follows from the object's own; highdicom draws one by chance."""
    organisation = derived_uid("dimensions", uid)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
