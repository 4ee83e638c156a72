"""The trials of a sweep, one after the other, each in a run folder of its own."""

import csv
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from segtool.atomic import write_text
from segtool.errors import UsageError, UserError
from segtool_train.columns import measures
from segtool_train.held_out import score_test
from segtool_train.recipe import Recipe
from segtool_train.run_folder import RunFolder
from segtool_train.sweep.check import Log, Read, check_sides, check_trials
from segtool_train.sweep.plan import Sweep, Values
from segtool_train.sweep.search import Proposal
from segtool_train.sweep.table import short_names, short_value, write_tables
from segtool_train.sweep.trial import Trial, read_trial
from segtool_train.training import Options, train_run

_ENDED = frozenset({"done", "pruned"})
"""Not trained again; a failed trial is, as its cause may have been mended."""
_TRACEBACK = "error.txt"
"""File in the run folder of a trial that a bug has stopped."""


@dataclass(frozen=True)
class SweepOutcome:
    """All trials, and where the table lies."""

    trials: tuple[Trial, ...]
    csv_file: Path
    markdown_file: Path

    @property
    def failed(self) -> int:
        """Number of trials that an error stopped."""
        return sum(trial.state == "failed" for trial in self.trials)


class _PrunedError(Exception):
    """Ends a training from inside; no error of anybody's."""


def run_sweep(sweep: Sweep, read: Read, options: Options, log: Log, *, test: bool = False) -> SweepOutcome:
    """Train every trial into ``options.run/trial-000`` and so on, and keep one table of them up to date.

    With ``options.resume`` trials that have ended stay as they are, an interrupted one goes on from its last
    checkpoint, and failed ones are tried again.

    Args:
        sweep: What varies.
        read: Gives a trial's recipe.
        options: As for one training; ``run`` is the sweep's folder. All trials share one folder of caches.
        log: Takes the lines of every training and one a trial.
        test: Score the best weights of each trial on the test part, too.

    Returns:
        All trials; one that an error stopped is a failed row.

    Raises:
        UserError: The folder holds another sweep, no trial's recipe is valid, or what stands in the way of one, such
            as a broken case, stands in the way of all: then no trial is written.
        KeyboardInterrupt: As it came.
    """
    _check_folder(options)
    check_sides(sweep, read, options.data, test=test)
    points = sweep.points
    total = sweep.optuna.trials if sweep.optuna else len(points)
    if not all(_has_ended(read_trial(options.run, number)) for number in range(total)):
        check_trials(sweep, read, options, log)
    trials: list[Trial] = []
    for number in range(total):
        known = read_trial(options.run, number)
        proposal = None
        if sweep.optuna:
            proposal = Proposal(sweep.optuna, trials, number, known.values if known else None)
        values = proposal.values if proposal else points[number]
        if known and known.values != values:
            raise _other(options.run / known.folder)
        log(f"trial {number + 1}/{total}  {_described(values)}")
        trial = Trial(number, values, "started")
        run = RunFolder(options.run / trial.folder)
        if known and _has_ended(known):
            _check_same(run, read, {**sweep.shared, **values})
            trial = known
        else:
            trial = _attempt(trial, partial(read, {**sweep.shared, **values}), run, options, log, proposal)
        if test and trial.state == "done" and not trial.test:
            trial = replace(trial, test=measures(score_test(run, options).mean))
            trial.write(options.run)
        trials.append(trial)
        paths = write_tables(options.run, trials)
    return SweepOutcome(tuple(trials), *paths)


def _check_folder(options: Options) -> None:
    if not options.resume and read_trial(options.run, 0) is not None:
        raise UsageError(f"{options.run}: holds a sweep already", "Pass --resume to go on, or name another folder.")


def _other(run: Path) -> UsageError:
    return UsageError(
        f"{run}: was trained with other values or another recipe",
        "Resume with the same sweep, recipe and options, or sweep into another folder.",
    )


def _has_ended(trial: Trial | None) -> bool:
    return trial is not None and trial.state in _ENDED


def _described(values: Values) -> str:
    keys = list(values)
    return "  ".join(f"{name} {short_value(values[key])}" for key, name in zip(keys, short_names(keys), strict=True))


def _check_same(run: RunFolder, read: Read, settings: Values) -> None:
    if run.read_recipe() != read(settings):
        raise _other(run.path)


def _attempt(
    trial: Trial, read: Callable[[], Recipe], run: RunFolder, options: Options, log: Log, proposal: Proposal | None
) -> Trial:
    """The trial as it ended, stored."""
    try:
        recipe = read()
        trial.write(options.run)
        ended = _train(trial, recipe, run, options, log, proposal)
    except UserError as error:
        ended = replace(trial, state="failed", error=str(error))
    except Exception as error:  # noqa: BLE001 - a night of trials outlives a bug that one of them meets; it is shown
        write_text(run.path / _TRACEBACK, traceback.format_exc())
        said = " ".join(str(error).split())
        ended = replace(
            trial, state="failed", error=f"{type(error).__name__}: {said} (an error of segtool, see {_TRACEBACK})"
        )
    if ended.error:
        log(f"failed  {ended.error}")
    ended.write(options.run)
    return ended


def _train(
    trial: Trial, recipe: Recipe, run: RunFolder, options: Options, log: Log, proposal: Proposal | None
) -> Trial:
    def watch(line: str) -> None:
        log(line)
        # The line of an epoch is the last thing that it leaves: its row and its checkpoint are written.
        if proposal is not None and line.startswith("epoch ") and proposal.should_stop(_dice(_rows(run))):
            raise _PrunedError

    one = replace(options, run=run.path, resume=run.last_file.is_file(), cache=options.cache or options.run / "cache")
    try:
        best_epoch = train_run(recipe, one, watch).best_epoch
    except _PrunedError:
        log("pruned  below the median of the other trials")
        dice = _dice(_rows(run))
        best_epoch = max(range(len(dice)), key=lambda epoch: (not math.isnan(dice[epoch]), dice[epoch])) + 1
        trial = replace(trial, state="pruned")
    else:
        trial = replace(trial, state="done")
    rows = _rows(run)
    return replace(
        trial,
        validation=measures(rows[best_epoch - 1], "val_"),
        best_epoch=best_epoch,
        curve=tuple(_dice(rows)),
        elapsed_s=math.fsum(row["elapsed_s"] for row in rows),
    )


def _rows(run: RunFolder) -> list[dict[str, float]]:
    """One an epoch; what is not a number, such as an empty cell, is NaN."""
    with run.metrics_file.open(encoding="utf-8", newline="") as lines:
        return [{key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(lines)]


def _dice(rows: Sequence[dict[str, float]]) -> list[float]:
    return [row["val_dice"] for row in rows]
