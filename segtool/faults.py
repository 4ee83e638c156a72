"""What an exception inside one case is called in its row of the report, so that the other cases go on."""

import re
import sys
import threading
import traceback
from pathlib import Path

from segtool.errors import CaseError, FaultError, UnreadableFileError, UserError

_PACKAGE = Path(__file__).resolve().parent.parent
_LONGEST = 300
"""Characters of a library's message that a line of ours takes over."""

_LACKS_MEMORY = re.compile(
    r"out of memory|out_of_memory|outofmemory|bad_alloc|bad allocation|alloc_failed|alloc_fail\b"
    r"|(failed|cannot|could not|unable) to allocate|cannot allocate|allocation failed",
    re.IGNORECASE,
)
"""ONNX Runtime, CUDA, cuBLAS, cuDNN, TensorRT, OpenVINO and cupy each have their own words for it."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an engine says that memory does not suffice; their exceptions have no type for it."""
    return isinstance(error, MemoryError) or bool(_LACKS_MEMORY.search(f"{type(error).__name__} {error}"))


def first_words(error: BaseException) -> str:
    """Type and message of a library's exception as one short line."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(": ").removesuffix(":")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class Faults:
    """Names the errors of cases, and shows each traceback that nobody foresaw once."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def error_of(self, error: Exception, name: str, doing: str) -> UserError:
        """What the row of a case says.

        Args:
            error: Raised by the work on this case alone.
            name: Of the case.
            doing: What was being done with it, such as ``reading``.
        """
        if isinstance(error, UserError):
            return error
        if isinstance(error, MemoryError):
            return CaseError(
                f"case {name!r}: {doing} it takes more memory than there is ({first_words(error)})",
                "Close other programs, do it on a larger machine, or leave the case out.",
            )
        if isinstance(error, OSError):
            where = error.filename or f"case {name!r}"
            return UnreadableFileError(
                f"{where}: {doing} failed ({error.strerror or error})", "Check the file, its disk and its permissions."
            )
        place = _place(error)
        self._show(error, place)
        return FaultError(
            f"case {name!r}: {doing} failed in a way that nobody foresaw: {first_words(error)} at {place}",
            "Its traceback was printed; please report it with the command. The other cases are not touched by it.",
        )

    def _show(self, error: Exception, place: str) -> None:
        with self._lock:
            known = (type(error).__name__, place) in self._shown
            self._shown.add((type(error).__name__, place))
        if not known:
            traceback.print_exception(error, file=sys.stderr)


def _place(error: Exception) -> str:
    """``file:line`` of the innermost code of ours, or the innermost at all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE / "segtool")]
    innermost = (ours or frames)[-1]
    path = Path(innermost.filename)
    shown = path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path.name
    return f"{shown}:{innermost.lineno}"
