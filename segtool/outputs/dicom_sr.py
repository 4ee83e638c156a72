"""DICOM Structured Report of measurements, as the template TID 1500 of PS3.16 has them.

There are two groups of each label and region:

* Its size: the volume, of a label that is there as a region of interest, which is a segment of the SEG file that
  ``dicom-seg`` writes of the same result. The UID of that file follows from the result, so that the report refers to
  it whether it is written before, after or never. Beside the volume stand the two diameters.
* Its place: the two diameters as lines, so that viewers can draw them, on the image in which they lie, or in space
  where they lie in no image of the series; and the centre of mass as a point in the patient. Regions of interest may
  hold neither, hence the second group.

The template does not know the sum of products: that is in the report.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode
from pydicom.uid import SegmentationStorage

from segtool.case import Source
from segtool.errors import OutputError
from segtool.measurements import Measurements, measure
from segtool.outputs.base import Result
from segtool.outputs.dicom_codes import BRAIN, code_of, code_of_name, concept
from segtool.outputs.dicom_common import (
    MANUFACTURER,
    SourceSeries,
    derived_uid,
    equipment,
    import_highdicom,
    instance_uid,
    long_string,
    patient_and_study,
    save,
    series_uid,
    source_series,
    tracking,
    writing,
)
from segtool.outputs.dicom_seg import SegOutput, segmentation_uid
from segtool.spec import Code
from segtool.version import __version__

Line = tuple[tuple[float, float, float], tuple[float, float, float]]

_SERIES_NUMBER = 9003
_MILLILITRE = SrCode("ml", "UCUM", "ml")
_BY_VOXELS = SrCode("126030", "DCM", "Sum of segmented voxel method for volume")
_IN_SLICE = 1e-3  # of the distance of slices: lines farther from an image lie in none


class SrOutput:
    """A Comprehensive 3D SR of volumes and diameters, whose observer is a device: this program."""

    name: ClassVar[str] = "dicom-sr"

    def suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.sr.dcm``."""
        return ".sr.dcm"

    def write(self, path: Path, result: Result) -> None:
        """Write what a result measures.

        Raises:
            OutputError: The source is no DICOM series, or is a picture without a place in the patient, or the file
                cannot be written.
            MissingDependencyError: highdicom is not installed.
        """
        highdicom = import_highdicom()
        source = source_series(result, self.name)
        label_map = result.label_map
        if not label_map.geometry.is_physical:
            raise OutputError(
                f"case {result.name} lies nowhere in a patient, and {self.name} states millimetres",
                f"Leave {self.name} out; the report has its measurements in pixels.",
            )
        with writing(result, self.name):
            segmentation = _segmentation(source, result, segmentation_uid(source, result))
            found = result.measured
            if found is None:
                found = measure(label_map.labels, label_map.geometry, result.spec)
            groups = _Groups(result, source, segmentation.SOPInstanceUID)
            content = groups.report(found)
            uid = np.frombuffer(segmentation.SOPInstanceUID.encode(), np.uint8)
            document = highdicom.sr.Comprehensive3DSR(
                evidence=[source.first, *groups.drawn_on.values(), segmentation],
                content=content[0],
                series_instance_uid=series_uid(source, result, self.name),
                series_number=_SERIES_NUMBER,
                series_description=long_string(f"segtool {result.spec.name}"),
                sop_instance_uid=instance_uid(source, result, self.name, uid),
                instance_number=1,
                is_complete=True,
                **equipment(),
            )
            save(path, document, source)


def _segmentation(source: SourceSeries, result: Result, uid: str) -> Dataset:
    """What the report must know of the SEG file that it refers to."""
    dataset = patient_and_study(source)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SegmentationStorage, uid
    dataset.SeriesInstanceUID = series_uid(source, result, SegOutput.name)
    return dataset


class _Groups:
    """Builds the groups of measurements.

    Attributes:
        drawn_on: The images on which lines are drawn, by their UID.
    """

    def __init__(self, result: Result, source: SourceSeries, segmentation: str) -> None:
        self._result, self._source, self._segmentation = result, source, segmentation
        self._terms: dict[str, tuple[Code, Code]] = {name: code_of_name(name) for name in result.spec.regions}
        for label in result.spec.labels:
            self._terms[label.name] = code_of(label).category, code_of(label).type
        self._segments = {label.name: number for number, label in enumerate(result.spec.labels, start=1)}
        self.drawn_on: dict[str, Dataset] = {}

    def report(self, found: Mapping[str, Measurements]) -> Any:  # noqa: ANN401 - highdicom has no types here
        """The whole content, for measurements by the name of the structure."""
        from highdicom import sr

        groups = [self._size(name, one) for name, one in found.items()]
        groups += [self._lines(name, one) for name, one in found.items() if one.longest_ends_ras_mm]
        device = sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", __version__),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=MANUFACTURER,
            serial_number=equipment()["device_serial_number"],
        )
        return sr.MeasurementReport(
            observation_context=sr.ObservationContext(
                observer_device_context=sr.ObserverContext(
                    observer_type=codes.DCM.Device, observer_identifying_attributes=device
                )
            ),
            procedure_reported=codes.SCT.ImagingProcedure,
            imaging_measurements=groups,
            referenced_images=list(self.drawn_on.values()) or [self._listed(self._source.first)],
        )

    def _common(self, name: str, what: str = "") -> dict[str, Any]:
        """What both groups of a structure say of it."""
        from highdicom import sr

        category, kind = self._terms[name]
        spec, (identifier, uid) = self._result.spec, tracking(self._source, self._result, f"{name}{what}")
        return {
            "tracking_identifier": sr.TrackingIdentifier(uid=uid, identifier=identifier),
            "finding_category": concept(category),
            "finding_type": concept(kind),
            "finding_sites": [sr.FindingSite(anatomic_location=concept(BRAIN))],
            "algorithm_id": sr.AlgorithmIdentification(
                name=long_string(spec.name),
                version=long_string(spec.version),
                parameters=[f"model_sha256={self._result.model_sha256}"],
                family=codes.DCM.ArtificialIntelligence,
            ),
        }

    def _size(self, name: str, one: Measurements) -> Any:  # noqa: ANN401 - likewise
        """Volume and diameters; of a label that is there as a region of interest."""
        from highdicom import sr

        # Every number has a content item below it: some viewers stumble over those without.
        measurements = [_volume(one)]
        for term, length, _ in _diameters(one):
            measurements.append(sr.Measurement(term, length, codes.UCUM.Millimeter, derivation=codes.SCT.Maximum))
        common = self._common(name)
        if name not in self._segments or not one.lesions:
            return sr.MeasurementsAndQualitativeEvaluations(measurements=measurements, **common)
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=sr.ReferencedSegment(
                sop_class_uid=SegmentationStorage,
                sop_instance_uid=self._segmentation,
                segment_number=self._segments[name],
                source_series=sr.SourceSeriesForSegmentation(self._source.first.SeriesInstanceUID),
            ),
            measurements=measurements,
            **common,
        )

    def _lines(self, name: str, one: Measurements) -> Any:  # noqa: ANN401 - likewise
        """Both diameters of the largest lesion with their ends, and the volume with its centre of mass."""
        from highdicom import sr

        centroid = one.centroid_right_mm, one.centroid_anterior_mm, one.centroid_superior_mm
        centre = sr.CoordinatesForMeasurement3D(
            "POINT",
            np.array([centroid], np.float64) * (-1, -1, 1),
            self._source.first.FrameOfReferenceUID,
            purpose=codes.DCM.CenterOfMass,
        )
        return sr.MeasurementsAndQualitativeEvaluations(
            measurements=[
                *(
                    sr.Measurement(term, length, codes.UCUM.Millimeter, referenced_coordinates=[self._line(ends)])
                    for term, length, ends in _diameters(one)
                ),
                _volume(one, [centre]),
            ],
            **self._common(name, " diameters"),
        )

    def _listed(self, image: Dataset) -> Dataset:
        """An image as the report's library of images wants it."""
        listed = deepcopy(image)
        listed.Modality = self._source.first.get("Modality", "")  # read of the first image only
        if not listed.get("SliceThickness"):
            listed.SliceThickness = round(self._result.label_map.geometry.spacing_mm[2], 6)
        return listed

    def _line(self, ends: Line) -> Any:  # noqa: ANN401 - likewise
        from highdicom import sr

        geometry = self._result.label_map.geometry
        points = np.array(ends)
        index = np.linalg.solve(geometry.affine[:3, :3], (points - geometry.affine[:3, 3]).T).T
        layer = np.rint(index[:, 2])
        is_in_image = layer[0] == layer[1] and np.abs(index[:, 2] - layer).max() < _IN_SLICE
        if self._result.plan.is_interpolated or not is_in_image:
            return sr.CoordinatesForMeasurement3D(
                "POLYLINE", points * (-1, -1, 1), self._source.first.FrameOfReferenceUID
            )
        image = self._source.images[self._result.plan.order[int(layer[0])]]
        self.drawn_on[image.SOPInstanceUID] = self._listed(image)
        # Columns, then rows; the centre of the first pixel is at one half.
        return sr.CoordinatesForMeasurement(
            "POLYLINE", index[:, :2] + 0.5, sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID)
        )


def _volume(one: Measurements, places: Sequence[Any] | None = None) -> Any:  # noqa: ANN401 - likewise
    from highdicom import sr

    volume = _decimal(one.volume_ml)
    return sr.Measurement(codes.SCT.Volume, volume, _MILLILITRE, method=_BY_VOXELS, referenced_coordinates=places)


def _diameters(one: Measurements) -> Iterator[tuple[SrCode, float, Line]]:
    """Term, millimetres and ends of both diameters; none of a structure that is not there."""
    if one.longest_ends_ras_mm and one.perpendicular_ends_ras_mm:
        yield codes.SCT.LongAxis, _decimal(one.longest_diameter_mm), one.longest_ends_ras_mm
        yield codes.SCT.ShortAxis, _decimal(one.perpendicular_diameter_mm), one.perpendicular_ends_ras_mm


def _decimal(value: float | None) -> float:
    """With six decimals at most: a decimal string of DICOM has 16 characters."""
    assert value is not None
    return round(value, 6)
