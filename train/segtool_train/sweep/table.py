"""A sweep's trials as one table, in the order in which they ran."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segtool.atomic import write_text
from segtool_train.columns import MEASURES
from segtool_train.sweep.trial import Trial

_TITLES = {"dice": "Dice", "iou": "IoU", "f1": "F1", "precision": "Precision", "recall": "Recall"}


def write_tables(folder: Path, trials: Sequence[Trial]) -> tuple[Path, Path]:
    """Write ``sweep.csv`` and ``sweep.md`` into ``folder``."""
    paths = folder / "sweep.csv", folder / "sweep.md"
    write_text(paths[0], to_csv(trials))
    write_text(paths[1], to_markdown(trials))
    return paths


def varied(trials: Sequence[Trial]) -> list[str]:
    """Keys of all trials, in the order of their first appearance."""
    return list(dict.fromkeys(key for trial in trials for key in trial.values))


def to_csv(trials: Sequence[Trial]) -> str:
    """Every column, numbers as they are."""
    text = io.StringIO()
    keys = varied(trials)
    sides = {"val": "validation", **({"test": "test"} if _tested(trials) else {})}
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"{side}_{name}" for side in sides for name in MEASURES]
    writer.writerow(["trial", *keys, *scores, "best_epoch", "epochs", "elapsed_s", "state", "error"])
    for trial in trials:
        found = [_number(getattr(trial, side).get(name)) for side in sides.values() for name in MEASURES]
        facts = ["" if trial.best_epoch is None else trial.best_epoch, len(trial.curve), f"{trial.elapsed_s:.1f}"]
        varying = [trial.values.get(key, "") for key in keys]
        writer.writerow([trial.number, *varying, *found, *facts, trial.state, trial.error])
    return text.getvalue()


def to_markdown(trials: Sequence[Trial]) -> str:
    """For people: what varies against what was reached, four decimals; a failed trial shows its error below."""
    keys = varied(trials)
    columns: list[tuple[str, Callable[[Trial], str]]] = [("trial", lambda trial: str(trial.number))]
    columns += [(title, _value(key)) for key, title in zip(keys, short_names(keys), strict=True)]
    columns += [(_TITLES[name], _score("validation", name)) for name in MEASURES]
    if _tested(trials):
        columns += [(f"test {_TITLES[name]}", _score("test", name)) for name in MEASURES]
    columns.append(("state", lambda trial: trial.state))
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[cell(trial) for _, cell in columns] for trial in trials]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    failed = "".join(f"- trial {trial.number}: {trial.error}\n" for trial in trials if trial.error)
    return table + (f"\n{failed}" if failed else "")


def short_names(keys: Sequence[str]) -> list[str]:
    """The last part of every dotted key; the whole key where two end alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def _tested(trials: Sequence[Trial]) -> bool:
    return any(trial.test for trial in trials)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _value(key: str) -> Callable[[Trial], str]:
    return lambda trial: short_value(trial.values[key]) if key in trial.values else ""


def short_value(value: Any) -> str:  # noqa: ANN401 - any TOML value
    """For a cell: four digits of what is not whole."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _score(side: str, name: str) -> Callable[[Trial], str]:
    def cell(trial: Trial) -> str:
        value = getattr(trial, side).get(name)
        return "" if value is None else f"{value:.4f}"

    return cell
