"""What --continue trusts, and what it makes again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from shell import files_below, segtool
from tiny import bright_spec, disc, write_model, write_pictures

from benchmarks import reliability_share
from segtool.atomic import atomic_path, partial_path, remove_abandoned
from segtool.errors import UsageError
from segtool.output_folder import Part, RunIdentity
from segtool.pipeline import PredictOptions, Progress, predict_folder
from segtool.report import CaseResult
from segtool.shared_run import SharedRun

RUN_FILE = ".segtool-run"
REPORTS = {"report.json", "report.csv"}
ROOT = Path(__file__).parent.parent
MINUTE = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "scans", 6)
    return tmp_path / "scans"


def options(model: Path, tmp_path: Path, **changes: object) -> PredictOptions:
    return PredictOptions(model=model, output=tmp_path / "out", threads=1, **changes)


def kill_after(count: int, scans: Path, chosen: PredictOptions) -> None:
    """What is there when a run has been killed behind its ``count``-th case."""
    alone = replace(chosen, output=chosen.output.with_name("complete"), resume=False)
    report = predict_folder([scans], alone)
    run = SharedRun(chosen.output, identity_of(alone.output), Part(), chosen.resume)
    for case in report.cases[:count]:
        for output in case.outputs:
            with atomic_path(chosen.output / output) as temporary:
                temporary.write_bytes((alone.output / output).read_bytes())
        assert run.claim(case.name)
        run.add(case)
    run._file.close()


def identity_of(folder: Path) -> RunIdentity:
    return RunIdentity.from_dict(json.loads((folder / "report.json").read_text()))


@pytest.fixture(autouse=True)
def folder_for_results(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()


def test_a_killed_run_is_gone_on_with_and_leaves_nothing_behind(model: Path, scans: Path, tmp_path: Path) -> None:
    kill_after(4, scans, options(model, tmp_path))
    left = partial_path(tmp_path / "out" / "slice_4.png")
    dead = left.with_name(left.name.replace(f"-{os.getpid()}-", "-4194999-"))
    dead.write_bytes(b"half")
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert report.counts == {"cases": 6, "done": 2, "failed": 0, "skipped": 4}
    assert files_below(tmp_path / "out") == files_below(tmp_path / "complete")
    for path in (tmp_path / "complete").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_continued_run_that_is_killed_is_gone_on_with_too(model: Path, scans: Path, tmp_path: Path) -> None:
    kill_after(2, scans, options(model, tmp_path))
    kill_after(3, scans, options(model, tmp_path, resume=True))
    kill_after(0, scans, options(model, tmp_path, resume=True))
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert [case.status for case in report.cases] == ["skipped"] * 3 + ["done"] * 3


def test_a_killed_run_with_other_options_is_not_gone_on_with(model: Path, scans: Path, tmp_path: Path) -> None:
    kill_after(2, scans, options(model, tmp_path, threshold=0.4))
    with pytest.raises(UsageError, match=r"threshold 0\.4 instead of 0\.5"):
        predict_folder([scans], options(model, tmp_path, threshold=0.5, resume=True))
    other = write_model(tmp_path / "other.onnx", bright_spec(name="other"))
    with pytest.raises(UsageError, match=r"the model bright .* instead of other .*Repeat its options"):
        predict_folder([scans], options(other, tmp_path, threshold=0.4, resume=True))
    assert predict_folder([scans], options(model, tmp_path, threshold=0.4, resume=True)).counts["skipped"] == 2


def test_results_of_a_run_before_the_killed_one_are_made_again(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path, threshold=0.1))
    kill_after(2, scans, options(model, tmp_path, threshold=0.5))
    report = predict_folder([scans], options(model, tmp_path, threshold=0.5, resume=True))
    assert report.counts == {"cases": 6, "done": 4, "failed": 0, "skipped": 2}
    for path in (tmp_path / "complete").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_run_that_begins_anew_trusts_nothing(model: Path, scans: Path, tmp_path: Path) -> None:
    kill_after(5, scans, options(model, tmp_path))
    assert predict_folder([scans], options(model, tmp_path)).counts["done"] == 6


def test_without_any_record_the_files_alone_count(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    for name in ("report.json", "report.csv", "slice_2.png"):
        (tmp_path / "out" / name).unlink()
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert [case.name for case in report.cases if case.status == "done"] == ["slice_2"]


def test_a_result_that_no_report_names_is_made_again(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder(sorted(scans.glob("slice_[0-3].png")), options(model, tmp_path))
    Image.fromarray(np.ones((32, 32), np.uint8)).save(tmp_path / "out" / "slice_4.png")
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert [case.name for case in report.cases if case.status == "done"] == ["slice_4", "slice_5"]


@dataclass(frozen=True)
class Folders:
    scans: Path
    out: Path


def rewrite(path: Path) -> None:
    Image.fromarray(np.where(disc(32, (20, 20), 5), 200, 30).astype(np.uint8)).save(path)
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda f: rewrite(f.scans / "slice_1.png"), ["slice_1"]),
        (lambda f: (f.out / "slice_1.png").unlink(), ["slice_1"]),
        (lambda f: (f.out / "slice_1.png").write_bytes(b""), ["slice_1"]),
        (lambda f: (f.out / "slice_1.png").write_bytes((f.out / "slice_1.png").read_bytes()[:40]), ["slice_1"]),
        (lambda f: (f.out / "slice_1.nii.gz").unlink(), ["slice_1"]),
        (lambda f: (f.out / "slice_1.nii.gz").write_bytes(b""), ["slice_1"]),
        (lambda f: (f.out / "slice_1_probabilities.npz").write_bytes(b""), ["slice_1"]),
        (lambda f: (f.scans / "slice_1_mask.png").unlink(), []),
        (lambda f: (f.out / "report.csv").unlink(), []),
    ],
    ids=["scan", "no-map", "empty", "cut", "no-kind", "empty-kind", "empty-probabilities", "reference", "csv"],
)
def test_what_changed_since_is_made_again_and_nothing_else(
    model: Path, scans: Path, tmp_path: Path, change: Callable[[Folders], object], again: list[str]
) -> None:
    chosen = options(model, tmp_path, formats=("same", "nifti"), save_probabilities=True)
    predict_folder([scans], chosen)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("slice*")}
    change(Folders(scans, tmp_path / "out"))
    report = predict_folder([scans], replace(chosen, resume=True))
    assert [case.name for case in report.cases if case.status == "done"] == again
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("slice*")}
    assert found.keys() == expected.keys()
    differing = {name for name in expected if found[name] != expected[name]}
    assert all(name.startswith("slice_1") for name in differing)
    # What is made again of the same scan has the same bytes.
    scan_is_new = (scans / "slice_1.png").stat().st_mtime == 1_000_000_000
    assert bool(differing) == scan_is_new


def test_a_copy_that_keeps_times_to_the_second_counts_as_the_same(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    for path in scans.iterdir():
        second = int(path.stat().st_mtime)
        os.utime(path, (second, second))
    assert predict_folder([scans], options(model, tmp_path, resume=True)).counts["skipped"] == 6


def test_scans_in_an_archive_are_the_same_however_often_it_is_unpacked(
    model: Path, scans: Path, tmp_path: Path
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "scans"), "zip", scans))
    predict_folder([archive], options(model, tmp_path))
    assert predict_folder([archive], options(model, tmp_path, resume=True)).counts["skipped"] == 6
    (scans / "slice_2.png").write_bytes((scans / "slice_2.png").read_bytes() + b"\0")
    shutil.make_archive(str(tmp_path / "scans"), "zip", scans)
    assert predict_folder([archive], options(model, tmp_path, resume=True)).counts["skipped"] == 5


def test_kept_cases_keep_what_only_their_own_run_could_know(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, tmp_path: Path
) -> None:
    predict_folder([scans], options(model, tmp_path))
    path = tmp_path / "out" / "report.json"
    written = json.loads(path.read_text())
    written["cases"][0] |= {"warnings": ["looks swapped"], "notes": ["a note"], "confidence": {"mean_entropy": 0.25}}
    path.write_text(json.dumps(written))
    kept = predict_folder([scans], options(model, tmp_path, resume=True)).cases[0]
    assert (kept.status, kept.warnings, kept.notes) == ("skipped", ("looks swapped",), ("a note",))
    assert kept.confidence == {"mean_entropy": 0.25}
    assert "looks swapped" in (tmp_path / "out" / "report.csv").read_text()
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out", "--continue")
    assert answer.lines("warning")[0] == "slice_0: looks swapped"


def test_an_interrupted_continue_forgets_nothing(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    (tmp_path / "out" / "slice_0.png").unlink()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder([scans], options(model, tmp_path, resume=True), Progress(on_start=interrupt))
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert report.counts == {"cases": 6, "done": 1, "failed": 0, "skipped": 5}
    assert not list((tmp_path / "out").glob(".*"))


def test_reports_of_parts_with_other_options_are_not_mixed_in(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path, part=(0, 2), threshold=0.4))
    with pytest.raises(UsageError, match=r"report-part-0-of-2\.json says had threshold 0\.4"):
        predict_folder([scans], options(model, tmp_path, threshold=0.5, resume=True))
    assert not list((tmp_path / "out").glob(".*"))
    predict_folder([scans], options(model, tmp_path, threshold=0.5))
    assert not list((tmp_path / "out").glob("report-part*"))


def test_a_killed_part_is_gone_on_with_by_a_whole_run(model: Path, scans: Path, tmp_path: Path) -> None:
    kill_after(3, scans, options(model, tmp_path))
    (tmp_path / "out" / RUN_FILE).rename(tmp_path / "out" / f"{RUN_FILE}-part-0-of-2")
    predict_folder([scans], options(model, tmp_path, part=(1, 2)))
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert report.counts == {"cases": 6, "done": 1, "failed": 0, "skipped": 5}
    assert not list((tmp_path / "out").glob(".*"))


def test_a_row_comes_back_from_json_as_it_was(model: Path, scans: Path, tmp_path: Path) -> None:
    volume = np.full((32, 32, 3), 30, np.int16)
    volume[disc()] = 200
    nib.save(nib.Nifti1Image(volume, np.diag([-1.0, -1, 3, 1])), scans / "volume.nii.gz")
    nib.save(nib.Nifti1Image((volume > 90).astype(np.uint8), np.diag([-1.0, -1, 3, 1])), scans / "volume_seg.nii.gz")
    discs = np.stack([disc(32, (10 + i, 16)) for i in range(3)])
    with h5py.File(scans / "stack.h5", "w") as file:
        file["x"] = np.where(discs, 200, 30).astype(np.uint8)
        file["y"] = discs.astype(np.uint8)
    (scans / "broken.png").write_bytes(b"nothing")
    blank = np.zeros((32, 32), np.uint8)
    Image.fromarray(blank).save(scans / "blank.png")
    Image.fromarray(blank).save(scans / "blank_mask.png")
    report = predict_folder([scans], options(model, tmp_path, formats=("same", "nifti"), soft_metrics=True))
    assert len(report.failures) == 1
    for case in report.cases:
        row = json.loads(json.dumps(case.to_plain()))
        assert CaseResult.from_dict(row).to_plain() == row
    again = replace(report, cases=tuple(CaseResult.from_dict(case.to_plain()) for case in report.cases))
    assert again.to_json() == report.to_json()


# Half-written files


def test_what_a_dead_process_left_half_written_goes_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    mine = partial_path(tmp_path / "a" / "x.nii.gz")
    assert mine.name.endswith("-x.nii.gz")
    assert partial_path(tmp_path / "a" / "x.nii.gz") != mine
    ours = mine.name.split("-")[2]
    names = {
        "mine": mine.name,
        "my number, another process": mine.name.replace(ours[8:], "0" * 8),
        "dead": mine.name.replace(f"-{os.getpid()}-", "-4194999-"),
        "living": mine.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"),
        "of another machine, new": mine.name.replace(f"{ours[:8]}", "0" * 8, 1),
        "of another machine, old": mine.name.replace(f"{ours[:8]}", "1" * 8, 1),
        "of an older version, old": ".partial-7-x.png",
    }
    (tmp_path / "a").mkdir()
    for what, name in names.items():
        if what == "dead":
            (tmp_path / "a" / name).mkdir()
            (tmp_path / "a" / name / "slice_001.png").touch()
        else:
            (tmp_path / "a" / name).touch()
        if what.endswith("old"):
            os.utime(tmp_path / "a" / name, (time.time() - 90 * MINUTE,) * 2)
    (tmp_path / "a" / "kept.png").touch()
    remove_abandoned(tmp_path)
    left = {path.name for path in (tmp_path / "a").iterdir()}
    assert left == {names[what] for what in ("mine", "living", "of another machine, new")} | {"kept.png"}


@pytest.mark.parametrize("name", ["é" * 120 + ".nii.gz", "x" * 248 + ".nii.gz", "a.png"])
def test_long_names_leave_room_for_a_temporary_one(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as temporary:
        assert "".join(temporary.suffixes[-2:]).endswith(".nii.gz" if name.endswith(".gz") else ".png")
        temporary.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"


def test_cases_that_kill_every_process_are_known_in_the_end_and_cost_no_other(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 6, masks=False)
    for name in ("slice_1", "slice_4"):
        (tmp_path / "scans" / f"{name}.png").rename(tmp_path / "scans" / f"spoilt_{name}.png")
    command = [sys.executable, "-m", "benchmarks.faulty_run", "reader-dies", "predict", str(tmp_path / "scans")]
    command += ["-m", str(model), "-o", str(tmp_path / "out"), "--threads", "1"]
    ended = []
    while not ended or ended[-1].returncode == -signal.SIGKILL:
        assert len(ended) < 8
        options = ["--continue"] if ended else []
        ended.append(subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False))
    assert ended[-1].returncode == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for case in report["cases"]:
        if "spoilt" in case["name"]:
            assert "2 processes died while it was all they had in hand" in case["error"]
        else:
            assert case["status"] == "skipped"  # done by a run that died later
    assert "spoilt_slice_1" in next(line for line in ended[1].stderr.splitlines() if "one at a time" in line)
    assert files_below(tmp_path / "out") == {"slice_0.png", "slice_2.png", "slice_3.png", "slice_5.png"} | REPORTS


def test_a_case_in_hand_elsewhere_is_not_suspected(model: Path, scans: Path, tmp_path: Path) -> None:
    chosen = options(model, tmp_path)
    predict_folder([scans], replace(chosen, output=tmp_path / "complete"))
    run, other = (SharedRun(chosen.output, identity_of(tmp_path / "complete"), Part(), resume=False) for _ in range(2))
    assert run.claim("a")
    run.begin("a", alone=False)
    other.refresh()
    assert not other.suspected
    run.release("a")
    assert other.claim("a")
    assert other.deaths_with("a") == 0
    other.begin("a", alone=True)
    other.release("a")
    run.refresh()
    assert run.deaths_with("a") == 1
    assert run.deaths_with("b") is None
    run.leave(None, finished=False)
    other.leave(None, finished=False)


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    reliability_share.write_model(tmp_path / "bright.onnx")
    found = reliability_share._kills(tmp_path, cases=8, kills=1)
    assert (found["kills"], found["lost"]) == (1, 0)
