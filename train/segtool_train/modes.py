"""What ``segtool train`` does beside a single training: a sweep, folds, or a picture of the augmentation."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtool.errors import UsageError
from segtool_train.folds import facts, run_folds
from segtool_train.preview import draw_preview
from segtool_train.processes import find_processes
from segtool_train.recipe import Recipe, find_recipe, read_recipe
from segtool_train.sweep.plan import find_sweep, read_sweep
from segtool_train.sweep.run import run_sweep
from segtool_train.training import Options

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Args:
        recipe: Name or path; None takes the sweep's.
        overrides: Of the recipe, by dotted key.
        options: ``run`` is the folder of all trainings.
        log: Takes lines.
        finish: Called with the folder of each fold's run; None exports nothing.
    """

    recipe: str | None
    overrides: dict[str, Any]
    options: Options
    log: Callable[[str], None]
    finish: Callable[[Path], object] | None = None

    def read(self, values: Values) -> Recipe:
        """The recipe with its overrides, and with ``values`` in place of those.

        Raises:
            UsageError: There is none, or it is not valid.
        """
        if self.recipe is None:
            raise UsageError("no RECIPE is given", "Name a shipped recipe, or a path that ends in .toml.")
        return read_recipe(find_recipe(self.recipe), {**self.overrides, **values})


def run_mode(
    request: Request, *, preview: Path | None, sweep: str | None, folds: int | None, test: bool
) -> dict[str, Any]:
    """Do the one that is asked for; facts for ``--json``, under ``failed`` the number of failed trials.

    Raises:
        UserError: Several are asked for, or the one cannot be done.
    """
    flags = {"--preview": preview, "--sweep": sweep, "--folds": folds}
    asked = [flag for flag, value in flags.items() if value is not None]
    if len(asked) != 1:
        raise UsageError(f"{' and '.join(asked)} are different jobs", "Give one of them.")
    _require_alone(asked[0], request.options)
    if preview is not None:
        return _preview(request, preview)
    if sweep is not None:
        return _sweep(request, sweep, test=test)
    assert folds is not None
    return _folds(request, folds)


def _preview(request: Request, picture: Path) -> dict[str, Any]:
    draw_preview(request.read({}), request.options.data, picture, request.log)
    request.log(f"done    {picture}")
    return {"preview": str(picture)}


def _sweep(request: Request, name: str, *, test: bool) -> dict[str, Any]:
    path = find_sweep(name)
    plan = read_sweep(path)
    clash = sorted(plan.varied & request.overrides.keys())
    if clash:
        raise UsageError(f"{path}: varies {', '.join(clash)}, which an option sets", "Leave that option out.")
    # An option wins over what the sweep sets for all its trials.
    plan = plan.model_copy(update={"shared": {**plan.shared, **request.overrides}})
    recipe = find_recipe(request.recipe or plan.recipe)
    outcome = run_sweep(plan, lambda values: read_recipe(recipe, values), request.options, request.log, test=test)
    for line in outcome.markdown_file.read_text(encoding="utf-8").splitlines():
        request.log(line)
    best = max(outcome.trials, key=lambda trial: trial.validation.get("dice", -1.0))
    if best.validation:
        request.log(f"best    validation Dice {best.validation['dice']:.4f}   {request.options.run / best.folder}")
    total = len(outcome.trials)
    request.log(f"done    {total - outcome.failed} of {total} trials   {outcome.markdown_file}")
    return {
        "sweep": str(request.options.run),
        "table": str(outcome.csv_file),
        "failed": outcome.failed,
        "trials": [{**trial.facts(), "run": str(request.options.run / trial.folder)} for trial in outcome.trials],
    }


def _folds(request: Request, count: int) -> dict[str, Any]:
    outcome = run_folds(request.read, count, request.options, request.log, request.finish)
    if outcome.models:
        models = " ".join(f"-m {path}" for path in outcome.models)
        request.log(f"ensemble  segtool predict SCANS {models}")
    dice, spread = outcome.mean.get("dice"), outcome.spread.get("dice")
    if dice is not None and spread is not None:
        request.log(f"done    held-out Dice {dice:.4f} ± {spread:.4f} over {count} folds   {outcome.files[1]}")
    return {**facts(outcome), "run": str(request.options.run), "models": [str(path) for path in outcome.models]}


def _require_alone(flag: str, options: Options) -> None:
    """Lightning starts the other processes of a training as copies of the command, which is here many trainings."""
    world = max(find_processes(options.device, options.devices).world, int(os.environ.get("WORLD_SIZE") or 1))
    if world > 1:
        raise UsageError(
            f"{flag} runs in one process, and WORLD_SIZE or --devices is {world}",
            "Start segtool itself, not torchrun, without --devices; or train each trial or fold by itself, with --set.",
        )
