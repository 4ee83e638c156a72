"""What lies in a folder and is no plain file: links that leave it or lead nowhere, pipes, sockets and devices."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segtool.formats import suffix_of
from segtool.scan.found import Problem

_SHOWN = 3


def stays(path: Path, root: Path) -> bool:
    """True for what lies below ``root`` once all links are followed; ``root`` has none."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        # So older Pythons say that links go round in circles.
        return False


@dataclass
class Links:
    """The links met below one input, and whether they may leave it.

    Args:
        root: The input, with links resolved.
        follow: Follow links that leave it too, also to folders, each of which counts once.
    """

    root: Path
    follow: bool = False
    out: list[str] = field(default_factory=list)
    nowhere: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    _met: set[tuple[int, int]] = field(default_factory=set)

    def is_new_folder(self, path: str) -> bool:
        """True once for each folder, by whatever links it is reached; always true where links are not followed."""
        if not self.follow:
            return True
        try:
            state = Path(path).stat()
        except OSError:
            return True  # reading it says why it cannot be read
        key = state.st_dev, state.st_ino
        is_new = key not in self._met
        self._met.add(key)
        return is_new

    def leads_to_file(self, link: os.DirEntry[str], shown: str) -> bool:
        """True for a link to a file that may be read. Others are kept where a scan may be missed."""
        inside = stays(Path(link.path), self.root)
        if not (inside or self.follow):
            self.out.append(shown)
            return False
        is_file = _leads(link.is_file)
        if not is_file and not _leads(link.is_dir) and suffix_of(Path(link.name)):
            (self.nowhere if _is_absent(link) else self.special).append(shown)
        return is_file

    def leads_to_folder(self, link: os.DirEntry[str]) -> bool:
        """True for a link to a folder that is to be searched: one outside the input, where links may leave it."""
        return self.follow and _leads(link.is_dir) and not stays(Path(link.path), self.root)

    def may_follow(self, path: Path) -> bool:
        """True for what is no link, and for links that stay inside or may leave; others are kept."""
        may = self.follow or not path.is_symlink() or stays(path, self.root)
        if not may:
            self.out.append(path.name)
        return may

    def problems(self, where: str) -> Iterator[Problem]:
        """One line for each kind of what was passed over, with the first names."""
        for names, problem, remedy in (
            (self.out, _OUT, "Give their targets as inputs, or pass --follow-links if you trust whoever made them."),
            (self.nowhere, _NOWHERE, "Fetch their files, as with `datalad get`, or remove them."),
            (self.special, _SPECIAL, "Take them away."),
        ):
            if names:
                shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
                yield Problem(where, f"{problem}: {len(names)} ({shown})", remedy)


_OUT = "links that leave the folder are not followed"
_NOWHERE = "links lead nowhere"
_SPECIAL = "pipes, sockets and devices are never opened"


def _leads(ask: Callable[[], bool]) -> bool:
    """The answer of a link; False where it goes round in circles."""
    try:
        return ask()
    except OSError:
        return False


def _is_absent(link: os.DirEntry[str]) -> bool:
    try:
        return not stat.S_IFMT(Path(link.path).stat().st_mode)
    except (OSError, RuntimeError):
        return True
