"""Validation measures of one epoch, class by class, as a picture."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segtool.atomic import atomic_path
from segtool_train.history import Row

_MEASURES = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall"}
_WIDTH = 0.8 / len(_MEASURES)


def draw_bars(row: Row, path: Path) -> None:
    """Write a PNG: for all samples and for each class a bar a measure. What is not a number has no bar."""
    groups = ["", *(key.removeprefix("val_dice_") for key in row if key.startswith("val_dice_"))]
    figure = Figure(figsize=(max(4.8, 2.5 + 1.4 * len(groups)), 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = np.arange(len(groups))
    for number, (measure, name) in enumerate(_MEASURES.items()):
        heights = [row.get(f"val_{measure}_{group}" if group else f"val_{measure}", np.nan) for group in groups]
        bars = axes.bar(places + (number - (len(_MEASURES) - 1) / 2) * _WIDTH, heights, _WIDTH, label=name)
        axes.bar_label(bars, ["" if np.isnan(h) else f"{h:.2f}" for h in heights], fontsize=7)
    axes.set_xticks(places, [group or "mean" for group in groups])
    axes.set_ylim(0, 1.05)
    axes.set_title(f"validation, epoch {int(row['epoch'])}")
    axes.legend(ncols=len(_MEASURES), loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False)
    axes.grid(axis="y", alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
