"""A temporary folder for patients' scans: gone when its block ends, and after a kill with the next run.

A kill leaves what was unpacked where anybody may find it later. So a lock says that a folder is in use; the system
gives it back however a process ends.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segtool.claims import LockFile, NoLocksError

_PREFIX = "segtool-unpacked-"
_LOCK = "in-use"

_here: set[Path] = set()
"""Folders of this process: not everywhere do locks keep its threads apart."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that only this user may enter; those that killed processes left behind are removed.

    Raises:
        OSError: None can be made.
    """
    _remove_left_behind(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        _here.add(folder)
        lock = LockFile(folder / _LOCK)
        try:
            with suppress(NoLocksError):  # nobody else can take it for left behind then
                lock.take(0)
            yield folder
        finally:
            lock.close()
            _here.discard(folder)


def _remove_left_behind(top: Path) -> None:
    for folder in top.glob(f"{_PREFIX}*"):
        # Without its lock it was made just now, or before anything was unpacked.
        with suppress(OSError, NoLocksError):
            if folder.resolve() in _here or not _is_own_folder(folder):
                continue
            lock = LockFile(folder / _LOCK, create=False)
            try:
                if lock.take(0):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                lock.close()


def _is_own_folder(path: Path) -> bool:
    facts = path.lstat()
    return stat.S_ISDIR(facts.st_mode) and (not hasattr(os, "getuid") or facts.st_uid == os.getuid())
