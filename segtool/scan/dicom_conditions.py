"""Conditions on the header of a DICOM series: fields by their DICOM keywords, and words that texts are searched for."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from segtool.formats.dicom.facts import SeriesFacts

Number = int | float
Condition = bool | str | Number | Sequence[Number] | Sequence[str] | Sequence[Sequence[str]]
"""What must hold of a field; :file:`dicom_rules.toml` says what each form means."""

Test = Callable[["Header"], str | None]
"""Evidence, empty where there is nothing to show; None where the condition does not hold."""

TEXTS = ("Text", "SeriesDescription", "Folder", "ProtocolName", "SequenceName", "ContrastBolusAgent")
NUMBERS: dict[str, Callable[[SeriesFacts], float | None]] = {
    "EchoTime": lambda facts: facts.echo_time_ms,
    "RepetitionTime": lambda facts: facts.repetition_time_ms,
    "InversionTime": lambda facts: facts.inversion_time_ms,
    "FlipAngle": lambda facts: facts.flip_angle_degrees,
    "DiffusionBValue": lambda facts: facts.diffusion_b_value,
    "SeriesNumber": lambda facts: facts.series_number,
}
UNITS = {
    "EchoTime": "ms",
    "RepetitionTime": "ms",
    "InversionTime": "ms",
    "FlipAngle": "degrees",
    "DiffusionBValue": "s/mm2",
}
CODES: dict[str, Callable[[SeriesFacts], tuple[str, ...]]] = {
    "Modality": lambda facts: (facts.modality,),
    "ImageType": lambda facts: facts.image_type,
    "ScanningSequence": lambda facts: facts.scanning_sequence,
    "SequenceVariant": lambda facts: facts.sequence_variant,
    "ScanOptions": lambda facts: facts.scan_options,
    "MRAcquisitionType": lambda facts: (facts.acquisition_type,),
    "BodyPartExamined": lambda facts: (facts.body_part,),
}
KEYWORDS = (*TEXTS, *NUMBERS, *CODES)
"""DICOM keywords that conditions may name, ``Text`` and ``Folder`` beside them."""

_NO_AGENT = re.compile(
    r"\W*+(?:none|no|not|nil|na|n|n/a|null|false|ohne|kein\w*|sans|sin|senza|sem|non|0|without|w/?o|unknown|nothing)?"
    r"\W*+(?:contrast\w*|km|agent|given|used|applied|administered)?\W*+"
)
"""What it takes of signs between words it keeps: else a text of a thousand blanks would take minutes."""
_SEPARATORS = re.compile(r"[\s_\-.,;:()\[\]{}^#|\\'\"=<>]+")
_DOTTED = re.compile(r"(?<![^\W_])(?:[a-z]\.)+[a-z]\.?(?![^\W_])")
_T2_STAR = re.compile(r"(?<=t2)\s?\*")
_MINUS = re.compile(r"(?:(?<=[\s_])|^)-\s?(?=(?:c|km|gd|ce)(?![^\W_]))")
_GONE = " | "
"""Stands where a word was taken out, so that what was around it does not become one."""


@dataclass(frozen=True)
class Header:
    """A series as conditions see it.

    Args:
        facts: Its header.
        folder: What its own folders are called; empty where it shares them with other series.
        ignored: What is taken out of texts.
        identify: Let evidence show the header's text.
    """

    facts: SeriesFacts
    folder: str
    ignored: re.Pattern[str] | None
    identify: bool = False

    @cached_property
    def texts(self) -> Mapping[str, tuple[tuple[str, str, str], ...]]:
        """By keyword: what evidence calls the text, the text, and the text as words are looked for in it."""
        facts = self.facts
        named = {
            "SeriesDescription": facts.series_description,
            "Folder": self.folder,
            "ProtocolName": facts.protocol_name,
            "SequenceName": facts.sequence_name,
            "ContrastBolusAgent": facts.contrast_agent if has_agent(facts) else "",
        }
        each = {name: (name, text, self._plain(text)) for name, text in named.items()}
        return {name: (one,) for name, one in each.items()} | {"Text": (each["SeriesDescription"], each["Folder"])}

    def _plain(self, text: str) -> str:
        plain = folded(text)
        return plain if self.ignored is None else self.ignored.sub(_GONE, plain)

    def said(self, name: str, words: Iterable[str], text: str) -> str:
        """Evidence: the field and the rule's words; the text itself only where it may show."""
        quoted = " ".join(f'"{word}"' for word in words)
        return f"{name} {quoted} in {text!r}" if self.identify else f"{name} {quoted}"


def has_agent(facts: SeriesFacts) -> bool:
    """True where the header names a contrast agent; values such as ``NONE`` name none."""
    return _NO_AGENT.fullmatch(facts.contrast_agent.casefold()) is None


def folded(text: str) -> str:
    """``text`` as it is searched: lower-case, without accents, ``m.d.c.`` as ``mdc``, one space between words."""
    plain = _DOTTED.sub(lambda found: found[0].replace(".", ""), _bare(text))
    plain = _T2_STAR.sub("star ", plain)
    plain = _MINUS.sub("without ", plain)
    return _SEPARATORS.sub(" ", plain).strip()


def _bare(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in plain if not unicodedata.combining(character))


def word_pattern(word: str) -> str:
    """The regular expression of a word: a space may be missing, ``*`` is anything but a space."""
    word = _SEPARATORS.sub(" ", _bare(word)).strip()
    pieces = (re.escape(part).replace(r"\ ", " ?") for part in word.split("*"))
    return _edge(word[:1], behind=True) + "[^ ]*?".join(pieces) + _edge(word[-1:], behind=False)


def _edge(character: str, *, behind: bool) -> str:
    """Keeps letters from going on before or after a letter, and digits beside a digit."""
    if not character.isalnum():
        return ""
    kind = r"\d" if character.isdecimal() else r"[^\W\d_]"
    return f"(?<!{kind})" if behind else f"(?!{kind})"


class Words:
    """A list of words of which a text may hold one."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(dict.fromkeys(words))
        self._pattern = re.compile("|".join(f"({word_pattern(word)})" for word in self._words))

    def first(self, text: str) -> str | None:
        """The word that a folded text holds first, as the list has it; None where it holds none."""
        match = self._pattern.search(text)
        return None if match is None or match.lastindex is None else self._words[match.lastindex - 1].strip("*")


def word_test(keyword: str, groups: Sequence[Words]) -> Test:
    """One text of the field must hold a word of each group."""

    def test(header: Header) -> str | None:
        for name, text, plain in header.texts[keyword]:
            found = [group.first(plain) for group in groups] if plain else []
            words = [word for word in found if word is not None]
            if plain and len(words) == len(groups):
                return header.said(name, dict.fromkeys(words), text)
        return None

    return test


def plain_test(keyword: str, condition: Condition) -> Test:
    """The test of every other condition: presence, an expression, numbers, codes."""
    if isinstance(condition, bool):
        return _presence(keyword, condition)
    if keyword in NUMBERS:
        return _within(keyword, condition)
    if isinstance(condition, str):
        expression = re.compile(condition, re.IGNORECASE)
        return _fits(keyword, expression) if keyword in CODES else _matches(keyword, expression)
    return _holds(keyword, frozenset(str(value).upper() for value in condition))  # type: ignore[union-attr]  # checked before


def _presence(keyword: str, wanted: bool) -> Test:
    def test(header: Header) -> str | None:
        if keyword in NUMBERS:
            there = NUMBERS[keyword](header.facts) is not None
        elif keyword in CODES:
            there = any(CODES[keyword](header.facts))
        else:
            there = any(text.strip() for _, text, _ in header.texts[keyword])
        return None if there is not wanted else f"{keyword} is {'set' if wanted else 'not set'}"

    return test


def _within(keyword: str, condition: Condition) -> Test:
    pair = [float(str(number)) for number in (condition if isinstance(condition, Sequence) else [condition])]
    low, high = pair[0], pair[-1]

    def test(header: Header) -> str | None:
        value = NUMBERS[keyword](header.facts)
        if value is None or not low <= value <= high:
            return None
        measured = " ".join(filter(None, (keyword, f"{value:g}", UNITS.get(keyword))))
        return measured if low == high else f"{measured} ({low:g} to {high:g})"

    return test


def _matches(keyword: str, expression: re.Pattern[str]) -> Test:
    def test(header: Header) -> str | None:
        for name, text, _ in header.texts[keyword]:
            if expression.search(text):
                return header.said(name, (f"/{expression.pattern}/",), text)
        return None

    return test


def _fits(keyword: str, expression: re.Pattern[str]) -> Test:
    def test(header: Header) -> str | None:
        values = CODES[keyword](header.facts)
        fitting = next((value for value in values if value and expression.fullmatch(value.strip())), None)
        return None if fitting is None else f"{keyword} {fitting.strip()}"

    return test


def _holds(keyword: str, wanted: frozenset[str]) -> Test:
    def test(header: Header) -> str | None:
        there = {value.strip().upper() for value in CODES[keyword](header.facts)}
        return f"{keyword} {' '.join(sorted(wanted))}" if wanted <= there else None

    return test
