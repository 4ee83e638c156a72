"""Archives of scans: unpacked into a temporary folder while they are worked on."""

import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from segtool.errors import UsageError
from segtool.formats import suffix_of
from segtool.scan.found import Problem
from segtool.scan.walk import DIRECTORY, NOT_SCANS, find_entries, may_be_dicom

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


@dataclass(frozen=True)
class Unpacked:
    """What to scan in place of the inputs.

    Args:
        inputs: The inputs in their order, with a folder for each archive.
        shown: The temporary folder of each archive to the archive's own name, as messages should call it.
        problems: Archives below folders that were passed over.
    """

    inputs: tuple[Path, ...]
    shown: Mapping[Path, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def mended(self, text: str) -> str:
        """``text`` with archives in place of their temporary folders."""
        # A folder's path may begin another's.
        for folder in sorted(self.shown, key=lambda path: len(str(path)), reverse=True):
            for name in (str(folder), folder.as_posix()):
                text = text.replace(name, self.shown[folder])
        return text


@contextmanager
def unpacked(inputs: Sequence[Path]) -> Iterator[Unpacked]:
    """Folders in place of archives, for as long as the block lasts.

    Archives that are inputs become folders with the archive's stem. Archives below a folder come as one more input
    with that folder's name, in which each has its place and its stem, so that cases are named as if they had been
    unpacked where they lie; those that lie beside a folder of their stem have been, and are passed over, and so are
    those that hold nothing which segtool may read. A ``DICOMDIR`` becomes its folder. Archives in archives stay
    packed.

    Raises:
        UsageError: An archive that is an input is broken, encrypted, unsafe or too large.
    """
    with ExitStack() as stack:
        work = _Work(stack)
        folders: list[Path] = []
        for path in inputs:
            if path.is_dir():
                folders += work.below(path)
            elif path.is_file() and path.name.upper() == DIRECTORY:
                folders.append(path.parent)
            elif path.is_file() and archive_suffix(path):
                folders.append(work.unpack(path, work.room() / _stem(path)))
            else:
                folders.append(path)
        yield Unpacked(tuple(folders), work.shown, tuple(work.problems))


def archive_suffix(path: Path) -> str:
    """One of :data:`SUFFIXES`, empty for what is no archive."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _stem(path: Path) -> str:
    return path.name[: -len(archive_suffix(path))] or "archive"


class _Work:
    """The temporary folders of a run, made when they are needed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._top: Path | None = None
        self._rooms = 0
        self.shown: dict[Path, str] = {}
        self.problems: list[Problem] = []

    def room(self) -> Path:
        """An empty folder of its own."""
        if self._top is None:
            holder = tempfile.TemporaryDirectory(prefix="segtool-", ignore_cleanup_errors=True)
            self._top = Path(self._stack.enter_context(holder)).resolve()
        self._rooms += 1
        room = self._top / str(self._rooms)
        room.mkdir()
        return room

    def unpack(self, path: Path, folder: Path) -> Path:
        """Unpack one archive into a folder, which is made."""
        folder.mkdir(parents=True)
        try:
            _unpack(path, folder)
        except UsageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.shown[folder] = str(path)
        return folder

    def below(self, top: Path) -> list[Path]:
        """The folder, and another one for the archives below it."""
        archives, has_scans, done = _archives_below(top)
        if done:
            what = "1 archive lies" if len(done) == 1 else f"{len(done)} archives lie"
            self.problems.append(
                Problem(
                    str(top),
                    f"{what} beside a folder of the same name and was passed over, such as {done[0].name}",
                    "Rename the folder if the archive holds other scans.",
                    loses_case=False,
                )
            )
        room: Path | None = None
        for path in archives:
            try:
                if any(map(_is_wanted, _names(path))):
                    room = room or self.room() / (top.resolve().name or "root")
                    self.unpack(path, _free(room / path.parent.relative_to(top) / _stem(path)))
            except UsageError as error:
                self.problems.append(Problem(str(path), error.problem.removeprefix(f"{path}: "), error.remedy))
        if room is None or not any(folder.is_relative_to(room) for folder in self.shown):
            return [top]
        return [top, room] if has_scans or _holds_scans(top) else [room]


def _free(folder: Path) -> Path:
    """``a.zip`` and ``a.tar`` lie in one folder."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _archives_below(top: Path) -> tuple[list[Path], bool, list[Path]]:
    """Archives, whether files that are certainly for segtool lie there too, and archives unpacked already."""
    archives: list[Path] = []
    done: list[Path] = []
    has_scans = False
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in NOT_SCANS)
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith(".") or path.is_symlink():
                continue
            if archive_suffix(path):
                (done if _stem(path) in folders else archives).append(path)
            has_scans = has_scans or bool(suffix_of(path))
    return archives, has_scans, done


def _holds_scans(top: Path) -> bool:
    try:
        find_entries([top])
    except UsageError:
        return False
    return True


def _is_wanted(name: str) -> bool:
    """True for names of members that segtool may read."""
    parts = PurePosixPath(name)
    hidden = any(part.startswith(".") or part in NOT_SCANS for part in parts.parts)
    return not hidden and (bool(suffix_of(Path(parts.name))) or may_be_dicom(parts.name))


# Reading archives


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


def _names(path: Path) -> list[str]:
    with _opened(path) as archive:
        return [member.name for member in archive.members()]


def _unpack(path: Path, folder: Path) -> None:
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
