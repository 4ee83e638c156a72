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
    referenced = [one for one in scores if one.in_reference]
    summary: dict[str, Any] = {
        "n": len(scores),
        "n_with_reference": len(referenced),
        "n_missed": sum(bool(one.missed) for one in scores),
        "n_spurious": sum(bool(one.spurious) for one in scores),
        "n_empty": sum(one.is_empty for one in scores),
    }
    for measure in MEASURES:
        values = [value for one in scores if (value := getattr(one, measure)) is not None]
        if not values:
            continue
        if measure not in SHARES:
            summary |= _statistics(measure, "", values, seed)
            continue
        everyone = [1.0 if one.is_empty else getattr(one, measure) for one in scores]
        summary |= _statistics(measure, "_all", [v for v in everyone if v is not None], seed)
        some = [value for one in referenced if (value := getattr(one, measure)) is not None]
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


def _with_interval(summary: Mapping[str, Any], measure: str, which: str, digits: int) -> str:
    """Such as ``0.834 (0.81-0.85)``."""
    mean = _number(summary[f"{measure}_mean{which}"], digits)
    low, high = summary[f"{measure}_ci95{which}"]
    if not math.isfinite(low):
        return mean
    dash = "-" if low >= 0 else " to "  # "-3.1--1.2" would be read wrongly
    return f"{mean} ({_number(low, max(1, digits - 1))}{dash}{_number(high, max(1, digits - 1))})"


def _overlap_table(summary: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = [("structure", "mean over", "n", "Dice (95 % CI)", "IoU", "precision", "recall")]
    for name, one in summary.items():
        if "dice_n_all" not in one:
            continue
        means = {"with reference": ("_with_reference", one["n_with_reference"])}
        if one["n_with_reference"] != one["n"]:
            means["all, empty = 1"] = ("_all", one["n"])
        for label, (which, n) in means.items():
            shares = (_number(one[f"{share}_mean{which}"]) for share in ("iou", "precision", "recall"))
            rows.append((name, label, str(n), _with_interval(one, "dice", which, 3), *shares))
    return rows


def _surface_table(summary: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = [
        (
            "structure",
            "unit",
            "HD95 (95 % CI)",
            "NSD 1",
            "NSD 2",
            "specificity",
            "size diff.",
            "missed",
            "spurious",
        )
    ]
    for name, one in summary.items():
        for unit, size, amount in (("mm", "volume", "ml"), ("px", "area", "px")):
            if f"hd95_{unit}_n" not in one:
                continue
            shares = (
                _number(one[f"{share}_mean_with_reference"])
                for share in (f"nsd_1{unit}", f"nsd_2{unit}", "specificity")
            )
            difference = f"{one[f'{size}_difference_{amount}_mean']:+.1f} {amount}"
            rows.append(
                (
                    name,
                    unit,
                    _with_interval(one, f"hd95_{unit}", "", 2),
                    *shares,
                    difference,
                    str(one["n_missed"]),
                    str(one["n_spurious"]),
                )
            )
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
    for rows in (_overlap_table(summary), _surface_table(summary)):
        if len(rows) > 1:
            _print_columns(console, rows)
