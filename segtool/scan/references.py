"""Pairs references with cases, by name and place."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from segtool.scan.found import Entry, Problem
from segtool.scan.names import ChannelNames, folder_role, reference_base

DICOM_REFERENCES = frozenset({"dicom-seg", "rtstruct"})
"""Formats that say by themselves on which series they were drawn."""


@dataclass
class Group:
    """The files of a case being put together, without its channels.

    Args:
        entry: Its first file.
        base: The name its files share, without channel; empty where the folder is the case.
        stems: Names of all its files, without suffix.
        series: Digests of the DICOM series that are its channels.
        study_series: Of all series of its study.
    """

    entry: Entry
    base: str
    stems: list[str] = field(default_factory=list)
    series: frozenset[str] = frozenset()
    study_series: frozenset[str] = frozenset()


def is_reference(entry: Entry) -> bool:
    """True for ``X_mask``, ``seg`` and their like, all files below ``labels/`` or ``masks/``, and DICOM references."""
    if entry.format == "dicom":
        return False
    if entry.format in DICOM_REFERENCES:
        return True
    return reference_base(entry.stem) is not None or in_reference_folder(entry)


def in_reference_folder(entry: Entry) -> bool:
    """True where a folder between the input and the file is called ``labels``, ``masksTr`` or the like."""
    return _is_for_references(entry.folder)


# Thousands of files share a folder: what its name says is worked out once.
@lru_cache(maxsize=4096)
def _is_for_references(folder: str) -> bool:
    roles = (folder_role(part) for part in folder.split("/"))
    return any(role is not None and role[0] == "reference" for role in roles)


Locate = Callable[[Entry, str], tuple[str, str]]
"""``(folder, base)`` by which a file is compared with others, from the file and its base."""


def beside(entry: Entry, base: str) -> tuple[str, str]:
    """The absolute folder without those that part images from references, so that both lie in one place.

    ``data/imagesTr/a`` and ``data/labelsTr/a`` both become ``data/tr/a``; ``data/a`` and ``data/masks/a``
    become ``data/a``.
    """
    role = folder_role(entry.root_name)
    is_image_folder = role is not None and role[0] == "image"
    top = _without_roles(entry.root_name) if is_image_folder else entry.root_name
    above = entry.root.rpartition("/")[0]
    return "/".join(filter(None, (above, top, _without_roles(entry.folder)))), base


def relative(entry: Entry, base: str) -> tuple[str, str]:
    """The folder below the input, to compare two inputs."""
    folder = _without_roles(entry.folder)
    return folder, base if folder or base else entry.root_name


def bare(entry: Entry, base: str) -> tuple[str, str]:
    """The name alone; that of the folder where the folder is the case."""
    folder, base = relative(entry, base)
    return "", base or folder.rpartition("/")[2]


@lru_cache(maxsize=4096)
def _without_roles(folder: str) -> str:
    parts = ((part, folder_role(part)) for part in folder.split("/"))
    return "/".join(filter(None, (role[1] if role else part for part, role in parts)))


class ReferenceIndex:
    """Finds the references of a case among reference files.

    Args:
        references: Files that are references.
        names: How channels are told from names.
        locate: How files are compared.
        all_named: True where every file is a reference whatever its name.
    """

    def __init__(
        self, references: Sequence[Entry], names: ChannelNames, locate: Locate, *, all_named: bool = False
    ) -> None:
        self._locate = locate
        self._exact: dict[str, list[Entry]] = {}
        self._of_channel: dict[str, list[Entry]] = {}
        for entry in references:
            stripped = reference_base(entry.stem)
            bases = {entry.stem} if all_named or stripped is None or in_reference_folder(entry) else set()
            if stripped is not None:
                bases.add(stripped)
            self._add(self._exact, bases, entry)
            self._add(self._of_channel, {names.split(base)[0] for base in bases} - bases, entry)

    def _add(self, table: dict[str, list[Entry]], bases: Iterable[str], entry: Entry) -> None:
        for base in bases:
            for key in _keys(*self._locate(entry, base)):
                table.setdefault(key, []).append(entry)

    def find(self, group: Group) -> list[Entry]:
        """The references that fit best; more than one where names cannot decide."""
        found = self._lookup(self._exact, group.entry, [group.base])
        if not found:
            found = self._lookup(self._exact, group.entry, group.stems)
        if not found and group.base not in group.stems:
            found = self._lookup(self._of_channel, group.entry, [group.base])
        # A label map made for a picture is a picture: prefer the case's own kind of file.
        return [entry for entry in found if entry.format == group.entry.format] or found

    def _lookup(self, table: dict[str, list[Entry]], near: Entry, bases: Iterable[str]) -> list[Entry]:
        found: dict[int, Entry] = {}
        for base in bases:
            for key in _keys(*self._locate(near, base)):
                found.update((id(entry), entry) for entry in table.get(key, ()))
        return list(found.values())


def _keys(folder: str, base: str) -> tuple[str, ...]:
    """The paths under which a name is known: ``P1/seg``, ``P1/P1_seg`` and ``P1_seg`` all mean ``P1``."""
    if not base:
        return folder, f"{folder}/{folder.rpartition('/')[2]}"
    if base == folder.rpartition("/")[2]:
        return f"{folder}/{base}", folder
    return (f"{folder}/{base}" if folder else base,)


def pair(
    groups: Sequence[Group], references: Sequence[Entry], names: ChannelNames
) -> tuple[list[list[Entry]], list[Entry]]:
    """References found beside the scans.

    Returns:
        The references of each group, and those that belong to none.
    """
    index = ReferenceIndex(references, names, beside)
    drawn = drawn_on(groups, references)
    found = [own or index.find(group) for group, own in zip(groups, drawn, strict=True)]
    # P1/dicom/*.dcm with P1/seg.nii.gz: a nameless reference serves the only case of its folder.
    used = {id(entry) for entries in found for entry in entries}
    nameless = {
        entry.directory: entry for entry in references if id(entry) not in used and not reference_base(entry.stem)
    }
    if nameless:
        tops = [_enclosing(group.entry.directory, nameless) for group in groups]
        lone = {top for top, count in Counter(tops).items() if top and count == 1}
        for number, top in enumerate(tops):
            if top in lone and not found[number]:
                found[number] = [nameless[top]]
                used.add(id(nameless[top]))
    return found, [entry for entry in references if id(entry) not in used]


def drawn_on(groups: Sequence[Group], references: Sequence[Entry]) -> list[list[Entry]]:
    """The DICOM references of each group: those drawn on one of its series, else on another one of its study."""
    own = [entry for entry in references if entry.referenced_series]
    if not own:
        return [[] for _ in groups]
    return [
        [entry for entry in own if entry.referenced_series & group.series]
        or [entry for entry in own if entry.referenced_series & group.study_series]
        for group in groups
    ]


def _enclosing(directory: str, folders: Iterable[str]) -> str:
    """The one of ``folders`` that is ``directory`` or its parent; empty where neither is."""
    parent = directory.rpartition("/")[0]
    return next((folder for folder in (directory, parent) if folder in folders), "")


def pair_with_folder(
    groups: Sequence[Group], references: Sequence[Entry], names: ChannelNames, masks: Path
) -> tuple[list[list[Entry]], list[Problem]]:
    """References from a folder that the user named: by path below it, then by bare name.

    Returns:
        The references of each group, and what could not be paired.
    """
    if len(groups) == len(references) == 1 and masks.is_file():
        return [list(references)], []
    by_path = ReferenceIndex(references, names, relative, all_named=True)
    by_name = ReferenceIndex(references, names, bare, all_named=True)
    bare_names = [bare(group.entry, group.base)[1] for group in groups]
    count = Counter(bare_names)
    found, problems = [], []
    for group, name, own in zip(groups, bare_names, drawn_on(groups, references), strict=True):
        entries = own or by_path.find(group)
        if not entries and (entries := by_name.find(group)) and count[name] > 1:
            problems.append(
                Problem(
                    group.entry.where,
                    f"{entries[0].where} in {masks} could belong to {count[name]} cases called {name!r}",
                    "Give the references the same folders as the scans.",
                    loses_case=False,
                )
            )
            entries = []
        found.append(entries)
    used = {id(entry) for entries in found for entry in entries}
    unused = [entry for entry in references if id(entry) not in used]
    if unused:
        problems.append(
            Problem(
                str(masks),
                f"{len(unused)} of {len(references)} references match no scan, such as {unused[0].where}",
                "Name a reference like its scan, with or without _mask or _seg.",
                loses_case=False,
            )
        )
    return found, problems
