"""Sweeps that train: tiny networks, one or two epochs each."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_cheng import RECIPE, write_cheng

from segtool.errors import CaseError, UsageError, UserError
from segtool_train.recipe import Recipe, parse_recipe
from segtool_train.sweep.plan import Search, Sweep
from segtool_train.sweep.run import SweepOutcome, run_sweep
from segtool_train.sweep.trial import Trial
from segtool_train.training import Options, train_run

SHARED = {"training.epochs": 1}


def read(values: dict[str, Any]) -> Recipe:
    return parse_recipe(RECIPE, "discs", "discs.toml", values)


def swept(discs: Path, folder: Path, log: list[str] | None = None, **changes: Any) -> SweepOutcome:
    options = Options(discs, folder, device="cpu", resume=changes.pop("resume", False), tensorboard=False)
    lines = [] if log is None else log
    test = changes.pop("test", False)
    return run_sweep(Sweep(recipe="discs", **{"set": SHARED, **changes}), read, options, lines.append, test=test)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "sweep.csv").read_text(encoding="utf-8").splitlines()))


def test_a_trial_that_fails_is_a_row_and_the_others_are_trained_and_tested(discs: Path, tmp_path: Path):
    # Five halvings do not fit a recipe that promises sizes divisible by 4.
    outcome = swept(discs, tmp_path, grid={"network.depth": [6, 3], "network.width": [2]}, test=True)
    assert [trial.state for trial in outcome.trials] == ["failed", "done"]
    assert outcome.failed == 1
    failed, done = table(tmp_path)
    assert failed["state"] == "failed"
    assert "divisor" in failed["error"]
    assert "\n" not in failed["error"]
    assert failed["val_dice"] == ""
    assert (done["network.depth"], done["network.width"], done["best_epoch"], done["error"]) == ("3", "2", "1", "")
    for side in ("val", "test"):
        assert 0 <= float(done[f"{side}_dice"]) <= 1
    assert "| 1 | 3 | 2 |" in (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert (tmp_path / "trial-001" / "best.safetensors").is_file()
    assert (tmp_path / "cache").is_dir()  # one for all
    assert not (tmp_path / "trial-001" / "cache").exists()


def test_a_bug_that_one_trial_meets_does_not_end_the_others(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(recipe: Recipe, options: Options, log: Any) -> Any:
        if recipe.training.lr == 1e-2:
            raise ZeroDivisionError("float division\nby zero")
        return train_run(recipe, options, log)

    monkeypatch.setattr("segtool_train.sweep.run.train_run", broken)
    outcome = swept(discs, tmp_path, grid={"training.lr": [1e-2, 1e-3]})
    assert [trial.state for trial in outcome.trials] == ["failed", "done"]
    assert outcome.trials[0].error.startswith("ZeroDivisionError: float division by zero (an error of segtool")
    assert "Traceback" in (tmp_path / "trial-000" / "error.txt").read_text(encoding="utf-8")


def test_a_finished_sweep_is_kept_and_a_changed_one_refused(discs: Path, tmp_path: Path):
    rows = [{"training.lr": 1e-2}]
    first = swept(discs, tmp_path, trials=rows)
    with pytest.raises(UsageError, match="Pass --resume"):
        swept(discs, tmp_path, trials=rows)
    lines: list[str] = []
    again = swept(discs, tmp_path, lines, trials=rows, resume=True)
    assert again.trials == first.trials
    assert not any(line.startswith("epoch") for line in lines)
    for changes in ({"trials": [{"training.lr": 1e-3}]}, {"trials": rows, "set": {"training.epochs": 2}}):
        with pytest.raises(UsageError, match="Resume with the same sweep"):
            swept(discs, tmp_path, resume=True, **changes)


class Killed(BaseException):
    """Stands for a power cut."""


def test_an_interrupted_trial_goes_on_and_ends_like_an_uninterrupted_one(discs: Path, tmp_path: Path):
    plan = Sweep(recipe="discs", set={"training.epochs": 2}, trials=({"training.lr": 1e-2},))

    def power_cut(line: str) -> None:
        if line.startswith("epoch 1"):
            raise Killed

    with pytest.raises(Killed):
        run_sweep(plan, read, Options(discs, tmp_path / "cut", device="cpu", tensorboard=False), power_cut)
    lines: list[str] = []
    outcomes = []
    for name, log in (("cut", lines), ("whole", [])):
        options = Options(discs, tmp_path / name, device="cpu", resume=True, tensorboard=False)
        outcomes.append(run_sweep(plan, read, options, log.append))
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["2/2"]
    cut, whole = (outcome.trials[0] for outcome in outcomes)
    assert (cut.curve, cut.validation, cut.best_epoch) == (whole.curve, whole.validation, whole.best_epoch)


def test_a_search_prunes_a_poor_trial_and_resumes_to_the_same_table(discs: Path, tmp_path: Path):
    space = {"training.lr": {"choices": (1e-2, 1e-9)}}
    search = Search(trials=2, space=space, startup=1, prune=True, warmup=0, seed=2)  # draws the good rate first
    Trial(1, {"training.lr": 1e-9}, "started").write(tmp_path)  # at this rate nothing is learnt
    outcome = swept(discs, tmp_path, optuna=search, set={"training.epochs": 3})
    assert [trial.values["training.lr"] for trial in outcome.trials] == [1e-2, 1e-9]
    assert [trial.state for trial in outcome.trials] == ["done", "pruned"]
    assert len(outcome.trials[1].curve) < 3
    assert outcome.failed == 0
    again = swept(discs, tmp_path, optuna=search, set={"training.epochs": 3}, resume=True)
    assert again.trials == outcome.trials


def test_what_no_trial_can_do_is_said_before_the_first_one(discs: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"no key .training\.rate."):
        swept(discs, tmp_path, grid={"training.rate": [1, 2]})
    with pytest.raises(UsageError, match=r"Set \[data.split\] test"):
        shared = {"data.split.test_fold": None}
        swept(discs, tmp_path, grid={"training.lr": [1e-2]}, set=shared, test=True)
    search = Search(trials=1, space={"training.lr": {"low": 1e-3, "high": 1e-2}})
    with pytest.raises(UsageError, match=r"Raise \[data.split\] validation"):
        swept(discs, tmp_path, optuna=search, set={"data.split.validation": 0})
    assert not list(tmp_path.iterdir())


NOBODY_CAN: dict[str, tuple[dict[str, Any], str]] = {
    "the folder is not there": ({"data": Path("nowhere")}, "nowhere: no such folder"),
    "the folder holds no such set": ({"data": Path()}, "layout 'cheng' wants"),
    "the weights are not there": ({"init": Path("nowhere.pt")}, "Give a .safetensors file"),
    "the package is not there": ({"mlflow": "x:"}, r"segtool\[mlflow\]|sqlite:///runs.db"),
}


@pytest.mark.parametrize("reason", NOBODY_CAN)
def test_what_stops_all_trials_stops_the_sweep_and_writes_no_rows(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
):
    monkeypatch.chdir(tmp_path)
    changes, said = NOBODY_CAN[reason]
    options = Options(**{"data": discs, "run": tmp_path / "out", "device": "cpu", "tensorboard": False, **changes})
    plan = Sweep(recipe="discs", set=SHARED, grid={"training.lr": [1e-2, 1e-3]})
    with pytest.raises(UserError, match=said):
        run_sweep(plan, read, options, lambda _line: None)
    assert not (tmp_path / "out").exists()


def test_a_corrupt_file_stops_the_sweep_once_and_is_skipped_on_request(tmp_path: Path):
    data = write_cheng(tmp_path / "data", size=32)
    (data / "images" / "0003.png").write_bytes(b"no picture")
    plan = Sweep(recipe="discs", set=SHARED, grid={"training.lr": [1e-2, 1e-3], "network.width": [2]})
    options = Options(data, tmp_path / "out", device="cpu", tensorboard=False)
    with pytest.raises(CaseError, match=r"1 of 20 cases cannot be used.*0003\.png.*--skip-broken"):
        run_sweep(plan, read, options, lambda _line: None)
    assert not list((tmp_path / "out").glob("trial-*"))
    assert not (tmp_path / "out" / "sweep.csv").exists()
    outcome = run_sweep(plan, read, replace(options, skip_broken=True), lambda _line: None)
    assert [trial.state for trial in outcome.trials] == ["done", "done"]


def test_what_stops_one_trial_alone_is_its_row(discs: Path, tmp_path: Path):
    """The first network has no encoder to train slowly, and the first split nobody for early stopping."""
    rows = [
        {"training.encoder_lr": 1e-4},
        {"data.split.validation": 0, "training.early_stopping": {"patience": 1}},
        {"network.width": 2},
    ]
    outcome = swept(discs, tmp_path, trials=rows)
    assert [trial.state for trial in outcome.trials] == ["failed", "failed", "done"]
    first, second = (trial.error for trial in outcome.trials[:2])
    assert "its network has no encoder" in first
    assert "nobody validates in this split" in second


def test_a_finished_sweep_needs_its_data_no_more_than_to_list_them(discs: Path, tmp_path: Path):
    rows = [{"network.width": 2}]
    first = swept(discs, tmp_path, trials=rows)
    shutil.rmtree(tmp_path / "cache")
    assert swept(discs, tmp_path, trials=rows, resume=True) == first
    assert not (tmp_path / "cache").exists()


def test_a_trial_file_tells_what_was_set(discs: Path, tmp_path: Path):
    swept(discs, tmp_path, trials=[{"training.lr": 0.02}])
    stored = json.loads((tmp_path / "trial-000" / "trial.json").read_text(encoding="utf-8"))
    assert stored["values"] == {"training.lr": 0.02}
    assert stored["state"] == "done"
