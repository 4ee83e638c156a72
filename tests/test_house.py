"""Tests of the house itself: what may be imported, what the commands say, what the wheel holds."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from segtool.cli import COMMANDS, PLUGINS

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch", "monai", "lightning", "tensorrt", "onnx", "onnxruntime", "openvino", "scipy", "nibabel", "pydicom",
    "h5py", "PIL", "numpy", "pydantic", "rich",
)  # fmt: skip
ALL_COMMANDS = (*COMMANDS, *PLUGINS)


def python(code: str) -> str:
    """What ``code`` prints in a Python of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def segtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "segtool", *arguments], capture_output=True, text=True, check=False)


def test_importing_the_command_line_loads_no_heavy_package() -> None:
    loaded = python(f"import sys, segtool.cli; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_predicting_never_loads_a_training_library() -> None:
    loaded = python(
        "import sys, segtool.pipeline, segtool.api, segtool.backends.onnx_runtime, segtool.evaluation, segtool.phantom;"
        "print([m for m in ('torch', 'monai', 'lightning', 'onnx', 'tensorrt', 'pickle5') if m in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_inference_never_unpickles() -> None:
    words = re.compile(r"\b(import pickle|pickle\.load|torch\.load|allow_pickle=True|joblib|marshal)\b")
    found = [path.name for path in (ROOT / "segtool").rglob("*.py") if words.search(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command: str) -> None:
    result = segtool(command, "--help")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) > 5
    assert f"segtool {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_help_lists_every_command() -> None:
    listed = segtool("--help").stdout
    for command in ALL_COMMANDS:
        assert re.search(rf"^  {command} ", listed, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("predict", "no-such-folder"), 2, "no-such-folder"),
        (("predict", ".", "--device", "tpu"), 2, "Choose one of: auto, cpu, cuda"),
        (("predict", ".", "--threshold", "2"), 2, "between 0 and 1"),
        (("predict", ".", "--channel", "t1ce"), 2, "NAME=PATTERN"),
        (("predict", ".", "-m", "no-such-model"), 2, "no bundled model"),
        (("frobnicate",), 2, "No such command"),
        (("train", "no-such-recipe", "--data", ".", "-o", "../run"), 2, "cheng-lite0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: tuple[str, ...], code: int, said: str) -> None:
    result = segtool(*arguments)
    assert result.returncode == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_the_wheel_holds_the_three_packages_the_model_its_card_and_the_recipes(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; pip install 'segtool[dev]'")
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    models = [path.stem for path in (ROOT / "segtool" / "models").glob("*.onnx")]
    assert models
    recipes = [path.name for path in (ROOT / "train" / "recipes").glob("*.toml")]
    assert {
        "segtool/cli.py",
        "segtool/py.typed",
        "segtool_train/cli.py",
        "segtool_train/py.typed",
        "segtool_export/cli.py",
        *(f"segtool/models/{model}.onnx" for model in models),
        *(f"segtool/models/{model}.md" for model in models),
        *(f"segtool_train/recipes/{recipe}" for recipe in recipes),
    } <= names
    assert not [name for name in names if name.startswith("tests")]


def test_no_file_of_the_repository_is_larger_than_a_model_may_be() -> None:
    models = list((ROOT / "segtool" / "models").glob("*.onnx"))
    assert all(model.stat().st_size <= 16 * 10**6 for model in models)


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    from segtool.demo_folder import write_demo_folder

    write_demo_folder(tmp_path / "segtool-demo" / "scans", seed=0)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    dice, shape = done.stdout.splitlines()
    assert float(dice) >= 0.7
    assert shape == "(160, 160, 24) LPS"


def test_the_readme_has_no_unfilled_block() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "@@" not in readme
    assert not re.search(r"<!-- (run|results): .+? -->\n<!-- end -->", readme)


def test_every_card_states_its_models_checksum_and_measured_dice() -> None:
    import json

    from segtool.model_file import read_spec, sha256

    measured = json.loads((ROOT / "benchmarks" / "results" / "bundled_model.json").read_text())
    models = list((ROOT / "segtool" / "models").glob("*.onnx"))
    assert models
    for model in models:
        spec = read_spec(model)
        card = (ROOT / "model_cards" / f"{model.stem}.md").read_text(encoding="utf-8")
        assert sha256(model) in card
        assert measured["model"] == spec.name
        assert spec.provenance["metrics"]["test"]["dice"] == measured["test"]["all"]["dice"]
        assert f"{measured['test']['all']['dice']:.4f}" in card
