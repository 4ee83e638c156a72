import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from finished_run import Finished
from safetensors.torch import load_file
from tiny_cheng import RECIPE
from typer.testing import CliRunner

from segtool.errors import UsageError
from segtool.model_file import read_spec, sha256
from segtool_export.cli import export
from segtool_export.weights import RunWeights
from segtool_train.cli import train


def invoke(*arguments: object, command: Callable[..., None] = export) -> list[str]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    shutil.copytree(
        finished.run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "model.onnx", "card.md")
    )
    return tmp_path / "run"


def test_the_model_goes_into_the_run_where_nothing_else_is_said(run: Path):
    assert invoke(run)[-1] == f"done    {run / 'model.onnx'}"
    assert (run / "model.onnx").is_file()


def test_the_file_of_the_best_weights_stands_for_the_run(run: Path, tmp_path: Path):
    invoke(run / "best.safetensors", "-o", tmp_path / "best.onnx")
    assert "learnt" in read_spec(tmp_path / "best.onnx").provenance


def test_the_checkpoint_gives_the_last_epochs_weights(run: Path, tmp_path: Path):
    invoke(run / "last.ckpt", "-o", tmp_path / "last.onnx")
    provenance = read_spec(tmp_path / "last.onnx").provenance
    assert provenance["validation"] == {"epoch": 12}
    assert "learnt" not in provenance  # that was chosen for the best weights
    state, best = RunWeights.at(run / "last.ckpt").network().state_dict(), load_file(run / "best.safetensors")
    assert not all(torch.equal(state[key], best[key]) for key in best)


def test_exporting_a_finished_run_again_keeps_figures_and_card_true(finished: Finished, tmp_path: Path):
    shutil.copytree(finished.run, tmp_path / "run")
    lines = invoke(tmp_path / "run", "--opset", 16, "--json")
    checksum = json.loads(lines[-1])["sha256"]
    assert checksum == sha256(tmp_path / "run" / "model.onnx") != sha256(finished.run / "model.onnx")
    assert "metrics" in read_spec(tmp_path / "run" / "model.onnx").provenance
    assert checksum in (tmp_path / "run" / "card.md").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "run" / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert report["model_sha256"] == checksum


@pytest.mark.parametrize("more", [("--min-component-share", "0.1"), ()])
def test_another_model_than_the_cards_wants_a_name_of_its_own(finished: Finished, more: tuple[str, ...]):
    which = finished.run if more else finished.run / "last.ckpt"
    with pytest.raises(UsageError, match="Name a file with -o"):
        invoke(which, *more)


def test_the_card_of_earlier_weights_goes(finished: Finished, tmp_path: Path):
    shutil.copytree(finished.run, tmp_path / "run")
    results = tmp_path / "run" / "evaluation" / "results.json"
    stored = json.loads(results.read_text(encoding="utf-8")) | {"weights_sha256": "0" * 64}
    results.write_text(json.dumps(stored), encoding="utf-8")
    invoke(tmp_path / "run")
    assert not (tmp_path / "run" / "card.md").exists()


def test_another_file_is_refused(run: Path):
    with pytest.raises(UsageError, match=r"best\.safetensors or last\.ckpt"):
        invoke(run / "metrics.csv")


def test_a_folder_called_like_a_model_is_refused_before_any_work(tmp_path: Path):
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(UsageError, match=r"is a folder\. Name a file in it"):
        invoke(tmp_path / "no-run", "-o", tmp_path / "x.onnx")


def test_card_finishes_a_run(run: Path):
    facts = json.loads(invoke(run, "--card", "--no-learn", "--json")[-1])
    assert facts["side"] == "test"
    assert (run / "card.md").is_file()


def test_a_card_is_of_one_fold(tmp_path: Path):
    (tmp_path / "fold-0").mkdir()
    with pytest.raises(UsageError, match=r"holds 1 folds\. Give .*fold-0"):
        invoke(tmp_path, "--card")


def test_training_ends_with_the_card_unless_told_not_to(discs: Path, tmp_path: Path):
    recipe = tmp_path / "discs.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    lines = invoke(recipe, "-d", discs, "-o", tmp_path / "run", "--epochs", 1, "--device", "cpu", command=train)
    words = [line.split()[0] for line in lines]
    assert words.index("epoch") < words.index("export") < words.index("card") < words.index("done") == len(words) - 1
    assert (tmp_path / "run" / "card.md").is_file()
    invoke(recipe, "-d", discs, "-o", tmp_path / "bare", "--epochs", 1, "--no-export", command=train)
    assert not (tmp_path / "bare" / "model.onnx").exists()


@pytest.mark.parametrize("more", [("-o", "x.onnx"), ("--cases", "."), ("--min-component-share", "0.1")])
def test_card_stands_alone(run: Path, more: tuple[str, ...]):
    with pytest.raises(UsageError, match="Give the folder and --card alone"):
        invoke(run, "--card", *more)


def test_folds_are_exported_side_by_side_with_the_command_that_averages_them(run: Path, tmp_path: Path):
    for number in (0, 1):
        shutil.copytree(run, tmp_path / "folds" / f"fold-{number}")
    (tmp_path / "folds" / "fold-table").mkdir()
    models = [tmp_path / "folds" / f"fold-{number}" / "model.onnx" for number in (0, 1)]
    lines = invoke(tmp_path / "folds")
    assert lines[-1] == f"ensemble  segtool predict SCANS -m {models[0]} -m {models[1]}"
    assert all(model.is_file() for model in models)


def test_folds_that_are_not_trained_yet_are_named(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "folds" / "fold-0")
    (tmp_path / "folds" / "fold-1").mkdir()
    with pytest.raises(UsageError, match=r"fold-1: holds no trained weights \(1 of 2 folds\)"):
        invoke(tmp_path / "folds")
    assert not (tmp_path / "folds" / "fold-0" / "model.onnx").exists()


def test_folds_do_not_go_into_one_file(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "folds" / "fold-0")
    with pytest.raises(UsageError, match="Leave --output out"):
        invoke(tmp_path / "folds", "-o", tmp_path / "x.onnx")


def test_another_precision_goes_beside_the_model_and_predict_names_it(run: Path, discs: Path, tmp_path: Path):
    lines = invoke(run, "--precision", "fp16", "--triton", tmp_path / "triton", "--bundle")
    path = run / "model-fp16.onnx"
    assert lines[-1] == f"done    {path}"
    assert lines[0].startswith("model   discs   opset 17   fp16")
    assert any("Dice to the reference" in line for line in lines)
    assert (run / "metadata.json").is_file()
    assert (tmp_path / "triton" / "discs" / "1" / "model.onnx").is_file()
    said = CliRunner().invoke(predict_app(), [str(discs / "images"), "-m", str(path), "-o", str(tmp_path / "labels")])
    assert "onnxruntime" in said.output
    assert "fp16" in said.output
    assert not (run / "model.onnx").exists()


def predict_app() -> typer.Typer:
    from segtool.commands.predict import predict

    app = typer.Typer()
    app.command()(predict)
    return app


def test_an_exported_file_is_given_another_precision_without_its_run(run: Path, discs: Path, tmp_path: Path):
    invoke(run)
    options = ("--precision", "int8", "--calibration", "minmax", "--cases", discs / "images", "--json")
    facts = json.loads(invoke(run / "model.onnx", "-o", tmp_path / "int8.onnx", *options)[-1])
    assert (facts["precision"], facts["calibration"]) == ("int8", "minmax")
    assert facts["parity"]["against"] == "onnxruntime fp32"
    assert facts["tried"][-1]["passed"]
    assert read_spec(tmp_path / "int8.onnx").provenance["export"]["precision"] == "int8"


@pytest.mark.parametrize(
    ("which", "more", "remedy"),
    [
        ("run", ("--spec", "spec.toml"), "Leave --spec out"),
        ("run", ("--calibrate", "."), "leave --calibrate out"),
        ("model.onnx", (), "Name a file with -o"),
        ("model.onnx", ("-o", "other.onnx", "--opset", 16), "Leave --opset out"),
        ("model.onnx", ("-o", "model.onnx"), "Name another"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, more: tuple[object, ...], remedy: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=remedy):
        invoke(which, *more)


def test_an_operator_set_that_nothing_writes_is_refused(run: Path):
    app = typer.Typer()
    app.command()(export)
    result = CliRunner().invoke(app, [str(run), "--opset", "99"])
    assert result.exit_code == 2
    assert "--opset" in result.output
    assert "20" in result.output
