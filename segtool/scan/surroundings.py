"""References around an input: beside a file that was given alone, or in ``labels/`` beside ``images/``."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segtool.errors import UsageError
from segtool.formats import ANNOTATIONS, SUFFIXES, suffix_of
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.scan.found import Candidate, Entry
from segtool.scan.links import Links
from segtool.scan.names import folder_role, is_brain_mask, reference_base
from segtool.scan.walk import Found, find_entries, may_be_dicom


def references_around(found: Found, follow_links: bool = False, limits: Limits = DEFAULT_LIMITS) -> list[Entry]:
    """References that the inputs do not hold but that lie where they belong.

    ``scans/a.png`` finds ``scans/a_mask.png`` and ``scans/masks/a.png``; ``data/images`` finds
    ``data/masks``. Links that leave these folders are problems of ``found``, unless they are to be followed.
    """
    around: dict[str, Entry] = {}
    for folder in found.file_folders:
        links = Links(folder.resolve(), follow_links)
        for entry in (*_beside(folder, links, limits), *_below(folder, "", links, limits)):
            around.setdefault(entry.identity, entry)
        found.problems += links.problems(str(folder))
    for root in sorted({entry.root for entry in found.entries}):
        role = folder_role(root.rpartition("/")[2])
        if role is not None and role[0] == "image":
            links = Links(Path(root).parent, follow_links)
            for entry in _below(Path(root).parent, role[1], links, limits):
                around.setdefault(entry.identity, entry)
            found.problems += links.problems(str(Path(root).parent))
    known = {entry.identity for entry in found.entries}
    return [entry for identity, entry in around.items() if identity not in known]


def _files(folder: Path) -> Sequence[Path]:
    """What lies in a folder, none where it cannot be read: nobody asked for it."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return ()


def _beside(folder: Path, links: Links, limits: Limits) -> Iterator[Entry]:
    root = folder.resolve().as_posix()
    candidates = []
    for path in _files(folder):
        suffix = suffix_of(path)
        stem = path.name[: -len(suffix)] if suffix else path.name
        if is_brain_mask(stem) or reference_base(stem) is None or not path.is_file():
            continue
        if not links.may_follow(path):
            continue
        if suffix and SUFFIXES[suffix] != "dicom":
            yield Entry(root, "", stem, suffix, SUFFIXES[suffix], (path,))
        elif suffix or may_be_dicom(path.name):
            candidates.append(Candidate(root, "", path))
    if candidates:
        # Brings numpy.
        from segtool.scan.dicom_entries import dicom_entries

        yield from (entry for entry in dicom_entries(candidates, limits).entries if entry.format in ANNOTATIONS)


def _below(above: Path, part: str, links: Links, limits: Limits) -> Iterator[Entry]:
    """All files in folders of references below ``above``."""
    for folder in _files(above):
        if folder_role(folder.name) != ("reference", part) or not folder.is_dir():
            continue
        if not links.may_follow(folder):
            continue
        try:
            entries = find_entries([folder], follow_links=links.follow, limits=limits).entries
        except UsageError:
            continue  # Empty: then the scans have no references there.
        for entry in entries:
            if entry.format != "dicom" and not is_brain_mask(entry.stem):
                below = f"{folder.name}/{entry.folder}".rstrip("/")
                yield replace(entry, root=above.resolve().as_posix(), folder=below)
