"""Keeps what DICOM headers say of a patient out of names and messages.

Exports often name folders and files after the patient, the day or the accession number. Whatever a header of the run
calls so is told from the rest of a path, and does not leave it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from segtool.scan.spellings import any_of, folded, patterns

HIDDEN = "***"
"""Stands for what is hidden in a message."""

_COMMON = frozenset(
    ("anon", "anonymous", "anonymized", "anonymised", "brain", "head", "mr", "mri",
     "none", "patient", "phantom", "research", "subject", "test", "unknown")
)  # fmt: skip
"""What de-identified headers say in place of a name; to hide it would protect nobody."""


class Privacy:
    """What must not be told.

    Args:
        words: Names, identifiers, dates and institutions of all headers, lower-case.
        shown: Beginnings of paths that messages call otherwise, such as a temporary folder by its archive.
    """

    def __init__(self, words: Iterable[str] = (), shown: Mapping[str, str] | None = None) -> None:
        self._words = frozenset(word.casefold() for word in words if word.strip())
        self._shown = dict(shown or {})

    def showing(self, shown: Mapping[str, str]) -> "Privacy":
        """The same with further beginnings of paths that messages call otherwise."""
        return Privacy(self._words, {**self._shown, **shown})

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        words = sorted(self._words - _COMMON, key=len, reverse=True)
        spellings = list(dict.fromkeys(pattern for word in words for pattern in patterns(word)))
        return re.compile(any_of(spellings)) if spellings else None

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the text tells what it must not."""
        if self._pattern is None:
            return
        plain, places = folded(text)
        for match in self._pattern.finditer(plain):
            if match.start() < match.end():
                # With the accents that follow the last letter.
                yield places[match.start()], places[match.end()]

    def is_personal(self, part: str) -> bool:
        """True where a part of a path holds a word that must not be told."""
        return any(self._spans(part))

    def personal_parts(self, parts: Sequence[str]) -> list[bool]:
        """Which parts of a path tell it, be it together: ``2019/12/31``."""
        spans = list(self._spans("/".join(parts)))
        found, start = [], 0
        for part in parts:
            end = start + len(part)
            found.append(any(first < end and start < last for first, last in spans))
            start = end + 1
        return found

    def plain(self, text: str) -> str:
        """A message without what must not be told, and with paths as the user knows them."""
        # A folder's path may begin another's.
        for hidden, shown in sorted(self._shown.items(), key=lambda pair: len(pair[0]), reverse=True):
            text = text.replace(hidden, shown)
        pieces, end = [], 0
        for first, last in self._spans(text):
            pieces += [text[end:first], HIDDEN]
            end = last
        return "".join((*pieces, text[end:]))
