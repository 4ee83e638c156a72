"""Overlap measures of two binary masks, and the bootstrap of a mean.

Pure functions of boolean arrays ``(*S)`` of one shape. An undefined ratio, 0/0, is NaN: which number stands
for it in a mean is decided, and named, by the report. Distances of surfaces are in :mod:`segtool.surface`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
NAN = float("nan")

# Indices drawn at once while bootstrapping: 8 MB of int64, however many cases there are.
_DRAWN_AT_ONCE = 1_000_000


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else NAN


@dataclass(frozen=True)
class Counts:
    """The confusion table of two masks, in voxels, and the ratios that follow from it.

    Every ratio lies in [0, 1] and is NaN where its denominator is 0.

    Args:
        tp: Voxels in both masks.
        fp: Voxels in the prediction only.
        fn: Voxels in the reference only.
        tn: Voxels in neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def referenced(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    @property
    def dice(self) -> float:
        """``2 tp / (2 tp + fp + fn)``; of voxels the same number as F1."""
        return _ratio(2 * self.tp, self.predicted + self.referenced)

    @property
    def iou(self) -> float:
        """``tp / (tp + fp + fn)``."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """``tp / (tp + fp)``: the share of the prediction that is right."""
        return _ratio(self.tp, self.predicted)

    @property
    def recall(self) -> float:
        """``tp / (tp + fn)``: the share of the reference that is found."""
        return _ratio(self.tp, self.referenced)

    @property
    def specificity(self) -> float:
        """``tn / (tn + fp)``: the share of the background left alone. Grows with the field of view."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def difference_percent(self) -> float:
        """Predicted less referenced size in percent of the referenced one."""
        return 100.0 * _ratio(self.fp - self.fn, self.referenced)


def check_masks(prediction: npt.NDArray[Any], reference: npt.NDArray[Any]) -> None:
    """Refuse what the measures would silently get wrong.

    Raises:
        ValueError: The shapes differ or an array is not boolean.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"masks of two shapes: {prediction.shape} and {reference.shape}")
    if prediction.dtype != np.bool_ or reference.dtype != np.bool_:
        raise ValueError(f"masks are boolean, not {prediction.dtype} and {reference.dtype}")


def confusion(prediction: Mask, reference: Mask) -> Counts:
    """Count agreeing and differing voxels.

    Args:
        prediction: ``(*S)``, True inside the predicted structure.
        reference: ``(*S)``, True inside the reference structure.

    Raises:
        ValueError: The shapes differ or an array is not boolean.
    """
    check_masks(prediction, reference)
    both = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - both
    fn = int(np.count_nonzero(reference)) - both
    return Counts(both, fp, fn, prediction.size - both - fp - fn)


def dice(prediction: Mask, reference: Mask) -> float:
    """Sørensen-Dice coefficient of two masks of one shape.

    Args:
        prediction: ``(*S)``, True inside the predicted structure.
        reference: ``(*S)``, True inside the reference structure.

    Returns:
        A value in [0, 1]; NaN when both masks are empty, where the ratio is undefined. The report decides
        how NaN enters a mean, so that no convention hides in here.

    Raises:
        ValueError: The shapes differ or an array is not boolean.

    Source: Dice, Ecology 26(3), 1945.
    """
    return confusion(prediction, reference).dice


def iou(prediction: Mask, reference: Mask) -> float:
    """Intersection over union; arguments, NaN and errors as for :func:`dice`.

    Source: Jaccard, New Phytologist 11(2), 1912.
    """
    return confusion(prediction, reference).iou


def precision(prediction: Mask, reference: Mask) -> float:
    """Share of the prediction that is right; NaN for an empty prediction. Errors as for :func:`dice`."""
    return confusion(prediction, reference).precision


def recall(prediction: Mask, reference: Mask) -> float:
    """Share of the reference that is found; NaN for an empty reference. Errors as for :func:`dice`."""
    return confusion(prediction, reference).recall


def f1(prediction: Mask, reference: Mask) -> float:
    """Harmonic mean of precision and recall; over voxels this is :func:`dice` by another name."""
    return confusion(prediction, reference).dice


def specificity(prediction: Mask, reference: Mask) -> float:
    """Share of the background left alone; NaN where there is none. Errors as for :func:`dice`."""
    return confusion(prediction, reference).specificity


def volume_ml(mask: Mask, spacing_mm: Sequence[float]) -> float:
    """Volume of a mask in millilitres (1000 mm³).

    Args:
        mask: ``(I, J, K)``.
        spacing_mm: Distance of neighbouring voxel centres along each axis.

    Raises:
        ValueError: Not one spacing an axis.
    """
    if len(spacing_mm) != mask.ndim:
        raise ValueError(f"{mask.ndim} axes have {mask.ndim} spacings, not {len(spacing_mm)}")
    return int(np.count_nonzero(mask)) * math.prod(spacing_mm) / 1000.0


def volume_difference_ml(prediction: Mask, reference: Mask, spacing_mm: Sequence[float]) -> float:
    """Predicted less reference volume in millilitres: positive where too much is predicted."""
    check_masks(prediction, reference)
    return volume_ml(prediction, spacing_mm) - volume_ml(reference, spacing_mm)


def volume_difference_percent(prediction: Mask, reference: Mask) -> float:
    """Predicted less reference volume in percent of the reference's; NaN for an empty reference."""
    return confusion(prediction, reference).difference_percent


def soft_measures(probability: npt.NDArray[np.floating[Any]], reference: Mask) -> dict[str, float]:
    """Overlap of probabilities with a mask, without a threshold.

    With ``p`` the probability of a voxel, ``y`` 1 inside the reference and 0 outside, and sums over all ``n`` voxels:

    * ``soft_accuracy``: ``(sum(y p) + sum((1 - y) (1 - p))) / n``
    * ``soft_precision``: ``sum(y p) / sum(p)``
    * ``soft_recall``: ``sum(y p) / sum(y)``
    * ``soft_iou``: ``sum(y p) / (sum(y) + sum(p) - sum(y p))``
    * ``soft_dice``: ``2 sum(y p) / (sum(y) + sum(p))``

    Where every ``p`` is 0 or 1 they are the measures of the two masks.

    Args:
        probability: ``(*S)`` in [0, 1].
        reference: ``(*S)``, True inside the reference structure.

    Returns:
        The measures by name, NaN where the ratio is 0/0.

    Raises:
        ValueError: The shapes differ.
    """
    if probability.shape != reference.shape:
        raise ValueError(f"probabilities {probability.shape} and a mask {reference.shape}")
    inside = float(np.count_nonzero(reference))
    predicted = float(probability.sum(dtype=np.float64))
    both = float(probability[reference].sum(dtype=np.float64))
    neither = probability.size - inside - predicted + both
    return {
        "soft_accuracy": _ratio(both + neither, probability.size),
        "soft_precision": _ratio(both, predicted),
        "soft_recall": _ratio(both, inside),
        "soft_iou": _ratio(both, inside + predicted - both),
        "soft_dice": _ratio(2 * both, inside + predicted),
    }


def bootstrap_mean_ci(
    values: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of a mean by the percentile bootstrap.

    Args:
        values: One a case, taken as independent of each other unless there are ``groups``; NaN is dropped.
        groups: Of each value, such as its patient: whole groups are drawn, each with all its values, and the mean
            is that of all values drawn (the cluster bootstrap of Field and Welsh, J. R. Statist. Soc. B 69, 2007).
        level: Coverage, in (0, 1).
        resamples: How many means are drawn.
        seed: Of the generator; equal arguments give equal intervals.

    Returns:
        The ends of the interval; NaN for fewer than two values, or groups, which say nothing about their spread.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    sample = np.asarray(values, np.float64)
    known = ~np.isnan(sample)
    sums: npt.NDArray[np.float64] = sample[known]
    counts = np.ones(sums.size)
    if groups is not None:
        _, of_group = np.unique(np.asarray(groups)[known], return_inverse=True)
        sums, counts = (np.asarray(np.bincount(of_group, w), np.float64) for w in (sums, counts))
    if sums.size < 2:
        return NAN, NAN
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // sums.size)
    parts = []
    for done in range(0, resamples, rows):
        drawn = generator.integers(0, sums.size, (min(rows, resamples - done), sums.size))
        weight = sums.size if groups is None else counts[drawn].sum(axis=1)
        parts.append(sums[drawn].sum(axis=1) / weight)
    means = np.concatenate(parts)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return float(low), float(high)
