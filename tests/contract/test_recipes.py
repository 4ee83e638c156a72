"""What every shipped recipe must do, and what the publications say of each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import segtool
from tiny_training_sets import TRAINING_SETS
from training_fixtures import one_thread  # noqa: F401 - a fixture of all tests here

from segtool.case import CaseSource, Source
from segtool.formats import SUFFIXES, get_format, suffix_of
from segtool.model_file import read_spec
from segtool.scan import scan
from segtool.scores import structures_of
from segtool.spec import ModelSpec
from segtool_train.data.listing import listed
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface
from segtool_train.recipe import find_recipe, read_recipe, shipped_recipes
from segtool_train.run_folder import RunFolder


@dataclass(frozen=True)
class Row:
    """A recipe and what makes it small enough for a test; all else is as shipped.

    Args:
        smaller: Settings of the command line that shrink network and input.
        parameters: Published number of weights that learn; None where none is published.
    """

    smaller: tuple[str, ...]
    parameters: int | None = None


NARROW = "network.width=4"
SLICE = (NARROW, "spec.input.size=[32,32]")
# The least encoder of the family, as wide as it is; the way up is thin.
RESNET = ("spec.input.size=[64,64]", "network.encoder_name=resnet18", "network.pretrained=false")

ROWS = {
    "brats2d-attention": Row(SLICE),
    "brats2d-residual": Row(SLICE),
    "brats2d-unet": Row(SLICE),
    "brats3d-light": Row((NARROW, "spec.input.patch=[8,8,8]"), 340_596),
    "brats3d-4level": Row((NARROW, "spec.input.patch=[16,16,16]"), 2_867_956),
    "brats3d-4level-wide": Row((NARROW, "spec.input.patch=[16,16,16]"), 11_465_188),
    # A level less: instance norms over the few voxels of a tiny bottom make much out of rounding, and parity is exact.
    "brats3d-5level": Row((NARROW, "network.depth=4", "spec.input.patch=[16,16,16]"), 11_536_756),
    "brats3d-5level-wide": Row((NARROW, "network.depth=4", "spec.input.patch=[16,16,16]"), 46_137_060),
    "brats3d-whole": Row((NARROW, "spec.input.patch=[8,8,8]")),
    "cheng-attention": Row(SLICE),
    "cheng-lite0": Row(
        ("spec.input.size=[64,64]", "network.decoder_channels=[16,8,8,8,4]", "network.pretrained=false")
    ),
    "cheng-residual": Row(SLICE),
    "cheng-resnet34": Row((*RESNET, "network.decoder_channels=[16,8,8,8,4]")),
    "cheng-unet": Row(SLICE),
    "coco-resnet50": Row((*RESNET, "network.widths=[16,8,8,4,4]")),
    "coco-unet": Row(SLICE),
    "hdf5-unet": Row(SLICE, 31_036_353),
    "progression3d-light": Row((NARROW, "spec.input.patch=[8,8,8]")),
}


def test_every_shipped_recipe_has_a_row():
    assert set(ROWS) == set(shipped_recipes())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny set in a layout, written once however many recipes train on it."""
    folders: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in folders:
            folders[layout] = tmp_path_factory.mktemp(layout)
            TRAINING_SETS[layout](folders[layout])
        return folders[layout]

    return write


@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_trains_exports_measures_and_predicts_in_its_layout(
    name: str, written: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = read_recipe(find_recipe(name))
    data, run, out = written(recipe.data.layout), tmp_path / "run", tmp_path / "out"
    trained = train(capsys, name, data, run)
    assert trained["best_epoch"] == 1
    spec = read_spec(run / "model.onnx")
    assert spec.provenance["recipe"] == name
    split = RunFolder(run).read_split()
    assert split.train
    held_out = split.test or split.validation
    measured = json.loads((run / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert {case["name"] for case in measured["cases"]} == set(held_out)
    assert measured["counts"]["done"] == len(held_out)
    assert (run / "card.md").read_text(encoding="utf-8").startswith(f"# {recipe.spec.name}\n")

    answer = segtool(capsys, "predict", data, "-m", run / "model.onnx", "-o", out, "--device", "cpu", "--json")
    assert answer.code == 0, answer.err
    report = json.loads(answer.out)
    items = listed(recipe, data).items
    assert report["counts"] == {"cases": len(items), "done": len(items), "failed": 0, "skipped": 0}
    assert set(report["summary"]) == {structure.name for structure in structures_of(spec)}
    assert {one["n_with_reference"] for one in report["summary"].values()} == {len(items)}
    for source in scan([data], spec).cases:
        check_label_map(source, out, spec)


def train(capsys: pytest.CaptureFixture[str], name: str, data: Path, run: Path) -> dict[str, Any]:
    """One epoch of the recipe made small, through the command line; what ``--json`` says."""
    smaller = [part for setting in ROWS[name].smaller for part in ("--set", setting)]
    options = ("--epochs", 1, "--batch", 2, "--precision", "fp32", "--device", "cpu", "--no-tensorboard", "--json")
    answer = segtool(capsys, "train", name, "--data", data, "-o", run, *smaller, *options)
    assert answer.code == 0, answer.err
    facts: dict[str, Any] = json.loads(answer.out)
    return facts


def check_label_map(source: CaseSource, out: Path, spec: ModelSpec) -> None:
    """It is a file of the scan's kind, on the scan's grid, and holds the model's values."""
    kind = get_format(source.first.format)
    path = out / f"{source.output_stem}{kind.output_suffix(source.first)}"
    assert SUFFIXES[suffix_of(path)] == source.first.format
    label_map = kind.read_labels(Source(kind.name, (path,)))
    assert label_map is not None
    grid = kind.describe(source.first).geometry
    assert (label_map.geometry.kind, label_map.geometry.shape) == (grid.kind, grid.shape)
    np.testing.assert_allclose(label_map.geometry.affine, grid.affine, atol=1e-5)
    assert set(np.unique(label_map.labels)) <= {0, *(label.value for label in spec.labels)}


@pytest.mark.parametrize("name", ROWS)
def test_the_network_as_shipped_answers_on_its_input_and_has_the_published_weights(name: str):
    recipe = read_recipe(find_recipe(name))
    spec = recipe.spec
    extent = spec.input.size if spec.input.rank == 2 else spec.input.patch
    with torch.device("meta"):
        network = get_network(recipe.network.name, recipe.network.options).build(Interface.of(spec))
        logits = network(torch.empty(2, len(spec.channels), *extent))
    assert logits.shape == (2, spec.output_channels, *extent)
    wanted = ROWS[name].parameters
    assert wanted in (None, sum(weight.numel() for weight in network.parameters()))


SYSTEMS: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "A": (
        "cheng-unet",
        {"loss": {"name": "bce"}, "optimiser": "adam", "lr": 1e-5, "epochs": 200, "batch": 8},
        {"flip_horizontal": 0.5, "flip_vertical": 0.5},
    ),
    "B": (
        "coco-",
        {"loss": {"name": "bce"}, "optimiser": "adam", "lr": 1e-3, "epochs": 25, "batch": 32, "monitor": "val_loss"},
        {},
    ),
    "C": (
        "brats3d-",
        {
            "loss": {"name": "ce_dice"},
            "optimiser": "adamw",
            "lr": 5e-4,
            "weight_decay": 5e-4,
            "schedule": {"name": "plateau", "factor": 0.5, "patience": 2, "floor": 1e-6},
            "checkpoint_every": 5,
            "monitor": "val_dice",
        },
        {"flip_horizontal": 0.5, "flip_vertical": 0.5, "flip_depth": 0.5, "affine_probability": 0.5},
    ),
    "D": (
        "hdf5-unet",
        {
            "loss": {"name": "dice", "epsilon": 1e-6},
            "optimiser": "nadam",
            "lr": 1e-4,
            "epochs": 100,
            "batch": 32,
            "schedule": {"name": "plateau", "factor": 0.5, "floor": 1e-7},
            "early_stopping": {"patience": 8},
            "monitor": "val_loss",
            "copies": 2,
        },
        {"affine_probability": 0.5},
    ),
    "E": ("brats2d-", {"loss": {"name": "softmax_dice"}, "monitor": "val_dice"}, {}),
}
"""Recipes that begin so, and what is published of their [training] and [augmentation]."""

SHOWN = {
    "A": {"rotation_deg", "brightness", "contrast", "noise"},
    "B": set(),
    "C": {"rotation_deg"},
    "D": {"rotation_deg", "scale", "shift", "flip_horizontal"},
    "E": {"noise", "brightness", "contrast", "gamma"},
}
"""The other published changes of images, of which only the kind is known."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_recipe_trains_as_published(system: str):
    start, training, augmentation = SYSTEMS[system]
    names = [name for name in ROWS if name.startswith(start)]
    assert names
    for name in names:
        recipe = read_recipe(find_recipe(name))
        settings = recipe.training.model_dump(mode="json")
        for key, value in training.items():
            found = settings[key]
            assert (found | value if isinstance(value, dict) else value) == found, (name, key)
        shown = recipe.augmentation.model_dump(exclude_defaults=True)
        assert {key: shown.get(key) for key in augmentation} == augmentation
        assert set(shown) == SHOWN[system] | set(augmentation)
