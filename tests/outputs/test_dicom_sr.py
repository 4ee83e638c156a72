from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import PERSONAL, write_series, write_volume
from tiny import bright_spec, write_model

from segtool import finishing
from segtool.case import LabelMap, Source
from segtool.errors import OutputError
from segtool.formats.dicom.stack import stack_plan
from segtool.geometry import Geometry
from segtool.measurements import measure
from segtool.outputs import Result, dicom_sr, get_output
from segtool.pipeline import predict_folder
from segtool.predict_options import PredictOptions
from segtool.spec import ModelSpec

hd = pytest.importorskip("highdicom", reason="highdicom writes SR; pip install 'segtool[dicom]'")
import highdicom.sr  # noqa: E402
from pydicom.sr.codedict import codes  # noqa: E402

SPEC = ModelSpec.model_validate(
    {
        "name": "glioma",
        "channels": [{"name": "t1ce"}],
        "labels": [{"name": "NCR", "value": 1}, {"name": "ED", "value": 2}, {"name": "ET", "value": 4}],
        "regions": {"TC": [1, 4]},
        "input": {"rank": 2, "size": [64, 64]},
    }
)
AXIAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)


def labels() -> np.ndarray:
    """An enhancing block of 8 columns by 3 rows in slices 1 and 2, with a necrotic pixel; no oedema."""
    array = np.zeros((12, 10, 4), np.uint8)
    array[2:10, 3:6, 1:3] = 4
    array[5, 4, 1] = 1
    return array


def result(folder: Path, array: np.ndarray, directions=AXIAL, **changes: object) -> Result:
    # Names in another order than the slices.
    names = [f"{(7 * k) % array.shape[2]:03}.dcm" if array.shape[2] % 7 else f"{k}.dcm" for k in range(array.shape[2])]
    write_series(folder, np.zeros(array.shape, np.int16), names[::-1], directions=directions, StudyInstanceUID="1.2.4")
    source = Source("dicom", tuple(sorted(folder.iterdir())))
    label_map = LabelMap(array, stack_plan(source).geometry)
    return Result(
        **({"name": "a", "source": source, "label_map": label_map, "spec": SPEC, "model_sha256": "ab" * 32} | changes)
    )


def written(path: Path, of: Result) -> highdicom.sr.Comprehensive3DSR:
    get_output("dicom-sr").write(path, of)
    return highdicom.sr.srread(path)


def numbers(group: object) -> dict[str, float]:
    return {one.name.meaning: one.value for one in group.get_measurements()}


def test_labels_are_regions_of_interest_and_refer_to_segments_of_the_seg_file(tmp_path: Path) -> None:
    one = result(tmp_path / "scan", labels())
    content = written(tmp_path / "a.sr.dcm", one).content
    found = measure(one.label_map.labels, one.label_map.geometry, SPEC)
    groups = content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["glioma NCR", "glioma ET"]
    assert [group.finding_type.meaning for group in groups] == ["Necrosis", "Enhancing Lesion"]
    for group, name in zip(groups, ("NCR", "ET"), strict=True):
        assert numbers(group) == pytest.approx(
            {
                "Volume": found[name].volume_ml,
                "Long axis": found[name].longest_diameter_mm,
                "Short axis": found[name].perpendicular_diameter_mm,
            },
            abs=1e-6,
        )
    assert numbers(groups[1])["Volume"] == pytest.approx(47 * 3 / 1000)
    get_output("dicom-seg").write(tmp_path / "a.seg.dcm", one)
    segmentation = pydicom.dcmread(tmp_path / "a.seg.dcm")
    for group, label in zip(groups, ("NCR", "ET"), strict=True):
        segment = group.referenced_segment[0]
        assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        (number,) = segment.referenced_segment_numbers
        described = segmentation.SegmentSequence[number - 1]
        assert described.SegmentLabel == label
        assert described.TrackingUID == group.tracking_uid


def test_regions_and_what_is_not_there_have_a_volume_without_a_segment(tmp_path: Path) -> None:
    content = written(tmp_path / "a.sr.dcm", result(tmp_path / "scan", labels())).content
    sizes = {group.tracking_identifier: numbers(group) for group in content.get_image_measurement_groups()}
    assert sizes["glioma ED"] == {"Volume": 0}
    assert sizes["glioma TC"]["Volume"] == pytest.approx(48 * 3 / 1000)


def test_diameters_are_drawn_on_the_image_in_which_they_lie(tmp_path: Path) -> None:
    one = result(tmp_path / "scan", labels())
    content = written(tmp_path / "a.sr.dcm", one).content
    (group,) = [g for g in content.get_image_measurement_groups() if g.tracking_identifier == "glioma ET diameters"]
    long_axis = group.get_measurements()[0]
    (line,) = long_axis[0].ContentSequence
    # Rows 3 to 5 and columns 2 to 9, whose outline begins at 2 columns and 3.5 rows.
    ends = np.array(line.GraphicData).reshape(2, 2)
    assert {tuple(end) for end in ends} in ({(2, 3.5), (10, 5.5)}, {(2, 5.5), (10, 3.5)})
    uid = line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    (image,) = [ds for ds in map(pydicom.dcmread, one.source.paths) if ds.SOPInstanceUID == uid]
    found = measure(one.label_map.labels, one.label_map.geometry, SPEC)["ET"]
    assert image.ImagePositionPatient[2] == pytest.approx(found.longest_ends_ras_mm[0][2])


@pytest.mark.parametrize("upwards", [1, -1])
@pytest.mark.parametrize("directions", [(1, 2, 0), (0, 2, 1), (2, 1, 0), "oblique"], ids=str)
def test_lines_lie_in_the_patient_where_they_were_measured(tmp_path: Path, directions: object, upwards: int) -> None:
    turn = np.array([[0.936, -0.352, 0], [0.352, 0.936, 0], [0, 0, 1]]) if directions == "oblique" else np.eye(3)
    axes = (0, 1, 2) if directions == "oblique" else directions
    affine = np.eye(4)
    affine[:3, :3] = turn[:, axes] * (0.5, 0.7, 3 * upwards)
    affine[:3, 3] = (11, -7, 5)
    array = labels()
    paths = write_volume(tmp_path / "scan", array.astype(np.int16), affine)
    source = Source("dicom", tuple(paths))
    plan = stack_plan(source)
    label_map = LabelMap(
        array if np.allclose(plan.geometry.affine, affine, atol=1e-3) else array[..., ::-1], plan.geometry
    )
    one = Result("a", source, label_map, SPEC, "ab" * 32)
    content = written(tmp_path / "a.sr.dcm", one).content
    images = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, paths)}
    found = measure(label_map.labels, plan.geometry, SPEC)["ET"]
    (group,) = [g for g in content.get_image_measurement_groups() if g.tracking_identifier == "glioma ET diameters"]
    for number, expected in zip(
        group.get_measurements()[:2], (found.longest_ends_ras_mm, found.perpendicular_ends_ras_mm), strict=True
    ):
        (line,) = number[0].ContentSequence
        image = images[line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
        row, column = np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float)
        down, across = map(float, image.PixelSpacing)
        x, y = (np.array(line.GraphicData).reshape(2, 2) - 0.5).T
        lps = np.array(image.ImagePositionPatient, float) + np.outer(x * across, row) + np.outer(y * down, column)
        assert lps == pytest.approx(np.array(expected) * (-1, -1, 1), abs=1e-3)


def test_diameters_that_lie_in_no_image_are_drawn_in_space(tmp_path: Path) -> None:
    array = np.zeros((12, 12, 5), np.uint8)
    array[2:10, 3:6, 1:4] = 4
    one = result(tmp_path / "scan", array, SAGITTAL)
    # As if slices were as thin as pixels: diameters then lie in axial slices.
    affine = one.label_map.geometry.affine @ np.diag([1, 1, 1 / 3, 1])
    one = result(tmp_path / "scan", array, SAGITTAL, label_map=LabelMap(array, Geometry.of_volume(array.shape, affine)))
    content = written(tmp_path / "a.sr.dcm", one).content
    (group,) = [g for g in content.get_image_measurement_groups() if g.tracking_identifier == "glioma ET diameters"]
    (line,) = group.get_measurements()[0][0].ContentSequence
    found = measure(array, one.label_map.geometry, SPEC)["ET"]
    assert found.plane == "axial"
    assert line.ValueType == "SCOORD3D"
    assert line.ReferencedFrameOfReferenceUID == "1.2.9"
    lps = np.array(line.GraphicData).reshape(2, 3)
    assert lps == pytest.approx(np.array(found.longest_ends_ras_mm) * (-1, -1, 1), abs=1e-4)


def test_a_scan_without_findings_has_volumes_of_nothing(tmp_path: Path) -> None:
    content = written(tmp_path / "a.sr.dcm", result(tmp_path / "scan", np.zeros((6, 6, 3), np.uint8))).content
    assert content.get_volumetric_roi_measurement_groups() == []
    assert [numbers(group) for group in content.get_image_measurement_groups()] == [{"Volume": 0}] * 4


def test_the_observer_is_a_device_and_the_algorithm_is_named(tmp_path: Path) -> None:
    document = written(tmp_path / "a.sr.dcm", result(tmp_path / "scan", labels()))
    text = str(document)
    assert "Device Observer UID" in text
    assert "Person Observer" not in text
    assert document.CompletionFlag == "COMPLETE"
    assert document.VerificationFlag == "UNVERIFIED"
    group = document.content.get_volumetric_roi_measurement_groups()[0]
    values = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert "glioma" in values
    assert f"model_sha256={'ab' * 32}" in values


@pytest.mark.parametrize("anonymise", [False, True])
def test_the_patient_is_the_sources_or_blank(tmp_path: Path, anonymise: bool) -> None:
    document = written(tmp_path / "a.sr.dcm", result(tmp_path / "scan", labels(), anonymise=anonymise))
    assert document.StudyInstanceUID == "1.2.4"
    assert document.PatientID == ("" if anonymise else PERSONAL["PatientID"])
    raw = (tmp_path / "a.sr.dcm").read_bytes()
    assert (PERSONAL["PatientName"].encode() in raw) != anonymise
    assert PERSONAL["SeriesDescription"].encode() not in raw


def test_equal_results_give_equal_files_and_other_labels_other_uids(tmp_path: Path) -> None:
    one = result(tmp_path / "scan", labels())
    uid = written(tmp_path / "a.sr.dcm", one).SOPInstanceUID
    written(tmp_path / "b.sr.dcm", one)
    assert (tmp_path / "a.sr.dcm").read_bytes() == (tmp_path / "b.sr.dcm").read_bytes()
    other = labels()
    other[0, 0, 0] = 2
    assert written(tmp_path / "c.sr.dcm", result(tmp_path / "scan", other)).SOPInstanceUID != uid


def test_what_has_no_millimetres_or_is_no_series_is_refused(tmp_path: Path) -> None:
    picture = LabelMap(np.ones((4, 4), np.uint8), Geometry.of_pixels((4, 4)))
    nifti = Source("nifti", (tmp_path / "a.nii.gz",))
    with pytest.raises(OutputError, match="leave dicom-sr out"):
        get_output("dicom-sr").write(tmp_path / "a.sr.dcm", Result("a", nifti, picture, SPEC, "ab"))
    with pytest.raises(OutputError, match="measurements in pixels"):
        written(tmp_path / "a.sr.dcm", result(tmp_path / "scan", labels(), label_map=picture))


def test_the_centroid_is_a_point_in_the_patient(tmp_path: Path) -> None:
    content = written(tmp_path / "a.sr.dcm", result(tmp_path / "scan", labels())).content
    groups = content.get_image_measurement_groups()
    (group,) = [one for one in groups if one.tracking_identifier == "glioma NCR diameters"]
    (volume,) = group.get_measurements(codes.SCT.Volume)
    (centre,) = [item for item in volume[0].ContentSequence if item.ValueType == "SCOORD3D"]
    assert centre.ConceptNameCodeSequence[0].CodeMeaning == "Center of Mass"
    # The necrotic pixel (5, 4, 1): 1 mm columns and rows from (-10, -20, 0), slices of 3 mm, in DICOM's LPS.
    assert list(centre.GraphicData) == pytest.approx([-5, -16, 3], abs=1e-4)


def test_what_is_measured_already_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = result(tmp_path / "in", labels())
    get_output("dicom-sr").write(tmp_path / "a.dcm", usual)
    measured = measure(usual.label_map.labels, usual.label_map.geometry, SPEC)
    monkeypatch.setattr(dicom_sr, "measure", None)
    get_output("dicom-sr").write(tmp_path / "b.dcm", replace(usual, measured=measured))
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_a_run_measures_each_case_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.full((32, 32, 2), 30, np.int16)
    voxels[8:20, 9:22] = 200
    write_series(tmp_path / "in", voxels, ["0.dcm", "1.dcm"], StudyInstanceUID="1.2.4")
    measured = []

    def once(*given: object) -> object:
        measured.append(given)
        return measure(*given)

    monkeypatch.setattr(finishing, "measure", once)
    monkeypatch.setattr(dicom_sr, "measure", once)
    options = PredictOptions(
        model=write_model(tmp_path / "bright.onnx", bright_spec()),
        output=tmp_path / "out",
        formats=("dicom-sr", "dicom-seg"),
        threads=1,
    )
    (case,) = predict_folder([tmp_path / "in"], options).cases
    assert (case.status, len(measured)) == ("done", 1)
    assert {"write", "measure"} <= set(case.seconds)
