"""``segtool train``."""

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from segtool.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from segtool_train.training import Outcome


def train(
    data: Annotated[Path, typer.Option("--data", "-d", help="Folder of the training set.")],
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a shipped recipe, or a path to a .toml file; a sweep names its own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; made where missing.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A value of the recipe, as in training.loss=bce; repeatable."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs, in place of the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples a batch, in place of the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, in place of the recipe's.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where to train; auto takes CUDA where there is one."),
    ] = "auto",
    precision: Annotated[
        Literal["bf16", "fp16", "fp32"] | None,
        typer.Option(help="Of the arithmetic, in place of the recipe's."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that fetch batches; 0 fetches in this one.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    encoder_weights: Annotated[
        Path | None, typer.Option(help="Pre-trained encoder: .safetensors, a torch file of tensors, or a run.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Start from all weights of a run of the same network, or of a file.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices of this machine that train together; torchrun sets it, too.")
    ] = None,
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Let torch compile the network: slow to start, then faster on a GPU.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard/--no-tensorboard", help="Write RUN/tensorboard beside metrics.csv.")
    ] = True,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="MLflow server or sqlite:///FILE.db that takes the metrics, too."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Take only so many cases, spread over the set.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, shuffles and augmentation.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed cases; default RUN/cache.")] = None,
    split: Annotated[
        Literal["patient", "slice"] | None,
        typer.Option(help="What stays on one side; by slice, patients leak and the scores are too good."),
    ] = None,
    split_file: Annotated[
        Path | None,
        typer.Option(help="JSON of who trains, validates and tests: a run's split.json, or lists of names."),
    ] = None,
    test_fold: Annotated[str | None, typer.Option(help="Official fold of the set that tests.")] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Go on without cases that cannot be used; RUN/broken.txt names them.")
    ] = False,
    export: Annotated[
        bool, typer.Option("--export/--no-export", help="End with RUN/model.onnx, its figures and its card.")
    ] = True,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Choose post-processing on the validation cases.")
    ] = True,
    preview: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Only draw a few augmented samples into this file.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Train every trial of a sweep into one table: a .toml file, or a shipped name.")
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Score a sweep's trials on the test patients, too.")] = False,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Cross-validate: so many trainings, each tested on its own patients.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network by a recipe: split by patient, best weights kept, one line an epoch.

    Ends by exporting RUN/model.onnx, measuring it on the run's test cases and writing RUN/card.md.
    """
    try:
        from segtool_train.data.split_rule import choice_of_test
        from segtool_train.finishing import finish
        from segtool_train.frameworks import keep_freed_memory
        from segtool_train.modes import Request, run_mode
        from segtool_train.overrides import parse_settings
        from segtool_train.training import Options, train_run
        from segtool_train.training_set import require_outside
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"segtool", "segtool_train"}:
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed, which training needs",
            "Install it with: pip install 'segtool[train]'",
        ) from error
    keep_freed_memory()
    flags = {"epochs": epochs, "batch": batch, "lr": lr, "precision": precision, "seed": seed}
    given = {f"training.{key}": value for key, value in flags.items() if value is not None}
    parts = choice_of_test(by=split, test_fold=test_fold, file=split_file, folds=folds)
    if output is None and preview is None:
        raise UsageError("--output is missing", "Name the folder of the run.")
    require_outside(data, {"--output": output, "--cache": cache, "--preview": preview})
    options = Options(
        data,
        output or Path(),
        device,
        workers,
        resume,
        encoder_weights,
        limit,
        cache,
        skip_broken,
        init=init,
        devices=devices,
        compile=compile_network,
        tensorboard=tensorboard,
        mlflow=mlflow,
    )
    log = _print_to_stderr if json_output else _print
    # Training's own device may be one that the engine has no provider for.
    finisher = partial(finish, learn=learn, device="cpu" if device == "cpu" else "auto", log=log)
    overrides = {**parse_settings(settings or ()), **parts, **given}
    request = Request(recipe, overrides, options, log, finisher if export else None)
    if test and sweep is None:
        raise UsageError("--test is for --sweep", "Leave it out: the card of a run has its test figures.")
    if not (preview is None and sweep is None and folds is None):
        if devices not in (None, 1):
            raise UsageError("--devices is for one training", "Leave it out with --sweep, --folds and --preview.")
        _end(run_mode(request, preview=preview, sweep=sweep, folds=folds, test=test), json_output)
        return
    chosen = request.read({})
    outcome = train_run(chosen, options, log)
    if not outcome.first:
        return
    facts = finisher(options.run) if export else {}
    if json_output:
        result = {
            "run": str(output),
            "best_epoch": outcome.best_epoch,
            "best_val_dice": _finite(outcome.best_dice),
            "epochs": [{key: _finite(value) for key, value in row.items()} for row in outcome.rows],
            **facts,
        }
        _print(json.dumps(result))
    else:
        _print(f"done    {_reached(outcome, chosen.training.monitor)}   {output}")


def _end(facts: dict[str, Any], json_output: bool) -> None:
    """After several trainings: the facts, and exit code 1 where some failed."""
    if json_output:
        _print(json.dumps(facts))
    if facts.get("failed"):
        raise typer.Exit(1)


def _reached(outcome: "Outcome", monitor: str) -> str:
    dice, epoch = _finite(outcome.best_dice), outcome.best_epoch
    if dice is None:
        return f"no validation Dice, weights of epoch {epoch}"
    if monitor == "val_loss":
        return f"best validation loss in epoch {epoch}, its Dice {dice:.4f}"
    return f"best validation Dice {dice:.4f} in epoch {epoch}"


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _print(line: str) -> None:
    # Flushed line by line: a log that is written to a file shall be readable while training runs.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print_to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
