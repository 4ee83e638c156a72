"""RT Structure Sets: what planning systems find in them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import PERSONAL, write_volume
from tiny import spec_of

from segtool.case import LabelMap, Source
from segtool.errors import OutputError
from segtool.formats import get_format, read_labels_on
from segtool.outputs import Result, get_output
from segtool.spec import LabelSpec

SHAPE = (13, 11, 5)
TILT = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])
TURN = np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]])
# Columns are the RAS directions of i, j and k.
PLANES = {
    "axial": np.diag([-1.0, -1, 1]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0, 0, -1.0], [-1, 0, 0], [0, -1, 0]]),
    "oblique": TURN @ TILT @ np.diag([-1.0, -1, 1]),
}
LABELS = tuple(LabelSpec(name=name, value=value) for name, value in (("NCR", 1), ("ED", 2), ("ET", 4)))


def result_of(folder: Path, plane: str = "axial", direction: int = 1, **tags: object) -> Result:
    """A finished case of three labels full of holes, single voxels and corners that touch, with slice 2 empty."""
    affine = np.eye(4)
    affine[:3, :3] = PLANES[plane] * (0.47, 0.9375, 3.3 * direction)
    affine[:3, 3] = 112.5, -97.25, 430.125
    volume = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    paths = write_volume(folder, volume, affine, names=[f"{k * 3 % 5}.dcm" for k in range(SHAPE[2])], **tags)
    source = Source("dicom", tuple(sorted(paths)))
    geometry = get_format("dicom").read_image(source).geometry
    labels = np.random.default_rng(7).choice(np.array([0, 1, 2, 4], np.uint8), SHAPE, p=[0.5, 0.1, 0.3, 0.1])
    labels[..., 2] = 0
    spec = spec_of("t1").model_copy(update={"labels": LABELS, "regions": {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}})
    return Result("case", source, LabelMap(labels, geometry), spec, "ab" * 32)


def written(path: Path, result: Result) -> pydicom.Dataset:
    get_output("rtstruct").write(path, result)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("plane", PLANES)
def test_it_comes_back_voxel_for_voxel(tmp_path, plane, direction):
    result = result_of(tmp_path / "scan", plane, direction)
    written(tmp_path / "a.rtstruct.dcm", result)
    back = read_labels_on(Source("rtstruct", (tmp_path / "a.rtstruct.dcm",)), result.label_map.geometry)
    np.testing.assert_array_equal(back.labels, result.label_map.labels)
    assert back.notes == ()


def test_it_comes_back_from_directions_that_are_not_quite_of_length_1(tmp_path):
    affine, columns = np.diag([-1.0, -1, 3, 1]), 200
    paths = write_volume(
        tmp_path / "scan", np.zeros((columns, 3, 2), np.int16), affine, ImageOrientationPatient=[1.006, 0, 0, 0, 1, 0]
    )
    source = Source("dicom", tuple(paths))
    geometry, labels = get_format("dicom").read_image(source).geometry, np.zeros((columns, 3, 2), np.uint8)
    labels[-10:, 1] = 1
    spec = spec_of("t1").model_copy(update={"labels": LABELS})
    written(tmp_path / "a.dcm", Result("case", source, LabelMap(labels, geometry), spec, "ab" * 32))
    back = read_labels_on(Source("rtstruct", (tmp_path / "a.dcm",)), geometry)
    np.testing.assert_array_equal(back.labels, labels)


def test_one_structure_a_label_and_a_region_of_several(tmp_path):
    dataset = written(tmp_path / "a.dcm", result_of(tmp_path / "scan"))
    rois = dataset.StructureSetROISequence
    assert [(roi.ROINumber, roi.ROIName) for roi in rois] == [(1, "NCR"), (2, "ED"), (4, "ET"), (5, "WT"), (6, "TC")]
    assert {roi.ROIGenerationAlgorithm for roi in rois} == {"AUTOMATIC"}
    assert len({tuple(item.ROIDisplayColor) for item in dataset.ROIContourSequence}) == 5
    assert dataset.ApprovalStatus == "UNAPPROVED"
    # The model knows nothing of targets and organs at risk.
    assert {item.RTROIInterpretedType for item in dataset.RTROIObservationsSequence} == {""}


def test_contours_lie_in_the_image_that_they_name(tmp_path):
    result = result_of(tmp_path / "scan", "oblique")
    headers = {(one := pydicom.dcmread(path)).SOPInstanceUID: one for path in result.source.paths}
    dataset = written(tmp_path / "a.dcm", result)
    (series,) = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == set(headers)
    for item in dataset.ROIContourSequence:
        for contour in item.ContourSequence:
            image = headers[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            normal = np.cross(*np.array(image.ImageOrientationPatient, float).reshape(2, 3))
            assert np.abs((points - np.array(image.ImagePositionPatient, float)) @ normal).max() < 2e-4


def test_a_label_that_was_not_found_is_a_structure_without_contours(tmp_path):
    result = result_of(tmp_path / "scan")
    result.label_map.labels[result.label_map.labels == 1] = 0
    dataset = written(tmp_path / "a.dcm", result)
    assert dataset.StructureSetROISequence[0].ROIName == "NCR"
    assert "ContourSequence" not in dataset.ROIContourSequence[0]
    back = read_labels_on(Source("rtstruct", (tmp_path / "a.dcm",)), result.label_map.geometry)
    np.testing.assert_array_equal(back.labels, result.label_map.labels)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    result = result_of(tmp_path / "scan")
    for name in ("a", "b"):
        written(tmp_path / name, result)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_patient_is_there_and_blank_on_request(tmp_path):
    result = result_of(tmp_path / "scan")
    assert written(tmp_path / "a", result).PatientName == PERSONAL["PatientName"]
    assert written(tmp_path / "b", replace(result, anonymise=True)).PatientName == ""
    content = (tmp_path / "b").read_bytes()
    assert not any(str(value).encode() in content for value in PERSONAL.values())


@pytest.mark.parametrize(
    ("missing", "said"),
    [("FrameOfReferenceUID", "no frame of reference"), ("ImagePositionPatient", "no place in the patient")],
)
def test_a_scan_that_says_not_where_it_lies_is_refused(tmp_path, missing, said):
    result = result_of(tmp_path / "scan")
    for path in result.source.paths:
        dataset = pydicom.dcmread(path)
        del dataset[missing]
        dataset.save_as(path)
    with pytest.raises(OutputError, match=f"{said}.*Leave rtstruct out"):
        get_output("rtstruct").write(tmp_path / "a.dcm", result)
    assert not (tmp_path / "a.dcm").exists()
