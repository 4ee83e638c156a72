import csv
import errno
import json
import os
import shutil
import signal
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_cheng import RECIPE

from segtool.atomic import atomic_path
from segtool.errors import DeviceError, MissingDependencyError, OutputError, UsageError, UserError
from segtool.spec import ModelSpec
from segtool_train.data.split import Split
from segtool_train.frameworks import pl
from segtool_train.initial import build_network
from segtool_train.progress import EpochBar
from segtool_train.recipe import Recipe, parse_recipe
from segtool_train.training import Options, train_run


class Killed(Exception):
    """Stands for a power cut."""


def quiet(_line: str) -> None:
    pass


def read_rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text(encoding="utf-8").splitlines()))


def recipe(text: str = RECIPE, **overrides: object) -> Recipe:
    """The test recipe, values of its [training] replaced."""
    chosen = {f"training.{key}": value for key, value in overrides.items()}
    return parse_recipe(text, "discs", "discs.toml", chosen)


ENCODER = (
    RECIPE.replace(
        'name = "unet"\nwidth = 4\ndepth = 3',
        'name = "unet_encoder"\nencoder_name = "mobilenet_v2"\ndecoder_channels = [16, 8, 4]',
    )
    .replace("divisor = 4", "divisor = 8")
    .replace("ema_decay = 0.9\n", "")
)


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


LOOPS = {
    "plateau": (RECIPE, {"training.schedule": {"name": "plateau", "patience": 0}}),
    "plateau on the loss": (RECIPE, {"training.schedule": {"name": "plateau"}, "training.monitor": "val_loss"}),
    "cosine": (RECIPE, {"training.schedule": {"name": "cosine"}, "training.optimiser": "sgd"}),
    "poly, accumulated": (RECIPE, {"training.schedule": {"name": "poly"}, "training.accumulate": 2}),
    "nadam, every second epoch": (RECIPE, {"training.optimiser": "nadam", "training.checkpoint_every": 2}),
    "half-frozen encoder": (
        ENCODER,
        {"training.freeze_encoder_epochs": 1, "training.unfreeze_from": 2, "training.encoder_lr": 1e-3},
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_resumes_exactly(discs: Path, run: Path, tmp_path: Path, loop: str):
    text, chosen = LOOPS[loop]
    wanted = parse_recipe(text, "discs", "here", {**chosen, "training.epochs": 3})
    cache = Path(json.loads((run / "data.json").read_text(encoding="utf-8"))["cache"]).parent

    def power_cut(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Killed

    whole, cut = (Options(discs, tmp_path / name, cache=cache, tensorboard=False) for name in ("whole", "cut"))
    train_run(wanted, whole, quiet)
    with pytest.raises(Killed):
        train_run(wanted, cut, power_cut)
    train_run(wanted, replace(cut, resume=True), quiet)
    rows = [read_rows(options.run) for options in (whole, cut)]
    for row in (*rows[0], *rows[1]):
        for measured in ("elapsed_s", "data_wait_share", "peak_memory_mib"):
            del row[measured]
    assert rows[0] == rows[1]
    states = [torch.load(options.run / "last.ckpt", weights_only=True)["state_dict"] for options in (whole, cut)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_epoch_is_a_row_of_losses_measures_time_and_memory(run: Path):
    row = read_rows(run)[0]
    assert "val_precision_meningioma" in row  # not a number while nothing is predicted
    for name in ("val_loss", "val_dice", "val_iou", "val_recall", "val_recall_meningioma"):
        assert 0 <= float(row[name]) <= 2, name
    assert 0 <= float(row["data_wait_share"]) < 1
    assert float(row["peak_memory_mib"]) > 1
    assert (run / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_has_every_number_of_every_epoch(run: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = read_rows(run)
    written = [(event.step, event.value) for event in events.Scalars("val_dice")]
    assert written == [(int(row["epoch"]), pytest.approx(float(row["val_dice"]), abs=1e-5)) for row in rows]
    assert "train_loss" in events.Tags()["scalars"]


NAMED = {
    "by the recipe": ({"spec.provenance": {"data": "Discs", "data_licence": "CC0"}}, "on 'Discs', CC0; for an"),
    "without terms": ({"spec.provenance": {"data": "Discs"}}, "on 'Discs', licence not stated; for another set --set"),
    "by nobody": ({}, "will not say what it was trained on; name it with --set spec.provenance.data=NAME"),
}


@pytest.mark.parametrize("named", NAMED)
def test_a_training_begins_with_what_the_model_will_say_of_its_data(discs: Path, tmp_path: Path, named: str):
    def stop(line: str) -> None:
        said.append(line)
        raise Killed

    said: list[str] = []
    chosen, wanted = NAMED[named]
    with pytest.raises(Killed):
        train_run(parse_recipe(RECIPE, "discs", "here", chosen), Options(discs, tmp_path / "run"), stop)
    assert wanted in said[0]


def test_weights_of_a_run_start_another(discs: Path, run: Path, tmp_path: Path):
    still = recipe(epochs=1, lr=1e-12, ema_decay=None)
    outcome = train_run(still, Options(discs, tmp_path / "next", init=run, tensorboard=False), quiet)
    before, after = (load_file(folder / "best.safetensors") for folder in (run, outcome.run.path))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before if key.endswith("weight"))


def test_weights_of_another_network_are_refused(discs: Path, run: Path, tmp_path: Path):
    wider = parse_recipe(RECIPE, "discs", "here", {"network.width": 8})
    with pytest.raises(UsageError, match=r"shape .* the network wants .*Take the \[network\]"):
        train_run(wider, Options(discs, tmp_path, init=run), quiet)
    with pytest.raises(UsageError, match="Leave --encoder-weights out"):
        train_run(recipe(), Options(discs, tmp_path, init=run, encoder_weights=run), quiet)


@pytest.mark.parametrize(
    ("option", "value"), [("freeze_encoder_epochs", 2), ("unfreeze_from", 1), ("encoder_lr", 1e-4)]
)
def test_an_option_of_encoders_needs_one(discs: Path, tmp_path: Path, option: str, value: float):
    with pytest.raises(UsageError, match=rf"training.{option}.*take a network on an encoder"):
        train_run(recipe(**{option: value}), Options(discs, tmp_path), quiet)


def test_a_stage_that_the_encoder_lacks_is_refused(discs: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"unfreeze_from is 9.*Take 0 to"):
        train_run(recipe(ENCODER, unfreeze_from=9), Options(discs, tmp_path), quiet)


def test_too_little_memory_names_what_to_lower(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def greedy(_image: torch.Tensor, _target: torch.Tensor, _recipe: object) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr("segtool_train.module.augment", greedy)
    with pytest.raises(UserError, match=r"batch 4, size 64x64, precision fp32, .*Lower --batch to 2 with --set .*bf16"):
        train_run(recipe(), Options(discs, tmp_path), quiet)


def test_a_run_that_is_told_to_end_keeps_its_checkpoint(discs: Path, tmp_path: Path):
    said: list[str] = []

    def terminate(line: str) -> None:
        said.append(line)
        if line.startswith("epoch 1/"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        train_run(recipe(), Options(discs, tmp_path), terminate)
    assert stop.value.code == 143
    assert "--resume goes on" in said[-1]
    outcome = train_run(recipe(), Options(discs, tmp_path, resume=True), quiet)
    assert [row["epoch"] for row in outcome.rows] == [1, 2]


def test_a_bar_is_shown_to_a_terminal_and_leaves_nothing_on_stdout(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert not EpochBar.wanted()
    monkeypatch.setattr(EpochBar, "wanted", lambda: True)
    outcome = train_run(recipe(epochs=1), Options(discs, tmp_path, tensorboard=False), quiet)
    assert len(outcome.rows) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="needs a machine without MLflow")
def test_mlflow_that_is_missing_is_one_line(discs: Path, tmp_path: Path):
    with pytest.raises(MissingDependencyError, match=r"pip install 'segtool\[mlflow\]', or leave --mlflow out"):
        train_run(recipe(), Options(discs, tmp_path / "run", mlflow="somewhere"), quiet)
    assert not (tmp_path / "run").exists()


def test_a_run_stops_early_where_dice_stands_still(discs: Path, tmp_path: Path):
    text = RECIPE.replace("lr = 1e-2", "lr = 1e-12\nearly_stopping = { patience = 1, min_delta = 0.5 }")
    lines: list[str] = []
    outcome = train_run(recipe(text, epochs=9), Options(discs, tmp_path), lines.append)
    assert len(outcome.rows) == 2
    assert "no better Dice in 1 epochs" in lines[-1]
    resumed = train_run(recipe(text, epochs=9), Options(discs, tmp_path, resume=True), quiet)
    assert resumed.rows == outcome.rows  # the run was at its end


def test_a_frozen_encoder_stands_still(discs: Path, tmp_path: Path):
    frozen = recipe(ENCODER, epochs=1, freeze_encoder_epochs=1)
    once = train_run(frozen, Options(discs, tmp_path, tensorboard=False), quiet)
    state = load_file(once.run.best_file)
    pl.seed_everything(0, verbose=False)
    fresh = build_network(frozen)
    start = fresh.state_dict()
    encoder = [key for key in start if key.startswith("encoder.")]
    assert all(torch.equal(state[key], start[key]) for key in encoder)
    assert any(not torch.equal(state[key], start[key]) for key in start if key.startswith("decoder."))


def test_a_loss_that_is_no_number_stops_the_run(discs: Path, tmp_path: Path):
    text = RECIPE.replace("lr = 1e-2", 'lr = 1e30\noptimiser = "sgd"').replace("gradient_clip = 5.0", "")
    with pytest.raises(UserError, match=r"epoch 1, batch \d \(00\d\d, .*no epoch had ended.*lower \[training\] lr"):
        train_run(recipe(text), Options(discs, tmp_path), quiet)


def test_weights_that_answer_nothing_finite_are_kept_nowhere(discs: Path, tmp_path: Path):
    """One step an epoch: the loss before it is a number, and all that the step leaves behind is none."""
    text = RECIPE.replace("lr = 1e-2", 'lr = 1e30\noptimiser = "sgd"').replace("gradient_clip = 5.0", "")
    with pytest.raises(UserError, match=r"no finite numbers after epoch 1; no epoch had ended.*Lower \[training\] lr"):
        train_run(recipe(text, batch=20), Options(discs, tmp_path), quiet)
    assert not (tmp_path / "last.ckpt").exists()
    assert not (tmp_path / "best.safetensors").exists()


def test_a_full_disk_is_one_line_and_the_checkpoint_is_safe(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fill_the_disk(line: str) -> None:
        if line.startswith("epoch 1/"):
            monkeypatch.setattr("segtool_train.recorder.Recorder._checkpoint", full)

    def full(_recorder: object, _trainer: object) -> None:
        with atomic_path(tmp_path / "last.ckpt"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"last.ckpt: cannot be .*is the last good state.*go on with --resume"):
        train_run(recipe(), Options(discs, tmp_path), fill_the_disk)
    monkeypatch.undo()
    assert len(train_run(recipe(), Options(discs, tmp_path, resume=True), quiet).rows) == 2


def test_weights_that_find_no_room_are_one_line(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"best.safetensors: cannot be written .*or name another folder"):
        train_run(recipe(), Options(discs, tmp_path, tensorboard=False), quiet)


def test_pictures_that_find_no_room_cost_no_epoch(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_rows: object, path: Path) -> None:
        with atomic_path(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segtool_train.recorder.draw_curves", full)
    with pytest.raises(OutputError, match=r"curves.png: cannot be written.*last.ckpt is the last good state"):
        train_run(recipe(), Options(discs, tmp_path, tensorboard=False), quiet)
    monkeypatch.undo()
    outcome = train_run(recipe(), Options(discs, tmp_path, resume=True, tensorboard=False), quiet)
    assert [row["epoch"] for row in outcome.rows] == [1, 2]


@pytest.mark.skipif(os.name != "posix", reason="files have other rights there")
def test_all_files_of_a_run_may_be_read_by_the_same_people(run: Path):
    rights = {path.name: path.stat().st_mode & 0o777 for path in run.iterdir() if path.is_file()}
    assert set(rights.values()) == {rights["metrics.csv"]}


def test_a_short_last_window_of_accumulation_weighs_as_much_as_a_whole_one(discs: Path, tmp_path: Path):
    """Three batches an epoch are a window of 2 and one of 1, or one of 3 that is shorter than its 4."""
    plain = {"schedule": {"name": "constant"}, "optimiser": "sgd", "epochs": 1, "ema_decay": None, "lr": 1.0}
    states = []
    for accumulate in (3, 4):
        wanted = recipe(accumulate=accumulate, **plain)
        train_run(wanted, Options(discs, tmp_path / str(accumulate), tensorboard=False), quiet)
        states.append(load_file(tmp_path / str(accumulate) / "best.safetensors"))
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key])


ONE_STEP = {"epochs": 1, "batch": 20, "schedule": {"name": "constant"}}
"""All samples in one batch."""


def after_one_step(discs: Path, folder: Path, **training: object) -> dict[str, torch.Tensor]:
    """Trained weights and running statistics."""
    train_run(recipe(**ONE_STEP, **training), Options(discs, folder, tensorboard=False), quiet)
    return load_file(folder / "best.safetensors")


def first_weights() -> dict[str, torch.Tensor]:
    pl.seed_everything(0, verbose=False)
    return {key: weight.detach() for key, weight in build_network(recipe()).named_parameters()}


@pytest.mark.parametrize("clip", [1e-3, 1e-2])
def test_a_clipped_gradient_has_the_length_asked_for(discs: Path, tmp_path: Path, clip: float):
    """The first step of SGD with Nesterov's momentum of 0.9 is 1.9 gradients long."""
    trained = after_one_step(discs, tmp_path, optimiser="sgd", lr=1.0, ema_decay=None, gradient_clip=clip)
    moved = [trained[key] - weight for key, weight in first_weights().items()]
    length = float(torch.cat([change.flatten() for change in moved]).norm())
    assert length == pytest.approx(1.9 * clip, rel=1e-3)


def test_averaged_weights_follow_by_hand(discs: Path, tmp_path: Path):
    """After the first step early averages keep (1 + 1) / (10 + 1) of the old weights, whatever the decay."""
    plain = after_one_step(discs, tmp_path / "plain", ema_decay=None)
    averaged = after_one_step(discs, tmp_path / "averaged", ema_decay=0.9)
    for key, before in first_weights().items():
        torch.testing.assert_close(averaged[key], before * 2 / 11 + plain[key] * 9 / 11)


MISFITS = {
    "a misspelt encoder": (ENCODER.replace("mobilenet_v2", "mobilenet_v22"), {}, "Name one of segmentation-models"),
    "weights that are not there": (RECIPE, {"init": Path("nowhere.pt")}, "Give a .safetensors file"),
    "weights of no encoder": (ENCODER, {"encoder_weights": Path("nowhere.pt")}, "Give a .safetensors file"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_noticed_before_the_data_is_read(tmp_path: Path, misfit: str):
    text, chosen, remedy = MISFITS[misfit]
    with pytest.raises(UsageError, match=remedy):
        train_run(recipe(text), Options(tmp_path / "no data", tmp_path / "run", **chosen), quiet)
    assert not (tmp_path / "run").exists()


def test_a_used_folder_is_not_overwritten(discs: Path, run: Path):
    with pytest.raises(UsageError, match="--resume"):
        train_run(recipe(epochs=3), Options(discs, run), quiet)


def test_resuming_with_another_recipe_is_refused(discs: Path, run: Path):
    with pytest.raises(UsageError, match="differs in training"):
        train_run(recipe(epochs=4), Options(discs, run, resume=True), quiet)


def test_an_interruption_stays_one_and_can_be_resumed(discs: Path, tmp_path: Path):
    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if line.startswith("epoch 1/"):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_run(recipe(), Options(discs, tmp_path / "run"), interrupt)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores a second one
    assert said[-1] == "stop    interrupted in epoch 1; --resume goes on from the last checkpoint"
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_half_floats_need_a_gpu(discs: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="Take --precision bf16 or fp32"):
        train_run(recipe(precision="fp16"), Options(discs, tmp_path), quiet)


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
