"""Parts of one piece of work on all cores, for what a single case waits for: its files, its channels, its windows."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

from segtool.machine import cores

T = TypeVar("T")
R = TypeVar("R")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="segtool-part")


# A child process inherits the pool without its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


def side_by_side(work: Callable[[T], R], parts: Iterable[T]) -> list[R]:
    """What ``work`` makes of each part, in order; the first error in that order is raised.

    Args:
        work: Called in several threads; does not call this function itself.
        parts: Few and large, so that handing them over costs nothing beside the work.
    """
    todo = list(parts)
    if len(todo) < 2 or cores() == 1:
        return [work(part) for part in todo]
    return list(_pool().map(work, todo))


def ranges(count: int) -> Sequence[slice]:
    """``count`` neighbouring things as one slice a core."""
    parts = min(cores(), count)
    ends = [count * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]
