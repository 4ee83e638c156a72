"""Reads zip and tar archives, and trusts none of them."""

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Protocol, cast

from segtool.errors import UsageError
from segtool.limits import DEFAULT_LIMITS, Limits

SUFFIXES = (
    ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".tar", ".tgz", ".tbz2", ".txz",
)  # fmt: skip
"""Lower-case, what is told by two parts first."""

MOST_TIMES, SPARE_BYTES = 200, 2**33
"""An archive may grow so many times, and by so much beyond: scans shrink to a half, masks to a hundredth, and empty
ones to a thousandth, of which a set of a thousand cases is still a small archive."""

_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, ValueError,
    NotImplementedError, UnicodeError, struct.error, OverflowError, RecursionError,
)  # fmt: skip
_SHOWN = 100
_UNPACK_IT = "Unpack it yourself and give the folder."

_BOUNDED = frozenset((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
"""Others the library unpacks with no regard for how much was asked for: 4 kB of bzip2 become 4 GB at once."""
_LONGEST_PATH, _LONGEST_NAME, _DEEPEST = 4096, 255, 64
"""Bytes of a member's path and of one part of it, as file systems have them, and folders in folders."""
_LONGEST_HEADER, _HEADER_READS, _MOST_AT_ONCE = 2**16, 1000, 2**24
"""Bytes that one step of reading may ask for in the header of a member of a tar, the steps that such a header may take,
and bytes likewise in its content."""
_MANY_DIGITS = re.compile(rb"\d{129}")
_DIRECTORY_ENTRY, _DIRECTORY_END, _DIRECTORY_END_64 = 46, b"PK\5\6", b"PK\6\6"
_END_BYTES, _IN_64_BITS = 22, 2**32 - 1
_TAIL = 2**16 + _END_BYTES + 20 + 56


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
    def __init__(self, path: Path, stack: ExitStack, limits: Limits) -> None:
        _check_directory(path, limits)
        self._file = stack.enter_context(zipfile.ZipFile(path))

    def members(self) -> Iterator[_Member]:
        for one in self._file.infolist():
            if one.flag_bits & 1:
                raise _RefusedError("is encrypted", "Unpack it with its password and give the folder.")
            if one.compress_type not in _BOUNDED:
                raise _RefusedError("is packed in a way of which nobody knows how far it unpacks", _UNPACK_IT)
            if not one.filename or not one.is_dir():
                kind = stat.S_IFMT(one.external_attr >> 16)
                yield _Member(_posix(one.filename), one.file_size, kind in (0, stat.S_IFREG))

    def contents(self) -> Iterator[tuple[str, AbstractContextManager[IO[bytes]]]]:
        for one in self._file.infolist():
            if not one.is_dir():
                yield _posix(one.filename), self._file.open(one)


class _Tar:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._stack = path, stack

    def _each(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        opened = _OPENERS.get(archive_suffix(self._path), _plain)(self._path)
        stream = _Patient(self._stack.enter_context(opened))
        archive = self._stack.enter_context(
            tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:", errorlevel=2)  # noqa: SIM115 - the stack closes it
        )
        while (one := archive.next()) is not None:
            # It keeps them all, and there may be millions.
            archive.members.clear()  # type: ignore[attr-defined]  # typeshed does not know it
            if one.size < 0:
                # Or it would go back, and never come to an end.
                raise tarfile.ReadError
            stream.is_header = False
            yield archive, one
            stream.renew()

    def members(self) -> Iterator[_Member]:
        for _, one in self._each():
            if not one.isdir():
                yield _Member(one.name, one.size, one.isreg())

    def contents(self) -> Iterator[tuple[str, AbstractContextManager[IO[bytes]]]]:
        for archive, one in self._each():
            content = archive.extractfile(one) if one.isreg() else None
            if content is not None:
                yield one.name, content


class _Patient:
    """A stream that gives a little at a time: headers of members claim names and attributes of any length.

    Attributes:
        is_header: True while it is read for a member's header.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._reads = stream, 0
        self.seek, self.tell, self.is_header = stream.seek, stream.tell, True

    def renew(self) -> None:
        """Another member begins."""
        self._reads, self.is_header = 0, True

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            tarfile.ReadError: More are asked for than any member's header has.
        """
        self._reads += self.is_header
        if not 0 <= size <= (_LONGEST_HEADER if self.is_header else _MOST_AT_ONCE) or self._reads > _HEADER_READS:
            raise tarfile.ReadError
        content = self._stream.read(size)
        if self.is_header and _MANY_DIGITS.search(content):
            # For which the library would look from each of them on, to the end of all.
            raise tarfile.ReadError
        return content


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


_OPENERS: dict[str, Callable[[Path], IO[bytes]]] = {
    **dict.fromkeys((".tar.gz", ".tgz"), lambda path: cast("IO[bytes]", gzip.GzipFile(path))),
    **dict.fromkeys((".tar.bz2", ".tbz2"), lambda path: cast("IO[bytes]", bz2.BZ2File(path))),
    **dict.fromkeys((".tar.xz", ".txz"), lambda path: cast("IO[bytes]", lzma.LZMAFile(path))),  # noqa: SIM115
}


def _check_directory(path: Path, limits: Limits) -> None:
    """Refuse a zip whose directory has too many entries, before an object is made of each.

    Readers go by the bytes of the directory, whatever number of entries is written beside.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
    has_end = tail[-_END_BYTES:].startswith(_DIRECTORY_END) and tail.endswith(b"\0\0")
    end, end_64 = len(tail) - _END_BYTES if has_end else tail.rfind(_DIRECTORY_END), tail.rfind(_DIRECTORY_END_64)
    claimed = struct.unpack_from("<I", tail, end + 12)[0] if end >= 0 else 0
    claimed_64 = struct.unpack_from("<Q", tail, end_64 + 40)[0] if end_64 >= 0 else 0
    directory = claimed_64 if claimed == _IN_64_BITS else max(claimed, claimed_64)
    if directory > size:
        raise zipfile.BadZipFile
    if directory // _DIRECTORY_ENTRY > limits.files:
        raise _too_many(limits)


def _too_many(limits: Limits) -> "_RefusedError":
    return _RefusedError(
        f"holds more files and folders than the limit of {limits.files} files",
        f"If the archive is sound, raise the limit: --limit files={10 * limits.files}.",
    )


def _posix(name: str) -> str:
    """Some programs of Windows write backslashes between folders."""
    return name.replace("\\", "/")


class _RefusedError(Exception):
    """Why an archive is not unpacked, and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[_Archive]:
    """Whatever goes wrong with an archive becomes one line."""
    try:
        with ExitStack() as stack:
            yield _Zip(path, stack, limits) if archive_suffix(path) == ".zip" else _Tar(path, stack)
    except _RefusedError as error:
        raise UsageError(f"{path}: {error}", error.remedy) from error
    except OSError as error:
        if error.errno is None:
            # So bz2 and gzip say that the bytes are none of theirs.
            raise UsageError(f"{path}: truncated, or no archive of its kind", "Copy it again.") from error
        raise UsageError(f"{path}: cannot be unpacked ({error.strerror})", _UNPACK_IT) from error
    except _BROKEN as error:
        raise UsageError(f"{path}: truncated, or no archive of its kind", "Copy it again.") from error


def holds(path: Path, is_wanted: Callable[[str], bool], limits: Limits = DEFAULT_LIMITS) -> bool:
    """True where ``is_wanted`` is, of the path of one of the files of an archive, with ``/`` between parts.

    Raises:
        UsageError: It is broken or encrypted, or has too many files.
    """
    with _opened(path, limits) as archive:
        for count, member in enumerate(archive.members(), start=1):
            if count > limits.files:
                raise _too_many(limits)
            if is_wanted(member.name):
                return True
    return False


def unpack_into(path: Path, folder: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack an archive into a folder that is there.

    Args:
        path: The archive.
        folder: Where its files go.
        limits: How many files and bytes it may hold.

    Raises:
        UsageError: It is broken, encrypted, unsafe or too large.
    """
    with _opened(path, limits) as archive:
        _check(archive, path.stat().st_size, shutil.disk_usage(folder).free, limits)
        for name, content in archive.contents():
            place = folder.joinpath(*_parts(name))
            place.parent.mkdir(parents=True, exist_ok=True)
            with content as source, place.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)


def _check(archive: _Archive, packed_bytes: int, free_bytes: int, limits: Limits) -> None:
    """Refuse what would leave the folder or fill the disk, before anything is written."""
    total, known, grown = 0, _Known(limits), MOST_TIMES * packed_bytes + SPARE_BYTES
    for member in archive.members():
        if not member.is_plain:
            raise _RefusedError(f"holds a link or a device ({_short(member.name)})", _UNPACK_IT)
        known.add(member.name)
        total += member.size
        if total > limits.unpacked_bytes:
            raise _RefusedError(
                f"would take more than the limit of {limits.unpacked_bytes} unpacked bytes",
                f"If the archive is sound, raise the limit: --limit unpacked_bytes={max(2 * total, 2**36)}.",
            )
        if total > grown:
            raise _RefusedError(
                f"would take more than {grown / 1e9:.1f} GB unpacked, {MOST_TIMES} times what it has", _UNPACK_IT
            )
    if total > free_bytes:
        raise _RefusedError(
            f"would take {total / 1e9:.1f} GB unpacked, and {free_bytes / 1e9:.1f} GB are free in the temporary folder",
            "Set TMPDIR to a folder of a larger disk.",
        )


class _Known:
    """The files and folders that an archive would make, each by its digest: names may be long, and many."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._files: set[bytes] = set()
        self._folders: set[bytes] = set()

    def add(self, name: str) -> None:
        """Count a file and the folders above it.

        Raises:
            _RefusedError: They are too many, it lies outside, or another has its place.
        """
        parts = _parts(name)
        # Some file systems tell no case apart.
        digests = [_digest("/".join(parts[:depth]).casefold()) for depth in range(1, len(parts) + 1)]
        if digests[-1] in self._files or digests[-1] in self._folders or not self._files.isdisjoint(digests):
            raise _RefusedError(f"holds two files of one name ({_short(name)})", _UNPACK_IT)
        self._files.add(digests[-1])
        self._folders.update(digests[:-1])
        if len(self._files) + len(self._folders) > self._limits.files:
            raise _too_many(self._limits)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a member's path, which must stay below the folder of its archive."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise _RefusedError(f"holds a file that would lie outside its folder ({_short(name)})", "Do not trust it.")
    if os.name == "nt" and any(":" in part or PureWindowsPath(part).is_reserved() for part in parts):
        raise _RefusedError(f"holds a file whose name Windows reserves ({_short(name)})", _UNPACK_IT)
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if sum(sizes) > _LONGEST_PATH or max(sizes) > _LONGEST_NAME or len(parts) > _DEEPEST:
        raise _RefusedError(f"holds a name that no file system has ({_short(name)})", _UNPACK_IT)
    return parts
