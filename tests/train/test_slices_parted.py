"""Volumes whose slices are parted one by one: the leak is counted, said, and stands in the file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_training_sets import decathlon

from segtool.model_file import read_spec
from segtool_export.finish import finish_run
from segtool_train.data.cache import read_cache
from segtool_train.data.split import Split
from segtool_train.preview import draw_preview
from segtool_train.recipe import Recipe, find_recipe, read_recipe
from segtool_train.training import Options, Outcome, train_run


def recipe(**changes: object) -> Recipe:
    small = {
        "data.split.by": "slice",
        "network.width": 2,
        "network.depth": 2,
        "spec.input.size": [16, 16],
        "training.epochs": 1,
        "training.batch": 4,
        "training.precision": "fp32",
    }
    return read_recipe(find_recipe("brats2d-unet"), {**small, **changes})


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four volumes, six of whose slices each show a label."""
    folder = tmp_path_factory.mktemp("decathlon")
    decathlon(folder)
    return folder


@pytest.fixture(scope="module")
def trained(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    options = Options(volumes, tmp_path_factory.mktemp("run"), device="cpu", tensorboard=False)
    return train_run(recipe(), options, lines.append), lines


def test_every_slice_lies_on_one_side_and_patients_on_several(trained: tuple[Outcome, list[str]]):
    outcome, lines = trained
    split = outcome.run.read_split()
    assert split.of_slices
    names = [*split.train, *split.validation, *split.test]
    assert len(set(names)) == len(names) == 4 * 6
    assert [len(split.test), len(split.validation)] == [4, 3]  # 0.15 of 24, 0.15 of the other 20
    assert set(split.test) <= {f"BRATS_{case:03d}#{number}" for case in range(1, 5) for number in range(2, 8)}
    assert split.patients_on_two_sides > 0
    assert Split.read(outcome.run.split_file) == split
    assert any(line.startswith("split   train 4 patients 17 slices") for line in lines)
    assert any(line.startswith("leak    ") and "of 4 patients lie on two sides" in line for line in lines)


def test_what_trains_and_what_tests_are_other_samples(trained: tuple[Outcome, list[str]]):
    run = trained[0].run
    cache = read_cache(Path(json.loads(run.data_file.read_text(encoding="utf-8"))["cache"]))
    split = run.read_split()
    sides = [cache.indices(side) for side in (split.train, split.validation, split.test)]
    assert sorted(index for side in sides for index in side) == list(range(24))


def test_the_model_file_and_the_finish_say_that_patients_leak(trained: tuple[Outcome, list[str]]):
    run = trained[0].run
    lines: list[str] = []
    facts = finish_run(run.path, device="cpu", log=lines.append)
    stored = read_spec(run.path / "model.onnx").provenance["split"]
    assert stored["rule"].startswith("by slice: ")
    assert stored["patients_on_two_sides"] == run.read_split().patients_on_two_sides
    assert (facts["slices"], facts["patients_leaking"]) == (4, run.read_split().leaks["test"])
    assert any(line.startswith("test    Dice ") and "on 4 slices" in line for line in lines)
    assert "the figure is too good" in lines[-1]
    assert not (run.path / "card.md").exists()


def test_it_resumes_on_the_same_slices(volumes: Path, trained: tuple[Outcome, list[str]], tmp_path: Path):
    class Killed(Exception):
        pass

    def power_cut(line: str) -> None:
        if line.startswith("epoch 1/"):
            raise Killed

    cache = Path(json.loads(trained[0].run.data_file.read_text(encoding="utf-8"))["cache"]).parent
    options = Options(volumes, tmp_path / "run", device="cpu", tensorboard=False, cache=cache)
    with pytest.raises(Killed):
        train_run(recipe(**{"training.epochs": 2}), options, power_cut)
    before = Split.read(tmp_path / "run" / "split.json")
    outcome = train_run(recipe(**{"training.epochs": 2}), replace(options, resume=True), lambda _line: None)
    assert len(outcome.rows) == 2
    assert outcome.run.read_split() == before


def test_one_volume_is_enough_and_can_be_looked_at(volumes: Path, tmp_path: Path):
    alone = Options(volumes, tmp_path / "run", device="cpu", tensorboard=False, limit=1)
    assert len(train_run(recipe(), alone, lambda _line: None).rows) == 1
    draw_preview(recipe(), volumes, tmp_path / "seen.png", lambda _line: None)
    assert (tmp_path / "seen.png").is_file()


def test_volumes_for_3d_networks_are_parted_whole(volumes: Path):
    from segtool_train.sides import parts_slices

    whole = read_recipe(find_recipe("brats3d-light"), {"data.split.by": "slice"})
    assert (parts_slices(whole), parts_slices(recipe())) == (False, True)
