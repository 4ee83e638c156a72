"""Which case comes next: none that another process has, none that is done, and in the end none left over."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from segtool.case import CaseSource
from segtool.errors import UsageError
from segtool.finishing import CaseFinisher
from segtool.predict_options import Progress
from segtool.report import CaseResult
from segtool.shared_run import SharedRun

_DEATHS = 2
"""So many processes may die over a case before it is given up."""
_WAIT_S = 0.05
_SILENT_S = 5.0  # how long others are waited for without a word


class Worklist:
    """The cases of a run, pulled one at a time as somebody is free to begin with them.

    A case that another process has claimed is passed over and looked at again at the end: it has a result then, or its
    process was killed and it is done here. What a process had in hand when it died may have killed it, as broken files
    can kill libraries in C. Such cases come last and one at a time; so all others are done before it can happen
    again, and in the end it is known which it was.

    Args:
        cases: All cases, in order.
        run: Knows who does what.
        finisher: Knows of what a result was made.
        is_ending: True when no further case shall be begun.
        progress: Told of every case that another process has finished, and of cases that are waited for.
        most: So many cases are in hand at once, and the others left for whoever is free.
    """

    def __init__(
        self,
        cases: Sequence[CaseSource],
        run: SharedRun,
        finisher: CaseFinisher,
        is_ending: Callable[[], bool],
        progress: Progress,
        most: int,
    ) -> None:
        self._cases, self._run, self._finisher, self._is_ending = cases, run, finisher, is_ending
        self._progress, self._most = progress, most
        self._sources = {source.name: source for source in cases}
        self._is_alone = False
        self._waits_since: float | None = None
        self._has_told = False

    def __iter__(self) -> Iterator[CaseSource]:
        """The next case, and the next.

        Raises:
            UsageError: Another process does other scans under the same names.
        """
        self._run.refresh()
        self._take_in(list(self._run.results.values()))
        suspected = self._run.suspected
        self._tell_of([source.name for source in self._cases if source.name in suspected])
        waiting: Sequence[CaseSource] = sorted(self._cases, key=lambda source: source.name in suspected)
        while waiting:
            claimed_elsewhere: list[CaseSource] = []
            for source in waiting:
                most = 1 if self._is_alone else self._most
                while not self._is_ending() and not self._run.wait_for_room(most, _WAIT_S):
                    pass
                if self._is_ending():
                    return
                if source.name in self._run.results:
                    continue
                if not self._run.claim(source.name):
                    claimed_elsewhere.append(source)
                    continue
                # Only now: its result may have come just before it was given back.
                self._take_in(self._run.refresh())
                if source.name in self._run.results:
                    self._run.release(source.name)
                elif (deaths := self._run.deaths_with(source.name)) is not None and deaths >= _DEATHS:
                    self._finisher.give_up(source, deaths)
                elif self._has_begun(source.name, alone=deaths is not None):
                    yield source
                    self._waits_since = None
                else:
                    return
            waiting = claimed_elsewhere
            if waiting:
                self._wait_for(len(waiting))
                self._take_in(self._run.refresh())

    def _has_begun(self, name: str, alone: bool) -> bool:
        """Record that a case is begun, ``alone`` once nothing else is in hand; False where the run ends meanwhile."""
        while alone and not self._run.wait_for_room(2, _WAIT_S):
            if self._is_ending():
                self._run.release(name)
                return False
        self._run.begin(name, alone)
        self._is_alone = alone
        return True

    def _tell_of(self, suspected: Sequence[str]) -> None:
        if suspected:
            names = ", ".join(suspected)
            self._progress.on_wait(
                f"note    in hand when an earlier process died, so done last and one at a time: {names}"
            )

    def _wait_for(self, count: int) -> None:
        """Wait a little; say so once where it has been long, as somebody may have stopped the others."""
        self._waits_since = self._waits_since or time.monotonic()
        if not self._has_told and time.monotonic() > self._waits_since + _SILENT_S:
            self._has_told = True
            cases = "1 case" if count == 1 else f"{count} cases"
            self._progress.on_wait(f"wait    for {cases} that other processes have in hand")
        time.sleep(_WAIT_S)

    def _take_in(self, found: Iterable[CaseResult]) -> None:
        """What other processes have finished."""
        for result in found:
            source = self._sources.get(result.name)
            if source is None:
                continue
            if not self._finisher.is_of(result, source):
                raise UsageError(
                    f"case {result.name!r}: another process has made a result of this name from other files",
                    "Give runs on different scans a folder each with --output.",
                )
            self._progress.on_elsewhere(result)
