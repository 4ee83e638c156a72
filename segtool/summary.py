"""Means, intervals and medians of scores, and the table that a terminal shows.

Two means are given of every share (Dice, IoU and so on), because the field has two habits:

* ``*_mean_with_reference``: over the cases whose reference has the structure;
* ``*_mean_all``: over all cases, where a structure absent from both prediction and reference counts as 1.

A measure that stays undefined (the precision of an empty prediction) is left out of its mean; ``*_n_*`` says
how many values went in. Distances exist only where both masks hold the structure: one that the prediction
lacks is ``missed``, one that the reference lacks is ``spurious``, and neither is turned into a number.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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


def summarise(scores: Sequence[Scores], seed: int) -> dict[str, Any]:
    """Summarise one structure over everything scored.

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
        having = [one for one in scores if getattr(one, measure) is not None]
        values = [getattr(one, measure) for one in having]
        if not having:
            continue
        if measure not in SHARES:
            summary |= _statistics(measure, "", values, seed)
            continue
        everyone = [1.0 if one.is_empty else value for one, value in zip(having, values, strict=True)]
        some = [value for one, value in zip(having, values, strict=True) if one.in_reference]
        summary |= _statistics(measure, "_all", everyone, seed)
        summary |= _statistics(measure, "_with_reference", some, seed)
    return summary


def _statistics(measure: str, which: str, values: Sequence[float], seed: int) -> dict[str, Any]:
    """Of the finite values; all but the count are NaN where there is none."""
    sample = np.array([value for value in values if math.isfinite(value)], np.float64)
    few = sample.size == 0
    return {
        f"{measure}_n{which}": int(sample.size),
        f"{measure}_mean{which}": math.nan if few else float(sample.mean()),
        f"{measure}_ci95{which}": list(bootstrap_mean_ci(sample, seed=seed)),
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


def _print_columns(console: "Console", rows: Sequence[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows[1:]:
        # Text, because a name in brackets is not markup.
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def print_summary(console: "Console", summary: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the means by structure; fits 80 to 100 columns. Prints nothing where nothing was scored."""
    for rows in (_overlap_table(summary), _surface_table(summary), _size_table(summary)):
        if len(rows) > 1:
            _print_columns(console, rows)
