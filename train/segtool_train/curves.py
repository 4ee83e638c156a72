"""Losses and validation measures over epochs, as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segtool.atomic import atomic_path
from segtool_train.history import Row

_MEASURES = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall"}


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG: the losses, then a panel for each validation measure, one point an epoch.

    Each class of the validation samples has a thin line of its own. What a row lacks leaves a gap.
    """
    figure = Figure(figsize=(7, 13), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1 + len(_MEASURES), 1, sharex=True))
    epochs = [row["epoch"] for row in rows]

    def line(axes: Axes, column: str, label: str, width: float, colour: str | None = None) -> None:
        values = [row.get(column, math.nan) for row in rows]
        axes.plot(epochs, values, marker=".", label=label, linewidth=width, color=colour)

    line(panels[0], "train_loss", "training", 2.0, "tab:blue")
    line(panels[0], "val_loss", "validation", 2.0, "tab:orange")
    panels[0].set_ylabel("loss")
    for axes, (measure, name) in zip(panels[1:], _MEASURES.items(), strict=True):
        prefix = f"val_{measure}"
        line(axes, prefix, "mean", 2.0, "black")
        for column in (key for key in rows[-1] if key.startswith(f"{prefix}_")):
            line(axes, column, column.removeprefix(f"{prefix}_"), 1.0)
        axes.set_ylabel(f"validation {name}")
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels:
        axes.grid(alpha=0.3)
    for axes in panels[:2]:
        axes.legend(loc="best")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
