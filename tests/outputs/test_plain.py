"""Results in a kind of file that the scan does not have, and several kinds in one run."""

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from dicom_series import write_series, write_volume
from PIL import Image
from shell import segtool
from tiny import bright_spec, disc, write_model, write_pictures

from segtool.outputs import OUTPUTS, get_output
from segtool.pipeline import predict_folder
from segtool.predict_options import PredictOptions
from segtool.report import Report
from segtool.scan.found import ScanOptions

AFFINE = np.array([[0, 0, 2.0, 5], [-1.0, 0, 0, 6], [0, 1.0, 0, 7], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


def run(model: Path, scans: Path, out: Path, *formats: str, **changes: object) -> Report:
    return predict_folder([scans], PredictOptions(model=model, output=out, formats=formats, **changes))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def volume(folder: Path) -> np.ndarray:
    """Coronal by its affine: the first axis counts towards the left, the last one from left to right slices."""
    data = np.full((32, 32, 3), 30, np.int16)
    data[disc()] = 200
    data[5, 5, 1] = 200
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), folder / "head.nii.gz")
    return (data > 100).astype(np.uint8)


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_kind_of_result_is_called_by_its_name(name: str) -> None:
    assert get_output(name).name == name


def test_a_volume_becomes_pictures_of_its_acquired_slices(model: Path, tmp_path: Path) -> None:
    labels = volume(tmp_path / "in")
    run(model, tmp_path / "in", tmp_path / "out", "png")
    assert files(tmp_path / "out") == [f"head-png/slice_00{n}.png" for n in (1, 2, 3)] + ["report.csv", "report.json"]
    found = np.stack([picture(tmp_path / "out/head-png" / f"slice_00{n}.png") for n in (1, 2, 3)])
    # Sagittal slices 2 mm apart; rows grow downwards (the second axis grows to Superior), columns to Posterior.
    np.testing.assert_array_equal(found, labels.transpose(2, 1, 0)[::-1, ::-1])


def test_pictures_become_volumes_of_one_slice(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in")
    run(model, tmp_path / "in", tmp_path / "out", "nifti")
    image = nibabel.load(tmp_path / "out" / "slice_1.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T, disc(32, (9, 16), 5))


def test_a_stack_becomes_one_picture_a_slice(model: Path, tmp_path: Path) -> None:
    discs = np.stack([disc(32, (10 + i, 16)) for i in range(12)])
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "stack.h5", "w") as file:
        file["x"] = np.where(discs, 200, 30).astype(np.uint8)
    run(model, tmp_path / "in", tmp_path / "out", "png", "nifti")
    for number, expected in enumerate(discs, start=1):
        np.testing.assert_array_equal(picture(tmp_path / f"out/stack-png/slice_{number:03}.png"), expected)
    assert nibabel.load(tmp_path / "out" / "stack.nii.gz").shape == (32, 32, 12)


def test_hdf5_of_a_volume_carries_the_affine(model: Path, tmp_path: Path) -> None:
    labels = volume(tmp_path / "in")
    run(model, tmp_path / "in", tmp_path / "out", "hdf5")
    with h5py.File(tmp_path / "out" / "head.h5") as file:
        np.testing.assert_array_equal(file["mask"][:], labels)
        np.testing.assert_allclose(file["mask"].attrs["affine"], AFFINE)


def test_several_kinds_are_written_and_the_report_names_them(model: Path, tmp_path: Path) -> None:
    volume(tmp_path / "in")
    report = run(model, tmp_path / "in", tmp_path / "out", "same", "nifti", "hdf5")
    # The scan's own kind is NIfTI, which is written once.
    assert report.cases[0].outputs == ("head.nii.gz", "head.h5")
    (case,) = json.loads((tmp_path / "out" / "report.json").read_text())["cases"]
    assert (case["output"], case["outputs"]) == ("head.nii.gz", ["head.nii.gz", "head.h5"])


def test_a_kind_that_a_case_cannot_have_fails_it_and_the_others_are_written(model: Path, tmp_path: Path) -> None:
    volume(tmp_path / "in")
    report = run(model, tmp_path / "in", tmp_path / "out", "nifti", "dicom-seg")
    assert [case.status for case in report.cases] == ["failed"]
    assert "dicom" in (report.cases[0].error or "").lower()
    assert (tmp_path / "out" / "head.nii.gz").is_file()


def test_continue_makes_a_case_again_that_lacks_a_kind(model: Path, tmp_path: Path) -> None:
    volume(tmp_path / "in")
    run(model, tmp_path / "in", tmp_path / "out", "nifti", "png")
    assert run(model, tmp_path / "in", tmp_path / "out", "nifti", "png", resume=True).counts["skipped"] == 1
    (tmp_path / "out/head-png/slice_001.png").unlink()
    (tmp_path / "out/head-png").rename(tmp_path / "elsewhere")
    assert run(model, tmp_path / "in", tmp_path / "out", "nifti", "png", resume=True).counts["done"] == 1
    assert len(list((tmp_path / "out/head-png").iterdir())) == 3
    (tmp_path / "out/head-png/notes.txt").write_text("somebody's")
    (failed,) = run(model, tmp_path / "in", tmp_path / "out", "png").failures
    assert "holds notes.txt, which is no slice of an earlier result. Move it away" in (failed.error or "")
    assert (tmp_path / "out/head-png/notes.txt").read_text() == "somebody's"


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-labelmap", "rtstruct"])
def test_continue_reads_dicom_results_back(model: Path, tmp_path: Path, kind: str) -> None:
    data = np.full((32, 32, 4), 30, np.int16)
    data[10:20, 12:18, 1:3] = 200
    data[0, 0, (0, 3)] = 31  # not blank
    write_series(tmp_path / "in", data, [f"{k}.dcm" for k in range(4)])
    first = run(model, tmp_path / "in", tmp_path / "out", kind)
    assert [case.error for case in first.cases] == [None]
    again = run(model, tmp_path / "in", tmp_path / "out", kind, resume=True)
    assert again.counts["skipped"] == 1
    assert again.cases[0].scores == first.cases[0].scores
    assert again.cases[0].measurements == first.cases[0].measurements != {}


def test_continue_reads_whole_label_maps_rather_than_dicom_results(model: Path, tmp_path: Path) -> None:
    data = np.full((32, 32, 9), 30, np.int16)
    data[10:20, 12:18] = 200
    write_volume(tmp_path / "in", data, np.diag([-1.0, -1, 3, 1]), steps=[0, 1, 2, 3, 5, 6, 7, 8, 9])
    scan = ScanOptions(lenient=True)
    run(model, tmp_path / "in", tmp_path / "masks", "nifti", scan=scan)
    scan = ScanOptions(lenient=True, masks=tmp_path / "masks")
    first, again = (
        run(model, tmp_path / "in", tmp_path / "out", "dicom-seg", "nifti", scan=scan, resume=True) for _ in range(2)
    )
    assert [report.cases[0].status for report in (first, again)] == ["done", "skipped"]
    assert again.cases[0].scores["tumour"].dice == first.cases[0].scores["tumour"].dice == 1


def test_continue_reads_a_seg_of_a_corrected_tilt_back(model: Path, tmp_path: Path) -> None:
    data = np.full((32, 32, 4), 30, np.int16)
    data[10:20, 12:18, 1:3] = 200
    tilted = np.array([[-1, 0, 0, 5], [0, -1, -0.5, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    write_volume(tmp_path / "in", data, tilted)
    options = {"scan": ScanOptions(lenient=True), "resume": True}
    assert run(model, tmp_path / "in", tmp_path / "out", "dicom-seg", **options).counts["done"] == 1
    assert run(model, tmp_path / "in", tmp_path / "out", "dicom-seg", **options).counts["skipped"] == 1


def test_an_unknown_kind_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    volume(tmp_path / "in")
    answer = segtool(capsys, "predict", tmp_path / "in", "-m", model, "-o", tmp_path / "out", "--format", "nrrd")
    assert answer.code == 2
    assert "Choose of: same, nifti, png, hdf5, dicom-seg, dicom-labelmap, rtstruct, dicom-sr." in answer.err


def test_kinds_are_given_again_or_with_commas(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    volume(tmp_path / "in")
    arguments = ("predict", tmp_path / "in", "-m", model, "-o", tmp_path / "out")
    assert segtool(capsys, *arguments, "--format", "nifti,hdf5", "-f", "png").code == 0
    assert {"head.nii.gz", "head.h5", "head-png/slice_001.png"} < set(files(tmp_path / "out"))
