"""What lies between the folder of a set and the first batch: broken cases, sides, balance, disk."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file
from tiny_cheng import RECIPE
from typer.testing import CliRunner

from segtool.errors import CaseError, OutputError, UsageError
from segtool_train.cli import train
from segtool_train.data.split import Split
from segtool_train.data.split_rule import SplitRecipe
from segtool_train.recipe import Recipe, parse_recipe
from segtool_train.run_folder import RunFolder
from segtool_train.training import Options, train_run
from segtool_train.training_set import BROKEN, TrainingSet, gather


class Killed(Exception):
    """Stands for a power cut."""


def quiet(_line: str) -> None:
    pass


def recipe(**overrides: object) -> Recipe:
    """The tiny recipe; ``data__balance`` stands for ``data.balance``."""
    return parse_recipe(RECIPE, "discs", "here", {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture
def copy(discs: Path, tmp_path: Path) -> Path:
    """The set, to be damaged."""
    return Path(shutil.copytree(discs, tmp_path / "set"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches of all tests, so that equal ones are filled once."""
    return tmp_path_factory.mktemp("caches")


def cut_off(folder: Path, *names: str) -> None:
    for name in names:
        image = folder / "images" / f"{name}.png"
        image.write_bytes(image.read_bytes()[:100])


def empty_masks(folder: Path, *names: str) -> None:
    for name in names:
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "masks" / f"{name}.png")


def names(gathered: TrainingSet, side: tuple[int, ...]) -> list[str]:
    return [gathered.cache.samples[index].item for index in side]


def test_every_broken_file_is_listed_before_training_and_leaving_them_out_moves_nobody_else(
    copy: Path, cache: Path, tmp_path: Path
):
    run = RunFolder(tmp_path / "run")
    whole = gather(recipe(), run, copy, quiet, cache=cache).split
    first, last = whole.train[0], whole.validation[-1]
    cut_off(copy, first, last)
    with pytest.raises(CaseError, match=rf"2 of 20 cases.*{BROKEN}.*--skip-broken"):
        gather(recipe(), run, copy, quiet, cache=cache)
    listed = (run.path / BROKEN).read_text(encoding="utf-8").splitlines()
    assert len(listed) == 2
    assert all(name in "".join(listed) for name in (first, last))

    lines: list[str] = []
    gathered = gather(recipe(), run, copy, lines.append, cache=cache, skip_broken=True)
    assert sum("2 of 20 cases are left out" in line for line in lines) == 1
    assert gathered.split.train == tuple(name for name in whole.train if name != first)
    assert names(gathered, gathered.train) == list(gathered.split.train)
    assert gathered.split.validation == tuple(name for name in whole.validation if name != last)
    assert gathered.split.left_out == tuple(sorted((first, last)))


def test_an_image_without_a_mask_and_a_mask_without_an_image_stop_at_once(copy: Path, cache: Path, tmp_path: Path):
    (copy / "masks" / "0003.png").unlink()
    (copy / "images" / "0010.png").unlink()
    run = RunFolder(tmp_path / "run")
    with pytest.raises(CaseError, match=r"2 of 20 cases.*0003.*--skip-broken"):
        gather(recipe(), run, copy, quiet, cache=cache / "not made")
    assert not (cache / "not made").exists()
    gathered = gather(recipe(), run, copy, quiet, cache=cache, skip_broken=True)
    assert len(gathered.items) == 18
    assert len((run.path / BROKEN).read_text(encoding="utf-8").splitlines()) == 2


def test_a_list_of_broken_cases_does_not_outlive_its_reason(copy: Path, discs: Path, cache: Path, tmp_path: Path):
    cut_off(copy, "0004")
    run = RunFolder(tmp_path / "run")
    gather(recipe(), run, copy, quiet, cache=cache, skip_broken=True)
    gather(recipe(), run, discs, quiet, cache=cache)
    assert not (run.path / BROKEN).exists()


def test_where_a_whole_side_is_broken_nothing_goes_on(copy: Path, cache: Path, tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    cut_off(copy, *gather(recipe(), run, copy, quiet, cache=cache).split.validation)
    with pytest.raises(UsageError, match=r"no samples are left for validation.*data\.split"):
        gather(recipe(), run, copy, quiet, cache=cache, skip_broken=True)


def test_the_log_counts_samples_without_a_label(copy: Path, cache: Path, tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    split = gather(recipe(), run, copy, quiet, cache=cache).split
    empty_masks(copy, *split.train[:3], split.validation[0])
    described = gather(recipe(), run, copy, quiet, cache=cache).describe()
    # 10 patients with 2 slices: 2 patients test, a quarter of 8 validates, 6 train.
    assert "empty   no label in 3 of 12 training samples and 1 of 4 validation samples" in described


def test_what_reading_masks_had_to_decide_is_said_once_for_all_cases(copy: Path, cache: Path, tmp_path: Path):
    """Three masks compressed with losses, one of greys, and 16 of black and white."""
    for name in ("0003", "0004", "0005"):
        mask = copy / "masks" / f"{name}.png"
        Image.open(mask).save(mask.with_suffix(".jpg"), quality=90)
        mask.unlink()
    ramp = np.tile(np.arange(0, 256, 4, np.uint8), (64, 1))
    ramp[0, 0] = 255
    Image.fromarray(ramp).save(copy / "masks" / "0008.png")
    for _ in ("filled", "found again"):
        lines = gather(recipe(), RunFolder(tmp_path / "run"), copy, quiet, cache=cache).describe()
        said = [line for line in lines if line.startswith("note")]
        assert said[0] == "note    3 of 20 cases: mask compressed with losses: cut at 128 into labelled and not"
        assert said[1].startswith("note    1 of 20 cases: mask of 65 greys")
        assert len(said) == 2


@pytest.mark.parametrize("side", ["train", "validation"])
def test_a_side_of_empty_masks_alone_is_refused(copy: Path, cache: Path, tmp_path: Path, side: str):
    run = RunFolder(tmp_path / "run")
    empty_masks(copy, *getattr(gather(recipe(), run, copy, quiet, cache=cache).split, side))
    with pytest.raises(
        UsageError, match=r"masks of all (12 training|4 validation) samples are empty.*reference_values"
    ):
        gather(recipe(), run, copy, quiet, cache=cache)


def test_a_folder_that_cannot_be_written_is_noticed_before_anything_is_cached(discs: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"--output.*Name another folder"):
        gather(recipe(), RunFolder(tmp_path / "file" / "run"), discs, quiet, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_two_cases_of_one_name_are_refused(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from segtool_train import training_set
    from segtool_train.data import list_items
    from segtool_train.data.base import Listing

    items = list_items("cheng", discs, recipe().spec).items
    monkeypatch.setattr(training_set, "listed", lambda *_: Listing((*items, items[4])))
    with pytest.raises(UsageError, match=r"2 cases are called '0004'.*Rename"):
        gather(recipe(), RunFolder(tmp_path / "run"), discs, quiet)


def uneven(copy: Path) -> Path:
    """Patient 0 has five slices, the others up to two; patients 3 to 5 are of a class of their own."""
    lines = (copy / "index.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for row in rows[:5]:
        row[3] = row[4] = "0"
        row[5] = "1"
    for row in rows:
        row[2] = "rare" if row[4] in {"3", "4", "5"} else "common"
    text = "\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n"
    (copy / "index.csv").write_text(text, encoding="utf-8")
    return copy


@pytest.mark.parametrize("balance", ["patient", "group"])
def test_balance_shows_patients_or_classes_equally_often_in_an_epoch_of_the_same_length(
    copy: Path, cache: Path, tmp_path: Path, balance: str
):
    chosen = recipe(data__balance=balance, data__split__test_fold=None, training__batch=1)
    gathered = gather(chosen, RunFolder(tmp_path / "run"), uneven(copy), quiet, cache=cache)
    owner = {item.name: item.patient if balance == "patient" else item.group for item in gathered.items}
    shuffle, shown = gathered.shuffle(chosen), Counter[str]()
    for epoch in range(100):
        shuffle.set_epoch(epoch)
        keys = list(shuffle)
        assert len(keys) == len(gathered.train)
        shown += Counter(owner[gathered.cache.samples[index].item] for _, index in keys)
    mean = 100 * len(gathered.train) / len(shown)
    assert set(shown) == {owner[name] for name in gathered.split.train}
    assert all(count == pytest.approx(mean, rel=0.15) for count in shown.values())
    plain = Counter(
        owner[gathered.cache.samples[index].item] for _, index in gathered.shuffle(recipe(training__batch=1))
    )
    assert max(plain.values()) > min(plain.values())


def test_balance_by_class_wants_classes(copy: Path, tmp_path: Path):
    shutil.move(copy / "masks", copy / "images" / "labels")
    chosen = recipe(data__balance="group", data__layout="folder", data__split__test_fold=None)
    gathered = gather(chosen, RunFolder(tmp_path / "run"), copy / "images", quiet)
    with pytest.raises(UsageError, match=r"names no classes.*Balance by patient"):
        gathered.shuffle(chosen)


def test_a_split_by_slice_says_how_many_patients_leak(discs: Path, cache: Path, tmp_path: Path):
    chosen = recipe(data__split__by="slice", data__split__validation=0.5)
    gathered = gather(chosen, RunFolder(tmp_path / "run"), discs, quiet, cache=cache)
    leaking = gathered.split.patients_on_two_sides
    assert leaking > 0
    (line,) = [line for line in gathered.describe() if line.startswith("leak")]
    assert f"{leaking} of 10 patients lie on two sides" in line
    # The official fold holds whole patients.
    assert line.endswith("scores of validation are too good")
    assert any("no test patient leaks" in line for line in gathered.describe())
    both = recipe(data__split={"by": "slice", "test": 0.4, "validation": 0.5})
    lines = gather(both, RunFolder(tmp_path / "run"), discs, quiet, cache=cache).describe()
    assert any(line.endswith("scores of validation and of test are too good") for line in lines)
    assert not any("no test patient leaks" in line for line in lines)
    by_patient = gather(recipe(), RunFolder(tmp_path / "run"), discs, quiet, cache=cache)
    assert not [line for line in by_patient.describe() if line.startswith("leak")]


def test_who_is_on_no_side_of_a_split_file_is_counted(discs: Path, cache: Path, tmp_path: Path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"train": ["0", "1"], "validation": ["2"]}), encoding="utf-8")
    lines: list[str] = []
    chosen = recipe(data__split={"file": str(file)})
    gathered = gather(chosen, RunFolder(tmp_path / "run"), discs, lines.append, cache=cache)
    assert "note    14 of 20 cases are on no side of the split file: left out" in lines
    assert len(gathered.train) == 4


@pytest.mark.parametrize("key", ["training__schedule__name", "training__early_stopping__patience"])
def test_what_looks_at_validation_wants_some(discs: Path, tmp_path: Path, key: str):
    value = "plateau" if key.endswith("name") else 3
    chosen = recipe(data__split__validation=0, **{key: value})
    with pytest.raises(UsageError, match=r"nobody validates.*\[data.split\] validation"):
        gather(chosen, RunFolder(tmp_path / "run"), discs, quiet)


def test_without_validation_all_train_and_the_last_epochs_weights_are_kept(discs: Path, cache: Path, tmp_path: Path):
    chosen = recipe(data__split__validation=0, training__epochs=2, training__ema_decay=None)
    lines: list[str] = []
    outcome = train_run(chosen, Options(discs, tmp_path, cache=cache, tensorboard=False), lines.append)
    assert outcome.best_epoch == 2
    assert not any(" nan" in line for line in lines)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(best[key], last[f"network.{key}"]) for key in best)
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        assert [float(row["train_loss"]) > 0 for row in csv.DictReader(file)] == [True, True]


def test_a_run_that_skips_broken_cases_resumes_exactly_and_refuses_to_lose_more(
    copy: Path, cache: Path, tmp_path: Path
):
    cut_off(copy, "0002")
    chosen = recipe(training__epochs=2, data__balance="patient")

    def options(name: str, resume: bool = False, data: Path = copy) -> Options:
        return Options(data, tmp_path / name, resume=resume, cache=cache, skip_broken=True, tensorboard=False)

    def power_cut(line: str) -> None:
        if line.startswith("epoch 1"):
            raise Killed

    train_run(chosen, options("whole"), quiet)
    with pytest.raises(Killed):
        train_run(chosen, options("cut"), power_cut)
    train_run(chosen, options("cut", resume=True), quiet)
    weights = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "cut")]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
    split = Split.read(tmp_path / "cut" / "split.json")
    assert split.left_out == ("0002",)
    assert split.rule == chosen.data.split

    cut_off(copy, split.train[0])
    with pytest.raises(UsageError, match=r"started with 1 more cases.*same --data"):
        train_run(chosen, options("cut", resume=True), quiet)


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, list(arguments))


def test_flags_choose_the_split_and_leave_out_what_is_broken(copy: Path, cache: Path, tmp_path: Path):
    cut_off(copy, "0002")
    (tmp_path / "discs.toml").write_text(RECIPE, encoding="utf-8")
    run = tmp_path / "run"
    places = (str(tmp_path / "discs.toml"), "-d", str(copy), "-o", str(run), "--cache", str(cache))
    result = invoke(*places, "--epochs", "1", "--split", "slice", "--test-fold", "2", "--skip-broken", "--no-export")
    assert result.exit_code == 0
    assert "1 of 20 cases are left out" in result.stdout
    assert "patients lie on two sides" in result.stdout
    stored = json.loads((run / "split.json").read_text(encoding="utf-8"))
    assert SplitRecipe.model_validate(stored["rule"]) == SplitRecipe(by="slice", test_fold="2", validation=0.25)
    assert stored["left_out"] == ["0002"]
    assert stored["test"] == ["0003", "0012", "0013"]  # of patients 1 and 6
    spec = json.loads((run / "spec.json").read_text(encoding="utf-8"))
    assert spec["provenance"]["split"]["patients_on_two_sides"] == stored["patients_on_two_sides"] > 0


def test_a_split_file_that_leaks_is_one_line(discs: Path, tmp_path: Path):
    (tmp_path / "discs.toml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "mine.json").write_text(json.dumps({"train": ["0000"], "test": ["0001"]}), encoding="utf-8")
    places = (str(tmp_path / "discs.toml"), "-d", str(discs), "-o", str(tmp_path / "run"))
    result = invoke(*places, "--split-file", str(tmp_path / "mine.json"))
    assert isinstance(result.exception, UsageError)
    assert "1 patient lies on two sides" in str(result.exception)
