"""What cases are called: after their files, each name once, safe as a path on every system."""

import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence

from segtool.scan.found import Entry
from segtool.scan.names import safe_part
from segtool.scan.privacy import Privacy

OVERLAYS = "overlays"
"""Folder of the output that holds pictures for the eye."""
PROBABILITIES = "_probabilities"
"""What the name of a case's probability map ends with."""

Naming = tuple[Entry, str, tuple[str, ...]]
"""A case's first file, the base of its file names and its channels."""


def plain_name(entry: Entry, base: str, privacy: Privacy | None = None) -> str:
    """The name as the files have it: path below the input without suffix and channel.

    In place of what tells a patient in the path stands a digest, the same in every run: of its study where that is a
    DICOM series, else of the file.
    """
    parts = [part for part in (*entry.folder.split("/"), base) if part]
    if privacy is not None:
        parts = _without_patient(parts, entry, privacy)
    safe = [safe_part(part) for part in parts]
    if len(safe) > 1 and safe[0].casefold() == OVERLAYS:
        # That folder of the output holds the pictures of other cases.
        safe[0] += "_"
    if safe and safe[-1].casefold().endswith(PROBABILITIES):
        # `a_probabilities` in the output is the map of the case `a`.
        safe[-1] += "_"
    if not safe and privacy is not None and privacy.is_personal(entry.root_name):
        return _pseudonym(entry)
    return "/".join(safe) or safe_part(entry.root_name)


def _without_patient(parts: Sequence[str], entry: Entry, privacy: Privacy) -> list[str]:
    """``parts`` of a path; the first that tells the patient is the pseudonym, further ones are left out."""
    kept: list[str] = []
    for part, is_personal in zip(parts, privacy.personal_parts(parts), strict=True):
        if not is_personal:
            kept.append(part)
        elif (name := _pseudonym(entry)) not in kept:
            kept.append(name)
    return kept


def _pseudonym(entry: Entry) -> str:
    volume = entry.volume
    if volume is not None:
        return f"study-{volume.study[:8]}" if volume.study else volume.short_name
    # Converters call files after the patient. Whoever knows a name could tell it from its digest, so it is the bytes'.
    try:
        with entry.paths[0].open("rb") as file:
            return f"case-{hashlib.sha256(file.read(_BEGINNING)).hexdigest()[:8]}"
    except OSError:
        return "case"  # reading the scan says what is wrong with it


_BEGINNING = 2**20
"""Bytes of a file that tell it from others."""


def unique_names(cases: Sequence[Naming], privacy: Privacy | None = None) -> list[str]:
    """A name for each case: the plain one, or one told apart by input, kind of file, channels or number.

    Names that differ in case alone count as equal, because some systems could not hold both results.
    """
    # Pictures keep the plain name: their users see it most.
    order = sorted(range(len(cases)), key=lambda n: (cases[n][0].format != "png", cases[n][0].suffix))
    taken: dict[str, Entry] = {}
    names = [""] * len(cases)
    for number in order:
        entry, base, channels = cases[number]
        plain = plain_name(entry, base, privacy)
        rival = taken.get(plain.casefold())
        name = plain if rival is None else _told_apart(plain, entry, channels, rival, taken.keys(), privacy)
        taken[name.casefold()] = entry
        names[number] = name
    return names


def _told_apart(
    plain: str,
    entry: Entry,
    channels: tuple[str, ...],
    rival: Entry,
    taken: Collection[str],
    privacy: Privacy | None,
) -> str:
    names = _alternatives(plain, entry, channels, rival, privacy)
    return next(name for name in names if name.casefold() not in taken)


def _alternatives(
    plain: str, entry: Entry, channels: tuple[str, ...], rival: Entry, privacy: Privacy | None
) -> Iterator[str]:
    if rival.root != entry.root and not (privacy is not None and privacy.is_personal(entry.root_name)):
        yield f"{safe_part(entry.root_name)}/{plain}"
    if rival.suffix != entry.suffix:
        yield f"{plain}-{entry.suffix.split('.')[1] if entry.suffix else 'dicom'}"
    if any(channels):
        yield f"{plain}-{'-'.join(map(safe_part, channels))}"
    yield from (f"{plain}-{count}" for count in itertools.count(2))
