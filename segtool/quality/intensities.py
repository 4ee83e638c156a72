"""Whether a channel's intensities can be those of an MRI, of the training, and of that channel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from segtool.case import Case
from segtool.quality.likeness import Reference, distances, exchange
from segtool.quality.look import PICTURES, Look
from segtool.spec_statistics import ChannelStatistics, StatisticsSpec

_BRIGHT_BORDER = 0.8
_AIR_SHARE = 0.05
_NOISE_GRAIN = 0.35
_FEW_LEVELS = 8
_MORE_THAN_BYTES = 1000
_LEAST_GAIN, _LEAST_GAIN_OF_SEVERAL = 0.5, 0.05
"""One picture may lie between two sequences; the mean of eight does not."""
_WHAT, _KIND = ("intensities", "pictures"), ("histogram distance", "distance")
_INSPECT = "check the sequence with `segtool inspect`"


@dataclass(frozen=True)
class Known:
    """A channel's statistics, and the same ready to measure by; how many cases, and whether they were volumes."""

    statistics: ChannelStatistics
    reference: Reference
    cases: int
    of_volumes: bool

    @classmethod
    def all_of(cls, spec: StatisticsSpec) -> "list[Known]":
        """Of every channel."""
        return [cls(one, Reference.of(one), spec.cases, spec.grid is not None) for one in spec.channels]

    def compares(self, look: Look) -> bool:
        """False of single pictures where training saw means of eight, which lie far nearer to each other."""
        return not self.of_volumes or 2 * look.pictures >= PICTURES


def fault_warning(name: str, look: Look | None) -> str | None:
    """The line about one channel that no knowledge of the training is needed for; None where nothing is to be said."""
    if look is None:
        return f"{name}: nothing to be seen (blank, of one value, or hardly any head): give the scan, or leave it out"
    if look.levels <= _FEW_LEVELS:
        return f"{name}: a mask or drawing perhaps ({look.levels} different values, a scan has hundreds): give the scan"
    if look.air > _AIR_SHARE:
        return f"{name}: CT perhaps ({look.air:.0%} of the values are below -500, as air is; wanted MRI): give the MRI"
    if look.grain > _NOISE_GRAIN:
        return f"{name}: noise (neighbours differ by {look.grain:.2f}, wanted below {_NOISE_GRAIN}): check the file"
    if look.border > _BRIGHT_BORDER:
        return f"{name}: the background is as bright as the head (MONOCHROME1 perhaps): invert the grey values"
    return None


def unlike_warning(name: str, look: Look, known: Known, stored: "np.dtype[Any]") -> str | None:
    """The line about a channel that is unlike the training's, stored so; None where nothing is to be said."""
    statistics, reference = known.statistics, known.reference
    limits, learnt_from = (statistics.histogram_distance, statistics.distance), known.cases
    if look.pictures == PICTURES and statistics.several is not None:
        limits, learnt_from = statistics.several, known.cases // PICTURES
    found = reference.histogram_distance(look.histogram), reference.distance(look.features)
    for what, kind, distance, (usual, _, rare) in zip(_WHAT, _KIND, found, limits, strict=True):
        if known.compares(look) and distance > _margin(learnt_from) * rare:
            return (
                f"{name}: {what} unlike those of the training ({kind} {distance:.2f}, training {usual:.2f}, "
                f"rarely above {rare:.2f}): {_INSPECT}"
            )
    high = statistics.values[1]
    if stored == np.uint8 and high > _MORE_THAN_BYTES:
        return f"{name}: stored in 8 bits (training had values up to {high:.4g}): give the scan, not a screenshot of it"
    return None


def _margin(cases: int) -> float:
    """By which a case may pass what 99 % of so many training cases stay below.

    Other patients are a little further away, and the fewer cases there were, the less is known of the last hundredth.
    """
    return 1.05 + 2 / math.sqrt(max(1, cases))


def exchange_warnings(
    names: Sequence[str], seen: Sequence[Look | None], known: Sequence[Known], statistics: StatisticsSpec
) -> Iterator[str]:
    """A line where the channels fit the training better in another order.

    Args:
        names: Of the model's channels.
        seen: Of the case.
        known: Of the training's channels.
        statistics: All of the training's.
    """
    found = [one for one in seen if one is not None]
    limit, learnt_from = statistics.exchange, statistics.cases
    if statistics.exchange_of_several is not None and all(one.pictures == PICTURES for one in found):
        limit, learnt_from = statistics.exchange_of_several, statistics.cases // PICTURES
    if limit is None:
        return
    least = _LEAST_GAIN if any(one.pictures == 1 for one in found) else _LEAST_GAIN_OF_SEVERAL
    if len(found) < len(names) or len(found) < 2 or not all(map(Known.compares, known, found)):
        return
    best = exchange(distances([one.features for one in found], [one.reference for one in known]))
    if best.gain <= max(least, _margin(learnt_from) * limit):
        return
    moved = [f"{names[i]} looks like {names[other]}" for i, other in enumerate(best.order) if i != other]
    yield (
        f"channels exchanged: {', '.join(moved)} (nearer by {best.gain:.1f}): "
        "check the files' names, or pass --channel NAME=PATTERN"
    )


def equal_warnings(case: Case, names: tuple[str, ...], seen: Sequence[Look | None]) -> Iterator[str]:
    """A line for each pair of channels that hold one image; of what shows nothing another line tells."""
    if names == ("red", "green", "blue"):
        return  # so is every grey picture
    step = (slice(None, None, 7),) * (case.data.ndim - 1)
    shown = [index for index, look in enumerate(seen) if look is not None]
    for one, other in combinations(shown, 2):
        first, second = case.data[one], case.data[other]
        if np.array_equal(first[step], second[step]) and np.array_equal(first, second):
            yield (
                f"{names[one]} and {names[other]} hold the same image: give each its own file, "
                "or pass --channel NAME=PATTERN"
            )
