"""The measures that choose weights: overlap of thresholded masks on the network's own grid."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segtool.spec import ModelSpec

Tensor = torch.Tensor
Means = dict[str, float]

MEASURES = ("dice", "iou", "precision", "recall")


def decided(logits: Tensor, spec: ModelSpec) -> Tensor:
    """Masks ``(N, L, *S)`` from logits ``(N, K, *S)``, as :func:`segtool.postprocess.decide` has them."""
    if spec.activation == "sigmoid":
        return logits > math.log(spec.threshold / (1 - spec.threshold))
    best = logits.argmax(dim=1, keepdim=True)
    classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
    return best == classes


def count_overlap(masks: Tensor, target: Tensor) -> Tensor:
    """Pixels ``(N, L, 3)`` in both, in ``masks``, and where ``target``'s share is at least a half."""
    axes = tuple(range(2, masks.ndim))
    reference = target >= 0.5
    return torch.stack([(masks & reference).sum(axes), masks.sum(axes), reference.sum(axes)], dim=-1)


def measure(counts: Tensor) -> dict[str, Tensor]:
    """Each of :data:`MEASURES` as ``(N, L)`` from counts ``(N, L, 3)``, NaN where it is 0 / 0."""
    shared, predicted, reference = counts.double().unbind(dim=-1)
    return {
        "dice": 2 * shared / (predicted + reference),
        "iou": shared / (predicted + reference - shared),
        "precision": shared / predicted,
        "recall": shared / reference,
    }


@dataclass(frozen=True)
class Scores:
    """Mean of each of :data:`MEASURES` over validation samples.

    Args:
        mean: Over all samples; NaN where none has the measure.
        by_group: The same by class of the samples, and by label where the spec has several.
        loss: Mean of the training loss without augmentation.
    """

    mean: Means
    by_group: dict[str, Means]
    loss: float

    @classmethod
    def none(cls) -> "Scores":
        """Of no samples."""
        return cls(dict.fromkeys(MEASURES, math.nan), {}, math.nan)

    def goodness(self, monitor: str) -> float:
        """What ``monitor`` names, higher where it is better; the lowest of all where it is not a number."""
        value = -self.loss if monitor == "val_loss" else self.mean["dice"]
        return -math.inf if math.isnan(value) else value


def summarise(
    samples: Sequence[int], counts: Tensor, groups: Sequence[str], spec: ModelSpec, loss: float = math.nan
) -> Scores:
    """Means over samples, each sample's labels averaged first.

    A sample whose measure is not defined, such as Dice where both masks are empty, does not count.

    Args:
        samples: Numbers of the ``N`` samples.
        counts: ``(N, L, 3)``, see :func:`count_overlap`.
        groups: Class of every sample by number, empty where it has none.
        spec: Names the labels.
        loss: Stored as it is.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        if groups[sample]:
            rows[groups[sample]].append(row)
    mean: Means = {}
    by_group: dict[str, Means] = defaultdict(dict)
    for name, values in measure(counts).items():
        of_sample = values.nanmean(dim=1)
        mean[name] = float(of_sample.nanmean())
        for group, chosen in rows.items():
            by_group[group][name] = float(of_sample[chosen].nanmean())
        if len(spec.labels) > 1:
            for label, column in zip(spec.labels, values.unbind(dim=1), strict=True):
                by_group[label.name][name] = float(column.nanmean())
    return Scores(mean, dict(sorted(by_group.items())), loss)
