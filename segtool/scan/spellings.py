"""The spellings of a name, an identifier or a day that count as one, as patterns on folded text.

``Müller^Jörg`` lies in a folder ``MUELLER_JOERG`` or ``muller-jorg``, the third of February 1961 in ``03.02.1961``.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

_LETTERS = str.maketrans({"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"})
"""What Unicode does not take apart."""
_TWO_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_MAYBE_TWO = re.compile("(?<=[aou])e|(?<=a)a")

_DATE = re.compile(r"((?:18|19|20)(\d\d))(\d\d)(\d\d)")
_MONTHS = ("jan", "feb", "mar", "apr", "ma[iy]", "jun", "jul", "aug", "sep", "o[ck]t", "nov", "de[cz]")
_BETWEEN = r"[-_./ ]?"
_PARTS_OF_NAMES = re.compile(r"[\^=\\]")
_UID = re.compile(r"\d[\d.]{14,}\d")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7a3]")
"""Scripts that write words together: kana, Chinese characters, hangul."""
_ALWAYS = 6
"""Words of so many characters are found inside others too: ``DOEJOHN1961`` holds no separators."""


def folded(text: str) -> tuple[str, list[int]]:
    """``text`` without case and accents, and the place in ``text`` of each of its characters, with the end."""
    if text.isascii():
        return text.casefold(), list(range(len(text) + 1))
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for letter in _without_marks(character):
            letters.append(letter)
            places.append(place)
    return "".join(letters), [*places, len(text)]


def _without_marks(text: str) -> str:
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter)).translate(_LETTERS)


def patterns(word: str) -> Iterator[str]:
    """Regular expressions for a word on folded text; none for a word without letters and digits.

    Args:
        word: Lower-case: a word, a name as ``family^given=in other letters``, a day as ``19610203`` or a UID.
    """
    for name in _names(word) if _PARTS_OF_NAMES.search(word) else (word,):
        yield from _patterns(name)


def any_of(found: Iterable[str], depth: int = 4) -> str:
    """A pattern that matches where one of ``found`` does, the first of those that fit.

    Those that begin alike are tried together: a tree has thousands of patients, and each place of a text is looked at.
    """
    groups: dict[str, list[str]] = {}
    for pattern in found:
        match = _BEGINNING.match(pattern) if depth else None
        head = match[0] if match else ""
        groups.setdefault(head, []).append(pattern[len(head) :])
    return "|".join(f"{head}(?:{any_of(rest, depth - 1)})" if head else "|".join(rest) for head, rest in groups.items())


_BEGINNING = re.compile(r"\(\?<![^()]*\)|[^\W_](?![?*+{])")
"""What must not precede, or a letter or digit that must be there."""


def _names(word: str) -> Iterator[str]:
    """A name in each of its scripts, and its parts, in the orders in which they are written together."""
    yield word
    for group in word.replace("\\", "=").split("="):
        family, given = [*(part.strip() for part in group.split("^")), ""][:2]
        yield group
        if family and given:
            first, last = given.split()[0], family.split()[-1]
            yield from (f"{given}^{family}", f"{first}^{last}", f"{last}^{first}")
        yield from (name for name in (family, given) if len(name) > 1)


def _patterns(word: str) -> Iterator[str]:
    if _UID.fullmatch(word) and "." in word:
        yield rf"(?<![\d.]){re.escape(word)}(?!\d)"
        return
    pieces = [_pattern(part) for part in re.split(r"[\W_]+", unicodedata.normalize("NFC", word).casefold()) if part]
    if not pieces:
        return
    spelled = r"[\W_]*".join(pieces)
    if sum(map(str.isalnum, word)) >= _ALWAYS or len(_UNSPACED.findall(word)) > 1:
        yield spelled
    elif any(map(str.isdecimal, word)):
        yield rf"(?<![^\W_]){spelled}(?![^\W_])"
    else:
        # A number may follow a name.
        yield rf"(?<![^\W\d_]){spelled}(?![^\W\d_])"
    match = _DATE.fullmatch(word)
    if match is not None:
        yield from _days(*match.groups())


def _pattern(part: str) -> str:
    """A word of letters and digits, where an umlaut may be written with one letter or with two."""
    return _MAYBE_TWO.sub(lambda match: f"{match[0]}?", re.escape(_without_marks(part.translate(_TWO_LETTERS))))


def _days(year: str, short_year: str, month: str, day: str) -> Iterator[str]:
    if not ("01" <= month <= "12" and "01" <= day <= "31"):
        return
    yield _BETWEEN.join((year, month, day))
    days, months = (dict.fromkeys((number, number.removeprefix("0"))) for number in (day, month))
    name = rf"{_MONTHS[int(month) - 1]}[^\W\d_]*"
    orders = (
        *((one, _maybe_zero(month), year) for one in days),
        *((one, _maybe_zero(day), year) for one in months),
        *((one, name, year) for one in days),
        (year, name, _maybe_zero(day)),
    )
    for order in orders:
        yield rf"(?<!\d){_BETWEEN.join(order)}(?!\d)"
    yield rf"(?<!\d){short_year}{month}{day}(?!\d)"


def _maybe_zero(number: str) -> str:
    return f"0?{number[1]}" if number[0] == "0" else number
