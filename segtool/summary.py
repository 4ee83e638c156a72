"""Means, intervals and medians of scores, and the table that a terminal shows.

Two means are given of every share (Dice, IoU and so on), because the field has two habits:

* ``*_mean_with_reference``: over the cases whose reference has the structure;
* ``*_mean_all``: over all cases, where a structure absent from both prediction and reference counts as 1.

Soft measures, which know no empty prediction, are averaged as they are in both.

A measure that stays undefined (the precision of an empty prediction) is left out of its mean; ``*_n_*`` says
how many values went in. Distances exist only where both masks hold the structure: one that the prediction
lacks is ``missed``, one that the reference lacks is ``spurious``, and neither is turned into a number.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segtool.errors import printable
from segtool.metrics import bootstrap_mean_ci
from segtool.scores import MEASURES, Scores

if TYPE_CHECKING:
    from rich.console import Console

Row = tuple[str, ...]

SHARES = (
    "dice",
    "iou",
    "precision",
    "recall",
    "f1",
    "specificity",
    "nsd_1mm",
    "nsd_2mm",
    "nsd_1px",
    "nsd_2px",
)
"""Measures in [0, 1], of which both means are given."""

SOFT = tuple(measure for measure in MEASURES if measure.startswith("soft_"))


def summarise(scores: Sequence[Scores], seed: int, groups: Sequence[str] | None = None) -> dict[str, Any]:
    """Summarise one structure over everything scored.

    Args:
        scores: Of each case or slice.
        seed: Of the bootstrap.
        groups: Of each, such as its patient: intervals then draw whole groups.

    Returns:
        ``n``, ``n_with_reference``, ``n_missed``, ``n_spurious``, ``n_empty``; then ``MEASURE_STATISTIC``
        with the statistics ``n``, ``mean``, ``ci95`` (two ends), ``median`` and ``std``, and for shares
        ``_all`` or ``_with_reference`` behind. Numbers are NaN where there are no values.
    """
    summary: dict[str, Any] = {
        "n": len(scores),
        "n_with_reference": sum(bool(one.in_reference) for one in scores),
        "n_missed": sum(bool(one.missed) for one in scores),
        "n_spurious": sum(bool(one.spurious) for one in scores),
        "n_empty": sum(one.is_empty for one in scores),
    }
    for measure in MEASURES:
        having = [index for index, one in enumerate(scores) if getattr(one, measure) is not None]
        if not having:
            continue
        if measure not in SHARES and measure not in SOFT:
            summary |= _statistics(measure, "", _numbers(scores, having, measure), seed, groups)
            continue
        everyone = _numbers(scores, having, measure)
        if measure not in SOFT:
            everyone = {index: 1.0 if scores[index].is_empty else value for index, value in everyone.items()}
        some = {index: value for index, value in everyone.items() if scores[index].in_reference}
        summary |= _statistics(measure, "_all", everyone, seed, groups)
        summary |= _statistics(measure, "_with_reference", some, seed, groups)
    return summary


def _numbers(scores: Sequence[Scores], indices: Sequence[int], measure: str) -> dict[int, float]:
    return {index: getattr(scores[index], measure) for index in indices}


def _statistics(
    measure: str, which: str, values: Mapping[int, float], seed: int, groups: Sequence[str] | None
) -> dict[str, Any]:
    """Of the finite values, by index; all but the count are NaN where there is none."""
    finite = {index: value for index, value in values.items() if math.isfinite(value)}
    sample = np.array(list(finite.values()), np.float64)
    mine = None if groups is None else [groups[index] for index in finite]
    few = sample.size == 0
    return {
        f"{measure}_n{which}": int(sample.size),
        f"{measure}_mean{which}": math.nan if few else float(sample.mean()),
        f"{measure}_ci95{which}": list(bootstrap_mean_ci(sample, groups=mine, seed=seed)),
        f"{measure}_median{which}": math.nan if few else float(np.median(sample)),
        # The spread of a sample, hence n - 1; one case has none.
        f"{measure}_std{which}": float(sample.std(ddof=1)) if sample.size > 1 else math.nan,
    }


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _with_interval(summary: Mapping[str, Any], measure: str, which: str = "", digits: int = 3, unit: str = "") -> str:
    """Such as ``0.834 (0.81-0.85)`` or ``4.21 mm (3.1-5.9)``."""
    mean = _number(summary[f"{measure}_mean{which}"], digits)
    if mean == "-":
        return mean
    mean += unit
    low, high = summary[f"{measure}_ci95{which}"]
    if not math.isfinite(low):
        return mean
    dash = "-" if low >= 0 else " to "  # "-3.1--1.2" would be read wrongly
    return f"{mean} ({_number(low, digits - 1)}{dash}{_number(high, digits - 1)})"


def _overlap_table(summary: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = [("structure", "mean over", "n", "Dice (95 % CI)", "IoU", "precision", "recall")]
    for name, one in summary.items():
        if "dice_n_all" not in one:
            continue
        means = {"with reference": ("_with_reference", one["n_with_reference"])}
        # Scans without any reference file have a size and no Dice: they are in neither mean.
        if one["dice_n_all"] != one["n_with_reference"]:
            means["all, empty = 1"] = ("_all", one["dice_n_all"])
        for label, (which, n) in means.items():
            shares = (_number(one[f"{share}_mean{which}"]) for share in ("iou", "precision", "recall"))
            rows.append((name, label, str(n), _with_interval(one, "dice", which), *shares))
    return rows


_UNITS = (("mm", "volume", "ml"), ("px", "area", "px"))


def _surface_table(summary: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = [("structure", "HD95 (95 % CI)", "NSD 1 (95 % CI)", "NSD 2 (95 % CI)")]
    for name, one in summary.items():
        for unit, _, _ in _UNITS:
            if f"hd95_{unit}_n" in one:
                shares = (_with_interval(one, f"nsd_{t}{unit}", "_with_reference") for t in (1, 2))
                rows.append((name, _with_interval(one, f"hd95_{unit}", digits=2, unit=f" {unit}"), *shares))
    return rows


def _size_table(summary: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = [("structure", "size difference (95 % CI)", "specificity", "missed", "spurious")]
    for name, one in summary.items():
        for _, size, unit in _UNITS:
            measure = f"{size}_difference_{unit}"
            if f"{measure}_n" in one:
                difference = _with_interval(one, measure, digits=2, unit=f" {unit}")
                specificity = _number(one["specificity_mean_all"])
                rows.append((name, difference, specificity, str(one["n_missed"]), str(one["n_spurious"])))
    return rows


def _soft_table(summary: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = [("structure", "soft Dice (95 % CI)", "soft IoU", "precision", "recall", "accuracy")]
    for name, one in summary.items():
        if "soft_dice_n_with_reference" in one:
            measures = ("iou", "precision", "recall", "accuracy")
            shares = (_number(one[f"soft_{measure}_mean_with_reference"]) for measure in measures)
            rows.append((name, _with_interval(one, "soft_dice", "_with_reference"), *shares))
    return rows


def _print_columns(console: "Console", rows: Sequence[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows[1:]:
        # Text, because a name in brackets is not markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def print_summary(console: "Console", summary: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the means by structure; fits 80 to 100 columns. Prints nothing where nothing was scored."""
    tables = (_overlap_table(summary), _soft_table(summary), _surface_table(summary), _size_table(summary))
    for rows in tables:
        if len(rows) > 1:
            _print_columns(console, rows)
