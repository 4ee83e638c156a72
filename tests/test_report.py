import csv
import json
import math
import os
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from segtool.errors import OutputError
from segtool.geometry import Geometry
from segtool.measurements import measure
from segtool.report import (
    CaseResult,
    Report,
    Scores,
    Structure,
    score,
    score_case,
    score_slices,
    structures_of,
)
from segtool.spec import ModelSpec

FOREGROUND = (Structure("tumour"),)


def spec(**changes):
    fields = {
        "name": "glioma",
        "channels": [{"name": "t1ce"}],
        "labels": [
            {"name": "NCR", "value": 1, "reference_values": [1]},
            {"name": "ED", "value": 2, "reference_values": [2]},
            {"name": "ET", "value": 3, "reference_values": [3, 4]},
        ],
        "regions": {"TC": [1, 3], "ET2": [3]},
        "input": {"rank": 2, "size": [64, 64]},
    }
    return ModelSpec.model_validate(fields | changes)


def row(*values):
    """A picture of one row."""
    return np.array([values], np.uint8)


PIXELS = Geometry.of_pixels((1, 4))
PAIRS = {
    # name: prediction, reference; Dice
    "half": (row(1, 1, 0, 0), row(0, 1, 1, 0)),  # 0.5
    "equal": (row(1, 1, 0, 0), row(1, 1, 0, 0)),  # 1
    "missed": (row(0, 0, 0, 0), row(0, 1, 0, 0)),  # 0
    "spurious": (row(1, 0, 0, 0), row(0, 0, 0, 0)),  # 0
    "empty": (row(0, 0, 0, 0), row(0, 0, 0, 0)),  # undefined, counted 1 over all
}


def scored(name, surface=False):
    return score_case(*PAIRS[name], PIXELS, FOREGROUND, surface=surface)


def report(*cases, **changes):
    fields = {"command": "evaluate", "tool_version": "0.1.0", "elapsed_s": 1.5}
    return Report(cases=cases, **(fields | changes))


def report_of(*names, surface=False):
    return report(*(CaseResult(name, "done", scores=scored(name, surface)) for name in names))


# What is scored


def test_structures_of_a_model_are_its_labels_then_its_regions():
    assert structures_of(spec()) == (
        Structure("NCR", (1,), (1,)),
        Structure("ED", (2,), (2,)),
        Structure("ET", (3,), (3, 4)),
        Structure("TC", (1, 3), (1, 3, 4)),
        Structure("ET2", (3,), (3, 4)),
    )


def test_a_label_without_reference_values_takes_any_value_and_so_does_its_region():
    binary = spec(labels=[{"name": "tumour", "value": 1}], regions={"all": [1]})
    assert structures_of(binary) == (Structure("tumour", (1,), ()), Structure("all", (1,), ()))


def test_each_side_has_its_own_values():
    prediction, reference = row(1, 3, 0, 2), row(1, 4, 0, 4)
    scores = score_case(prediction, reference, PIXELS, structures_of(spec()))
    assert scores["ET"].dice == pytest.approx(2 / 3)  # one of one found, one of two there
    assert scores["TC"].dice == pytest.approx(4 / 5)
    assert scores["ED"].spurious


def test_a_255_in_a_binary_reference_is_the_structure():
    assert score_case(row(0, 1, 1, 0), row(0, 255, 255, 0), PIXELS, FOREGROUND)["tumour"].dice == 1.0


def test_volumes_are_in_millilitres_and_distances_in_mm():
    geometry = Geometry.of_volume((2, 2, 2), np.diag([1.0, 2.0, 3.0, 1.0]))
    prediction = np.zeros((2, 2, 2), np.uint8)
    prediction[0, 0, 0] = 1
    reference = np.zeros((2, 2, 2), np.uint8)
    reference[0, 0, :] = 1
    (scores,) = score_case(prediction, reference, geometry, FOREGROUND, surface=True).values()
    assert scores.volume_ml == pytest.approx(0.006)
    assert scores.reference_volume_ml == pytest.approx(0.012)
    assert scores.volume_difference_ml == pytest.approx(-0.006)
    assert scores.volume_difference_percent == pytest.approx(-50.0)
    assert scores.hd95_mm == pytest.approx(2.7)  # pooled 0, 0, 3
    assert scores.nsd_1mm == pytest.approx(2 / 3)
    assert scores.area_px is None
    assert scores.hd95_px is None


def test_pictures_are_in_pixels():
    scores = scored("half", surface=True)["tumour"]
    assert (scores.area_px, scores.reference_area_px, scores.area_difference_px) == (2, 2, 0)
    assert scores.hd95_px == 1.0
    assert scores.nsd_1px == 1.0
    assert scores.volume_ml is None
    assert scores.hd95_mm is None


def test_without_a_reference_there_is_a_size_and_nothing_else():
    scores = score_case(row(1, 1, 0, 0), None, PIXELS, FOREGROUND)["tumour"]
    assert scores.as_dict() == {"area_px": 2.0}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("half", (True, False, False)),
        ("missed", (True, True, False)),
        ("spurious", (False, False, True)),
        ("empty", (False, False, False)),
    ],
)
def test_a_structure_on_one_side_only_is_flagged_and_has_no_distance(name, flags):
    scores = scored(name, surface=True)["tumour"]
    assert (scores.in_reference, scores.missed, scores.spurious) == flags
    assert math.isnan(scores.hd95_px) == (name != "half")


def test_a_stack_is_scored_picture_by_picture():
    prediction, reference = (np.stack([PAIRS[name][side] for name in ("half", "equal")]) for side in (0, 1))
    geometry = Geometry.of_pixels(prediction.shape)
    slices = score_slices(prediction, reference, geometry, FOREGROUND)
    assert {index: scores["tumour"].dice for index, scores in slices.items()} == {0: 0.5, 1: 1.0}
    case = CaseResult("a", "done", slices=slices)
    assert [name for name, _ in case.rows()] == ["a[0]", "a[1]"]


@pytest.mark.parametrize(("shape", "sizes"), [((4, 4), (1, 0)), ((3, 4, 4), (0, 3))], ids=["image", "stack"])
def test_a_stack_has_slices_and_everything_else_has_scores(shape, sizes):
    labels = np.ones(shape, np.uint8)
    scores, slices = score(labels, labels, Geometry.of_pixels(shape), FOREGROUND)
    assert (len(scores), len(slices)) == sizes


def test_stacks_of_two_lengths_are_refused():
    stack = np.zeros((2, 1, 4), np.uint8)
    with pytest.raises(ValueError, match="2 and 1"):
        score_slices(stack, stack[:1], Geometry.of_pixels(stack.shape), FOREGROUND)


# Means


def test_both_means_are_given_and_named():
    summary = report_of(*PAIRS).summary["tumour"]
    assert (summary["n"], summary["n_with_reference"]) == (5, 3)
    assert (summary["n_missed"], summary["n_spurious"], summary["n_empty"]) == (1, 1, 1)
    assert summary["dice_mean_with_reference"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert summary["dice_mean_all"] == pytest.approx((0.5 + 1 + 0 + 0 + 1) / 5)
    assert summary["dice_median_with_reference"] == 0.5
    assert summary["dice_std_with_reference"] == pytest.approx(0.5)


def test_a_precision_of_nothing_is_left_out_and_the_count_says_so():
    summary = report_of(*PAIRS).summary["tumour"]
    assert summary["precision_n_with_reference"] == 2
    assert summary["precision_mean_with_reference"] == pytest.approx((0.5 + 1) / 2)


def test_distances_are_averaged_where_both_sides_have_the_structure():
    summary = report_of(*PAIRS, surface=True).summary["tumour"]
    assert summary["hd95_px_n"] == 2
    assert summary["hd95_px_mean"] == pytest.approx(0.5)
    assert summary["nsd_1px_mean_with_reference"] == pytest.approx((1 + 1 + 0) / 3)


def test_an_empty_volume_does_not_count_among_the_distances_of_pictures():
    geometry = Geometry.of_volume((1, 1, 4), np.eye(4))
    nothing = np.zeros((1, 1, 4), np.uint8)
    volume = CaseResult("v", "done", scores=score_case(nothing, nothing, geometry, FOREGROUND, surface=True))
    picture = CaseResult("p", "done", scores=scored("missed", surface=True))
    summary = report(volume, picture).summary["tumour"]
    assert (summary["nsd_1px_n_all"], summary["nsd_1px_mean_all"]) == (1, 0.0)
    assert (summary["nsd_1mm_n_all"], summary["nsd_1mm_mean_all"]) == (1, 1.0)


def test_a_scan_without_any_reference_is_in_neither_mean():
    alone = CaseResult("a", "done", scores=score_case(row(1, 1, 0, 0), None, PIXELS, FOREGROUND))
    both = report(alone, CaseResult("b", "done", scores=scored("half")))
    summary = both.summary["tumour"]
    assert (summary["n"], summary["dice_n_all"], summary["dice_n_with_reference"]) == (2, 1, 1)
    assert summary["area_px_n"] == 2
    assert "all, empty = 1" not in printed(both)


def test_an_interval_encloses_its_mean():
    summary = report_of(*PAIRS).summary["tumour"]
    low, high = summary["dice_ci95_all"]
    assert 0 <= low < summary["dice_mean_all"] < high <= 1


def test_cases_that_failed_do_not_enter_a_mean():
    failed = CaseResult("b", "failed", error="b: truncated. Copy it again.")
    both = report(CaseResult("a", "done", scores=scored("half")), failed)
    assert both.summary["tumour"]["n"] == 1
    assert both.failures == (failed,)
    assert both.counts == {"cases": 2, "done": 1, "failed": 1, "skipped": 0}


def test_stage_times_add_up_over_cases():
    cases = (
        CaseResult("a", "done", seconds={"read": 1.0}),
        CaseResult("b", "done", seconds={"read": 0.5, "infer": 2.0}),
    )
    assert report(*cases).stage_seconds == {"read": 1.5, "infer": 2.0}


# Files


def test_json_has_null_for_nan_and_keeps_everything_else(tmp_path):
    path = tmp_path / "deep" / "report.json"
    report_of("empty", "half", surface=True).write_json(path)
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    empty, half = (case["scores"]["tumour"] for case in read["cases"])
    assert empty["dice"] is None
    assert half["dice"] == 0.5
    assert half["missed"] is False
    assert read["summary"]["tumour"]["dice_mean_all"] == 0.75
    assert read["counts"]["done"] == 2
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_csv_has_a_row_for_each_case_and_structure(tmp_path):
    path = tmp_path / "report.csv"
    two = (Structure("one", (1,), (1,)), Structure("any"))
    scores = score_case(row(1, 2, 0, 0), row(1, 1, 0, 0), PIXELS, two)
    failed = CaseResult("b", "failed", error="b: truncated. Copy it again.")
    report(CaseResult("a", "done", "a.png", scores=scores), failed).write_csv(path)
    rows = list(csv.DictReader(StringIO(path.read_text())))
    assert [(r["case"], r["structure"], r["status"]) for r in rows] == [
        ("a", "one", "done"),
        ("a", "any", "done"),
        ("b", "", "failed"),
    ]
    assert [r["dice"] for r in rows] == ["0.666667", "1", ""]
    assert rows[0]["missed"] == "0"
    assert rows[2]["error"] == "b: truncated. Copy it again."
    assert "hd95_mm" not in rows[0]


def test_undefined_numbers_are_empty_cells(tmp_path):
    path = tmp_path / "report.csv"
    report_of("empty").write_csv(path)
    (only,) = csv.DictReader(StringIO(path.read_text()))
    assert only["dice"] == ""


# A block of 10 by 4 by 2 mm.
BLOCK = np.zeros((12, 12, 4), np.uint8)
BLOCK[1:11, 1:5, 1:3] = 2
BLOCK_GRID = Geometry.of_volume(BLOCK.shape, np.eye(4))


def test_measurements_stand_beside_the_scores(tmp_path):
    model = spec(regions={})
    scores = score_case(BLOCK, None, BLOCK_GRID, structures_of(model))
    case = CaseResult("a", "done", scores=scores, measurements=measure(BLOCK, BLOCK_GRID, model))
    report(case).write_csv(tmp_path / "report.csv")
    rows = {row["structure"]: row for row in csv.DictReader(StringIO((tmp_path / "report.csv").read_text()))}
    assert list(rows) == ["NCR", "ED", "ET"]
    assert rows["ED"]["volume_ml"] == "0.08"
    assert (rows["ED"]["lesions"], rows["ED"]["plane"], rows["ED"]["slice"]) == ("1", "axial", "1")
    assert rows["ED"]["longest_diameter_mm"] == "10.4403"
    assert rows["ED"]["centroid_right_mm"] == "5.5"
    assert (rows["ET"]["lesions"], rows["ET"]["longest_diameter_mm"]) == ("0", "")
    assert "longest_ends_ras_mm" not in rows["ED"]
    measured = json.loads(report(case).to_json())["cases"][0]["measurements"]
    assert measured["ED"]["longest_ends_ras_mm"][0][2] == 1
    assert measured["NCR"] == {"volume_ml": 0.0, "lesions": 0, "measurable_lesions": 0}


def test_measurements_need_no_scores_and_are_left_out_where_there_are_none(tmp_path):
    case = CaseResult("a", "done", measurements=measure(BLOCK, BLOCK_GRID, spec()))
    report(case, CaseResult("b", "done")).write_csv(tmp_path / "report.csv")
    rows = list(csv.DictReader(StringIO((tmp_path / "report.csv").read_text())))
    assert [row["case"] for row in rows] == ["a"] * 5 + ["b"]
    assert "measurements" not in CaseResult("b", "done").as_dict()


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx"])
def test_a_name_that_a_spreadsheet_would_run_is_quoted(tmp_path, name):
    path = tmp_path / "report.csv"
    report(CaseResult(name, "done")).write_csv(path)
    (only,) = csv.DictReader(StringIO(path.read_text()))
    assert only["case"] == f"'{name}"


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="needs a folder that cannot be written")
def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Choose another folder"):
        report().write_json(tmp_path / "report.json")


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="Choose another folder"):
        report().write_csv(tmp_path / "out" / "report.csv")


# The table


def printed(of, width=80):
    text = StringIO()
    of.print_table(Console(file=text, width=width))
    return text.getvalue()


def test_the_table_shows_the_mean_with_its_interval():
    text = printed(report_of("half", "equal", "half", "equal"))
    assert "0.750 (0.50-1.00)" in text
    assert "Dice (95 % CI)" in text
    assert "all, empty = 1" not in text


def test_the_table_shows_both_means_where_they_differ():
    lines = printed(report_of(*PAIRS)).splitlines()
    assert [" 3 " in line for line in lines if "with reference" in line] == [True]
    assert [" 5 " in line for line in lines if "all, empty = 1" in line] == [True]


def test_the_table_fits_eighty_columns_with_every_measure():
    lines = printed(report_of(*PAIRS, surface=True)).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 3 + 2 + 2  # a heading and its rows: overlap, distances, sizes


def test_a_name_in_brackets_is_not_markup():
    scores = {"[bold]": Scores(dice=0.5, iou=0.4, precision=0.5, recall=0.5, in_reference=True)}
    assert "[bold]" in printed(report(CaseResult("a", "done", scores=scores)))


def test_nothing_is_printed_where_nothing_was_scored():
    assert printed(report(CaseResult("a", "done"))) == ""
