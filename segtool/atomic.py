"""Files appear whole or not at all: write to a temporary name, then rename.

Nothing is forced onto the disk (fsync) before the rename: a kill at any moment leaves whole files as it is, and after a
power cut ``--continue`` reads every label map back and makes again what is not whole. Waiting for a solid-state disk
took 4 to 6 ms for each of 400 small PNG files, a third as long as the bundled model takes for a slice; disks that turn
and network folders take several times that.
"""

import contextlib
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from segtool.errors import OutputError

PARTIAL_PREFIX = ".partial-"

_LONGEST_NAME = 255  # bytes, of every usual file system
_ABANDONED_S = 3600.0
_NAME = re.compile(re.escape(PARTIAL_PREFIX) + r"(?P<pid>\d+)-(?P<host>[0-9a-f]{8})(?P<run>[0-9a-f]{8})-")


def _host() -> str:
    """Digest of the machine and of what gives its processes their numbers: containers have numbers of their own."""
    machine = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    try:
        numbers = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        numbers = 0
    return f"{zlib.crc32(f'{machine} {numbers}'.encode()):08x}"


_HOST, _RUN = _host(), os.urandom(4).hex()


def partial_path(path: Path) -> Path:
    """A temporary name beside ``path`` that no other process, thread or machine uses, with the same suffixes.

    Nobody can foretell it, and put a link of that name there before the file is opened.
    """
    start = f"{PARTIAL_PREFIX}{os.getpid()}-{_HOST}{_RUN}-{os.urandom(8).hex()}-"
    end = path.name
    while len(os.fsencode(start + end)) > _LONGEST_NAME:
        end = end[1:]
    return path.with_name(start + end)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` when the block ends well.

    The temporary name keeps all suffixes of ``path`` (libraries choose a codec by suffix) and is nobody else's. It is
    removed when the block raises.

    Raises:
        OutputError: The folder cannot be made, or the file cannot be written or renamed.
    """
    temporary = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path}: cannot be written ({reason})", "Choose another folder with --output or free the space."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half written below ``folder``, and nothing of a process that may be alive.

    Processes of other machines and containers cannot be asked for: what they wrote is left behind after an hour.
    """
    import shutil

    for path in folder.rglob(f"{PARTIAL_PREFIX}*"):
        if path.is_symlink():
            continue  # none of ours, and it may lead anywhere
        name = _NAME.match(path.name)
        if name is None or name["host"] != _HOST:
            abandoned = _age_s(path) > _ABANDONED_S
        elif int(name["pid"]) == os.getpid():
            abandoned = name["run"] != _RUN  # of an earlier process with our number
        else:
            abandoned = not _is_alive(int(name["pid"]))
        if abandoned and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif abandoned:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    try:
        newest = max(entry.stat().st_mtime for entry in (path, *path.rglob("*")))
    except OSError:
        return 0.0  # somebody is at work on it
    return time.time() - newest


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # signal 0 would end a process there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number of thirty digits
        return False
    except OSError:
        return True  # somebody else's
    return True
