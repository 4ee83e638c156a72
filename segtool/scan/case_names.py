"""What cases are called: after their files, each name once, safe as a path on every system."""

import itertools
from collections.abc import Collection, Iterator, Sequence

from segtool.scan.found import Entry
from segtool.scan.names import safe_part

OVERLAYS = "overlays"
"""Folder of the output that holds pictures for the eye."""
PROBABILITIES = "_probabilities"
"""What the name of a case's probability map ends with."""

Naming = tuple[Entry, str, tuple[str, ...]]
"""A case's first file, the base of its file names and its channels."""


def plain_name(entry: Entry, base: str) -> str:
    """The name as the files have it: path below the input without suffix and channel."""
    parts = [*entry.folder.split("/"), base]
    safe = [safe_part(part) for part in parts if part]
    if len(safe) > 1 and safe[0].casefold() == OVERLAYS:
        # That folder of the output holds the pictures of other cases.
        safe[0] += "_"
    if safe and safe[-1].casefold().endswith(PROBABILITIES):
        # `a_probabilities` in the output is the map of the case `a`.
        safe[-1] += "_"
    return "/".join(safe) or safe_part(entry.root_name)


def unique_names(cases: Sequence[Naming]) -> list[str]:
    """A name for each case: the plain one, or one told apart by input, kind of file, channels or number.

    Names that differ in case alone count as equal, because some systems could not hold both results.
    """
    # Pictures keep the plain name: their users see it most.
    order = sorted(range(len(cases)), key=lambda n: (cases[n][0].format != "png", cases[n][0].suffix))
    taken: dict[str, Entry] = {}
    names = [""] * len(cases)
    for number in order:
        entry, base, channels = cases[number]
        plain = plain_name(entry, base)
        rival = taken.get(plain.casefold())
        name = plain if rival is None else _told_apart(plain, entry, channels, rival, taken.keys())
        taken[name.casefold()] = entry
        names[number] = name
    return names


def _told_apart(plain: str, entry: Entry, channels: tuple[str, ...], rival: Entry, taken: Collection[str]) -> str:
    return next(name for name in _alternatives(plain, entry, channels, rival) if name.casefold() not in taken)


def _alternatives(plain: str, entry: Entry, channels: tuple[str, ...], rival: Entry) -> Iterator[str]:
    if rival.root != entry.root:
        yield f"{safe_part(entry.root_name)}/{plain}"
    if rival.suffix != entry.suffix:
        yield f"{plain}-{entry.suffix.split('.')[1] if entry.suffix else 'dicom'}"
    if any(channels):
        yield f"{plain}-{'-'.join(map(safe_part, channels))}"
    yield from (f"{plain}-{count}" for count in itertools.count(2))
