"""``segtool train`` with ``--preview``, ``--sweep`` and ``--folds``."""

import json
from pathlib import Path

import pytest
import typer
from tiny_cheng import RECIPE
from typer.testing import CliRunner

from segtool.errors import UsageError
from segtool_train.cli import train

QUICK = ("--epochs", "1", "--device", "cpu", "--no-export", "--no-tensorboard")


def invoke(*arguments: str | Path) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(train)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "discs.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "discs.toml"


def test_a_preview_draws_and_trains_nothing(discs: Path, recipe: Path, tmp_path: Path):
    code, out = invoke(recipe, "-d", discs, "--preview", tmp_path / "seen.png")
    assert code == 0
    assert out.splitlines()[-1].endswith("seen.png")
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["discs.toml", "seen.png"]


def test_a_sweep_prints_its_table_and_says_by_its_exit_code_that_a_trial_failed(
    discs: Path, recipe: Path, tmp_path: Path
):
    text = 'recipe = "discs.toml"\n[grid]\n"network.depth" = [3, 6]\n'
    (tmp_path / "sweep.toml").write_text(text, encoding="utf-8")
    code, out = invoke("--sweep", tmp_path / "sweep.toml", "-d", discs, "-o", tmp_path / "out", *QUICK)
    assert code == 1
    lines = out.splitlines()
    assert lines[-1].startswith("done    1 of 2 trials")
    assert lines[-1].endswith("sweep.md")
    assert any(line.startswith("| 0 | 3 |") for line in lines)
    assert any(line.startswith("- trial 1: ") for line in lines)
    code, out = invoke(
        "--sweep", tmp_path / "sweep.toml", "-d", discs, "-o", tmp_path / "out", *QUICK, "--resume", "--json"
    )
    assert code == 1
    facts = json.loads(out)
    assert [trial["state"] for trial in facts["trials"]] == ["done", "failed"]


@pytest.mark.parametrize("mode", [("--sweep", "cheng-table1"), ("cheng-unet", "--folds", "2")])
def test_several_processes_are_refused_before_anything_is_written(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: tuple[str, ...]
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"WORLD_SIZE or --devices is 2\. Start segtool itself, not torchrun"):
        invoke(*mode, "-d", discs, "-o", tmp_path / "out", *QUICK[2:])
    assert not (tmp_path / "out").exists()


def test_folds_end_with_mean_and_spread(discs: Path, recipe: Path, tmp_path: Path):
    code, out = invoke(recipe, "--folds", "2", "-d", discs, "-o", tmp_path / "out", *QUICK, "--json")
    assert code == 0
    facts = json.loads(out)
    first, second = (row["dice"] for row in facts["folds"])
    assert facts["mean"]["dice"] == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--folds", "2"), "Name the folder of the run"),
        (("-o", "out"), "Name a shipped recipe"),
        (("-o", "out", "--sweep", "a", "--folds", "2"), "Give one of them"),
        (("-o", "out", "--sweep", "cheng-table1", "--lr", "1"), "Leave that option out"),
        (("-o", "out", "--folds", "2", "--test-fold", "5"), "Give one of them"),
        (("-o", "out", "--test"), "Leave it out: the card"),
    ],
)
def test_what_does_not_go_together_says_so(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], remedy: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=remedy):
        invoke("-d", discs, *arguments)
