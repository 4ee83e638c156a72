"""Which cases a person should look at first."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from shell import segtool
from tiny import bright_spec, volume_spec, write_model, write_pictures

from segtool.report import CaseResult, Report, Scores
from segtool.review import in_words, review_order


def done(name: str, expected: float | None, *warnings: str) -> CaseResult:
    confidence = {} if expected is None else {"expected_dice": expected}
    return CaseResult(name, "done", f"{name}.png", warnings=warnings, confidence=confidence)


def names(*cases: CaseResult, most: int = 99) -> list[str]:
    return [row["name"] for row in review_order(cases, most)]


def test_failed_cases_come_first_then_warned_ones_then_the_least_sure() -> None:
    cases = (
        done("sure", 0.95),
        done("unsure", 0.4),
        done("odd", 0.99, "the mask is empty"),
        CaseResult("lost", "failed", error="case 'lost': no t1ce image"),
        done("odd and unsure", 0.2, "the mask is empty"),
    )
    assert names(*cases) == ["lost", "odd and unsure", "odd", "unsure", "sure"]
    assert names(*cases, most=2) == ["lost", "odd and unsure"]
    assert review_order(cases, 0) == ()
    assert [row["reason"] for row in review_order(cases, 3)] == [
        "failed: no t1ce image",
        "the mask is empty; expected Dice 0.20",
        "the mask is empty; expected Dice 0.99",
    ]


def test_equals_stay_in_the_order_of_the_run_and_what_was_not_judged_comes_last() -> None:
    assert names(done("b", 0.5), done("kept", None), done("a", 0.5), done("c", 0.1)) == ["c", "b", "a", "kept"]
    assert "not judged" in review_order([done("kept", None)], 1)[0]["reason"]


def test_pictures_of_a_stack_are_listed_one_by_one() -> None:
    slices = {0: {"expected_dice": 0.9}, 17: {"expected_dice": 0.3}}
    stack = CaseResult("stack", "done", slice_confidence=slices)
    assert names(stack, done("picture", 0.5)) == ["stack[17]", "picture", "stack[0]"]
    warned = replace(stack, warnings=("1 of 2 masks is empty",))
    assert names(warned, done("picture", 0.5)) == ["stack", "stack[17]", "picture", "stack[0]"]
    assert review_order([warned], 1)[0]["reason"] == "1 of 2 masks is empty"


def test_numbers_that_an_older_or_a_newer_report_lacks_are_unknown_and_no_error() -> None:
    rows = [
        {"name": "stack", "status": "skipped", "slice_confidence": {"0": {"expected_dice": None}, "1": {"else": 0.5}}},
        {"name": "odd", "status": "skipped", "confidence": {"mean_entropy": 0.25}},
    ]
    kept = [CaseResult.from_dict(row) for row in rows]
    order = review_order([*kept, done("sure", 0.9)], 9)
    assert [row["name"] for row in order] == ["sure", "stack[0]", "stack[1]", "odd"]
    assert order[3]["reason"] == "entropy 0.25 bits"
    assert "not judged" in order[1]["reason"]


def test_a_reason_names_every_number_with_its_unit() -> None:
    numbers = {"mean_entropy": 0.5249, "expected_dice": 0.411, "disagreement": 0.3}
    assert in_words(numbers) == "expected Dice 0.41, entropy 0.52 bits, disagreement 0.30"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Four sharp discs, a blurred one, and a file that is no picture."""
    folder = tmp_path / "scans"
    write_pictures(folder, 4, masks=False)
    rows, columns = np.ogrid[:32, :32]
    blurred = 100 * np.exp(-((rows - 16) ** 2 + (columns - 16) ** 2) / 200) + 30
    Image.fromarray(blurred.astype(np.uint8)).save(folder / "blurred.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n none")
    return folder


def test_predict_lists_the_worst_and_the_report_has_them(
    capsys: pytest.CaptureFixture[str], scans: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "bright.onnx", bright_spec())
    out = tmp_path / "out"
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", out, "--threads", 1, "--review-worst", 2)
    lines = [line for line in answer.out.splitlines() if line.startswith("review ")]
    assert len(lines) == 2
    assert lines[0].startswith("review  1. broken: failed: ")
    assert lines[1].startswith("review  2. ")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [
        f"review  {place}. {row['name']}: {row['reason']}" for place, row in enumerate(report["review"], 1)
    ] == lines
    judged = {row["name"]: row["confidence"] for row in report["cases"] if row["status"] == "done"}
    assert len(judged) == 5
    assert all(set(one) == {"mean_entropy", "expected_dice"} for one in judged.values())
    assert all(0 <= value <= 1 for one in judged.values() for value in one.values())
    worst = min(judged, key=lambda name: judged[name]["expected_dice"])
    assert report["review"][1]["name"] == worst


def test_flips_add_disagreement_and_without_the_flag_nothing_is_listed(
    capsys: pytest.CaptureFixture[str], scans: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "bright.onnx", bright_spec())
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out", "--tta", "flips", "--threads", 1)
    assert "review" not in answer.out
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert "review" not in report
    done_cases = [row for row in report["cases"] if row["status"] == "done"]
    # A network of one pixel's reach answers a flipped picture with the flipped answer.
    assert [row["confidence"]["disagreement"] for row in done_cases] == pytest.approx([0.0] * 5, abs=1e-6)


def test_a_spreadsheet_has_the_numbers_beside_each_case_and_picture(tmp_path: Path) -> None:
    scores = {"tumour": Scores(area_px=4.0)}
    slices = {1: {"expected_dice": 0.25}}
    cases = (
        CaseResult("one", "done", scores=scores, confidence={"mean_entropy": 0.5, "expected_dice": 0.75}),
        CaseResult("stack", "done", slices={0: scores, 1: scores}, slice_confidence=slices),
    )
    Report("predict", "1", cases, 1.0).write_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["case"]: (row["expected_dice"], row["mean_entropy"]) for row in csv.DictReader(file)}
    assert rows == {"one": ("0.75", "0.5"), "stack[0]": ("", ""), "stack[1]": ("0.25", "")}


def test_what_an_earlier_run_judged_is_listed_again_when_it_goes_on(
    capsys: pytest.CaptureFixture[str], scans: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "bright.onnx", bright_spec())
    arguments = ("predict", scans, "-m", model, "-o", tmp_path / "out", "--threads", 1, "--review-worst", 4)
    first, second = (segtool(capsys, *arguments, *more) for more in ((), ("--continue",)))
    listed = [line for line in first.out.splitlines() if line.startswith("review")]
    assert len(listed) == 4
    assert [line for line in second.out.splitlines() if line.startswith("review")] == listed


def test_flips_of_a_volume_disagree_about_nothing_that_is_the_same_from_every_side(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    volume = np.full((24, 20, 20), 30, np.int16)
    volume[8:16, 8:12, 8:12] = 200
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "scans" / "head_t1ce.nii.gz")
    model = write_model(tmp_path / "bright3d.onnx", volume_spec())
    answer = segtool(capsys, "predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "out", "--tta", "flips")
    assert answer.code == 0
    (case,) = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["cases"]
    assert case["confidence"]["disagreement"] == pytest.approx(0, abs=1e-5)
    # Logits are 0.5 in the lesion and -0.5 elsewhere, so that every voxel is plausible.
    inside, share = 8 * 4 * 4, 1 / (1 + np.exp(-0.5))
    mass = inside * share + (volume.size - inside) * (1 - share)
    assert case["confidence"]["expected_dice"] == pytest.approx(2 * inside * share / (inside + mass), rel=1e-3)
