"""Inputs that were or could be a fault of a reader, one module a room; ``tests/test_corpus.py`` tries them all.

A room adds its own module with ``ROWS``, names to :class:`Row`. Every finding of ``python -m benchmarks.fuzz`` becomes
a row: a recipe in code, or bytes cut as small as they may be.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtool.errors import SegtoolError, UnreadableFileError


@dataclass(frozen=True)
class Row:
    """One input.

    Args:
        write: Puts the input into an empty folder; what it returns is given to ``read``.
        read: Reads it as the tool does.
        words: A pattern that the message holds, best of its remedy; empty where the input is sound.
        error: What comes out, exactly this class.
        most_mb: That Python and numpy may ask for while it is read.
        most_s: Of processor time.
    """

    write: Callable[[Path], Any]
    read: Callable[[Any], object]
    words: str = ""
    error: type[SegtoolError] = UnreadableFileError
    most_mb: float = 32.0
    most_s: float = 5.0
