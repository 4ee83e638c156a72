import json

import nibabel
import numpy as np
import pytest
import tiny_sets
import typer
from dicom_series import write_series
from tiny import bright_spec, volume_spec, write_model, write_pictures
from tiny_sets import SETS
from typer.testing import CliRunner

from segtool.commands.inspect import inspect
from segtool.errors import ModelError, UsageError

RNG = np.random.default_rng(0)


def run(*arguments):
    app = typer.Typer()
    app.command()(inspect)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def facts(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def volume(path, shape=(8, 9, 10), affine=None, labels=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = RNG.integers(0, 3 if labels else 900, shape).astype(np.uint8 if labels else np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1.0]) if affine is None else affine), path)


def test_pictures_with_references_are_listed_and_counted(tmp_path):
    write_pictures(tmp_path / "scans", count=2)
    result = run(tmp_path / "scans")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["case", "format", "channel", "type", "grid", "reference"]
    assert lines[1] == ["slice_0", "png", "image", "uint8", "32x32", "pixels", "labels", "0", "255"]
    assert lines[-1] == ["seen", "2", "cases,", "2", "with", "a", "reference,", "0", "problems"]


def test_a_volume_shows_grid_spacing_and_orientation(tmp_path):
    volume(tmp_path / "a.nii.gz")
    volume(tmp_path / "a_seg.nii.gz", labels=True)
    (case,) = facts(tmp_path)["cases"]
    image = case["channels"]["image"]
    assert (image["shape"], image["spacing_mm"], image["orientation"]) == ([8, 9, 10], [1, 2, 3], "RAS")
    assert list(case["reference"]["voxels"]) == ["0", "1", "2"]
    assert sum(case["reference"]["voxels"].values()) == 720


def test_channels_of_one_case_stand_below_each_other(tmp_path):
    for channel in ("t1", "t1ce"):
        volume(tmp_path / f"P1_{channel}.nii.gz")
    result = run(tmp_path)
    first, second = result.stdout.splitlines()[1:3]
    assert first.split()[:3] == ["P1", "nifti", "t1"]
    assert second.split()[0] == "t1ce"


def test_channels_on_different_grids_are_a_problem_with_its_remedy(tmp_path):
    volume(tmp_path / "P1_t1.nii.gz")
    volume(tmp_path / "P1_t1ce.nii.gz", (8, 9, 11))
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "t1ce lies on another grid (8x9x11" in result.stdout
    assert "--strict" in result.stdout


def test_a_reference_on_another_grid_is_a_problem(tmp_path):
    volume(tmp_path / "a.nii.gz")
    volume(tmp_path / "a_seg.nii.gz", (8, 9, 4), labels=True)
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "drawn on this image" in result.stdout


def test_kinds_of_images_are_counted_the_most_frequent_first(tmp_path):
    write_pictures(tmp_path / "small", count=1, size=16)
    write_pictures(tmp_path / "large", count=3, size=32)
    lines = [line for line in run(tmp_path).stdout.splitlines() if line.startswith("kind")]
    assert lines[0].startswith("kind    3 images: png, ")
    assert lines[0].endswith("uint8, 32x32 pixels")
    assert lines[1].startswith("kind    1 image: png, ")


def test_a_broken_file_is_named_and_the_others_are_still_seen(tmp_path):
    write_pictures(tmp_path, count=2, masks=False)
    (tmp_path / "slice_9.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "problem slice_9" in result.stdout
    assert result.stdout.splitlines()[-1] == "seen    3 cases, 0 with a reference, 1 problem"


def test_a_channel_that_the_model_wants_is_missed(tmp_path):
    model = write_model(tmp_path / "two.onnx", volume_spec(channels=("t1ce", "flair")))
    volume(tmp_path / "scans" / "P1_t1ce.nii.gz")
    volume(tmp_path / "scans" / "P1_t2.nii.gz")
    result = run(tmp_path / "scans", "--model", model)
    assert result.exit_code == 1
    assert "P1: has no flair image (found: t1ce, t2). Name the files so that they end in _flair" in result.stdout


def test_a_model_that_the_scans_fit_has_nothing_to_say(tmp_path):
    model = write_model(tmp_path / "one.onnx", bright_spec())
    write_pictures(tmp_path / "scans")
    assert run(tmp_path / "scans", "-m", model).exit_code == 0


def test_voxels_that_no_model_can_use_are_found_with_a_model(tmp_path):
    model = write_model(tmp_path / "one.onnx", bright_spec())
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.full((8, 8, 4), 7, np.int16), np.eye(4)), tmp_path / "scans" / "flat.nii.gz")
    assert run(tmp_path / "scans").exit_code == 0
    result = run(tmp_path / "scans", "-m", model)
    assert result.exit_code == 1
    assert "every voxel" in result.stdout


def test_a_broken_file_that_may_hold_a_reference_is_one_problem(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"half")
    result = run(tmp_path)
    assert result.stdout.count("copy or export it again") == 1
    assert "1 problem" in result.stdout


def test_a_model_file_prints_its_spec(tmp_path):
    provenance = {"data": {"name": "discs", "licence": "CC BY 4.0"}, "parity": {"max_abs": 1e-5}}
    spec = bright_spec(description="Bright things.", regions={"all": (1,)}, provenance=provenance)
    text = run(write_model(tmp_path / "m.onnx", spec)).stdout
    for expected in (
        "model      bright 1",
        "about      Bright things.",
        "channel    t1ce  (also called t1c, t1gd)",
        "label      1 tumour  (any reference value but 0)",
        "region     all = 1",
        "from       data.licence: CC BY 4.0",
        "from       parity.max_abs: 1e-05",
        "intensity  kind minmax",
        "sha256     ",
    ):
        assert expected in text


def test_a_model_file_as_json_gives_the_spec_back(tmp_path):
    spec = bright_spec()
    seen = facts(write_model(tmp_path / "m.onnx", spec))
    assert spec.from_json(json.dumps(seen["spec"])) == spec
    assert seen["bytes"] == (tmp_path / "m.onnx").stat().st_size


def test_a_model_among_scans_is_refused(tmp_path):
    with pytest.raises(UsageError, match="Give a model file alone"):
        run(tmp_path / "m.onnx", tmp_path)


def test_an_onnx_file_without_a_spec_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="segtool export"):
        run(tmp_path / "m.onnx")


def test_real_volumes_are_seen_with_their_references(real_data):
    seen = facts(real_data / "progression")
    assert not seen["problems"]
    assert len(seen["cases"]) == 8
    assert all(list(case["reference"]["voxels"]) == ["0", "1"] for case in seen["cases"])


@pytest.mark.parametrize("one", SETS.values(), ids=SETS)
def test_a_training_set_is_recognised_and_counted(tmp_path, one):
    one.write(tmp_path)
    seen = facts(tmp_path, "--layout", "auto")
    assert seen["layout"]["name"] == one.layout
    patients = {patient for patient, _, _ in one.items.values()}
    assert seen["items"] == len(one.items)
    assert seen["patients"] == (None if one.note == tiny_sets.UNKNOWN else len(patients))
    assert sum(fold["items"] for fold in seen["folds"].values()) == (len(one.items) if seen["folds"] else 0)
    assert seen["broken"] == []
    assert facts(tmp_path, "--layout", one.layout)["items"] == len(one.items)


def test_folds_classes_and_notes_of_a_set_are_printed(tmp_path):
    tiny_sets.cheng_mat(tmp_path)
    (tmp_path / "cvind.mat").unlink()
    assert run(tmp_path, "--layout", "auto").stdout.splitlines() == [
        "layout  cheng_mat (certain: 4 files N.mat with a struct cjdata)",
        "group   glioma: 1 item, 1 patient",
        "group   meningioma: 2 items, 1 patient",
        "group   pituitary: 1 item, 1 patient",
        "note    cvind.mat is not there: the official folds are unknown",
        "note    1 patient ids differ from another one in the letter at their end: the same person",
        "seen    4 items, 3 patients, 0 broken",
    ]


def test_what_is_broken_in_a_set_is_printed_and_is_the_exit_code(tmp_path):
    tiny_sets.kaggle_3m(tmp_path)
    for path in tmp_path.glob("*/TCGA_CS*_mask.tif"):
        path.unlink()
    result = run(tmp_path, "--layout", "kaggle_3m")
    assert result.exit_code == 1
    broken = [line for line in result.stdout.splitlines() if line.startswith("broken")]
    assert len(broken) == 2
    assert "has no reference mask. Put it beside the scan" in broken[0]
    assert result.stdout.splitlines()[-1] == "seen    1 item, 1 patient, 2 broken"


def test_the_layout_of_a_folder_is_named_among_its_cases(tmp_path):
    tiny_sets.coco(tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 0
    files = ", ".join(f"{fold}/_annotations.coco.json" for fold in ("test", "train", "valid"))
    assert f"layout  coco (certain: {files})" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1] == "seen    6 cases, 6 with a reference, 0 problems"
    assert facts(tmp_path)["layout"]["name"] == "coco"


def test_a_folder_that_could_be_two_sets_is_called_both(tmp_path):
    tiny_sets.coco(tmp_path)
    tiny_sets.brats_h5(tmp_path / "slices")
    lines = [line for line in run(tmp_path).stdout.splitlines() if line.startswith("layout")]
    assert [line.split()[1] for line in lines] == ["coco", "brats_h5"]
    assert facts(tmp_path)["layout"] is None


def test_scans_in_no_known_layout_are_not_called_one(tmp_path):
    write_pictures(tmp_path, count=2)
    assert "layout" not in run(tmp_path).stdout
    assert facts(tmp_path)["layout"] is None


@pytest.mark.parametrize(("layout", "remedy"), [("xray", "Name one of"), ("brats", "Give one folder")])
def test_a_layout_that_is_not_known_or_of_two_folders_is_refused(tmp_path, layout, remedy):
    folders = [tmp_path] if layout == "xray" else [tmp_path, tmp_path]
    with pytest.raises(UsageError, match=remedy):
        run(*folders, "--layout", layout)


def test_a_layout_of_a_file_says_that_it_is_no_folder(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match=r"a\.png is no folder.*Give one folder"):
        run(tmp_path / "a.png", "--layout", "auto")


def test_scans_are_seen_where_two_sets_lie_in_one_folder(tmp_path):
    for name in ("a", "b"):
        tiny_sets.decathlon(tmp_path / name)
    assert len(facts(tmp_path)["cases"]) == 6
    with pytest.raises(UsageError, match="Give the folder of one"):
        run(tmp_path, "--layout", "auto")


def write_study(folder, uid="1.2.6", **changes):
    """A study of a T1 after contrast agent, a FLAIR, and a diffusion series, in one folder."""
    series = {
        "t1_se KM": {"EchoTime": 12, "RepetitionTime": 500},
        "t2_tirm_dark-fluid": {"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500},
        "ep2d_diff b1000": {"EchoTime": 80},
    }
    for number, (description, tags) in enumerate(series.items()):
        more = {"SeriesDescription": description, "StudyInstanceUID": uid, "PixelSpacing": [1, 1 + number]} | tags
        names = [f"{number}{k}" for k in range(3)]
        write_series(folder, np.ones((8, 9, 3), np.int16), names, f"{uid}.{number}", **(more | changes))


def test_a_study_is_told_with_the_evidence_of_every_series(tmp_path):
    write_study(tmp_path / "P1")
    result = run(tmp_path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    at = lines.index("study   P1: 3 series, 2 used, 0 set aside")
    told = [line.strip() for line in lines[at + 1 :]]
    assert told[0].split()[0] == "t1ce"
    assert "3 slices of 8x9  axial" in told[0]
    assert told[0].endswith("seen as t1ce, 9 points")
    assert '+6 SeriesDescription "t1"' in told
    assert '+4 SeriesDescription "km"' in told
    assert any(line.startswith("+5 InversionTime 2500 ms (1350 to 3200), EchoTime 120 ms (60 to 700)") for line in told)
    assert any("dwi" in line and "series-" in line for line in told)
    assert any("flair lies on another grid" in line and line.startswith("note ") for line in told)
    assert "t1_se" not in result.stdout


def test_a_channel_that_no_series_of_a_study_is_leaves_its_evidence(tmp_path):
    model = write_model(tmp_path / "two.onnx", volume_spec(channels=("t1ce", "t2")))
    write_study(tmp_path / "scans" / "P1")
    result = run(tmp_path / "scans", "-m", model)
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "no t2: nothing speaks for any series" in lines
    assert any(line.startswith("problem P1: no t2 among its 3 series (") for line in lines)
    assert lines[-1] == "seen    0 cases, 0 with a reference, 1 problem"


def test_a_study_as_json_has_all_scores(tmp_path):
    write_study(tmp_path / "P1")
    (study,) = facts(tmp_path)["studies"]
    first = study["series"][0]
    assert (study["case"], first["channel"], first["seen_as"], first["score"]) == ("P1", "t1ce", "t1ce", 9)
    assert first["scores"] == {"t1": 6, "t1ce": 9}
    assert (study["missing"], study["set_aside"]) == ({}, [])


def test_rules_and_patterns_of_the_user_decide_what_a_series_is(tmp_path):
    write_study(tmp_path / "scans" / "P1")
    rules = tmp_path / "mine.toml"
    rules.write_text('extends = true\nchannels = ["dwi"]\n')
    assert list(facts(tmp_path / "scans", "--rules", rules)["cases"][0]["channels"]) == ["t1ce", "flair", "dwi"]
    seen = facts(tmp_path / "scans", "--channel", "t2=*diff*")["cases"][0]["channels"]
    assert list(seen) == ["t1ce", "t2", "flair"]


def test_headers_show_only_where_that_is_asked_for(tmp_path):
    write_study(tmp_path / "P1", SeriesDescription="Gerda t1_se KM")
    assert "Gerda" not in run(tmp_path).stdout
    assert "Gerda t1_se KM" in run(tmp_path, "--identify").stdout


def test_files_that_are_no_dicom_have_no_studies(tmp_path):
    write_pictures(tmp_path, count=1)
    assert facts(tmp_path)["studies"] == []
    assert "study" not in run(tmp_path).stdout
