import json

import pytest
import typer
from tiny import bright_spec, write_model
from typer.testing import CliRunner

from segtool import bundled
from segtool.commands.models import models
from segtool.errors import ModelError


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An installation with two bundled models, one of them with a card and a test Dice."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(bundled, "MODELS_FOLDER", folder)
    monkeypatch.setattr(bundled, "CARDS_FOLDERS", (folder, tmp_path / "model_cards"))
    measured = {"metrics": {"test": {"dice": 0.8312}}}
    write_model(folder / "bright.onnx", bright_spec(version="3", provenance=measured))
    write_model(folder / "dim.onnx", bright_spec(name="dim"))
    (folder / "bright.md").write_text("# Bright\n\nÜber alles, was hell ist.\n", encoding="utf-8")
    return folder


def run(*arguments):
    app = typer.Typer()
    app.command()(models)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_list_has_name_version_input_labels_and_test_dice(shelf):
    heading, bright, dim, hint = run().splitlines()
    assert heading.split() == ["name", "version", "MB", "input", "labels", "test", "Dice"]
    assert bright.split() == ["bright", "3", "0.0", "t1ce", "2D", "32x32", "tumour", "0.831"]
    assert dim.split()[-1] == "-"
    assert "segtool models NAME" in hint


def test_the_list_as_json(shelf):
    first, second = json.loads(run("--json"))
    assert (first["name"], first["test_dice"], first["labels"]) == ("bright", 0.8312, ["tumour"])
    assert second["test_dice"] is None
    assert first["bytes"] == (shelf / "bright.onnx").stat().st_size


def test_a_name_prints_its_card(shelf):
    assert run("bright") == "# Bright\n\nÜber alles, was hell ist.\n"


def test_a_name_as_json_prints_the_whole_spec(shelf):
    facts = json.loads(run("bright", "--json"))
    assert facts["spec"]["channels"][0]["aliases"] == ["t1c", "t1gd"]
    assert len(facts["sha256"]) == 64


def test_a_model_without_a_card_says_where_its_spec_is(shelf):
    with pytest.raises(ModelError, match="segtool inspect"):
        run("dim")


def test_an_installation_without_models_says_what_to_do(shelf):
    for file in shelf.iterdir():
        file.unlink()
    assert "--model" in run()
    with pytest.raises(ModelError, match="--model"):
        bundled.default_model()


def test_the_default_model_is_the_first_by_name(shelf):
    assert bundled.default_model() == shelf / "bright.onnx"


def test_a_model_is_found_by_name_and_by_path(shelf):
    assert bundled.find_model("dim") == shelf / "dim.onnx"
    assert bundled.find_model(shelf / "dim.onnx") == shelf / "dim.onnx"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("brigt", r"'brigt'\. Known: bright \(nearest\), dim; or give an \.onnx file"),
        ("zzz", r"Known: bright, dim"),
        ("weights/dim.onnx", r"no such file\. Check the path, or name a bundled model \(dim \(nearest\)"),
        ("dim.onnx", r"no such file"),
        (".", r"a folder, wanted a model"),
    ],
)
def test_an_unknown_model_lists_the_known_ones_nearest_first(shelf, tmp_path, monkeypatch, asked, answer):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=answer):
        bundled.find_model(asked)
