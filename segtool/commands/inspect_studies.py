"""What ``segtool inspect`` tells of DICOM studies: which series is which channel, and why."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from segtool.errors import printable

if TYPE_CHECKING:
    from segtool.scan.judged import JudgedSeries, Study

_INDENT = " " * 8
_NAMES_SHOWN = 6


def study_facts(studies: "Iterable[Study]") -> list[dict[str, Any]]:
    """All that is known of the pairing, for JSON."""
    return [
        {
            "case": study.case,
            "series": [
                {
                    "name": one.name,
                    "size": one.size,
                    "acquired": one.acquired,
                    "channel": one.used_as or None,
                    "seen_as": one.seen_as or None,
                    "fits_equally": list(one.tied),
                    "score": one.score,
                    "scores": dict(one.scores),
                    "evidence": list(one.evidence),
                }
                for one in study.series
            ],
            "missing": dict(study.missing),
            "notes": list(study.notes),
            "set_aside": [{"name": name, "reason": reason} for name, reason in study.aside],
        }
        for study in studies
    ]


def study_lines(studies: "Iterable[Study]") -> Iterator[str]:
    """Lines for people: a study, its series with their evidence, what is missing, what was set aside.

    Of series that are nothing a channel wants, the evidence stands in their own line. Notes of studies that became
    cases are told with the case.
    """
    for study in studies:
        used = [one.used_as for one in study.series if one.used_as]
        counts = f"{len(study.series)} series, {len(used)} used, {len(study.aside)} set aside"
        yield f"study   {printable(study.case)}: {counts}"
        for one in study.series:
            parts = (one.name, one.size, one.acquired, _seen(one))
            line = f"{_INDENT}{one.used_as or '-':6}  {'  '.join(filter(None, parts))}"
            evidence = [printable(each) for each in one.evidence]
            if one.used_as or one.seen_as in (*used, *study.missing, ""):
                yield from (line, *(f"{_INDENT}        {each}" for each in evidence))
            else:
                yield f"{line}: {'; '.join(evidence)}"
        for channel, why in study.missing.items():
            yield f"{_INDENT}no {channel}: {why}"
        if study.missing or not used:
            yield from (f"{_INDENT}{note}" for note in study.notes)
        yield from (f"{_INDENT}{line}" for line in _aside_lines(study))


def _seen(one: "JudgedSeries") -> str:
    if one.tied:
        return f"fits {' and '.join(one.tied)} equally, {one.score:g} points each"
    if one.seen_as:
        return f"seen as {one.seen_as}, {one.score:g} points"
    return f"seen as nothing, {one.score:g} points" if one.score > 0 else "nothing speaks for a channel"


def _aside_lines(study: "Study") -> Iterator[str]:
    from segtool.scan.judged import by_reason

    for reason, names in by_reason(study.aside):
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        yield f"set aside, {printable(reason)}: {', '.join(names[:_NAMES_SHOWN])}{more}"
