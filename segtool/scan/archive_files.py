"""Reads zip and tar archives, and trusts none of them."""

import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from segtool.errors import UsageError

SUFFIXES = (
    ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".tar", ".tgz", ".tbz2", ".txz",
)  # fmt: skip
"""Lower-case, what is told by two parts first."""

MOST_MEMBERS = 200_000
MOST_BYTES = 64 * 2**30
MOST_TIMES, SPARE_BYTES = 200, 100_000_000
"""An archive may grow so many times, and by so much beyond: scans shrink to a half, and masks to a hundredth."""

_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, ValueError,
    NotImplementedError, UnicodeError, struct.error,
)  # fmt: skip
_UNPACK_IT = "Unpack it yourself and give the folder."


def archive_suffix(path: Path) -> str:
    """One of :data:`SUFFIXES`, empty for what is no archive."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


@dataclass(frozen=True)
class _Member:
    """One file of an archive, under its path with ``/``."""

    name: str
    size: int
    is_plain: bool
    """False for links and devices."""


class _Archive(Protocol):
    def members(self) -> Iterator[_Member]:
        """Its files; folders come with them."""
        ...

    def contents(self) -> Iterator[tuple[str, AbstractContextManager[IO[bytes]]]]:
        """The name and the bytes of each file, to be read before the next one."""
        ...


class _Zip:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._file = stack.enter_context(zipfile.ZipFile(path))

    def members(self) -> Iterator[_Member]:
        for one in self._file.infolist():
            if one.flag_bits & 1:
                raise _RefusedError("is encrypted", "Unpack it with its password and give the folder.")
            if not one.is_dir():
                kind = stat.S_IFMT(one.external_attr >> 16)
                yield _Member(_posix(one.filename), one.file_size, kind in (0, stat.S_IFREG))

    def contents(self) -> Iterator[tuple[str, AbstractContextManager[IO[bytes]]]]:
        for one in self._file.infolist():
            if not one.is_dir():
                yield _posix(one.filename), self._file.open(one)


class _Tar:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._stack = path, stack

    def _open(self) -> tarfile.TarFile:
        return self._stack.enter_context(tarfile.open(self._path, errorlevel=2))

    def members(self) -> Iterator[_Member]:
        for one in self._open():
            if not one.isdir():
                yield _Member(one.name, one.size, one.isreg())

    def contents(self) -> Iterator[tuple[str, AbstractContextManager[IO[bytes]]]]:
        archive = self._open()
        for one in archive:
            content = archive.extractfile(one) if one.isreg() else None
            if content is not None:
                yield one.name, content


def _posix(name: str) -> str:
    """Some programs of Windows write backslashes between folders."""
    return name.replace("\\", "/")


class _RefusedError(Exception):
    """Why an archive is not unpacked, and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    """Whatever goes wrong with an archive becomes one line."""
    try:
        with ExitStack() as stack:
            yield _Zip(path, stack) if archive_suffix(path) == ".zip" else _Tar(path, stack)
    except _RefusedError as error:
        raise UsageError(f"{path}: {error}", error.remedy) from error
    except OSError as error:
        if error.errno is None:
            # So bz2 and gzip say that the bytes are none of theirs.
            raise UsageError(f"{path}: truncated, or no archive of its kind", "Copy it again.") from error
        raise UsageError(f"{path}: cannot be unpacked ({error.strerror})", _UNPACK_IT) from error
    except _BROKEN as error:
        raise UsageError(f"{path}: truncated, or no archive of its kind", "Copy it again.") from error


def member_names(path: Path) -> list[str]:
    """Paths of the files of an archive, with ``/`` between parts.

    Raises:
        UsageError: It is broken or encrypted.
    """
    with _opened(path) as archive:
        return [member.name for member in archive.members()]


def unpack_into(path: Path, folder: Path) -> None:
    """Unpack an archive into a folder that is there.

    Raises:
        UsageError: It is broken, encrypted, unsafe or too large.
    """
    with _opened(path) as archive:
        _check(archive, path.stat().st_size, shutil.disk_usage(folder).free)
        for name, content in archive.contents():
            place = folder.joinpath(*_parts(name))
            place.parent.mkdir(parents=True, exist_ok=True)
            with content as source, place.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)


def _check(archive: _Archive, packed_bytes: int, free_bytes: int) -> None:
    """Refuse what would leave the folder or fill the disk, before anything is written."""
    count = total = 0
    grown = MOST_TIMES * packed_bytes + SPARE_BYTES
    for member in archive.members():
        if not member.is_plain:
            raise _RefusedError(f"holds a link or a device ({member.name})", _UNPACK_IT)
        _parts(member.name)
        count, total = count + 1, total + member.size
        if count > MOST_MEMBERS:
            raise _RefusedError(f"holds more than {MOST_MEMBERS} files", _UNPACK_IT)
        if total > min(MOST_BYTES, grown):
            raise _RefusedError(f"would take more than {min(MOST_BYTES, grown) / 1e9:.1f} GB unpacked", _UNPACK_IT)
    if total > free_bytes:
        raise _RefusedError(
            f"would take {total / 1e9:.1f} GB unpacked, and {free_bytes / 1e9:.1f} GB are free in the temporary folder",
            "Set TMPDIR to a folder of a larger disk.",
        )


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a member's path, which must stay below the folder of its archive."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise _RefusedError(f"holds a file that would lie outside its folder ({name})", "Do not trust it.")
    return parts
