"""The threads that read cases, each case within its time: a disk that does not answer costs one case and no run."""

import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from segtool.case import Case, CaseSource
from segtool.case_result import CaseResult
from segtool.errors import CaseError, UnreadableFileError, UserError
from segtool.faults import Faults
from segtool.job import Job

Read = Case | CaseResult
"""What is read of a case: its scan, or the result of an earlier run that stands."""

_LONGEST_WAIT_S = 3600.0  # of one look: a thread cannot wait for ever, and no reader may come so late
_LOCKING = ("hdf5", "matlab")
"""Kinds of files whose library holds Python's lock while it reads."""


@dataclass(eq=False)
class _Turn:
    """What one thread is reading, and since when."""

    job: Job | None = None
    since: float = 0.0
    given_up: bool = False


class Readers:
    """Threads that pull sources, read them and hand on what they read.

    A thread whose reading takes too long is given up: its case has failed, a fresh thread takes its place, and
    whatever it brings back later is thrown away. Nothing waits for it, not even the end of the process.

    Args:
        sources: Pulled one by one, never by two threads at once.
        read: Reads a case.
        take: Given what was read, or None where the job has failed; may wait, which is not counted.
        faults: Names errors.
        timeout_s: Of one reading; None for no end.

    Attributes:
        begun: Cases pulled so far.
    """

    def __init__(
        self,
        sources: Iterable[CaseSource],
        read: Callable[[CaseSource], Read],
        take: Callable[[Job, Read | None], None],
        faults: Faults,
        timeout_s: float | None,
    ) -> None:
        self._sources = iter(sources)
        self._read, self._take, self._faults, self._timeout_s = read, take, faults, timeout_s
        self._pulling = threading.Lock()
        self._changed = threading.Condition()
        self._at_work: dict[_Turn, threading.Thread] = {}
        self._ending = self._stopped = False
        self._start: Callable[[Callable[[], None]], threading.Thread]
        self.begun = 0

    def start(self, count: int, start: Callable[[Callable[[], None]], threading.Thread]) -> None:
        """Begin with ``count`` threads, each of which ``start`` makes of what it does."""
        self._start = start
        with self._changed:
            for _ in range(count):
                self._add()

    def _add(self) -> None:
        turn = _Turn()
        self._at_work[turn] = self._start(lambda: self._work(turn))

    @property
    def is_ending(self) -> bool:
        """True when no further case is begun."""
        return self._ending

    def end(self) -> None:
        """Begin no more cases. Takes no lock, so that a handler of signals may call it."""
        self._ending = True

    def stop(self) -> None:
        """The run is given up: begin nothing, watch no more."""
        self._ending = True
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def watch(self) -> None:
        """Return when all threads have ended; give those up meanwhile whose reading takes too long."""
        while True:
            with self._changed:
                if not self._goes_on():
                    return
                self._changed.wait(self._until_next())
                if not self._goes_on():
                    return
                late = [turn for turn in self._at_work if turn.job is not None and self._left(turn) <= 0]
                for turn in late:
                    turn.given_up = True
                    del self._at_work[turn]
                    self._add()
            for turn in late:
                assert turn.job is not None
                turn.job.fail(self._too_slow(turn.job.source))
                self._take(turn.job, None)

    def _goes_on(self) -> bool:
        return bool(self._at_work) and not self._stopped

    def join(self, timeout_s: float) -> None:
        """Wait for the threads, but not for ever: they may hang in a read."""
        until = time.monotonic() + timeout_s
        with self._changed:
            threads = list(self._at_work.values())
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _until_next(self) -> float | None:
        """Seconds until a reading may be late: of those under way, or of one that begins now."""
        if self._timeout_s is None:
            return None
        lefts = (self._left(turn) for turn in self._at_work if turn.job is not None)
        return max(0.0, min([self._timeout_s, _LONGEST_WAIT_S, *lefts]))

    def _left(self, turn: _Turn) -> float:
        return float("inf") if self._timeout_s is None else turn.since + self._timeout_s - time.monotonic()

    def _pull(self) -> Job | None:
        with self._pulling:
            source = None if self._ending else next(self._sources, None)
            if source is None:
                return None
            self.begun += 1
            return Job(source)

    def _work(self, turn: _Turn) -> None:
        try:
            while not turn.given_up and (job := self._pull()) is not None:
                with self._changed:
                    turn.job, turn.since = job, time.monotonic()
                read = self._case(job)
                with self._changed:
                    if turn.given_up or self._stopped:
                        return
                    turn.job = None
                if isinstance(read, UserError):
                    job.fail(read)
                    self._take(job, None)
                else:
                    self._take(job, read)
                del read  # not held while the next is read
        finally:
            with self._changed:
                self._at_work.pop(turn, None)
                self._changed.notify_all()

    def _case(self, job: Job) -> Read | UserError:
        try:
            with job.timed("read"):
                check_files(job.source)
                return self._read(job.source)
        except Exception as error:  # noqa: BLE001 - one bad case never stops a batch; a bug shows its traceback
            return self._faults.error_of(error, job.source.name, "reading")

    def _too_slow(self, source: CaseSource) -> CaseError:
        return CaseError(
            f"case {source.name!r}: not read within {self._timeout_s:g} s ({source.first.path})",
            "Check the disk on which it lies, or give it longer with --case-timeout SECONDS (0 for no end).",
        )


def check_files(source: CaseSource) -> None:
    """Refuse what has changed since the folder was searched, before a library waits for it.

    Opening a pipe waits for whoever writes into it. While the HDF5 library waits, so does every other thread of the
    process: of its files a byte is read before, by which a disk that does not answer is found out.

    Raises:
        UnreadableFileError: A file of the case is gone, or is no file any more.
    """
    sources = [*source.channels.values(), *([source.reference] if source.reference else [])]
    kinds = {path: one.format for one in sources for path in one.paths}
    for path, kind in kinds.items():
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise UnreadableFileError(
                f"{path}: was there when the folder was searched, and is not any more ({error.strerror})",
                "Put it back and run again with --continue.",
            ) from error
        if not stat.S_ISREG(mode):
            raise UnreadableFileError(
                f"{path}: is no file any more, but a pipe, a device or a folder",
                "Put the file back and run again with --continue.",
            )
        if kind in _LOCKING:
            with path.open("rb") as file:
                file.read(1)
