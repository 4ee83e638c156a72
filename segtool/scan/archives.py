"""Archives of scans: unpacked into a temporary folder while they are worked on."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from segtool.errors import UsageError
from segtool.formats import suffix_of
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.scan.archive_files import archive_suffix, holds, unpack_into
from segtool.scan.found import Problem
from segtool.scan.privacy import Privacy
from segtool.scan.temporary import temporary_folder
from segtool.scan.walk import DIRECTORY, NOT_SCANS, find_entries, may_be_dicom


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
        return Privacy().showing(self.names).plain(text)

    @property
    def names(self) -> dict[str, str]:
        """As ``shown``, by every way in which a message may write the folder."""
        return {name: shown for folder, shown in self.shown.items() for name in (str(folder), folder.as_posix())}


@contextmanager
def unpacked(inputs: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> Iterator[Unpacked]:
    """Folders in place of archives, for as long as the block lasts.

    Archives that are inputs become folders with the archive's stem. Archives below a folder come as one more input
    with that folder's name, in which each has its place and its stem, so that cases are named as if they had been
    unpacked where they lie; those that lie beside a folder of their stem have been, and are passed over, and so are
    those that hold nothing which segtool may read. A ``DICOMDIR`` becomes its folder. Archives in archives stay
    packed.

    Args:
        inputs: Files and folders.
        limits: How many files and bytes one archive may hold.

    Raises:
        UsageError: An archive that is an input is broken, encrypted, unsafe or too large.
    """
    with ExitStack() as stack:
        work = _Work(stack, limits)
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


def _stem(path: Path) -> str:
    return path.name[: -len(archive_suffix(path))] or "archive"


class _Work:
    """The temporary folders of a run, made when they are needed."""

    def __init__(self, stack: ExitStack, limits: Limits) -> None:
        self._stack, self._limits = stack, limits
        self._top: Path | None = None
        self._rooms = 0
        self.shown: dict[Path, str] = {}
        self.problems: list[Problem] = []

    def room(self) -> Path:
        """An empty folder of its own."""
        if self._top is None:
            self._top = self._stack.enter_context(temporary_folder())
        self._rooms += 1
        room = self._top / str(self._rooms)
        room.mkdir()
        return room

    def unpack(self, path: Path, folder: Path) -> Path:
        """Unpack one archive into a folder, which is made."""
        folder.mkdir(parents=True)
        try:
            unpack_into(path, folder, self._limits)
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
                if holds(path, _is_wanted, self._limits):
                    room = room or self.room() / (top.resolve().name or "root")
                    self.unpack(path, _free(room / path.parent.relative_to(top) / _stem(path)))
            except UsageError as error:
                self.problems.append(Problem(str(path), error.problem.removeprefix(f"{path}: "), error.remedy))
        if room is None or not any(folder.is_relative_to(room) for folder in self.shown):
            return [top]
        return [top, room] if has_scans or _holds_scans(top, self._limits) else [room]


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
            # A pipe of that name would keep its reader waiting.
            if archive_suffix(path) and path.is_file():
                (done if _stem(path) in folders else archives).append(path)
            has_scans = has_scans or bool(suffix_of(path))
    return archives, has_scans, done


def _holds_scans(top: Path, limits: Limits) -> bool:
    try:
        find_entries([top], limits=limits)
    except UsageError:
        return False
    return True


def _is_wanted(name: str) -> bool:
    """True for names of members that segtool may read."""
    parts = PurePosixPath(name)
    hidden = any(part.startswith(".") or part in NOT_SCANS for part in parts.parts)
    return not hidden and (bool(suffix_of(Path(parts.name))) or may_be_dicom(parts.name))
