"""Locks on single bytes of one file, by which processes agree who does what.

The system takes a lock back from a process however it ends, so none is ever left behind. Where there are open file
description locks (Linux), threads of one process exclude each other like processes; Windows' locks do so too.
"""

import contextlib
import errno
import os
import stat
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_REFUSED = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_POLL_S = 0.01
MOST_AT_ONCE = 2**28
"""Bytes that are read at once, and of a line."""


class NoLocksError(Exception):
    """The file system knows no locks."""


class LockFile:
    """One open file, any byte of which can be locked, beyond its end too.

    Reading and writing goes through the same descriptor: elsewhere than on Linux, closing a second one would give up
    all locks of the process.

    Args:
        path: The file.
        create: Make it where it does not exist.

    Raises:
        OSError: It cannot be opened, or it is a link, a pipe or the like, or has a second name elsewhere.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        where_known = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        self._file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | where_known, 0o666)
        try:
            _check_plain(os.fstat(self._file))
        except OSError:
            os.close(self._file)
            raise
        self._lock = threading.Lock()

    @property
    def is_in_place(self) -> bool:
        """False where the file has been removed or replaced since it was opened, so that its locks bind nobody."""
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False

    def take(self, first: int, count: int = 1) -> bool:
        """Lock bytes, at once or not at all; False where another holder has one of them.

        Raises:
            NoLocksError: The file system refuses every lock.
        """
        with self._lock:
            try:
                _set_lock(self._file, first, count, locked=True)
            except OSError as error:
                if error.errno in _REFUSED:
                    return False
                raise NoLocksError(error.strerror or str(error)) from error
        return True

    def give(self, first: int, count: int = 1) -> None:
        """Unlock bytes; of a closed file none is locked."""
        with self._lock, contextlib.suppress(OSError):
            if self._file >= 0:
                _set_lock(self._file, first, count, locked=False)

    @contextlib.contextmanager
    def held(self, byte: int) -> Iterator[None]:
        """Hold a byte for the length of the block, after whoever has it now.

        Raises:
            NoLocksError: The file system refuses every lock.
        """
        while not self.take(byte):
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            self.give(byte)

    def read(self, start: int) -> bytes:
        """Everything from ``start`` on, but no more than :data:`MOST_AT_ONCE` bytes."""
        with self._lock:
            missing = min(os.fstat(self._file).st_size - start, MOST_AT_ONCE)
            if missing <= 0:
                return b""
            os.lseek(self._file, start, os.SEEK_SET)
            parts = []
            while missing > 0 and (part := os.read(self._file, missing)):
                parts.append(part)
                missing -= len(part)
            return b"".join(parts)

    def append(self, lines: bytes) -> tuple[int, int]:
        """Write whole lines behind everything else; one that was left half written is ended first.

        Returns:
            Where the file ended before, and where it ends now.

        Raises:
            OSError: There is no space. What was written stays, because others may have read it.
        """
        with self._lock:
            end = os.lseek(self._file, 0, os.SEEK_END)
            if end:
                os.lseek(self._file, end - 1, os.SEEK_SET)
                if os.read(self._file, 1) != b"\n":
                    lines = b"\n" + lines
            os.lseek(self._file, end, os.SEEK_SET)
            rest = memoryview(lines)
            new_end = end + len(lines)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            return end, new_end

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        os.fsync(self._file)

    def close(self, *, remove: bool = False) -> None:
        """Give up all locks, and remove the file where asked to: by its only user, or nobody is excluded any more.

        Another file that has taken its place, because somebody removed it, stays: others may use it.
        """
        on_windows = sys.platform == "win32"  # which removes no file that is open, and lets nobody replace it
        with contextlib.suppress(OSError):
            if remove and not on_windows and self.is_in_place:
                self.path.unlink()
        os.close(self._file)
        self._file = -1  # the number may be another file's soon
        with contextlib.suppress(OSError):
            if remove and on_windows:
                self.path.unlink()


def _check_plain(found: os.stat_result) -> None:
    """Refuse what somebody else may have put there: what is written would go elsewhere too, or nowhere.

    Raises:
        OSError: It is no plain file, or has a second name.
    """
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file")
    if found.st_nlink > 1:
        raise OSError(errno.EMLINK, "it is a hard link, a file that has another name too")


if sys.platform == "win32":
    import msvcrt

    THREADS_EXCLUDE_EACH_OTHER = True

    def _set_lock(file: int, first: int, count: int, *, locked: bool) -> None:
        os.lseek(file, first, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK if locked else msvcrt.LK_UNLCK, count)

else:
    import fcntl

    THREADS_EXCLUDE_EACH_OTHER = hasattr(fcntl, "F_OFD_SETLK")

    def _set_lock(file: int, first: int, count: int, *, locked: bool) -> None:
        if THREADS_EXCLUDE_EACH_OTHER:
            kind = fcntl.F_WRLCK if locked else fcntl.F_UNLCK
            # struct flock: type, whence, start, length, process (0 for these locks), padded to its alignment.
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, first, count, 0))
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB if locked else fcntl.LOCK_UN, count, first)
