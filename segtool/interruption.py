"""SIGINT and SIGTERM of a long command: what is in hand is finished, what is not begun stays away.

Importing this changes nothing. A command installs the handlers while it runs; whoever calls segtool from Python gets
``KeyboardInterrupt`` as ever.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2
_UNWINDING_S = 10.0
"""After an exception nothing interrupts its clearing up, unless a library has swallowed it."""


class Interrupted(KeyboardInterrupt):
    """A run is given up at once.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Interruption:
    """What a run has been told by signals.

    Before :meth:`finish_with` a signal raises :class:`Interrupted` at once. After it, the first one asks the run to
    finish what it has in hand, and a second one raises. After :meth:`close` nothing is raised any more: a report is
    written whole.

    Everything here runs between two steps of the main thread, which may hold any lock: so none is taken.

    Attributes:
        signal: The first that came.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._finish: Callable[[], int] | None = None
        self._closed = False
        self._raised_at = float("-inf")

    @property
    def exit_code(self) -> int | None:
        """128 and the number of the signal; None where none came."""
        return None if self.signal is None else 128 + self.signal

    def finish_with(self, finish: Callable[[], int]) -> None:
        """From now on a first signal calls ``finish``, which takes no lock and gives the number of cases in hand."""
        self._finish = finish

    def close(self) -> None:
        """From now on signals are noted and change nothing."""
        self._closed = True

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """Take a signal.

        Raises:
            Interrupted: Nothing is to be finished, or it is the second.
        """
        is_first, self.signal = self.signal is None, self.signal or number
        if self._closed or time.monotonic() < self._raised_at + _UNWINDING_S:
            return
        if is_first and self._finish is not None:
            count = self._finish()
            cases = {0: "what is left", 1: "1 case in hand"}.get(count, f"{count} cases in hand")
            _say(f"interrupted: finishing {cases}; once more to stop at once")
            return
        self._raised_at = time.monotonic()
        raise Interrupted(self.signal)


def _say(line: str) -> None:
    # A handler may have come between two halves of a write to sys.stderr, which then takes no other.
    with suppress(OSError):
        os.write(_STDERR, f"{line}\n".encode())


@contextmanager
def signals_to(interruption: Interruption) -> Iterator[None]:
    """Hand SIGINT and SIGTERM to ``interruption`` inside the block; in the main thread only, elsewhere nothing.

    A signal that whoever started the process has switched off, as ``nohup`` and shells do, stays off.
    """
    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _SIGNALS if mine}
    able = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in able:
            signal.signal(number, interruption.handle)
        yield
    finally:
        for number, handler in able.items():
            signal.signal(number, handler)
