import csv
import json
import math

import nibabel
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from segtool.case import LabelMap
from segtool.commands.evaluate import evaluate
from segtool.errors import GridError, UsageError
from segtool.geometry import ORIENTATIONS, Geometry
from segtool.model_file import write_spec
from segtool.pairing import pair_files
from segtool.regrid import fit_labels
from segtool.spec import ModelSpec

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
CUBE = np.zeros((6, 6, 6), np.uint8)
CUBE[1:3, 1:3, 1:3] = 1
SHIFTED = np.roll(CUBE, 1, axis=2)  # 3 mm; Dice 0.5, IoU 1/3


def picture(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)


def volume(path, labels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)


def row(*values):
    return np.array([values], np.uint8)


@pytest.fixture
def sides(tmp_path):
    return tmp_path / "predictions", tmp_path / "references"


def run(*arguments):
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def json_of(*arguments):
    result = run(*arguments, "--json")
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout), result.exit_code


def only_scores(report, structure="foreground"):
    (case,) = report["cases"]
    return case["scores"][structure]


# Measures, end to end


def test_a_shift_by_one_voxel_is_measured_in_the_patient(sides):
    predictions, references = sides
    volume(predictions / "a.nii.gz", SHIFTED)
    volume(references / "a.nii.gz", CUBE)
    report, code = json_of(*sides)
    assert code == 0
    scores = only_scores(report)
    expected = {
        "dice": 0.5,
        "iou": 1 / 3,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "specificity": 204 / 208,
    }
    expected |= {
        "hd95_mm": 3.0,
        "nsd_1mm": 0.5,
        "nsd_2mm": 0.5,
        "volume_ml": 0.048,
        "volume_difference_ml": 0.0,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert report["cases"][0]["geometry"] == "6x6x6 voxels, 1 x 2 x 3 mm, RAS"


def test_the_report_is_printed_and_written(sides, tmp_path):
    predictions, references = sides
    for name, predicted in (("a", CUBE), ("b", SHIFTED)):
        volume(predictions / f"{name}.nii.gz", predicted)
        volume(references / f"{name}.nii.gz", CUBE)
    result = run(*sides, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "0.750 (0.50-1.00)" in result.stdout
    assert "HD95" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("done    2 of 2 in")
    assert last.endswith("report.json")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["done"] == 2
    with (tmp_path / "out" / "report.csv").open() as file:
        assert [r["dice"] for r in csv.DictReader(file)] == ["1", "0.5"]


def test_without_surface_there_is_no_distance(sides):
    for side in sides:
        volume(side / "a.nii.gz", CUBE)
    report, _ = json_of(*sides, "--no-surface")
    assert "hd95_mm" not in only_scores(report)
    assert only_scores(report)["dice"] == 1.0


def test_a_missed_structure_is_flagged_and_has_no_distance(sides):
    predictions, references = sides
    volume(predictions / "a.nii.gz", np.zeros_like(CUBE))
    volume(references / "a.nii.gz", CUBE)
    scores = only_scores(json_of(*sides)[0])
    assert scores["missed"] is True
    assert scores["hd95_mm"] is None
    assert scores["dice"] == 0.0


def test_the_pages_of_a_stack_are_scored_one_by_one(sides):
    for side, last in zip(sides, (row(1, 0, 0), row(0, 1, 1)), strict=True):
        side.mkdir()
        pages = [Image.fromarray(page) for page in (row(0, 1, 0), last)]
        pages[0].save(side / "a.tif", save_all=True, append_images=pages[1:])
    report, _ = json_of(*sides)
    slices = report["cases"][0]["slices"]
    assert [slices[i]["foreground"]["dice"] for i in "01"] == [1.0, 0.0]
    assert report["summary"]["foreground"]["n"] == 2


# Structures


def test_binary_masks_of_any_value_are_foreground(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(0, 1, 1))
    picture(references / "a.png", row(0, 255, 255))
    assert only_scores(json_of(*sides)[0])["dice"] == 1.0


def test_several_values_are_a_structure_each_in_every_case(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(1, 1, 2, 0))
    picture(references / "a.png", row(1, 0, 2, 4))
    for side in sides:
        picture(side / "b.png", row(1, 1, 1, 1))
    summary = json_of(*sides)[0]["summary"]
    assert list(summary) == ["1", "2", "4"]
    assert summary["1"]["dice_mean_all"] == pytest.approx((2 / 3 + 1) / 2)
    assert (summary["4"]["n_missed"], summary["4"]["n_empty"]) == (1, 1)


def test_a_label_map_reads_values_of_the_prediction_as_others(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(4, 2, 1))
    picture(references / "a.png", row(3, 1, 2))
    report, _ = json_of(*sides, "--label-map", "4=3", "--label-map", "1=2", "--label-map", "2=1")
    assert {name: s["dice"] for name, s in report["cases"][0]["scores"].items()} == {
        "1": 1.0,
        "2": 1.0,
        "3": 1.0,
    }


def test_labels_join_values_into_named_structures(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(1, 2, 4, 0))
    picture(references / "a.png", row(2, 2, 1, 0))
    report, _ = json_of(*sides, "--labels", "WT=1,2,4", "--labels", "ED=2")
    scores = report["cases"][0]["scores"]
    assert {name: s["dice"] for name, s in scores.items()} == {"WT": 1.0, "ED": pytest.approx(2 / 3)}


def test_a_model_says_which_values_of_a_reference_mean_its_labels(sides, tmp_path):
    spec = ModelSpec.model_validate(
        {
            "name": "glioma",
            "channels": [{"name": "t1ce"}],
            "labels": [
                {"name": "NCR", "value": 1, "reference_values": [1]},
                {"name": "ET", "value": 3, "reference_values": [3, 4]},
            ],
            "regions": {"TC": [1, 3]},
            "input": {"rank": 2, "size": [64, 64]},
        }
    )
    bare, model = tmp_path / "bare.onnx", tmp_path / "glioma.onnx"
    bare.write_bytes(bytes([7 << 3 | 2, 0]))  # a protocol buffer with an empty graph
    write_spec(bare, spec, model)
    predictions, references = sides
    picture(predictions / "a.png", row(1, 3, 3, 0))
    picture(references / "a.png", row(1, 4, 0, 2))
    scores = json_of(*sides, "--model", model)[0]["cases"][0]["scores"]
    expected = {"NCR": 1.0, "ET": pytest.approx(2 / 3), "TC": pytest.approx(4 / 5)}
    assert {name: s["dice"] for name, s in scores.items()} == expected


def test_scans_given_as_label_maps_are_refused(sides):
    for side in sides:
        picture(side / "a.png", np.arange(200, dtype=np.uint8)[None])
    with pytest.raises(UsageError, match="Give folders of label maps"):
        json_of(*sides)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--label-map", "4:3"), "--label-map 4=3"),
        (("--label-map", "4=-1"), "--label-map 4=3"),
        (("--label-map", "4=3", "--label-map", "4=2"), "each value once"),
        (("--labels", "WT"), "--labels WT=1,2,4"),
        (("--labels", "=1"), "--labels WT=1,2,4"),
        (("--labels", "WT=0"), "--labels WT=1,2,4"),
        (("--labels", "WT=1", "--labels", "WT=2"), "WT=1,2"),
        (("--labels", "WT=1", "--model", "x.onnx"), "one of them"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(sides, arguments, remedy):
    for side in sides:
        volume(side / "a.nii.gz", CUBE)
    with pytest.raises(UsageError, match=remedy):
        json_of(*sides, *arguments)


# Failures


def test_a_reference_without_a_prediction_fails_and_the_rest_goes_on(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(0, 1))
    picture(predictions / "extra.png", row(0, 1))
    picture(references / "a.png", row(0, 1))
    picture(references / "b.png", row(0, 1))
    report, code = json_of(*sides)
    assert code == 1
    assert [(c["name"], c["status"]) for c in report["cases"]] == [("a", "done"), ("b", "failed")]
    assert "Predict it" in report["cases"][1]["error"]
    assert any("extra.png" in note for note in report["notes"])
    text = run(*sides).stdout
    assert "failed  b: no prediction" in text
    assert "1 of 2 references" in text


def test_another_shape_fails_in_one_line(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(0, 1))
    picture(references / "a.png", row(0, 1, 1))
    report, code = json_of(*sides)
    assert code == 1
    assert "1x2 pixels, the reference 1x3 pixels" in report["cases"][0]["error"]
    assert "\n" not in report["cases"][0]["error"]


def test_a_truncated_file_fails_and_the_rest_goes_on(sides):
    predictions, _ = sides
    for name in "ab":
        for side in sides:
            picture(side / f"{name}.png", np.eye(64))
    whole = (predictions / "a.png").read_bytes()
    (predictions / "a.png").write_bytes(whole[: len(whole) // 2])
    report, code = json_of(*sides)
    assert code == 1
    assert [case["status"] for case in report["cases"]] == ["failed", "done"]


def test_fractions_are_not_labels(sides):
    for side in sides:
        volume(side / "a.nii.gz", CUBE * np.float32(0.5))
    report, code = json_of(*sides)
    assert code == 1
    assert "label" in report["cases"][0]["error"]


# Grids


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS)[::5])
def test_the_same_grid_in_another_orientation_is_turned(sides, orientation):
    predictions, references = sides
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[0, 1:3, 2:6] = 1
    geometry = Geometry.of_volume(labels.shape, AFFINE)
    move = geometry.reorientation_to(orientation)
    volume(predictions / "a.nii.gz", move.apply(labels), geometry.moved(move).affine)
    volume(references / "a.nii.gz", labels)
    report, code = json_of(*sides, "--strict")
    assert (code, only_scores(report)["dice"]) == (0, 1.0)
    assert (orientation == "RAS") != ("notes" in report["cases"][0])


def test_another_affine_is_resampled_through_the_patient(sides):
    predictions, references = sides
    moved = AFFINE.copy()
    moved[2, 3] = -3.0  # the prediction lies one voxel lower, which undoes its shift
    volume(predictions / "a.nii.gz", SHIFTED, moved)
    volume(references / "a.nii.gz", CUBE)
    report, code = json_of(*sides)
    assert (code, only_scores(report)["dice"]) == (0, 1.0)
    assert "resampled" in report["cases"][0]["notes"][0]


def test_strict_refuses_to_resample(sides):
    predictions, references = sides
    volume(predictions / "a.nii.gz", CUBE, AFFINE + np.array([[0, 0, 0, 1]] + [[0] * 4] * 3))
    volume(references / "a.nii.gz", CUBE)
    report, code = json_of(*sides, "--strict")
    assert code == 1
    assert "1 mm elsewhere" in report["cases"][0]["error"]


def onto_reference(label_map, geometry):
    return fit_labels(label_map, geometry, names=("prediction", "reference"), where="a", strict=False)


def test_grids_that_do_not_overlap_are_refused():
    here = Geometry.of_volume((4, 4, 4), AFFINE)
    far = AFFINE.copy()
    far[0, 3] = 100
    with pytest.raises(GridError, match=r"a: by its affine the prediction lies outside the reference.*of one patient"):
        onto_reference(LabelMap(np.zeros((4, 4, 4), np.uint8), Geometry.of_volume((4, 4, 4), far)), here)


def test_labels_that_would_all_be_lost_are_refused():
    near = AFFINE.copy()
    near[0, 3] = 1
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[3] = 1
    with pytest.raises(GridError, match="outside the reference"):
        onto_reference(LabelMap(labels, Geometry.of_volume(labels.shape, near)), Geometry.of_volume((4, 4, 4), AFFINE))


@pytest.mark.parametrize("strict", [False, True])
def test_a_placeholder_affine_says_nothing_about_the_place(sides, strict):
    predictions, references = sides
    volume(predictions / "a.nii.gz", CUBE, np.eye(4))
    volume(references / "a.nii.gz", CUBE, AFFINE + np.array([[0, 0, 0, 40]] + [[0] * 4] * 3))
    report, code = json_of(*sides, *(["--strict"] if strict else []))
    if strict:
        assert code == 1
        assert "elsewhere" in report["cases"][0]["error"]
    else:
        assert only_scores(report)["dice"] == 1.0
        assert "placeholder" in report["cases"][0]["notes"][0]


def test_a_stack_is_not_a_volume():
    labels = np.ones((2, 3, 4), np.uint8)
    stack = LabelMap(labels, Geometry.of_pixels(labels.shape))
    with pytest.raises(GridError, match="on the grid of its reference"):
        onto_reference(stack, Geometry.of_volume(labels.shape, np.eye(4)))


# Pairs


def names_of(pairing):
    return {pair.name: pair.prediction and pair.prediction.path.name for pair in pairing.pairs}


@pytest.mark.parametrize(
    ("prediction", "reference", "name"),
    [
        ("a.png", "a.png", "a"),
        ("a_pred.png", "a_mask.png", "a"),
        ("sub/a.png", "sub/a.tif", "sub/a"),
        ("a.png", "sub/a_seg.png", "sub/a"),
        ("P1.nii.gz", "P1/P1_seg.nii.gz", "P1/P1"),
        ("P1/P1.nii.gz", "P1/seg.nii.gz", "P1"),
        ("CASE-7.nii.gz", "CASE-7-seg.nii", "CASE-7"),
    ],
)
def test_files_pair_by_path_then_by_name_whatever_is_appended(sides, prediction, reference, name):
    predictions, references = sides
    for path in (predictions / prediction, references / reference):
        picture(path, row(1)) if path.suffix in {".png", ".tif"} else volume(path, CUBE)
    assert names_of(pair_files(*sides)) == {name: prediction.rpartition("/")[2]}


def test_scans_beside_the_references_are_passed_over(sides):
    predictions, references = sides
    for name in ("P_1.png", "P_2.png"):
        picture(predictions / name, row(1))
    for name in ("P_1.png", "P_1_mask.png", "P_2.png", "P_2_mask.png"):
        picture(references / name, row(1))
    pairing = pair_files(*sides)
    assert names_of(pairing) == {"P_1": "P_1.png", "P_2": "P_2.png"}
    assert all(pair.reference.path.stem.endswith("_mask") for pair in pairing.pairs)
    assert "2 files beside the references" in pairing.notes[0]


def test_one_path_wins_over_one_name(sides):
    for side in sides:
        for folder in ("x", "y"):
            picture(side / folder / "a.png", row(1))
    pairing = pair_files(*sides)
    assert [(p.name, p.prediction.path.parent.name) for p in pairing.pairs] == [("x/a", "x"), ("y/a", "y")]


def test_a_name_that_occurs_twice_is_not_guessed(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(1))
    picture(predictions / "b.png", row(1))
    picture(references / "b.png", row(1))
    for folder in ("x", "y"):
        picture(references / folder / "a.png", row(1))
    assert names_of(pair_files(*sides)) == {"b": "b.png", "x/a": None, "y/a": None}


def test_names_are_counted_not_spelled(sides):
    for side in sides:
        for index in (10, 9, 1):
            picture(side / f"slice {index}.png", row(1))
    assert [pair.name for pair in pair_files(*sides).pairs] == ["slice 1", "slice 9", "slice 10"]


def test_pictures_and_probabilities_of_a_prediction_are_no_label_maps(sides):
    predictions, references = sides
    volume(predictions / "a.nii.gz", CUBE)
    volume(predictions / "a_probabilities.nii.gz", CUBE)
    picture(predictions / "overlays" / "a.png", row(1))
    (predictions / "report.json").write_text("{}")
    volume(references / "a.nii.gz", CUBE)
    pairing = pair_files(*sides)
    assert names_of(pairing) == {"a": "a.nii.gz"}
    assert pairing.remarks == ()


def test_two_files_pair_whatever_they_are_called(sides):
    predictions, references = sides
    volume(predictions / "x.nii.gz", SHIFTED)
    volume(references / "y.nii", CUBE)
    report, code = json_of(predictions / "x.nii.gz", references / "y.nii")
    assert (code, only_scores(report)["dice"]) == (0, 0.5)


def test_a_file_against_a_folder_is_a_usage_error(sides):
    predictions, references = sides
    for side in sides:
        volume(side / "a.nii.gz", CUBE)
    with pytest.raises(UsageError, match="two folders or two files"):
        pair_files(predictions / "a.nii.gz", references)


def test_a_folder_that_is_not_there_is_a_usage_error(sides):
    with pytest.raises(UsageError, match="Check the path"):
        pair_files(*sides)


def test_an_empty_folder_is_a_usage_error_that_says_what_was_looked_for(sides):
    for side in sides:
        side.mkdir()
    with pytest.raises(UsageError, match=r"\.nii\.gz"):
        pair_files(*sides)


def test_folders_without_a_common_name_are_a_usage_error(sides):
    predictions, references = sides
    picture(predictions / "a.png", row(1))
    picture(references / "b.png", row(1))
    with pytest.raises(UsageError, match="names of their references"):
        pair_files(*sides)


# Real label maps


def test_a_real_reference_scores_one_against_itself(real_data, tmp_path):
    masks = sorted((real_data / "cheng" / "masks").glob("*.png"))[:4]
    if not masks:
        pytest.skip("no cheng masks")
    for side in ("p", "r"):
        for mask in masks:
            (tmp_path / side).mkdir(exist_ok=True)
            (tmp_path / side / mask.name).write_bytes(mask.read_bytes())
    report, code = json_of(tmp_path / "p", tmp_path / "r")
    summary = report["summary"]["foreground"]
    assert code == 0
    assert (summary["dice_mean_with_reference"], summary["hd95_px_mean"]) == (1.0, 0.0)
    assert not math.isnan(summary["dice_ci95_all"][0])
