"""Intensities of a channel as the network sees them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.spec import IntensitySpec

Float32Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Statistics:
    """What normalising takes from an image: its clipped range, and mean and deviation of the foreground."""

    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, image: AnyArray, intensity: IntensitySpec) -> "Statistics":
        """Of all voxels ``(*S)`` of one channel."""
        values = image.astype(np.float32)
        low, high = _range(values, intensity.percentiles)
        nonzero = values != 0
        np.clip(values, low, high, out=values)
        return cls(low, high, *_moments(values[_foreground(values, nonzero, low, high, intensity)]))


def normalise(image: AnyArray, intensity: IntensitySpec, known: Statistics | None = None) -> Float32Array:
    """Normalise one channel as :class:`~segtool.spec.IntensitySpec` says.

    Args:
        image: ``(*S)`` finite intensities of one channel.
        intensity: The rule.
        known: Statistics to use; None takes those of ``image`` itself.

    Returns:
        A new float32 array ``(*S)``. A constant image becomes 0 everywhere.
    """
    values = image.astype(np.float32)
    if intensity.kind == "none":
        return values
    nonzero = values != 0
    low, high = (known.low, known.high) if known else _range(values, intensity.percentiles)
    np.clip(values, low, high, out=values)
    foreground = _foreground(values, nonzero, low, high, intensity)
    if high <= low or (known is None and not foreground.any()):
        return np.zeros_like(values)
    if intensity.kind == "minmax":
        values -= low
        values /= high - low
    else:
        mean, deviation = (known.mean, known.deviation) if known else _moments(values[foreground])
        values -= mean
        values /= deviation if deviation > 0 else 1.0
    if intensity.background == "zero":
        values[~foreground] = 0.0
    return values


def _foreground(
    values: Float32Array, nonzero: npt.NDArray[np.bool_], low: float, high: float, intensity: IntensitySpec
) -> npt.NDArray[np.bool_]:
    """Which of the clipped ``values`` count, as the rule says."""
    if intensity.foreground == "nonzero":
        return nonzero
    if intensity.foreground == "above":
        return np.asarray(values > low + intensity.foreground_fraction * (high - low))
    return np.ones(values.shape, bool)


def _moments(inside: Float32Array) -> tuple[float, float]:
    """Mean and standard deviation; 0 and 0 of nothing."""
    if not inside.size:
        return 0.0, 0.0
    return float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))


def _range(values: Float32Array, percentiles: tuple[float, float] | None) -> tuple[float, float]:
    """The low and high end of ``values``, by percentile (nearest rank) or by extremes."""
    if percentiles is None:
        return float(values.min()), float(values.max())
    last = values.size - 1
    ranks = [round(last * percent / 100) for percent in percentiles]
    # One partial sort for both ranks; interpolating between neighbours would change nothing that matters.
    ordered = np.partition(values, ranks, axis=None)
    return float(ordered[ranks[0]]), float(ordered[ranks[1]])
