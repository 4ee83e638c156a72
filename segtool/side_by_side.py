"""Parts of one piece of work on all cores, for what a single case waits for: its files, its channels, its windows."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, TypeVar

from segtool.machine import cores

T = TypeVar("T")
R = TypeVar("R")

_STUCK_S = 30.0
"""Longer than any part takes: a helper that is not back by then waits for a disk that does not answer."""
_IDLE = float("inf")


class _Work:
    """The parts of one call: whoever is free takes the next; the caller waits for those that others have begun."""

    def __init__(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> None:
        self._work, self._parts = work, parts
        self._left = iter(range(len(parts)))
        self._lock = threading.Lock()
        self._done = threading.Semaphore(0)
        self._answers: list[Any] = [None] * len(parts)
        self._errors: dict[int, BaseException] = {}

    def help(self) -> None:
        """Do parts until none is left."""
        while True:
            with self._lock:
                index = next(self._left, None)
            if index is None:
                return
            try:
                self._answers[index] = self._work(self._parts[index])
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                self._errors[index] = error
            self._done.release()

    def result(self) -> list[Any]:
        """Do what nobody else does; the answers in order, or the first error in that order."""
        self.help()
        for _ in self._parts:
            self._done.acquire()
        if self._errors:
            try:
                raise self._errors[min(self._errors)]
            finally:
                self._errors.clear()  # an error and the frames that it holds would keep each other alive
        return self._answers


class _Helpers:
    """Threads that help, as many as there are other cores.

    They are daemons, so that one which hangs in a read keeps nobody from ending; and another takes its place.
    """

    def __init__(self) -> None:
        self._todo: SimpleQueue[_Work] = SimpleQueue()
        self._since: dict[threading.Thread, float] = {}
        self._lock = threading.Lock()

    def ask(self, work: _Work, count: int) -> None:
        """Hand ``work`` to ``count`` helpers, or fewer where others keep them busy."""
        with self._lock:
            stuck = time.monotonic() - _STUCK_S
            able = sum(since > stuck for since in self._since.values())
            for _ in range(able, count):
                helper = threading.Thread(target=self._help, name="segtool-part", daemon=True)
                self._since[helper] = _IDLE
                try:
                    helper.start()
                except RuntimeError:  # no memory for one more: the caller does its share
                    del self._since[helper]
                    break
            idle = sum(since == _IDLE for since in self._since.values())
        # No more than can take it now: work that waits would keep its arrays.
        for _ in range(min(count, idle)):
            self._todo.put(work)

    def _help(self) -> None:
        helper = threading.current_thread()
        while True:
            work = self._todo.get()
            self._since[helper] = time.monotonic()
            work.help()
            self._since[helper] = _IDLE
            del work  # an idle helper holds no arrays


@cache
def _helpers() -> _Helpers:
    return _Helpers()


# A child process inherits the helpers without their threads.
os.register_at_fork(after_in_child=_helpers.cache_clear)


def side_by_side(work: Callable[[T], R], parts: Iterable[T]) -> list[R]:
    """What ``work`` makes of each part, in order; the first error in that order is raised.

    The calling thread does its share, so that it never waits for helpers who are busy or stuck elsewhere.

    Args:
        work: Called in several threads.
        parts: Few and large, so that handing them over costs nothing beside the work.
    """
    todo = list(parts)
    if len(todo) < 2 or cores() == 1:
        return [work(part) for part in todo]
    shared = _Work(work, todo)
    _helpers().ask(shared, min(len(todo), cores()) - 1)
    return shared.result()


def ranges(count: int) -> Sequence[slice]:
    """``count`` neighbouring things as one slice a core."""
    parts = min(cores(), count)
    ends = [count * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]
