"""Loss and validation Dice over epochs, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segtool.atomic import atomic_path


def draw_curves(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Write a PNG with the training loss above and every ``val_dice`` column below, one point an epoch."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, dice = figure.subplots(2, 1, sharex=True)
    epochs = [row["epoch"] for row in rows]
    loss.plot(epochs, [row["train_loss"] for row in rows], marker=".", color="tab:blue")
    loss.set_ylabel("training loss")
    for column in (key for key in rows[0] if key.startswith("val_dice")):
        name = column.removeprefix("val_dice").lstrip("_")
        style = {"linewidth": 1.0} if name else {"linewidth": 2.0, "color": "black"}
        dice.plot(epochs, [row[column] for row in rows], marker=".", label=name or "mean", **style)
    dice.set_ylabel("validation Dice")
    dice.set_xlabel("epoch")
    dice.legend(loc="lower right")
    for axes in (loss, dice):
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
