import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtool_train.bars import draw_bars
from segtool_train.curves import draw_curves

NUMBERS = {"train_loss": 0.5, "val_loss": 0.6, "val_dice": 0.7, "val_iou": 0.6, "val_precision": 0.8, "val_recall": 0.9}
CLASSES = {"val_dice_glioma": 0.7, "val_iou_glioma": 0.6, "val_precision_glioma": 0.7, "val_recall_glioma": 0.9}


@pytest.mark.parametrize(
    "row",
    [
        {**NUMBERS, **CLASSES},
        {**NUMBERS, **CLASSES, "val_dice": math.nan, "val_dice_glioma": math.nan},
        {"train_loss": 0.5, **dict.fromkeys(("val_loss", "val_dice", "val_iou"), math.nan)},  # nobody validates
        {"train_loss": 0.5, "val_dice": 0.5},  # of an older run
    ],
)
def test_curves_and_bars_are_drawn_of_whatever_numbers_there_are(tmp_path: Path, row: dict[str, float]):
    draw_curves([{"epoch": 1, **row}, {"epoch": 2, **row}], tmp_path / "curves.png")
    draw_bars({"epoch": 2, **row}, tmp_path / "bars.png")
    for name in ("curves", "bars"):
        assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 1


def test_a_class_more_makes_the_bars_wider(tmp_path: Path):
    draw_bars({"epoch": 1, **NUMBERS}, tmp_path / "one.png")
    draw_bars({"epoch": 1, **NUMBERS, **CLASSES}, tmp_path / "two.png")
    one, two = (np.asarray(Image.open(tmp_path / f"{name}.png")).shape for name in ("one", "two"))
    assert two[1] > one[1]
    assert two[0] == one[0]
