"""``segtool train``."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from segtool.errors import MissingDependencyError


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a path to a .toml file.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Folder of the training set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; made where missing.")],
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
        Path | None, typer.Option(help="Pre-trained encoder: .safetensors, or a torch file of tensors.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Take only so many cases, spread over the set.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, shuffles and augmentation.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed cases; default RUN/cache.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network by a recipe: split by patient, best weights kept, one line an epoch."""
    try:
        from segtool_train.frameworks import keep_freed_memory
        from segtool_train.recipe import find_recipe, read_recipe
        from segtool_train.training import Options, train_run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"segtool", "segtool_train"}:
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed, which training needs",
            "Install it with: pip install 'segtool[train]'",
        ) from error
    keep_freed_memory()
    overrides = {"epochs": epochs, "batch": batch, "lr": lr, "precision": precision, "seed": seed}
    resolved = read_recipe(find_recipe(recipe), **overrides)
    options = Options(data, output, device, workers, resume, encoder_weights, limit, cache)
    outcome = train_run(resolved, options, _print_to_stderr if json_output else _print)
    if json_output:
        result = {
            "run": str(output),
            "best_epoch": outcome.best_epoch,
            "best_val_dice": outcome.best_dice,
            "epochs": list(outcome.rows),
        }
        _print(json.dumps(result))
    else:
        _print(f"done    best validation Dice {outcome.best_dice:.4f} in epoch {outcome.best_epoch}   {output}")


def _print(line: str) -> None:
    # Flushed line by line: a log that is written to a file shall be readable while training runs.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print_to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
