"""What is told of a DICOM study: its series, what each was seen as, and which channel it serves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class JudgedSeries:
    """One volume as the rules see it.

    Args:
        name: Such as ``series-1a2b3c4d``.
        size: Such as ``24 slices of 256x256``.
        acquired: How, and where the console lists it, such as ``axial 2D, number 7``; what the header does not say is
            left out.
        seen_as: Channel or other kind; empty where nothing is told.
        tied: What it fits equally well, where that is why nothing is told.
        score: Of ``seen_as``, or the highest where that is empty.
        scores: Of all names that have any.
        evidence: Why it is ``seen_as``, or what came nearest.
        used_as: The channel of the case it serves, empty where it serves none.
    """

    name: str
    size: str
    acquired: str
    seen_as: str
    tied: tuple[str, ...]
    score: float
    scores: Mapping[str, float]
    evidence: tuple[str, ...]
    used_as: str = ""


@dataclass(frozen=True)
class Study:
    """One study and what became of it.

    Args:
        case: The case's name, or how messages call the study where it is none.
        series: Its volumes, those that are used first.
        missing: Channels that the model wants and that no series is, with what came nearest.
        notes: What had to be decided, such as between two series that fit equally.
        aside: Short name and reason of what is no scan to segment.
    """

    case: str
    series: tuple[JudgedSeries, ...]
    missing: Mapping[str, str]
    notes: tuple[str, ...]
    aside: tuple[tuple[str, str], ...]


def by_reason(aside: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """What was set aside, by reason, the most frequent first."""
    counts = Counter(reason for _, reason in aside)
    return [(reason, [name for name, why in aside if why == reason]) for reason, _ in counts.most_common()]


def aside_text(aside: Sequence[tuple[str, str]]) -> str:
    """``2 series (localizer of 3 slices in 3 planes), 1 series (a single slice)``."""
    return ", ".join(f"{len(names)} series ({reason})" for reason, names in by_reason(aside))
