"""What cases are called: after their files, each name once, safe as a path on every system."""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from segtool.scan.found import Entry
from segtool.scan.names import safe_part
from segtool.scan.privacy import Privacy

OVERLAYS = "overlays"
"""Folder of the output that holds pictures for the eye."""
PROBABILITIES = "_probabilities"
"""What the name of a case's probability map ends with."""

_OWN_FILES = re.compile(rf"{OVERLAYS}|report(-part-\d+-of-\d+)?\.(json|csv)")
"""At the top of the output, compared without case."""

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
    if len(safe) > 1 and _OWN_FILES.fullmatch(safe[0].casefold()):
        # The output has a folder of other cases' pictures there, or its report.
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

    Names that differ in case alone, or in how letters with accents are written, count as equal, because some systems
    could not hold both results. Nor may the folder of one case be the file of another: ``a`` beside ``a.nii/b``.
    """
    # Pictures keep the plain name: their users see it most.
    order = sorted(range(len(cases)), key=lambda n: (cases[n][0].format != "png", cases[n][0].suffix))
    taken = _Taken()
    names = [""] * len(cases)
    for number in order:
        entry, base, channels = cases[number]
        plain = plain_name(entry, base, privacy)
        rival = taken.rival(plain)
        name = plain
        if rival is not None:
            folder, slash, last = plain.rpartition("/")
            # Without dots a folder is no case's file; what then still clashes is told apart by its last part.
            plain = f"{folder.replace('.', '_')}{slash}{last}" if any(map(taken.has, _as_files(_key(plain)))) else plain
            names_apart = itertools.chain([plain], _alternatives(plain, entry, channels, rival, privacy))
            name = next(one for one in names_apart if taken.rival(one) is None)
        taken.add(name, entry)
        names[number] = name
    return names


class _Taken:
    """Names given so far, and which of them take others' places on a disk."""

    def __init__(self) -> None:
        self._files: dict[str, Entry] = {}
        self._folders: dict[str, Entry] = {}

    def rival(self, name: str) -> Entry | None:
        """Whose result lies where that of ``name`` would."""
        key = _key(name)
        clash = self._files.get(key) or self._folders.get(key)
        return clash or next((self._files[one] for one in _as_files(key) if one in self._files), None)

    def has(self, key: str) -> bool:
        return key in self._files

    def add(self, name: str, entry: Entry) -> None:
        key = _key(name)
        self._files[key] = entry
        self._folders.update(dict.fromkeys(_as_files(key), entry))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _as_files(key: str) -> Iterator[str]:
    """Cases whose result, whatever its suffix, would be one of the folders that ``key`` lies in."""
    folder = key.rpartition("/")[0]
    while folder:
        above, _, last = folder.rpartition("/")
        pieces = last.split(".")
        for count in range(1, len(pieces)):
            stem = ".".join(pieces[:count])
            for name in {stem, stem.removesuffix(PROBABILITIES)}:
                yield f"{above}/{name}" if above else name
        folder = above


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
