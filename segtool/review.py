"""Which cases of a run a person should look at first, and why.

Failed cases come first, in the order of the run: nobody has seen their scans. Then those with warnings, then all
others; within either the lowest expected Dice comes first, and where the report has none, such as of cases that an
earlier run finished, the case comes last of its kind. The pictures of a stack are ranked one by one; its warnings,
which are of all its pictures, stand by themselves.

Expected Dice was chosen among the measures that :meth:`segtool.postprocess.confidence.Tally.numbers` names on the
bundled model's validation cases; ``benchmarks/results/reliability_confidence.json`` has how well each of them ranks
test cases.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from segtool.report import CaseResult

_UNKNOWN = 2.0  # behind whatever is known
_NOT_JUDGED = "not judged: kept from an earlier run, or nothing in it to ask the network about"
_FAILED, _WARNED, _OTHER = range(3)


@dataclass(frozen=True)
class _Row:
    group: int
    expected_dice: float
    name: str
    reason: str


def review_order(cases: Iterable[CaseResult], most: int) -> tuple[Mapping[str, str], ...]:
    """``name`` and ``reason`` of the ``most`` cases, or pictures of stacks, to look at first, as the module says."""
    rows = [row for case in cases for row in _rows(case)]
    # Sorting is stable: equal ones stay in the order of the run.
    rows.sort(key=lambda row: (row.group, row.expected_dice))
    return tuple({"name": row.name, "reason": row.reason} for row in rows[:most])


def _rows(case: CaseResult) -> Iterator[_Row]:
    if case.status == "failed":
        reason = (case.error or "").removeprefix(f"case {case.name!r}").lstrip(": ")
        yield _Row(_FAILED, 0.0, case.name, f"failed: {reason}")
        return
    if case.warnings or not case.slice_confidence:
        pictures = min(map(_expected, case.slice_confidence.values()), default=_UNKNOWN)
        expected = _expected(case.confidence) if case.confidence else pictures
        reason = "; ".join(filter(None, (*case.warnings, in_words(case.confidence))))
        yield _Row(_WARNED if case.warnings else _OTHER, expected, case.name, reason or _NOT_JUDGED)
    for index, numbers in case.slice_confidence.items():
        yield _Row(_OTHER, _expected(numbers), f"{case.name}[{index}]", in_words(numbers) or _NOT_JUDGED)


def _expected(numbers: Mapping[str, float]) -> float:
    """Expected Dice; a report that another version wrote may say nothing of it."""
    value = numbers.get("expected_dice", math.nan)
    return _UNKNOWN if math.isnan(value) else value


def in_words(numbers: Mapping[str, float]) -> str:
    """Such as ``expected Dice 0.41, entropy 0.52 bits, disagreement 0.30``."""
    words = {
        "expected_dice": "expected Dice {:.2f}",
        "mean_entropy": "entropy {:.2f} bits",
        "disagreement": "disagreement {:.2f}",
    }
    return ", ".join(
        text.format(numbers[name]) for name, text in words.items() if math.isfinite(numbers.get(name, math.nan))
    )
