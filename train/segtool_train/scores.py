"""The measure that chooses weights: Dice of thresholded masks on the network's own grid."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from segtool.spec import ModelSpec


def decided(logits: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """Masks ``(N, L, *S)`` from logits ``(N, K, *S)``, as :func:`segtool.postprocess.decide` has them."""
    if spec.activation == "sigmoid":
        return logits > math.log(spec.threshold / (1 - spec.threshold))
    best = logits.argmax(dim=1, keepdim=True)
    classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
    return best == classes


def dice_per_sample(masks: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Dice ``(N, L)`` of masks against shares of at least a half; NaN where both are empty."""
    axes = tuple(range(2, masks.ndim))
    reference = target >= 0.5
    overlap = (masks & reference).sum(axes)
    return 2 * overlap / (masks.sum(axes) + reference.sum(axes))  # 0 / 0 is NaN


@dataclass(frozen=True)
class Scores:
    """Mean validation Dice: over all samples, by class of the samples, and by label where it has several."""

    mean: float
    by_group: dict[str, float]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def summarise(dice: Sequence[tuple[int, Sequence[float]]], groups: Sequence[str], spec: ModelSpec) -> Scores:
    """Means of ``(sample, Dice a label)`` rows; samples without prediction and reference do not count.

    Args:
        dice: One row a sample.
        groups: Class of every sample by number, empty where it has none.
        spec: Names the labels.
    """
    by_group: dict[str, list[float]] = defaultdict(list)
    for sample, labels in dice:
        if groups[sample]:
            by_group[groups[sample]].append(_mean(labels))
        if len(spec.labels) > 1:
            for label, value in zip(spec.labels, labels, strict=True):
                by_group[label.name].append(value)
    return Scores(
        _mean(_mean(labels) for _, labels in dice),
        {name: _mean(values) for name, values in sorted(by_group.items())},
    )
