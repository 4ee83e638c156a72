"""Rows of an evaluation for tests, from a Dice each."""

from segtool.scores import Scores
from segtool_export.summary import Row


def row(item: str, dice: float, *, patient: str = "p", group: str = "", in_reference: bool = True) -> Row:
    """A picture whose tumour has this Dice; 0 where the reference has one means that it was missed."""
    scores = Scores(
        dice=dice,
        iou=dice / (2 - dice),
        precision=dice,
        recall=dice,
        hd95_px=4.0 if dice else float("nan"),
        in_reference=in_reference,
        missed=in_reference and not dice,
        spurious=not in_reference and dice == 0,
        soft_dice=dice,
    )
    return Row(item, None, patient, group, {"tumour": scores})
