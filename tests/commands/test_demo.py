import json
import re

import numpy as np
import pydicom
import pytest
import typer
from PIL import Image
from tiny import bright_spec, write_model
from typer.testing import CliRunner

from segtool.bundled import bundled_models
from segtool.commands.demo import check_own_folder, demo
from segtool.demo_folder import write_demo_folder
from segtool.errors import UsageError
from segtool.formats import get_format
from segtool.scan import scan


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "scans"
    write_demo_folder(folder, seed=0)
    return folder


def run(*arguments):
    app = typer.Typer()
    app.command()(demo)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_folder_holds_every_kind_of_file_and_a_reference_for_each(scans):
    found = scan([scans])
    assert not found.problems
    assert "localizer" in " ".join(note for case in found.cases for note in case.notes)
    assert {case.name: case.first.format for case in found.cases} == {
        "dicom/head": "dicom",
        "hdf5/slice_1": "hdf5",
        "hdf5/slice_2": "hdf5",
        "nifti/head": "nifti",
        "png/axial": "png",
        "png/coronal": "png",
        "png/sagittal": "png",
    }
    for case in found.cases:
        label_map = get_format(case.reference.format).read_labels(case.reference)
        image = get_format(case.first.format).read_image(case.first)
        assert label_map.geometry.same_grid(image.geometry)
        assert label_map.labels.any()


def test_the_folder_is_small(scans):
    assert sum(file.stat().st_size for file in scans.rglob("*") if file.is_file()) < 8e6


def test_a_series_lies_in_the_patient_where_its_reference_does(scans):
    (case,) = scan([scans / "dicom"]).cases
    image = get_format("dicom").read_image(case.first)
    assert image.geometry.orientation == "LPS"
    assert image.geometry.spacing_mm == pytest.approx((1.2, 1.2, 3.5))
    labels = get_format("nifti").read_labels(case.reference).labels
    # The lesion's rim is the brightest tissue inside the skull: a mirrored reference would not lie on it.
    assert image.data[0][labels > 0].mean() > 1.1 * image.data[0][labels[::-1] > 0].mean()


def test_a_series_is_valid_and_names_nobody(scans):
    files = sorted((scans / "dicom" / "head").glob("0*.dcm"))
    scouts = [pydicom.dcmread(file) for file in (scans / "dicom" / "head").glob("scout-*.dcm")]
    series = [pydicom.dcmread(file) for file in files]
    assert len(series) == 20
    assert len({one.SOPInstanceUID for one in series}) == 20
    assert len({one.SeriesInstanceUID for one in series}) == len({one.SeriesInstanceUID for one in scouts}) == 1
    assert len({one.StudyInstanceUID for one in (*series, *scouts)}) == 1
    assert len({one.SOPInstanceUID for one in (*series, *scouts)}) == 23
    for one in (*series, *scouts):
        assert (str(one.PatientName), one.PatientID, one.PatientBirthDate) == ("PHANTOM", "PHANTOM", "")
        assert all(uid.is_valid for uid in (one.SOPInstanceUID, one.SeriesInstanceUID, one.StudyInstanceUID))
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID


def test_a_seed_always_writes_the_same_pixels(scans, tmp_path):
    write_demo_folder(tmp_path, seed=0)
    for name in ("png/axial.png", "png/sagittal_mask.png"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), np.asarray(Image.open(scans / name)))
    assert (tmp_path / "dicom/head/0007.dcm").read_bytes() == (scans / "dicom/head/0007.dcm").read_bytes()


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="Choose another folder with --output"):
        run("-o", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(UsageError, match="Choose another folder"):
        check_own_folder(tmp_path / "demo")


def test_the_demo_predicts_scores_and_says_where_to_look(tmp_path):
    model = write_model(tmp_path / "bright.onnx", bright_spec(size=64))
    folder = tmp_path / "demo"
    result = run("-o", folder, "-m", model)
    assert result.exit_code == 0
    assert "7 of 7" in result.stdout
    assert len(re.findall(r"tumour  Dice \d\.\d{3}  IoU \d\.\d{3}", result.stdout)) == 7
    assert str(folder / "results" / "overlays") in result.stdout
    assert "segtool predict" in result.stdout.splitlines()[-1]
    assert (folder / "results" / "dicom" / "head.nii.gz").is_file()
    assert (folder / "results" / "overlays" / "png" / "axial.png").is_file()
    # What the demo wrote itself it may write again; --json prints one document and nothing else.
    report = json.loads(run("-o", folder, "-m", model, "--json").stdout)
    assert report["counts"] == {"cases": 7, "done": 7, "failed": 0, "skipped": 0}


def test_the_bundled_model_finds_the_lesion_in_every_scan(tmp_path):
    if not bundled_models():
        pytest.skip("no bundled model: put one into segtool/models")
    report = json.loads(run("-o", tmp_path / "demo", "--json").stdout)
    dice = {case["name"]: score["dice"] for case in report["cases"] for score in case["scores"].values()}
    assert len(dice) == 7
    assert min(dice.values()) >= 0.7, dice
