"""Pictures of an evaluation: histograms of every measure, and the best and worst cases with their contours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segtool.atomic import atomic_path
from segtool.case import LabelMap, Source
from segtool.formats import SUFFIXES, get_format, suffix_of
from segtool.loading import load_case
from segtool.overlay import overlay_case, write_overlay
from segtool.spec import ModelSpec
from segtool.summary import SOFT
from segtool_export.summary import Row
from segtool_train.data.base import Item

_MEASURES = ("dice", "iou", "precision", "recall", "hd95_mm", "hd95_px", *SOFT)
_EXTREMES = 3  # best and as many worst cases
_BINS = 20
_COLUMNS = 5
_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95_mm": "HD95 (mm)",
    "hd95_px": "HD95 (px)",
    "soft_dice": "soft Dice",
    "soft_iou": "soft IoU",
}


def title_of(measure: str) -> str:
    """As a person reads it: ``hd95_mm`` is ``HD95 (mm)``."""
    return _TITLES.get(measure, measure.replace("_", " "))


def draw_histograms(rows: Sequence[Row], structure: str, path: Path) -> None:
    """Write a PNG with a histogram of each measure over the cases: those of masks above, the soft ones below."""
    columns = _values(rows, structure)
    lines = math.ceil(len(columns) / _COLUMNS) or 1
    height = 2.6 * lines
    figure = Figure(figsize=(3 * _COLUMNS, height))
    # A layout engine would measure every label twice for what is known: margins in inches over the figure's height.
    figure.subplots_adjust(0.02, 0.3 / height, 0.99, 1 - 0.7 / height, wspace=0.15, hspace=0.35)
    FigureCanvasAgg(figure)
    figure.suptitle(structure)
    for number, (measure, values) in enumerate(columns.items(), start=1):
        _histogram(figure.add_subplot(lines, _COLUMNS, number), measure, values)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)


def _values(rows: Sequence[Row], structure: str) -> dict[str, list[float]]:
    """Finite values by measure, of the cases whose reference has the structure, without measures that have none."""
    having = [row.scores[structure] for row in rows if structure in row.scores and row.scores[structure].in_reference]
    columns = {measure: [getattr(one, measure) for one in having] for measure in _MEASURES}
    finite = {key: [v for v in values if v is not None and math.isfinite(v)] for key, values in columns.items()}
    return {key: values for key, values in finite.items() if values}


def _histogram(axes: Axes, measure: str, values: Sequence[float]) -> None:
    top = max(max(values), 1.0) if measure.startswith("hd95") else 1.0
    counts, edges = np.histogram(values, _BINS, (0.0, top))
    axes.stairs(counts, edges, fill=True, color="tab:blue")
    axes.axvline(float(np.mean(values)), color="black", linewidth=1)
    axes.set_title(f"{title_of(measure)}, mean {np.mean(values):.3g}", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def draw_reliability(sides: Mapping[str, Mapping[str, Any]], temperature: float, path: Path) -> None:
    """Write a PNG of the reliability of probabilities, one panel a side: true share over mean probability, by bin.

    Args:
        sides: By name what :meth:`segtool.postprocess.calibration.Calibration.as_dict` says of it.
        temperature: That was learnt.
        path: Of the picture.
    """
    figure = Figure(figsize=(4.2 * len(sides), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (name, one) in enumerate(sides.items(), start=1):
        axes = figure.add_subplot(1, len(sides), number)
        axes.plot((0, 1), (0, 1), color="grey", linewidth=1, linestyle="dashed")
        for which, label, colour in (
            ("before", "as they are", "tab:orange"),
            ("after", f"at temperature {temperature:.2f}", "tab:blue"),
        ):
            filled = [(p, f) for count, p, f in one[which]["bins"] if count]
            axes.plot(*zip(*filled, strict=True), "o-", color=colour, label=f"{label}: error {one[which]['ece']:.4f}")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=f"{name}, {one['cases']} cases")
        axes.set(xlabel="mean probability of a label", ylabel="share of voxels that have it")
        axes.legend(loc="upper left", fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)


@dataclass(frozen=True)
class Picture:
    """A case that was drawn: what it stands for, its Dice, and its file."""

    what: str
    row: Row
    dice: float
    path: Path


def mean_dice(row: Row) -> float:
    """Over the structures that prediction or reference has; NaN where there is none."""
    known = [one.dice for one in row.scores.values() if one.dice is not None and not math.isnan(one.dice)]
    return float(np.mean(known)) if known else math.nan


def choose(rows: Sequence[Row]) -> dict[str, Row]:
    """The best and the worst rows and those at the quartiles, best first, by what they stand for; each row once.

    Ties go to the earlier row, so that equal scores give equal pictures.
    """
    ranked = sorted((row for row in rows if not math.isnan(mean_dice(row))), key=mean_dice, reverse=True)
    last = len(ranked) - 1
    wanted: dict[str, int] = {}
    for number in range(min(_EXTREMES, len(ranked))):
        wanted |= {f"best-{number + 1}": number, f"worst-{number + 1}": last - number}
    wanted |= {"upper-quartile": round(last / 4), "lower-quartile": round(last * 3 / 4)} if ranked else {}
    by_place: dict[int, str] = {}
    for what, place in wanted.items():
        by_place.setdefault(place, what)
    return {by_place[place]: ranked[place] for place in sorted(by_place)}


def draw_cases(
    rows: Sequence[Row], items: Mapping[str, Item], labels: Mapping[str, Path], spec: ModelSpec, folder: Path
) -> list[Picture]:
    """Write ``best-1.png`` and the like, contours of the reference green and of the prediction red.

    Args:
        rows: All that were scored.
        items: By name.
        labels: Label map file by item.
        spec: Says which channel comes first; that one is shown.
        folder: Takes the pictures.
    """
    pictures = []
    for what, row in choose(rows).items():
        path = folder / f"{what}.png"
        _draw(path, row, items[row.item], _read(labels[row.item]), spec)
        pictures.append(Picture(what, row, mean_dice(row), path))
    return pictures


def _draw(path: Path, row: Row, item: Item, label_map: LabelMap, spec: ModelSpec) -> None:
    case = load_case(item.source, spec)
    if row.slice is None:
        overlay_case(path, case, label_map)
        return
    assert case.reference is not None
    index = row.slice
    write_overlay(path, case.data[0][index], label_map.labels[index], case.reference.labels[index], dice=mean_dice(row))


def _read(path: Path) -> LabelMap:
    kind = SUFFIXES[suffix_of(path)]
    label_map = get_format(kind).read_labels(Source(kind, (path,)))
    assert label_map is not None
    return label_map
