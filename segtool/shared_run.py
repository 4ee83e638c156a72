"""One run on one output folder, whoever takes part: processes share its cases, and it can be gone on with.

A hidden file in the folder is all there is to it. Its lines, appended and never changed, are JSON: what the run is
(models, options), then one line a finished case. Bytes far behind them are locks: of who takes part, and one a case.
One file, because over a network locking a file is what brings its content up to date. The last process that leaves
removes it; after a kill it stays and says which results are this run's.
"""

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from segtool.atomic import remove_abandoned
from segtool.claims import MOST_AT_ONCE, THREADS_EXCLUDE_EACH_OTHER, LockFile, NoLocksError
from segtool.errors import OutputError, UsageError, UserError
from segtool.output_folder import RUN_FILE, Part, RunIdentity, earlier_results, part_reports, run_files
from segtool.report import CaseResult
from segtool.run_file import Content, line_of, read_run_file

_GATE = 2**30
_APPENDING = _GATE + 1
_SEATS, _SEAT_COUNT = _GATE + 2, 1024
_CASES, _CASE_COUNT = _GATE + 2**20, 2**29  # two cases on one byte wait for each other, and no more

_here: set[str] = set()
"""Run files that this process has open."""


class SharedRun:
    """This process's part in a run.

    Args:
        folder: Of the results.
        identity: What the run is. Processes that differ in it never share one.
        part: Which share of the cases; shares know nothing of each other.
        resume: Go on with the results of an earlier run.

    Attributes:
        results: All that is known, by case.
        mine: Cases that this process finished.
        notes: What the report must say.

    Raises:
        UsageError: Another process is at work there with other models or options, or an earlier one was.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, identity: RunIdentity, part: Part, resume: bool) -> None:
        self.results: dict[str, CaseResult] = {}
        self.mine: set[str] = set()
        self.notes: list[str] = []
        self._folder, self._identity, self._part = folder, identity, part
        self._path = folder / part.run_file
        self._lock = threading.RLock()
        self._finished = threading.Condition(self._lock)
        self._held: dict[str, int] = {}
        self._unsaved: list[bytes] = []
        self._content, self._read = Content(), 0
        self._seat: int | None = None
        self._key = str(self._path.resolve())
        if not THREADS_EXCLUDE_EACH_OTHER and self._key in _here:
            raise UsageError(
                f"{folder}: a run of this process is at work there", "Wait for it, or start another process."
            )
        try:
            self._open(resume)
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written ({error.strerror or error})", "Choose another folder with --output."
            ) from error
        _here.add(self._key)

    # Coming

    def _open(self, resume: bool) -> None:
        while True:
            self._file = LockFile(self._path)
            try:
                with self._gate():
                    # Whoever left last may have removed it just before it was locked.
                    if self._file.is_in_place:
                        self._enter(resume)
                        return
            except BaseException:
                self._file.close()
                raise
            self._file.close()

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        """One process comes or goes at a time."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._file.held(_GATE))
            except NoLocksError as error:
                self._without_locks(error)
            yield

    def _without_locks(self, error: NoLocksError) -> None:
        note = (
            f"the output folder's file system has no locks ({error}): a second process there would do the same cases; "
            "divide them with --num-parts and --part-id"
        )
        if note not in self.notes:
            self.notes.append(note)

    def _take(self, first: int, count: int = 1) -> bool:
        try:
            return self._file.take(first, count)
        except NoLocksError as error:
            self._without_locks(error)
            return True

    def _enter(self, resume: bool) -> None:
        is_alone = self._take(_SEATS, _SEAT_COUNT)
        if is_alone:
            self._file.give(_SEATS, _SEAT_COUNT)
        self.refresh()
        if is_alone:
            try:
                self._begin(resume)
            except (UserError, OSError):
                if not self._read:
                    self._path.unlink(missing_ok=True)  # it was made just now
                raise
        else:
            self._join()
        self._seat = next((seat for seat in range(_SEAT_COUNT) if self._take(_SEATS + seat)), None)
        if self._seat is None:
            raise UsageError(
                f"{self._folder}: {_SEAT_COUNT} processes are at work there", "Divide the cases with --num-parts."
            )

    def _join(self) -> None:
        theirs = self._content.identity
        assert theirs is not None
        if difference := self._identity.difference(theirs, at_once=True):
            raise UsageError(
                f"{self._folder}: another process is at work there with {difference}",
                "Repeat its options to share its work, wait for it, or choose another folder with --output.",
            )

    def _begin(self, resume: bool) -> None:
        self._refuse_overlap()
        was_killed = self._read > 0
        known = self._content.identity
        if was_killed or resume:
            remove_abandoned(self._folder)
        trusts_files = False
        lines = []
        if resume and known is not None:
            self._identity.check_same(known, self._folder, self._path)
            trusts_files = self._content.trusts_files
        elif resume:
            others = [(path, read_run_file(path)) for path in run_files(self._folder) if path != self._path]
            left = [
                (path, one.identity, list({**one.earlier, **one.results}.values()))
                for path, one in others
                if one.identity
            ]
            rows = earlier_results(self._folder, self._identity, left)
            trusts_files = rows is None
            lines = [line_of("earlier", row) for row in rows or ()]
        elif self._part.is_whole:
            self._supersede_parts()
        else:
            whole = read_run_file(self._folder / RUN_FILE).identity
            if whole is not None:
                self._identity.check_same(whole, self._folder, self._folder / RUN_FILE)
        head = {"continues": resume, "trusts_files": trusts_files}
        self._append([*lines, line_of("run", {**self._identity.as_dict(), **head})])
        self._file.sync()  # what is written from now on is this run's, after a power cut too
        self.refresh()

    def _supersede_parts(self) -> None:
        """Results of parts are about to be replaced: what tells of them would be wrong."""
        for path in (*run_files(self._folder), *part_reports(self._folder)):
            if path != self._path:
                path.unlink(missing_ok=True)

    def _refuse_overlap(self) -> None:
        """Parts know nothing of each other: those of one division are the only ones that have no case in common."""
        for path in run_files(self._folder):
            is_beside = not self._part.is_whole and path.name.endswith(f"-of-{self._part.of}")
            if path != self._path and not is_beside and self._is_busy(path):
                what = path.name.removeprefix(RUN_FILE).strip("-").replace("-", " ") or "all cases"
                raise UsageError(
                    f"{self._folder}: another process is at work there on {what}",
                    "Wait for it, divide the cases as it does, or choose another folder with --output.",
                )

    def _is_busy(self, path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            file = LockFile(path, create=False)
            try:
                # Behind the gate, or whoever comes at this moment would take this for somebody at work. Not waited
                # for: those behind two gates might wait for each other.
                return not (file.take(_GATE) and file.take(_SEATS, _SEAT_COUNT))
            except NoLocksError as error:
                self._without_locks(error)
            finally:
                file.close()
        return False

    # Working

    def refresh(self) -> list[CaseResult]:
        """Take in what others have finished since; returns that.

        Raises:
            OutputError: Somebody else has written into the run file.
        """
        with self._lock:
            found: dict[str, CaseResult] = {}
            runs = self._content.runs
            for line in self._lines():
                name = self._content.take(line)
                if self._content.runs > runs:
                    runs = self._content.runs
                    # Before anything was done here, but where no locks keep others from beginning anew.
                    self.results = {case: result for case, result in self.results.items() if case in self.mine}
                    found.clear()
                elif name is not None and name not in self.mine:
                    found[name] = CaseResult.from_dict(self._content.results[name])
            self.results |= found
            return list(found.values())

    def _lines(self) -> Iterator[bytes]:
        """Whole lines that were not read before."""
        while new := self._file.read(self._read):
            whole = new[: new.rfind(b"\n") + 1]
            if not whole and len(new) == MOST_AT_ONCE:
                raise OutputError(
                    f"{self._path}: a line of more than {MOST_AT_ONCE} bytes, which segtool never writes",
                    "Remove the file, or choose another folder with --output.",
                )
            self._read += len(whole)
            yield from whole.splitlines()
            if len(new) < MOST_AT_ONCE:
                return

    def claim(self, name: str) -> bool:
        """Take a case on; False where another process has it. Whoever has claimed a case adds its result."""
        with self._lock:
            byte = _CASES + zlib.crc32(name.encode(errors="surrogatepass")) % _CASE_COUNT
            if byte in self._held.values() or not self._take(byte):
                return False
            self._held[name] = byte
            return True

    @property
    def suspected(self) -> frozenset[str]:
        """Cases that were in hand when a process of the run before died."""
        with self._lock:
            return frozenset(self._content.deaths)

    def deaths_with(self, name: str) -> int | None:
        """How often a process died that had this case alone in hand; asked of a case that was claimed just now.

        None where no process died while it had the case in hand.
        """
        with self._lock:
            return self._content.deaths_with(name)

    def begin(self, name: str, alone: bool) -> None:
        """Record that a claimed case is begun, ``alone`` where nothing else is in hand.

        What cannot be recorded is not: nobody will know then what killed this process.
        """
        with self._lock, contextlib.suppress(OSError):
            start, end = self._append([line_of("begun", {"name": name, "alone": alone})])
            if start == self._read:
                self._read = end

    def release(self, name: str) -> None:
        """Give back a case without a result."""
        with self._lock:
            if (byte := self._held.pop(name, None)) is not None:
                self._file.give(byte)

    def add(self, result: CaseResult) -> None:
        """Record a finished case and give it back."""
        with self._lock:
            self.mine.add(result.name)
            self.results[result.name] = result
            self._unsaved.append(line_of("case", result.to_plain()))
            self._save()
            self._finished.notify_all()

    def wait_for_room(self, most: int, timeout_s: float) -> bool:
        """Whether fewer than ``most`` claimed cases are unfinished, now or within the time."""
        with self._lock:
            return self._finished.wait_for(lambda: len(self._held.keys() - self.mine) < most, timeout_s)

    def _save(self) -> None:
        """Record what is not recorded yet; until then nobody else may begin with it."""
        try:
            start, end = self._append(self._unsaved)
        except OSError as error:
            note = f"{self._path.name}: finished cases could not be recorded ({error.strerror or error})"
            if note not in self.notes:
                self.notes.append(note)
            return
        if start == self._read:
            self._read = end  # nothing in between that is not known here
        self._unsaved.clear()
        for name in [name for name in self._held if name in self.mine]:
            self.release(name)

    def _append(self, lines: Sequence[bytes]) -> tuple[int, int]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(NoLocksError):  # said already
                stack.enter_context(self._file.held(_APPENDING))
            return self._file.append(b"".join(lines))

    def earlier(self, name: str, stamp: str) -> CaseResult | None:
        """What an earlier run made of a case, where that counts: it is finished, and its scan is the same still."""
        row = self._content.earlier.get(name)
        if row is None:
            return CaseResult(name, "done") if self._content.trusts_files else None
        is_same = row.get("stamp") in (None, stamp)  # None in reports of older versions
        return CaseResult.from_dict(row) if is_same and row.get("status") != "failed" else None

    def lose(self, lost: Sequence[CaseResult]) -> None:
        """Record what the scan could not make a case of."""
        with self._lock:
            rows = [row.to_plain() for row in lost]
            self._unsaved += (
                line_of("lost", row) for row in rows if f"{row['name']} {row.get('error')}" not in self._content.lost
            )
            self.refresh()
            self._save()
            for row in rows:
                self._content.lost.setdefault(f"{row['name']} {row.get('error')}", row)

    @property
    def lost(self) -> tuple[CaseResult, ...]:
        """What anybody's scan could not make a case of."""
        return tuple(map(CaseResult.from_dict, self._content.lost.values()))

    # Going

    def leave(self, write: Callable[[], None] | None, finished: bool) -> None:
        """Write the report of all that is known, and clean up behind the last one.

        Args:
            write: Writes it; nobody else does at the same time. None where there is nothing to tell.
            finished: Every case of this process has a result.

        Raises:
            OutputError: As ``write`` raises it.
        """
        is_over = False
        try:
            with self._gate():
                with self._lock:
                    self._save()
                    self.refresh()
                if write is not None:
                    write()
                if self._seat is not None:
                    self._file.give(_SEATS + self._seat)
                is_over = self._take(_SEATS, _SEAT_COUNT) and self._tells_nothing_more(write is not None, finished)
                if is_over:
                    for path in run_files(self._folder) if self._part.is_whole and finished else ():
                        if path != self._path:
                            path.unlink(missing_ok=True)
                # Still behind the gate, so that nobody can come before it is gone.
                self._file.close(remove=is_over)
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.close()
            raise
        finally:
            _here.discard(self._key)

    def _tells_nothing_more(self, reported: bool, finished: bool) -> bool:
        """True where report and results say all that the run file says."""
        content = self._content
        if not reported:
            return not (self.results or content.earlier)
        return finished or (not content.trusts_files and set(content.earlier) <= set(self.results))
