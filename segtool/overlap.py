"""Queues that bound bytes, not items, so that stages overlap and memory stays flat whatever lies in them."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - control flow between threads, not an error
    """The run is being given up; stages leave their loops."""


class ByteBudget:
    """Lets threads hold up to ``limit`` bytes together. A lone holder may exceed it, else nothing could pass."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()
        self._stopped = False

    def acquire(self, size: int) -> None:
        """Wait until ``size`` bytes fit.

        Raises:
            Stopped: :meth:`stop` was called.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._used or self._used + size <= self._limit)
            if self._stopped:
                raise Stopped
            self._used += size

    def release(self, size: int) -> None:
        """Give ``size`` bytes back."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake every waiter with :class:`Stopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class ByteQueue(Generic[T]):
    """First in, first out, holding up to ``limit`` bytes (or one item of any size)."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._items: deque[tuple[T, int]] = deque()
        self._changed = threading.Condition()
        self._closed = self._stopped = False

    def put(self, item: T, size: int) -> None:
        """Add ``item``, waiting for room.

        Raises:
            Stopped: :meth:`stop` was called.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._items or self._used + size <= self._limit)
            if self._stopped:
                raise Stopped
            self._items.append((item, size))
            self._used += size
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """The next item; None when the queue is closed and empty.

        Raises:
            TimeoutError: Nothing came within ``timeout`` seconds.
            Stopped: :meth:`stop` was called.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._stopped or self._items or self._closed, timeout):
                raise TimeoutError
            if self._stopped:
                raise Stopped
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._used -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """No more items will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake every thread that waits with :class:`Stopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
