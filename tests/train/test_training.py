import csv
import json
import shutil
import signal
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_cheng import RECIPE

from segtool.errors import DeviceError, UsageError, UserError
from segtool.spec import ModelSpec
from segtool_train.data.split import Split
from segtool_train.frameworks import pl
from segtool_train.recipe import Recipe, parse_recipe
from segtool_train.training import Options, build_network, train_run


class Killed(Exception):
    """Stands for a power cut."""


def quiet(_line: str) -> None:
    pass


def read_rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text(encoding="utf-8").splitlines()))


def recipe(text: str = RECIPE, **overrides: object) -> Recipe:
    return parse_recipe(text, "discs", "discs.toml", overrides)


@pytest.fixture(scope="module")
def run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, never interrupted."""
    folder = tmp_path_factory.mktemp("run")
    train_run(recipe(epochs=3), Options(discs, folder), quiet)
    return folder


def test_a_run_learns_and_its_folder_holds_everything(discs: Path, run: Path):
    rows = read_rows(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert {"val_dice", "val_dice_meningioma", "elapsed_s"} <= rows[0].keys()
    assert tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))["training"]["epochs"] == 3
    assert json.loads((run / "versions.json").read_text(encoding="utf-8"))["torch"] == torch.__version__
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    spec = ModelSpec.from_json((run / "spec.json").read_bytes())
    split = Split.read(run / "split.json")
    assert spec.provenance["split"]["train"]["items"] == len(split.train)
    best = max(float(row["val_dice"]) for row in rows)
    assert spec.provenance["validation"]["val_dice"] == pytest.approx(best, abs=1e-4)
    assert str(discs) not in spec.to_json()
    assert set(split.test) == {f"{number:04d}" for number in (8, 9, 18, 19)}  # patients 4 and 9, fold 5


def test_a_killed_and_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(discs: Path, run: Path, tmp_path: Path):
    def power_cut(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Killed

    with pytest.raises(Killed):
        train_run(recipe(epochs=3), Options(discs, tmp_path), power_cut)
    outcome = train_run(recipe(epochs=3), Options(discs, tmp_path, resume=True), quiet)
    assert [row["epoch"] for row in outcome.rows] == [1, 2, 3]
    whole, resumed = (torch.load(f / "last.ckpt", weights_only=True)["state_dict"] for f in (run, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    best = [load_file(folder / "best.safetensors") for folder in (run, tmp_path)]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "constant"])
def test_every_schedule_resumes_exactly(discs: Path, run: Path, tmp_path: Path, schedule: str):
    text = RECIPE.replace("lr = 1e-2", f'lr = 1e-2\nschedule = {{ name = "{schedule}", patience = 0 }}')
    cache = Path(json.loads((run / "data.json").read_text(encoding="utf-8"))["cache"]).parent

    def power_cut(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Killed

    options = [Options(discs, tmp_path / name, cache=cache) for name in ("whole", "cut")]
    train_run(recipe(text, epochs=3), options[0], quiet)
    with pytest.raises(Killed):
        train_run(recipe(text, epochs=3), options[1], power_cut)
    train_run(recipe(text, epochs=3), Options(discs, tmp_path / "cut", resume=True, cache=cache), quiet)
    rows = [read_rows(tmp_path / name) for name in ("whole", "cut")]
    for row in (*rows[0], *rows[1]):
        del row["elapsed_s"]
    assert rows[0] == rows[1]


def test_a_run_stops_early_where_dice_stands_still(discs: Path, tmp_path: Path):
    text = RECIPE.replace("lr = 1e-2", "lr = 1e-12\nearly_stopping = { patience = 1, min_delta = 0.5 }")
    lines: list[str] = []
    outcome = train_run(recipe(text, epochs=9), Options(discs, tmp_path), lines.append)
    assert len(outcome.rows) == 2
    assert "no better Dice in 1 epochs" in lines[-1]


def test_a_frozen_encoder_stands_still(discs: Path, tmp_path: Path):
    text = (
        RECIPE.replace(
            'name = "unet"\nwidth = 4\ndepth = 3',
            'name = "unet_encoder"\nencoder_name = "resnet18"\ndecoder_channels = [16, 8, 4]',
        )
        .replace("divisor = 4", "divisor = 8")
        .replace("ema_decay = 0.9", "freeze_encoder_epochs = 1")
    )
    once = train_run(recipe(text, epochs=1), Options(discs, tmp_path / "one"), quiet)
    state = load_file(once.run.best_file)
    pl.seed_everything(0, verbose=False)
    fresh, _ = build_network(recipe(text))
    start = fresh.state_dict()
    encoder = [key for key in start if key.startswith("encoder.")]
    assert all(torch.equal(state[key], start[key]) for key in encoder)
    assert any(not torch.equal(state[key], start[key]) for key in start if key.startswith("decoder."))


def test_a_loss_that_is_no_number_stops_the_run(discs: Path, tmp_path: Path):
    text = RECIPE.replace("lr = 1e-2", 'lr = 1e30\noptimiser = "sgd"').replace("gradient_clip = 5.0", "")
    with pytest.raises(UserError, match=r"epoch 1, batch \d.*Lower \[training\] lr"):
        train_run(recipe(text), Options(discs, tmp_path), quiet)


def test_a_used_folder_is_not_overwritten(discs: Path, run: Path):
    with pytest.raises(UsageError, match="--resume"):
        train_run(recipe(epochs=3), Options(discs, run), quiet)


def test_resuming_with_another_recipe_is_refused(discs: Path, run: Path):
    with pytest.raises(UsageError, match="differs in training"):
        train_run(recipe(epochs=4), Options(discs, run, resume=True), quiet)


def test_an_interruption_stays_one_and_can_be_resumed(discs: Path, tmp_path: Path):
    def interrupt(line: str) -> None:
        if line.startswith("epoch 1/"):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_run(recipe(), Options(discs, tmp_path / "run"), interrupt)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores a second one
    outcome = train_run(recipe(), Options(discs, tmp_path / "run", resume=True), quiet)
    assert [row["epoch"] for row in outcome.rows] == [1, 2]


def test_a_damaged_checkpoint_is_one_line_with_a_remedy(discs: Path, run: Path, tmp_path: Path):
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    (damaged / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:3000])
    with pytest.raises(UsageError, match="train into another folder"):
        train_run(recipe(epochs=3), Options(discs, damaged, resume=True), quiet)


def test_resuming_a_moved_run_says_where_its_cache_lies_now(discs: Path, run: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("cache"))
    train_run(recipe(epochs=3), Options(discs, moved, resume=True), quiet)
    cache = Path(json.loads((moved / "data.json").read_text(encoding="utf-8"))["cache"])
    assert cache.parent == moved / "cache"
    assert cache.is_dir()


def test_resuming_on_fewer_cases_is_refused(discs: Path, run: Path):
    with pytest.raises(UsageError, match="same --data and --limit"):
        train_run(recipe(epochs=3), Options(discs, run, resume=True, limit=10), quiet)


def test_nothing_to_resume_is_said(discs: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="Leave --resume out"):
        train_run(recipe(), Options(discs, tmp_path, resume=True), quiet)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused(discs: Path, tmp_path: Path):
    with pytest.raises(DeviceError, match="--device cpu"):
        train_run(recipe(), Options(discs, tmp_path, device="cuda"), quiet)


def test_encoder_weights_for_a_network_without_encoder_are_refused(discs: Path, tmp_path: Path):
    options = Options(discs, tmp_path, encoder_weights=tmp_path / "x.pth")
    with pytest.raises(UsageError, match="no encoder to fill"):
        train_run(recipe(), options, quiet)
