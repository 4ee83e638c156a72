"""A training run from start to end: list, split, cache, train, record."""

import math
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from segtool.atomic import write_text
from segtool.errors import DeviceError, UsageError
from segtool.spec import ModelSpec
from segtool_train.data import list_items
from segtool_train.data.base import Item, spread
from segtool_train.data.cache import Cache, Slices, open_cache
from segtool_train.data.dataset import EpochShuffle, TrainingSamples, WholeSamples, loader
from segtool_train.data.split import Split, split_by_patient
from segtool_train.frameworks import ignore_lightning_warnings, pl
from segtool_train.module import SegmentationModule
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface
from segtool_train.recipe import Precision, Recipe
from segtool_train.recorder import Recorder
from segtool_train.run_folder import RunFolder

Device = Literal["auto", "cpu", "cuda"]

_PRECISIONS: dict[Precision, Literal["bf16-mixed", "16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "fp32": "32-true",
}
_SOFTWARE = ("segtool", "torch", "lightning", "numpy", "segmentation-models-pytorch", "timm")


@dataclass(frozen=True)
class Options:
    """What is not the recipe's to say.

    Args:
        data: The training set.
        run: Where everything goes.
        device: ``auto`` takes CUDA where there is one.
        workers: Processes that fetch batches; 0 fetches in the training process.
        resume: Go on from the run's last checkpoint.
        encoder_weights: File of pre-trained weights.
        limit: Take so many items, spread over the set; None takes all.
        cache: Folder of caches; None keeps them in the run.
    """

    data: Path
    run: Path
    device: Device = "auto"
    workers: int = 0
    resume: bool = False
    encoder_weights: Path | None = None
    limit: int | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run reached: best epoch, its validation Dice, all rows, the folder."""

    run: RunFolder
    best_epoch: int
    best_dice: float
    rows: tuple[dict[str, float], ...]


def train_run(recipe: Recipe, options: Options, log: Callable[[str], None]) -> Outcome:
    """Train ``recipe``.

    Raises:
        UserError: The data, the device or an option stands in the way; one line says what to do.
        KeyboardInterrupt: As it came.
    """
    device = _device(options.device)
    run = RunFolder(options.run)
    checkpoint = _checkpoint(run, options.resume, recipe)
    listing = list_items(recipe.data.layout, options.data, recipe.spec)
    items = listing.items if options.limit is None else tuple(spread(listing.items, options.limit))
    split = _split_before(run, items) if checkpoint else split_by_patient(items, recipe.data.split)
    for note in listing.notes:
        log(f"note    {note}")
    cache = _cache(run, items, recipe, options, log)
    training = cache.indices(split.train), cache.indices(split.validation)
    _require_samples(*training)
    spec = _with_provenance(recipe, split)
    if checkpoint is None:
        _write_start(run, recipe, split)
    # When resuming too: data, cache or the run itself may lie elsewhere than before.
    run.write_json(run.data_file, {"data": str(options.data.resolve()), "cache": str(cache.folder.resolve())})
    _log_start(recipe, device, split, [len(side) for side in training], log)
    module = _module(recipe, items, cache, training[0], None if checkpoint else options.encoder_weights, not checkpoint)
    recorder = Recorder(run, recipe.training, spec, log)
    trainer = _trainer(recipe, device, recorder)
    loaders = _loaders(recipe, cache, *training, options.workers)
    with warnings.catch_warnings():
        ignore_lightning_warnings()
        try:
            trainer.fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as stop:
            # Lightning turns an interruption into exit code 1, without a word.
            if trainer.interrupted:
                raise KeyboardInterrupt from stop
            raise
    history = recorder.history
    return Outcome(run, history.best_epoch, history.best, tuple(history.rows))


def build_network(recipe: Recipe) -> tuple[nn.Module, nn.Module | None]:
    """The recipe's network with random weights, and its encoder where it has one."""
    described = get_network(recipe.network.name, recipe.network.options)
    module = described.build(Interface.of(recipe.spec))
    return module, described.encoder(module)


def _device(wanted: Device) -> Literal["cpu", "cuda"]:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device",
            "Install a CUDA build of torch and a driver, or pass --device cpu.",
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _checkpoint(run: RunFolder, resume: bool, recipe: Recipe) -> Path | None:
    """The checkpoint to go on from; None starts anew."""
    if not resume:
        if run.last_file.exists():
            raise UsageError(
                f"{run.path}: holds a training run already", "Pass --resume to go on, or name another folder."
            )
        return None
    if not run.last_file.is_file():
        raise UsageError(f"{run.path}: nothing to resume (last.ckpt is missing)", "Leave --resume out.")
    before = run.read_recipe()
    if before != recipe:
        changed = [part for part in type(recipe).model_fields if getattr(before, part) != getattr(recipe, part)]
        raise UsageError(
            f"{run.path}: was started with another recipe (differs in {', '.join(changed)})",
            "Resume with the same recipe and options, or train into another folder.",
        )
    run.check_last()
    return run.last_file


def _split_before(run: RunFolder, items: tuple[Item, ...]) -> Split:
    """The split to go on with; all its training and validation must still be there."""
    split, there = run.read_split(), {item.name for item in items}
    gone = [name for name in (*split.train, *split.validation) if name not in there]
    if gone:
        raise UsageError(
            f"{run.path}: was started with {len(gone)} more cases (first {gone[0]!r})",
            "Resume with the same --data and --limit, or train into another folder.",
        )
    return split


def _cache(
    run: RunFolder, items: tuple[Item, ...], recipe: Recipe, options: Options, log: Callable[[str], None]
) -> Cache:
    folder = options.cache or run.path / "cache"
    slices: Slices = recipe.data.slices
    told = 0

    def on_item(done: int, total: int) -> None:
        nonlocal told
        if done * 10 // total > told:
            told = done * 10 // total
            log(f"cache   {done} of {total} cases")

    return open_cache(folder, items, recipe.spec, slices, on_item)


def _require_samples(training: list[int], validation: list[int]) -> None:
    for side, samples in (("training", training), ("validation", validation)):
        if not samples:
            raise UsageError(
                f"no samples are left for {side}", "Give more cases, raise --limit, or change [data.split]."
            )


def _with_provenance(recipe: Recipe, split: Split) -> ModelSpec:
    provenance = {
        **recipe.spec.provenance,
        "recipe": recipe.name,
        "network": {"name": recipe.network.name, **recipe.network.options},
        "split": {"rule": "by patient", **split.sizes()},
        "software": software_versions(),
    }
    return recipe.spec.model_copy(update={"provenance": provenance})


def software_versions() -> dict[str, str]:
    """Of what computes; a package that is only on the path reads ``unpackaged``."""
    versions = {"python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unpackaged"
    return versions


def _write_start(run: RunFolder, recipe: Recipe, split: Split) -> None:
    write_text(run.recipe_file, recipe.to_toml())
    split.write(run.split_file)
    run.write_json(run.versions_file, software_versions())


def _log_start(recipe: Recipe, device: str, split: Split, samples: list[int], log: Callable[[str], None]) -> None:
    sizes = split.sizes()
    sides = ", ".join(f"{side} {size['patients']} patients {size['items']} cases" for side, size in sizes.items())
    log(f"recipe  {recipe.name}   {recipe.network.name}   {device} {recipe.training.precision}")
    log(f"split   {sides}")
    log(f"train   {samples[0]} samples, {samples[1]} to validate, {recipe.training.epochs} epochs")


def _module(
    recipe: Recipe,
    items: tuple[Item, ...],
    cache: Cache,
    training: list[int],
    encoder_weights: Path | None,
    fill: bool,
) -> SegmentationModule:
    """The network, filled with pre-trained weights where ``fill``, inside its loop."""
    pl.seed_everything(recipe.training.seed, verbose=False)
    described = get_network(recipe.network.name, recipe.network.options)
    network = described.build(Interface.of(recipe.spec))
    if fill:
        described.load_pretrained(network, encoder_weights)
    groups = {item.name: item.group for item in items}
    batches = math.ceil(len(EpochShuffle(training, recipe.training.batch, 0)) / recipe.training.batch)
    return SegmentationModule(
        network,
        described.encoder(network),
        recipe,
        batches * recipe.training.epochs,
        [groups.get(sample.item, "") for sample in cache.samples],
    )


def _loaders(recipe: Recipe, cache: Cache, training: list[int], validation: list[int], workers: int) -> tuple[Any, Any]:
    settings, volume = recipe.training, recipe.spec.input.rank == 3
    patch = recipe.spec.input.patch if recipe.spec.input.rank == 3 else None
    samples = TrainingSamples(cache, patch, settings.foreground_patches, settings.seed)
    shuffle = EpochShuffle(training, settings.batch, settings.seed)
    return (
        loader(samples, shuffle, settings.batch, workers),
        loader(WholeSamples(cache), validation, 1 if volume else settings.batch, workers),
    )


def _trainer(recipe: Recipe, device: str, recorder: Recorder) -> pl.Trainer:
    return pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=_PRECISIONS[recipe.training.precision],
        max_epochs=recipe.training.epochs,
        gradient_clip_val=recipe.training.gradient_clip,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
