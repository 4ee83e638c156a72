"""Latencies of one row: percentiles, and whether they can be trusted."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNSTABLE = 0.1
"""Rounds whose medians lie further apart than this share of the least were disturbed."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of all lie, between neighbours linear.

    Args:
        values: One or more numbers.
        share: In [0, 1].
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Timing:
    """Seconds of every call, by round.

    A call begins with the input in the host's memory and ends with the logits there: copies to and from a device
    are part of it, reading files and preparing images are not.
    """

    rounds: tuple[tuple[float, ...], ...]

    @property
    def calls(self) -> list[float]:
        """Of all rounds."""
        return [seconds for one in self.rounds for seconds in one]

    @property
    def median_s(self) -> float:
        """Of all calls."""
        return statistics.median(self.calls)

    @property
    def spread(self) -> float:
        """How far the medians of the rounds lie apart, as a share of the least."""
        medians = [statistics.median(one) for one in self.rounds]
        return max(medians) / min(medians) - 1

    @property
    def stable(self) -> bool:
        """Whether the rounds agree."""
        return self.spread <= UNSTABLE

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in milliseconds."""
        calls = self.calls
        return {
            "calls": len(calls),
            "rounds": len(self.rounds),
            **{f"p{round(100 * share)}_ms": 1e3 * percentile(calls, share) for share in (0.5, 0.9, 0.99)},
            "min_ms": 1e3 * min(calls),
            "max_ms": 1e3 * max(calls),
            "spread_of_rounds": self.spread,
            "stable": self.stable,
        }
