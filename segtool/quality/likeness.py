"""How near a look is to those of the training: the distances that a spec's statistics set limits to.

The distance is that of Mahalanobis, by the square root of the number of features, so that 1 is usual. Source:
Mahalanobis, Proceedings of the National Institute of Sciences of India 2(1), 1936. That of histograms is the
earth mover's, which of ordered values at equal ranks is their mean difference.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from segtool.quality.look import Float64Array
from segtool.spec_statistics import ChannelStatistics


@dataclass(frozen=True, eq=False)
class Reference:
    """The looks of one channel in training, ready to measure by.

    Args:
        histogram: ``(RANKS,)``.
        mean: ``(F,)``, likewise ``deviation``.
        precision: ``(F, F)``.
    """

    histogram: Float64Array
    mean: Float64Array
    deviation: Float64Array
    precision: Float64Array

    @classmethod
    def of(cls, statistics: ChannelStatistics) -> "Reference":
        """As a spec has it."""
        count = len(statistics.mean)
        precision = np.zeros((count, count))
        precision[np.tril_indices(count)] = statistics.precision
        precision += np.tril(precision, -1).T
        return cls(np.array(statistics.histogram), np.array(statistics.mean), np.array(statistics.deviation), precision)

    def distance(self, features: Float64Array) -> float:
        """Of a look's features ``(F,)``."""
        scores = (features - self.mean) / self.deviation
        return math.sqrt(max(0.0, float(scores @ self.precision @ scores)) / scores.size)

    def histogram_distance(self, histogram: Float64Array) -> float:
        """Of a look's histogram ``(RANKS,)``, in units of the spread of the head's intensities."""
        return float(np.abs(histogram - self.histogram).mean())


@dataclass(frozen=True)
class Exchange:
    """The order of channels that fits best.

    Args:
        order: ``order[i]`` is the channel of the model that the case's channel ``i`` looks like.
        gain: By how much the summed distances are lower than in the case's own order.
    """

    order: tuple[int, ...]
    gain: float


def distances(features: list[Float64Array], references: list[Reference]) -> Float64Array:
    """``(C, C)``, of the looks of a case's channels (rows) to the references of the model's (columns)."""
    return np.array([[reference.distance(one) for reference in references] for one in features])


def exchange(costs: Float64Array) -> Exchange:
    """The best order of channels but the case's own.

    Args:
        costs: ``(C, C)`` of two channels at least, from :func:`distances`.

    Returns:
        Its ``gain`` is negative where every other order fits worse than the case's own.
    """
    count, own = len(costs), float(np.trace(costs))
    best = Exchange(tuple(range(count)), -np.inf)
    # The best order that puts a channel elsewhere, for each channel: one of them is the best but the own.
    for channel in range(count):
        barred = costs.copy()
        barred[channel, channel] = costs.sum() + 1
        _, order = linear_sum_assignment(barred)
        gain = own - float(costs[np.arange(count), order].sum())
        if gain > best.gain:
            best = Exchange(tuple(int(one) for one in order), gain)
    return best
