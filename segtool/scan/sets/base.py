"""What a layout gives, and what it looks at. One file a layout; the table is in :mod:`segtool.scan.sets`."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from segtool.case import UNNAMED, CaseSource
from segtool.errors import UsageError
from segtool.formats import suffix_of
from segtool.scan.found import Problem
from segtool.scan.names import folder_role, natural_key
from segtool.spec import ModelSpec

Certainty = Literal["certain", "likely", "possible"]

FOLDS = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}
"""Official folds, and the names of the folders and files that hold them."""

UNKNOWN_PATIENTS = (
    "nothing says which {what} belong to one patient: each counts as a patient, and validation is too good where "
    "that is wrong"
)


@dataclass(frozen=True)
class Item:
    """One labelled case.

    Args:
        source: Where its pixels lie; it has a reference.
        patient: Whose they are, as the layout names patients. A split keeps a patient on one side.
        group: A class for reports, such as the kind of tumour; empty where the layout has none.
        fold: The set's official fold; empty where it has none.
    """

    source: CaseSource
    patient: str
    group: str = ""
    fold: str = ""

    @property
    def name(self) -> str:
        """The case's name."""
        return self.source.name


@dataclass(frozen=True)
class Listing:
    """What a layout found.

    Args:
        items: Labelled cases, each under a name of its own.
        notes: What the user must be told.
        broken: One line for each thing that makes no item, such as an image without a mask. Training stops on
            them unless ``--skip-broken`` is given.
        patients_known: False where nothing tells patients apart, so that each item counts as one; a note says so.
    """

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    patients_known: bool = True


@dataclass(frozen=True)
class Recognition:
    """A layout that a folder may be in.

    Args:
        layout: Key of :data:`segtool.scan.sets.LAYOUTS`.
        certainty: ``certain`` where the layout's own marks are there, ``likely`` where names fit, ``possible``
            where nothing speaks against it.
        reason: What was seen.
    """

    layout: str
    certainty: Certainty
    reason: str


class Tree:
    """The files below a folder, by name alone. Hidden ones and links to folders are passed over."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Paths below ``root`` with ``/`` between parts, in natural order."""
        return tuple(sorted(self._walk(), key=natural_key))

    @cached_property
    def links(self) -> tuple[str, ...]:
        """The links to folders at the top, where sets have them; :attr:`files` passes them over."""
        return tuple(sorted(path.name for path in self.root.iterdir() if path.is_symlink() and path.is_dir()))

    @cached_property
    def known(self) -> frozenset[str]:
        """:attr:`files`, to look one up."""
        return frozenset(self.files)

    @cached_property
    def named(self) -> dict[str, list[str]]:
        """:attr:`files` by the last part of their paths."""
        found: dict[str, list[str]] = {}
        for file in self.files:
            found.setdefault(file.rpartition("/")[2], []).append(file)
        return found

    def ending(self, *suffixes: str) -> list[str]:
        """The files whose names end so, compared without case."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def _walk(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
            below = Path(folder).relative_to(self.root).as_posix()
            prefix = "" if below == "." else f"{below}/"
            yield from (f"{prefix}{name}" for name in files if not name.startswith("."))


class Layout(Protocol):
    """The two functions of a layout's module."""

    def recognise(self, tree: Tree) -> Recognition | None:
        """Say whether the folder is in this layout; None where it is not. Reads names, and one file at most."""
        ...

    def list_items(self, tree: Tree, spec: ModelSpec | None) -> Listing:
        """The labelled cases.

        Args:
            tree: The folder.
            spec: What they are for; None to look only.

        Raises:
            UsageError: The folder is not of this layout.
        """
        ...


def not_in(layout: str, tree: Tree, wants: str, remedy: str) -> UsageError:
    """The error of a folder that is not in ``layout``."""
    return UsageError(f"{tree.root}: layout {layout!r} wants {wants}", remedy)


def only_channel(spec: ModelSpec | None) -> str:
    """The channel of a picture that is the whole case: the model's, where it has one."""
    return spec.channel_names[0] if spec is not None and len(spec.channels) == 1 else UNNAMED


def fold_of(name: str) -> str:
    """``valid`` for ``val``, ``Validation`` and their like; empty for a name that is no fold."""
    return next((fold for fold, names in FOLDS.items() if name.lower() in names), "")


@dataclass(frozen=True)
class Place:
    """What the folders above a file say: the official fold, and those that are neither fold nor ``images/``."""

    fold: str
    folders: tuple[str, ...]


def place_of(path: str) -> Place:
    """The place of a file, or of a case, by its path below the set."""
    parts = PurePosixPath(path).parts[:-1]
    fold = next(filter(None, map(fold_of, parts)), "")
    return Place(fold, tuple(part for part in parts if not fold_of(part) and folder_role(part) is None))


def line(where: str, problem: str, remedy: str) -> str:
    """One line of :attr:`Listing.broken`."""
    return str(Problem(where, problem, remedy))


def unique_stems(files: Sequence[str]) -> list[str]:
    """A name a file: the shortest of stem, path without suffix and whole path that tells all of them apart."""
    bare = [file[: -len(suffix)] if (suffix := suffix_of(Path(file))) else file for file in files]
    for names in ([path.rpartition("/")[2] for path in bare], bare):
        if len({name.casefold() for name in names}) == len(names):
            return names
    return list(files)
