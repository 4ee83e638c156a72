"""The measures of a training run as columns of a table that compares runs."""

import math
from collections.abc import Mapping

MEASURES = ("dice", "iou", "f1", "precision", "recall")


def measures(row: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """:data:`MEASURES` of a row with Dice, IoU, precision and recall under ``prefix``, in [0, 1].

    F1 is the harmonic mean of the row's precision and recall; Dice is a mean over images and differs from it.
    """
    found = {name: row[f"{prefix}{name}"] for name in MEASURES if f"{prefix}{name}" in row}
    precision, recall = (found.get(name, math.nan) for name in ("precision", "recall"))
    if precision + recall > 0:
        found["f1"] = 2 * precision * recall / (precision + recall)
    return {name: found[name] for name in MEASURES if math.isfinite(found.get(name, math.nan))}
