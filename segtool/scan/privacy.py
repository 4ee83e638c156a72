"""Keeps what DICOM headers say of a patient out of names and messages.

Exports often name folders and files after the patient, the day or the accession number. Whatever a header of the run
calls so is told from the rest of a path, and does not leave it.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

HIDDEN = "***"
"""Stands for what is hidden in a message."""

_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)")
_ALWAYS = 6
"""Words of so many characters are found inside others too: ``DOEJOHN1961`` holds no separators."""


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
        pieces = [piece for word in words if (piece := _loose(word))]
        if not pieces:
            return None
        inside = [_loose(word) for word in words if sum(map(str.isalnum, word)) >= _ALWAYS]
        whole = rf"(?<![^\W_])(?:{'|'.join(pieces)})(?![^\W_])"
        return re.compile("|".join([*inside, whole]), re.IGNORECASE)

    def is_personal(self, part: str) -> bool:
        """True where a part of a path holds a word that must not be told."""
        return self._pattern is not None and self._pattern.search(part) is not None

    def plain(self, text: str) -> str:
        """A message without what must not be told, and with paths as the user knows them."""
        # A folder's path may begin another's.
        for hidden, shown in sorted(self._shown.items(), key=lambda pair: len(pair[0]), reverse=True):
            text = text.replace(hidden, shown)
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)


def _loose(word: str) -> str:
    """A pattern of the word with whatever separators: ``doe^john`` is met as ``DOE_JOHN``, a day as ``1961-02-03``."""
    match = _DATE.fullmatch(word)
    if match is not None:
        return r"[-_. ]?".join(match.groups())
    parts = [re.escape(part) for part in re.split(r"[\W_]+", word) if part]
    return r"[\W_]*".join(parts)
