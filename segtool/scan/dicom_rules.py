"""Tells which channel a DICOM series is, by a table of scored rules that users can replace or extend.

:file:`dicom_rules.toml` beside this file is the table, and says how rules are written.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from segtool.errors import UsageError
from segtool.formats.dicom.facts import SeriesFacts
from segtool.scan.dicom_conditions import (
    CODES,
    KEYWORDS,
    NUMBERS,
    TEXTS,
    Condition,
    Header,
    Test,
    Words,
    plain_test,
    word_pattern,
    word_test,
)

_OWN = Path(__file__).with_suffix(".toml")
_HINT = f"The rules that come with segtool show how they are written: {_OWN}"
_THRESHOLD = 4.0
_SHOWN = 100

_HIGHEST = 1e9
_LONGEST, _DEEPEST = 2**20, 50
"""Bytes of a rule file, and lists of words within lists of words."""
_Points = Annotated[StrictInt | StrictFloat, Field(ge=-_HIGHEST, le=_HIGHEST)]
_Written = (
    StrictBool | StrictStr | StrictInt | StrictFloat | list[StrictInt | StrictFloat] | list[StrictStr | list[StrictStr]]
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Selection(_Part):
    """What a series is where its conditions hold.

    Args:
        name: The channel, or several.
        score: Added to what ``name`` says.
        conditions: DICOM keyword to what must hold; all must.
        unless: Likewise; none may.
        says: What the evidence shows in place of the conditions; empty for them.
    """

    name: StrictStr | list[StrictStr]
    score: _Points = 10
    says: StrictStr = ""
    conditions: dict[str, _Written]
    unless: dict[str, _Written] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Always several."""
        return (self.name,) if isinstance(self.name, str) else tuple(self.name)


class _File(_Part):
    """A rule file as it is written."""

    extends: StrictBool = False
    threshold: _Points | None = None
    channels: list[StrictStr] | None = None
    ignore: list[StrictStr] = []
    words: dict[str, list[StrictStr]] = {}
    selections: list[Selection] = []


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one series.

    Args:
        scores: Of every name that a rule gave points.
        evidence: The rules that held, by name: ``+6 SeriesDescription "mprage"``. Of free text they show the rule's
            words alone.
        seen_as: The name of the highest score; empty where that is below the threshold or shared.
        tied: The names that share it, where they do.
    """

    scores: Mapping[str, float]
    evidence: Mapping[str, tuple[str, ...]]
    seen_as: str
    tied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """A checked table of rules.

    Args:
        threshold: Points that a series must have to be seen as something.
        channels: Names that a study is shown to have; others say what a series is instead.
        selections: In order.
        words: Lists of words by name.
        ignore: Words that are taken out of texts.
    """

    threshold: float
    channels: tuple[str, ...]
    selections: tuple[Selection, ...]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    def judge(self, facts: SeriesFacts, folder: str = "", *, identify: bool = False) -> Verdict:
        """Score a series for every name.

        Args:
            facts: Its header.
            folder: What its own folders are called; empty where it shares them with other series.
            identify: Let the evidence show the header's text.
        """
        header = Header(facts, folder, self._ignored, identify)
        scores: dict[str, float] = {}
        evidence: dict[str, list[str]] = {}
        for selection, conditions, unless in self._tests:
            said = _all_held(conditions, header)
            if said is None or any(test(header) is not None for test in unless):
                continue
            for name in selection.names:
                scores[name] = scores.get(name, 0) + selection.score
                evidence.setdefault(name, []).append(f"{selection.score:+g} {selection.says or said}")
        best = max(scores.values(), default=0)
        top = [name for name, score in scores.items() if score == best and best >= self.threshold]
        seen_as, tied = (top[0], ()) if len(top) == 1 else ("", tuple(top))
        return Verdict(scores, {name: tuple(lines) for name, lines in evidence.items()}, seen_as, tied)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All that a series can be seen as."""
        return tuple(dict.fromkeys(name for selection in self.selections for name in selection.names))

    @cached_property
    def _tests(self) -> list[tuple[Selection, list[Test], list[Test]]]:
        return [
            (one, [*map(self._test, *_pairs(one.conditions))], [*map(self._test, *_pairs(one.unless))])
            for one in self.selections
        ]

    def _test(self, keyword: str, condition: Condition) -> Test:
        if keyword in TEXTS and isinstance(condition, list):
            groups = condition if isinstance(condition[0], list) else [condition]
            return word_test(keyword, [Words([*self._spelt_out(group)]) for group in groups])
        return plain_test(keyword, condition)

    def _spelt_out(self, words: Iterable[str]) -> Iterator[str]:
        known: set[str] = set()
        pending = [*words][::-1]
        while pending:
            word = pending.pop()
            # Lists may name lists that name lists: each counts once, or the words would double with every list.
            if word in known:
                continue
            known.add(word)
            if word.startswith("@"):
                pending += self.words[word[1:]][::-1]
            else:
                yield word

    @cached_property
    def _ignored(self) -> re.Pattern[str] | None:
        return re.compile("|".join(map(word_pattern, self.ignore))) if self.ignore else None


def _pairs(conditions: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    return list(conditions), list(conditions.values())


def _all_held(conditions: Iterable[Test], header: Header) -> str | None:
    """The evidence of all conditions; None where one does not hold."""
    said = []
    for test in conditions:
        one = test(header)
        if one is None:
            return None
        said.append(one)
    return ", ".join(filter(None, said))


def load_rules(path: Path | None = None) -> Rules:
    """The rules of a file, or those of the package.

    Args:
        path: TOML, or JSON of the same shape. With ``extends = true`` it adds to the package's rules, otherwise it
            stands in their place.

    Raises:
        UsageError: It cannot be read or says something that means nothing; the line names the place.
    """
    return _own_rules() if path is None else _checked(_read(path), path, _own_rules)


@cache
def _own_rules() -> Rules:
    return _checked(_read(_OWN), _OWN, None)


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise UsageError(f"{path}: more than {_LONGEST} bytes, no file of rules", "Check the path.")
        text = content.decode("utf-8")
        raw = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        return _File.model_validate(raw)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{path}: {_place(first['loc'])}: {first['msg']}", _HINT) from error
    except (ValueError, RecursionError) as error:  # not TOML, not JSON, not UTF-8
        raise UsageError(f"{path}: cannot be understood ({error})", _HINT) from error


def _place(loc: tuple[int | str, ...]) -> str:
    """Where in the file, counted from 1; without the forms that a condition could have had."""
    parts = [f"number {part + 1}" if isinstance(part, int) else part for part in loc]
    kept = [part for part in parts if "[" not in part and part not in ("bool", "str", "int", "float")]
    return ", ".join(kept) or "the file"


def _checked(file: _File, path: Path, base: Callable[[], Rules] | None) -> Rules:
    if not file.selections and not file.extends:
        raise UsageError(f"{path}: no selections", _HINT)
    under = base() if file.extends and base is not None else None
    words = {name: list(found) for name, found in (under.words if under else {}).items()}
    for name, more in file.words.items():
        words.setdefault(name, []).extend(more)
    for number, selection in enumerate(file.selections, start=1):
        fault = _fault(selection, words)
        if fault:
            raise UsageError(f"{path}: selections, number {number} ({', '.join(selection.names)}): {fault}", _HINT)
    sound: set[str] = set()
    for name in words:
        fault = _fault_of_words(words[name], words, (name,), sound)
        if fault:
            raise UsageError(f"{path}: words, {name}: {fault}", _HINT)
    own = [name for selection in file.selections for name in selection.names]
    # Without a list of channels everything that the user selects is one.
    listed = own if file.channels is None else file.channels
    threshold = file.threshold if file.threshold is not None else under.threshold if under else _THRESHOLD
    return Rules(
        float(threshold),
        tuple(dict.fromkeys([*(under.channels if under else ()), *listed])),
        (*(under.selections if under else ()), *file.selections),
        {name: tuple(found) for name, found in words.items()},
        (*(under.ignore if under else ()), *file.ignore),
    )


def _fault(selection: Selection, words: Mapping[str, list[str]]) -> str | None:
    """What is wrong with a selection; None where nothing is."""
    if not selection.names or not all(selection.names):
        return "its name is empty"
    if not selection.conditions:
        return "it has no conditions"
    for keyword, condition in (*selection.conditions.items(), *selection.unless.items()):
        fault = _fault_of_condition(keyword, condition, words)
        if fault:
            return f"{keyword}: {fault}"
    return None


def _fault_of_condition(keyword: str, condition: object, words: Mapping[str, list[str]]) -> str | None:
    if keyword not in KEYWORDS:
        return f"no such field; there are {', '.join(KEYWORDS)}"
    if isinstance(condition, bool):
        return None
    if keyword in NUMBERS:
        pair = condition if isinstance(condition, list) else [condition, condition]
        numbers = [number for number in pair if isinstance(number, (int, float))]
        good = len(pair) == len(numbers) == 2 and -_HIGHEST <= numbers[0] <= numbers[1] <= _HIGHEST
        return None if good else "wanted a number or [lowest, highest]"
    if isinstance(condition, str):
        return _fault_of_expression(condition)
    if not isinstance(condition, list) or not condition:
        return "wanted text or a list of texts"
    if keyword in CODES:
        return None if all(isinstance(value, str) for value in condition) else "wanted a list of values"
    if len({type(value) for value in condition}) > 1 or not isinstance(condition[0], (str, list)):
        return "wanted a list of words, or a list of lists of words"
    groups = condition if isinstance(condition[0], list) else [condition]
    return next(filter(None, (_fault_of_words(group, words, (), set()) for group in groups)), None)


def _fault_of_expression(text: str) -> str | None:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{text[:_SHOWN]!r} is no regular expression ({error})"
    return None


def _fault_of_words(
    group: list[str], words: Mapping[str, list[str]], within: tuple[str, ...], sound: set[str]
) -> str | None:
    """What is wrong with a list of words; names of lists without a fault are put into ``sound``."""
    if not group:
        return "an empty list of words"
    for word in group:
        if not word.strip(" *"):
            return "an empty word"
        if word.startswith("@"):
            name = word[1:]
            if name in sound:
                continue
            if len(within) > _DEEPEST:
                return f"lists of words more than {_DEEPEST} deep in each other"
            if name in within:
                return f"{word} stands for itself"
            if name not in words:
                return f"{word} is no list under [words]"
            fault = _fault_of_words(words[name], words, (*within, name), sound)
            if fault:
                return fault
            sound.add(name)
    return None
