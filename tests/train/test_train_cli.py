import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from tiny_cheng import RECIPE
from typer.testing import CliRunner

from segtool.errors import UsageError
from segtool_train.cli import train


def invoke(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(train)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def test_a_run_prints_one_line_an_epoch_and_ends_with_its_folder(discs: Path, tmp_path: Path):
    recipe = tmp_path / "discs.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    code, out = invoke(str(recipe), "--data", str(discs), "-o", str(tmp_path / "run"), "--limit", "16")
    assert code == 0
    lines = out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 2
    assert all("val dice" in line and line.removesuffix("  best").endswith("s") for line in epochs)
    assert lines[-1].endswith(str(tmp_path / "run"))
    assert lines[-1].startswith("done    best validation Dice ")


def test_what_chose_the_epoch_is_named(discs: Path, tmp_path: Path):
    recipe = tmp_path / "discs.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    options = ("--set", "training.monitor=val_loss", "--epochs", "1", "--no-export", "--no-tensorboard")
    _, out = invoke(str(recipe), "-d", str(discs), "-o", str(tmp_path / "run"), *options)
    assert out.splitlines()[-1].startswith("done    best validation loss in epoch 1, its Dice ")


def test_any_value_of_the_recipe_can_be_set_and_a_flag_goes_before(discs: Path, tmp_path: Path):
    recipe = tmp_path / "discs.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    settings = ("--set", "training.loss=dice", "--set", "training.loss.epsilon=1e-6", "--set", "network.width=2")
    run = tmp_path / "run"
    options = ("--set", "training.epochs=9", "--epochs", "1", "--no-export", "--no-tensorboard")
    code, _ = invoke(str(recipe), "-d", str(discs), "-o", str(run), *settings, *options)
    assert code == 0
    resolved = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    assert resolved["training"]["loss"] == {"name": "dice", "epsilon": 1e-6}
    assert (resolved["training"]["epochs"], resolved["network"]["width"]) == (1, 2)
    assert not (run / "tensorboard").exists()


def test_several_devices_are_for_one_training(discs: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="Leave it out with --sweep"):
        train(discs, "cheng-unet", tmp_path, devices=2, folds=2)


@pytest.mark.parametrize("option", ["--output", "--cache", "--preview"])
def test_nothing_is_written_into_the_data(discs: Path, tmp_path: Path, option: str):
    chosen = {"output": tmp_path, option.removeprefix("--"): discs / "mine"}
    with pytest.raises(UsageError, match=rf"{option} .*taken for scans. Name a place outside"):
        train(discs, "cheng-unet", **chosen)


@pytest.mark.parametrize("seed", [-1, 1 << 40])
def test_a_seed_that_no_generator_takes_is_refused(discs: Path, tmp_path: Path, seed: int):
    with pytest.raises(UsageError, match=r"training\.seed"):
        train(discs, "cheng-unet", tmp_path, seed=seed)


def test_json_alone_on_stdout(discs: Path, tmp_path: Path):
    recipe = tmp_path / "discs.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    run = tmp_path / "run"
    code, out = invoke(str(recipe), "-d", str(discs), "-o", str(run), "--epochs", "1", "--batch", "8", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["best_epoch"] == 1
    assert len(result["epochs"]) == 1


ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from pathlib import Path
from segtool.errors import MissingDependencyError
from segtool_train.cli import train
from segtool_export.cli import export
for command, arguments in ((train, (Path("d"), "cheng-unet", Path("o"))), (export, (Path("r"), Path("m.onnx")))):
    try:
        command(*arguments)
    except MissingDependencyError as error:
        print(error)
"""


def test_without_torch_each_command_answers_with_the_exact_install_line():
    done = subprocess.run([sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("pip install 'segtool[train]'")
    assert lines[1].endswith("pip install 'segtool[export]'")


@pytest.mark.parametrize("module", ["segtool_train.cli", "segtool_export.cli"])
def test_listing_a_command_loads_no_torch(module: str):
    code = f"import sys, {module}; assert not {{'torch', 'lightning', 'onnxruntime', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
