"""One network from several runs."""

from pathlib import Path

import pytest
import torch
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.averaging import average_runs
from segtool_train.recipe import parse_recipe
from segtool_train.run_folder import RunFolder
from segtool_train.training import Options, train_run


def quiet(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def pair(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run and one that started from it."""
    folder = tmp_path_factory.mktemp("pair")
    recipe = parse_recipe(RECIPE, "tiny", "recipe")
    train_run(recipe, Options(discs, folder / "one", cache=folder / "cache"), quiet)
    train_run(recipe, Options(discs, folder / "two", cache=folder / "cache", init=folder / "one"), quiet)
    return [folder / "one", folder / "two"]


def test_the_mean_lies_between_its_runs_and_says_what_it_is(discs: Path, pair: list[Path], tmp_path: Path) -> None:
    dice = average_runs(pair, tmp_path / "mean", Options(discs, tmp_path / "mean"))
    one, two, mean = (RunFolder(path).read_best() for path in (*pair, tmp_path / "mean"))
    for key, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (one[key] + two[key]) / 2)
    validation = RunFolder(tmp_path / "mean").read_spec().provenance["validation"]
    assert validation["val_dice"] == pytest.approx(dice, abs=1e-4)
    assert validation["val_dice_of_each"] == [
        RunFolder(path).read_spec().provenance["validation"]["val_dice"] for path in pair
    ]
    with pytest.raises(UsageError, match="Name another folder"):
        average_runs(pair, tmp_path / "mean", Options(discs, tmp_path / "mean"))


def test_runs_of_different_splits_are_not_averaged(discs: Path, pair: list[Path], tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE, "tiny", "recipe", {"data.split.seed": 7})
    train_run(recipe, Options(discs, tmp_path / "other", cache=tmp_path / "cache"), quiet)
    with pytest.raises(UsageError, match="Average runs of one split"):
        average_runs([pair[0], tmp_path / "other"], tmp_path / "mean", Options(discs, tmp_path / "mean"))
    assert not (tmp_path / "mean").exists()
