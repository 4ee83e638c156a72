"""Cross-validation: one training a fold, each tested on patients that it has not seen, then mean and spread."""

import csv
import io
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segtool.atomic import write_text
from segtool.errors import UsageError
from segtool_train.columns import MEASURES, measures
from segtool_train.data.split_rule import choice_of_test
from segtool_train.held_out import score_test
from segtool_train.recipe import Recipe
from segtool_train.run_folder import RunFolder
from segtool_train.scores import Scores
from segtool_train.training import Options, train_run

Log = Callable[[str], None]
Row = dict[str, float]
Read = Callable[[dict[str, Any]], Recipe]
"""The recipe with some of its values replaced, as :func:`segtool_train.overrides.override` has them."""
MODEL = "model.onnx"
"""Name of the model file that finishing a run leaves in its folder."""


@dataclass(frozen=True)
class FoldsOutcome:
    """What the folds reached on their held-out patients.

    Args:
        rows: Measures of every fold, those of a class or label under ``dice_NAME`` and so on.
        mean: Over the folds that have the measure.
        spread: Standard deviation over those folds, n - 1 in the denominator; left out where there is but one.
        files: Table for machines, table for people, all of it as JSON.
        models: Model files of the folds, where finishing wrote them: together they are an ensemble.
    """

    rows: tuple[Row, ...]
    mean: Row
    spread: Row
    files: tuple[Path, Path, Path]
    models: tuple[Path, ...]


def run_folds(
    read: Read, folds: int, options: Options, log: Log, finish: Callable[[Path], object] | None = None
) -> FoldsOutcome:
    """Train fold after fold into ``options.run/fold-0`` and so on.

    Fold ``i`` tests on the ``i``-th part of the patients and trains on the others, of which the recipe's share
    validates. With ``options.resume`` finished folds stay, and an interrupted one goes on from its last checkpoint.

    Args:
        read: Gives the recipe of a fold.
        folds: At least 2.
        options: As for one training; ``run`` holds all folds, which share one folder of caches.
        log: Takes the lines of every training and the table.
        finish: Called with the folder of each fold after its training, to export it.

    Raises:
        UserError: A fold cannot be trained.
        KeyboardInterrupt: As it came.
    """
    folders = [options.run / f"fold-{fold}" for fold in range(folds)]
    if not options.resume and any(_result_file(folder).is_file() for folder in folders):
        raise UsageError(f"{options.run}: holds folds already", "Pass --resume to go on, or name another folder.")
    rows = []
    for fold, folder in enumerate(folders):
        log(f"fold {fold + 1}/{folds}  {folder}")
        recipe = read(choice_of_test(folds=folds, fold=fold))
        rows.append(_fold(recipe, folder, options, log, finish))
    outcome = _outcome(rows, options.run, [folder / MODEL for folder in folders])
    for line in to_markdown(outcome).splitlines():
        log(line)
    return outcome


def _result_file(folder: Path) -> Path:
    return folder / "fold.json"


def _fold(recipe: Recipe, folder: Path, options: Options, log: Log, finish: Callable[[Path], object] | None) -> Row:
    """Measures of one fold, trained now or earlier."""
    run, result = RunFolder(folder), _result_file(folder)
    if result.is_file():
        if run.read_recipe() != recipe:
            raise UsageError(
                f"{folder}: was trained with another recipe",
                "Resume with the same recipe, options and folds, or train into another folder.",
            )
        return _read(result)
    cache = options.cache or options.run / "cache"
    one = replace(options, run=folder, resume=run.last_file.is_file(), cache=cache)
    train_run(recipe, one, log)
    if finish is not None:
        finish(folder)
    row = _row(score_test(run, options))
    run.write_json(result, row)
    return row


def _read(path: Path) -> Row:
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: damaged ({error})", "Remove that file; its fold is then scored again.") from error


def _row(scores: Scores) -> Row:
    row = measures(scores.mean)
    for group, means in scores.by_group.items():
        row |= {f"{name}_{group}": value for name, value in measures(means).items()}
    return row


def _outcome(rows: Sequence[Row], folder: Path, models: Sequence[Path]) -> FoldsOutcome:
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = {name: [row[name] for row in rows if name in row] for name in names}
    mean = {name: statistics.fmean(values) for name, values in known.items()}
    spread = {name: statistics.stdev(values) for name, values in known.items() if len(values) > 1}
    files = folder / "folds.csv", folder / "folds.md", folder / "folds.json"
    outcome = FoldsOutcome(tuple(rows), mean, spread, files, tuple(path for path in models if path.is_file()))
    write_text(files[0], to_csv(outcome))
    write_text(files[1], to_markdown(outcome))
    write_text(files[2], json.dumps(facts(outcome), indent=1, ensure_ascii=False) + "\n")
    return outcome


def facts(outcome: FoldsOutcome) -> dict[str, Any]:
    """For JSON."""
    return {
        "measure": "means over held-out samples on the network's grid",
        "folds": list(outcome.rows),
        "mean": outcome.mean,
        "sd": outcome.spread,
    }


def to_csv(outcome: FoldsOutcome) -> str:
    """A row a fold, then the mean and the standard deviation."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", *outcome.mean])
    named = [*enumerate(outcome.rows), ("mean", outcome.mean), ("sd", outcome.spread)]
    for title, row in named:
        writer.writerow([title, *(f"{row[name]:.6g}" if name in row else "" for name in outcome.mean)])
    return text.getvalue()


def to_markdown(outcome: FoldsOutcome) -> str:
    """A row a measure, a column a fold, then mean ± standard deviation; of classes and labels the Dice alone."""
    titles = ["held out", *(f"fold {fold}" for fold in range(len(outcome.rows))), "mean ± sd"]
    lines = [titles, ["---"] * len(titles)]
    for name, mean in outcome.mean.items():
        if name not in MEASURES and not name.startswith("dice_"):
            continue
        cells = [f"{row[name]:.4f}" if name in row else "" for row in outcome.rows]
        spread = f" ± {outcome.spread[name]:.4f}" if name in outcome.spread else ""
        lines.append([name, *cells, f"{mean:.4f}{spread}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
