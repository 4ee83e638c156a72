"""A training run from start to end: list, split, cache, train, record."""

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from segtool.atomic import write_text
from segtool.errors import UsageError
from segtool.machine import version_of
from segtool.spec import ModelSpec
from segtool_train.data.dataset import TrainingSamples, WholeSamples, loader
from segtool_train.data.split import Split
from segtool_train.encoder import Encoder
from segtool_train.initial import first_network
from segtool_train.meter import Meter
from segtool_train.module import SegmentationModule
from segtool_train.processes import Device, Processes, find_processes
from segtool_train.progress import EpochBar
from segtool_train.recipe import Recipe
from segtool_train.recorder import Recorder
from segtool_train.run_folder import RunFolder
from segtool_train.trackers import MLflow, TensorBoard, Tracker
from segtool_train.trainer import RankShare, fit, make_trainer
from segtool_train.training_set import TrainingSet, gather

_SOFTWARE = ("segtool", "torch", "lightning", "numpy", "segmentation-models-pytorch", "timm", "monai")


@dataclass(frozen=True)
class Options:
    """What is not the recipe's to say.

    Args:
        data: The training set.
        run: Where everything goes.
        device: ``auto`` takes CUDA where there is one.
        workers: Processes that fetch batches; 0 fetches in the training process.
        resume: Go on from the run's last checkpoint.
        encoder_weights: Pre-trained weights of the encoder: a file, or the folder of a run.
        limit: Take so many items, spread over the set; None takes all.
        cache: Folder of caches; None keeps them in the run.
        skip_broken: Go on without cases that cannot be used.
        init: Weights of the whole network to start from: the folder of a run, or a file.
        devices: How many of this machine train together; None takes one, or what torchrun says.
        compile: Let torch compile the network.
        tensorboard: Write event files, too.
        mlflow: Address of an MLflow server that takes the rows, too.
    """

    data: Path
    run: Path
    device: Device = "auto"
    workers: int = 0
    resume: bool = False
    encoder_weights: Path | None = None
    limit: int | None = None
    cache: Path | None = None
    skip_broken: bool = False
    init: Path | None = None
    devices: int | None = None
    compile: bool = False
    tensorboard: bool = True
    mlflow: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run reached.

    Args:
        run: Its folder.
        best_epoch: The one whose weights are kept, from 1.
        best_dice: Its validation Dice; NaN where nothing validates.
        rows: One an epoch.
        first: False in those of several processes that only help.
    """

    run: RunFolder
    best_epoch: int
    best_dice: float
    rows: tuple[dict[str, float], ...]
    first: bool = True


def train_run(recipe: Recipe, options: Options, log: Callable[[str], None]) -> Outcome:
    """Train ``recipe``.

    Raises:
        UserError: The data, the device or an option stands in the way; one line says what to do.
        KeyboardInterrupt: As it came.
        SystemExit: The process was told to end (SIGTERM).
    """
    processes = find_processes(options.device, options.devices)
    if not processes.first:
        log = _say_nothing
    run = RunFolder(options.run)
    _require_sense(recipe, options, processes)
    checkpoint = _checkpoint(run, options.resume, recipe)
    # What can be refused without the data comes before them: to fill a cache may take hours.
    network, encoder = _network(recipe, options, fill=checkpoint is None)
    trackers = _trackers(recipe, run, options) if processes.first else []
    if checkpoint is None:
        log(f"note    {_named_set(recipe.spec)}")
    with processes.first_one_first():
        gathered = gather(
            recipe,
            run,
            options.data,
            log,
            cache=options.cache,
            limit=options.limit,
            skip_broken=options.skip_broken,
            resumed=checkpoint is not None,
        )
    module = _module(recipe, gathered, network, encoder)
    if options.compile:
        module.compile_networks()
    loaders = _loaders(recipe, gathered, options.workers, processes)
    if processes.first:
        _write_start(run, recipe, gathered, options, anew=checkpoint is None)
    _log_start(recipe, processes, gathered, log)
    spec = _with_provenance(recipe, gathered.split)
    meter = Meter()
    recorder = Recorder(run, recipe.training, spec, log, meter, trackers)
    bar = [EpochBar()] if processes.first and EpochBar.wanted() else []
    try:
        fit(make_trainer(recipe, processes, [meter, *bar, recorder]), module, loaders, checkpoint, recipe, run, log)
    finally:
        for tracker in trackers:
            tracker.close()
    history = recorder.history
    return Outcome(run, history.best_epoch, history.best_row["val_dice"], tuple(history.rows), processes.first)


def check_start(recipe: Recipe, options: Options) -> None:
    """Refuse what :func:`train_run` would refuse before it looks at the data; ``options.run`` counts for nothing.

    Raises:
        UserError: The device, the weights to start from, or a package stand in the way.
    """
    _require_sense(recipe, options, find_processes(options.device, options.devices))
    _network(recipe, options, fill=True)
    for tracker in _trackers(recipe, RunFolder(options.run), options):
        tracker.close()


def _say_nothing(_line: str) -> None:
    """The log of a process that only helps."""


def _require_sense(recipe: Recipe, options: Options, processes: Processes) -> None:
    """Refuse options that contradict each other or the device."""
    if recipe.training.precision == "fp16" and processes.device == "cpu":
        # Lightning would take bf16 in its place.
        raise UsageError("--precision fp16 needs a GPU", "Take --precision bf16 or fp32.")
    if options.init is not None and options.encoder_weights is not None:
        raise UsageError("--init fills the encoder, too", "Leave --encoder-weights out.")
    processes.share(recipe.training.batch)


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


def _named_set(spec: ModelSpec) -> str:
    """What the model will say of its data, which nothing here can check."""
    way = "--set spec.provenance.data=NAME --set spec.provenance.data_licence=TERMS"
    data, terms = (spec.provenance.get(key) for key in ("data", "data_licence"))
    if not data:
        return f"the model will not say what it was trained on; name it with {way}"
    return f"the model will say that it was trained on {data!r}, {terms or 'licence not stated'}; for another set {way}"


def _with_provenance(recipe: Recipe, split: Split) -> ModelSpec:
    provenance = {
        **recipe.spec.provenance,
        "recipe": recipe.name,
        "network": {"name": recipe.network.name, **recipe.network.options},
        "split": split.provenance(),
        "software": software_versions(),
    }
    return recipe.spec.model_copy(update={"provenance": provenance})


def software_versions() -> dict[str, str]:
    """Of what computes; a package that is only on the path reads ``unpackaged``."""
    return {"python": platform.python_version(), **{name: version_of(name) or "unpackaged" for name in _SOFTWARE}}


def _write_start(run: RunFolder, recipe: Recipe, gathered: TrainingSet, options: Options, anew: bool) -> None:
    if anew:
        write_text(run.recipe_file, recipe.to_toml())
        gathered.split.write(run.split_file)
        run.write_json(run.versions_file, software_versions())
    # When resuming too: data, cache or the run itself may lie elsewhere than before.
    places = {"data": str(options.data.resolve()), "cache": str(gathered.cache.folder.resolve())}
    run.write_json(run.data_file, places)


def _log_start(recipe: Recipe, processes: Processes, gathered: TrainingSet, log: Callable[[str], None]) -> None:
    train, validation = len(gathered.train), len(gathered.validation)
    device = processes.device if processes.world == 1 else f"{processes.world} x {processes.device}"
    log(f"recipe  {recipe.name}   {recipe.network.name}   {device} {recipe.training.precision}")
    for line in gathered.describe():
        log(line)
    log(f"train   {train} samples, {validation} to validate, {recipe.training.epochs} epochs")


def _trackers(recipe: Recipe, run: RunFolder, options: Options) -> list[Tracker]:
    trackers: list[Tracker] = []
    if options.tensorboard:
        trackers.append(TensorBoard(run.tensorboard_folder))
    if options.mlflow is not None:
        trackers.append(MLflow(options.mlflow, recipe, run.path.name))
    return trackers


def _network(recipe: Recipe, options: Options, fill: bool) -> tuple[nn.Module, Encoder | None]:
    return first_network(recipe, init=options.init, encoder_weights=options.encoder_weights, fill=fill)


def _module(recipe: Recipe, gathered: TrainingSet, network: nn.Module, encoder: Encoder | None) -> SegmentationModule:
    """The network inside its loop."""
    training = recipe.training
    batches = math.ceil(len(gathered.shuffle(recipe)) / training.batch)
    return SegmentationModule(
        network,
        encoder,
        recipe,
        math.ceil(batches / training.accumulate) * training.epochs,
        [sample.item for sample in gathered.cache.samples],
        gathered.groups,
    )


def _loaders(recipe: Recipe, gathered: TrainingSet, workers: int, processes: Processes) -> tuple[Any, Any]:
    """This process's part of training and validation; None where nobody validates.

    Raises:
        UsageError: The samples do not suffice for so many processes.
    """
    settings, volume = recipe.training, recipe.spec.input.rank == 3
    patch = recipe.spec.input.patch if recipe.spec.input.rank == 3 else None
    samples = TrainingSamples(gathered.cache, patch, settings.foreground_patches, settings.seed)
    shuffle = RankShare(gathered.shuffle(recipe), settings.batch, processes)
    batch = processes.share(settings.batch)
    training = loader(samples, shuffle, batch, workers)
    if not gathered.validation:
        return training, None
    if len(gathered.validation) < processes.world:
        raise UsageError(
            f"{len(gathered.validation)} samples validate, fewer than devices ({processes.world})", "Lower --devices."
        )
    mine = gathered.validation[processes.rank :: processes.world]
    return training, loader(WholeSamples(gathered.cache), mine, 1 if volume else batch, workers)
