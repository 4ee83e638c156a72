"""DICOM files of all inputs as entries: volumes where they lie, segmentations as references."""

import filecmp
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from segtool.errors import UnreadableFileError
from segtool.formats import suffix_of
from segtool.formats.dicom.aside import is_cut
from segtool.formats.dicom.elements import digest, looks_like_dicom
from segtool.formats.dicom.facts import DicomVolume
from segtool.formats.dicom.index import FileFacts, read_facts, why_unread
from segtool.formats.dicom.texts import personal_words
from segtool.formats.dicom.volumes import volumes_of
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.scan.found import Candidate, Entry, Problem
from segtool.scan.names import natural_key

_NUMBER = re.compile(r"\d+")


@dataclass
class DicomFound:
    """What the candidates turned out to be."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """Identities of files that are DICOM, be they copies of others."""
    personal: set[str] = field(default_factory=set)
    """What broken files still say of patients, as :attr:`segtool.formats.dicom.facts.SeriesFacts.personal`."""


def dicom_entries(candidates: Sequence[Candidate], limits: Limits = DEFAULT_LIMITS) -> DicomFound:
    """The volumes and references among files from all inputs. A file met through two inputs counts once.

    What claims more than the limits allow is a problem.
    """
    found = DicomFound()
    files = _in_natural_order({file.identity: file for file in reversed(candidates)}.values())
    facts = read_facts([file.path for file in files], limits)
    by_path = {file.path: file for file in files}
    found.known = {file.identity for file, one in zip(files, facts, strict=True) if one}
    series = {one.path: one.series for one in facts if one and is_cut(one)}
    shapes = {_shape(file) for file, one in zip(files, facts, strict=True) if one}
    broken = [
        file
        for file, one in zip(files, facts, strict=True)
        if file.path in series or (not one and (_shape(file) in shapes or _may_be_broken(file.path)))
    ]
    index = volumes_of(one for one in facts if one and one.path not in series)
    for one, kind in index.references:
        found.entries.append(_reference(by_path[one.path], one, kind))
    found.personal.update(*(personal_words(file.path, limits) for file in broken))
    volumes, broken = _with_broken(index.volumes, broken, by_path, series)
    found.entries += _placed(volumes, by_path)
    found.problems += (_unread(file.path, limits) for file in broken)
    found.problems += _copies(index.copies)
    return found


def _unread(path: Path, limits: Limits) -> Problem:
    above = why_unread(path, limits)
    if above is None:
        return Problem(str(path), "not a DICOM file, or a truncated one", "Export or copy it again.")
    return Problem(str(path), above.problem.removeprefix(f"{path}: "), above.remedy)


def _in_natural_order(files: Iterable[Candidate]) -> list[Candidate]:
    by_folder: dict[str, list[Candidate]] = {}
    for file in files:
        by_folder.setdefault(file.directory, []).append(file)
    return [
        file
        for folder in sorted(by_folder, key=natural_key)
        for file in sorted(by_folder[folder], key=lambda one: natural_key(one.path.name))
    ]


def _shape(file: Candidate) -> tuple[str, str]:
    """Folder and name but for its numbers: an empty file among slices was one of them if it is called like them."""
    return file.directory, _NUMBER.sub("0", file.path.name)


def _may_be_broken(path: Path) -> bool:
    return bool(suffix_of(path)) or _begins_like_dicom(path)


def _begins_like_dicom(path: Path) -> bool:
    try:
        return looks_like_dicom(path)
    except OSError:
        # It may be one, and reading it says why it cannot be read. A name like `private.key` promises nothing.
        return not path.suffix or path.suffix[1:].isdecimal() or bool(suffix_of(path))


def _with_broken(
    volumes: Sequence[DicomVolume],
    broken: Sequence[Candidate],
    by_path: Mapping[Path, Candidate],
    series: Mapping[Path, str],
) -> tuple[list[DicomVolume], list[Candidate]]:
    """Gives slices without a readable header to the only scan of their folder, or of their series.

    Without such a slice the scan would be shorter and nobody would know. Reading the volume says what is wrong with it.

    Args:
        volumes: What whole headers make up.
        broken: The slices.
        by_path: All files.
        series: Digests, of those slices whose headers get so far.
    """
    volumes = list(volumes)
    left: list[Candidate] = []
    if not broken:
        return volumes, left
    scans: dict[str, set[int]] = defaultdict(set)
    for number, volume in enumerate(volumes):
        if not volume.set_aside:
            for folder in {by_path[path].directory for path in volume.paths}:
                scans[folder].add(number)
    for file in broken:
        numbers = scans[file.directory]
        own = {number for number in numbers if volumes[number].series == series.get(file.path)}
        numbers = own or numbers
        if len(numbers) == 1 and _begins_like_dicom(file.path):
            (number,) = numbers
            volumes[number] = replace(volumes[number], paths=(*volumes[number].paths, file.path))
        else:
            left.append(file)
    return volumes, left


def _placed(volumes: Sequence[DicomVolume], by_path: Mapping[Path, Candidate]) -> Iterator[Entry]:
    """Volumes with their names and places.

    A volume alone in its folder counts as one file with the folder's name, lying where the folder lies, so that
    ``P1/T1ce/*.dcm`` and ``P1/T2/*.dcm`` are two channels of one case. What is set aside leaves others alone.
    """
    folders = [{file.directory for file in map(by_path.get, volume.paths) if file} for volume in volumes]
    tops = [_meeting(some) for some in folders]
    scans = Counter(top for top, volume in zip(tops, volumes, strict=True) if not volume.set_aside)
    aside = Counter(top for top, volume in zip(tops, volumes, strict=True) if volume.set_aside)
    for volume, top, some in zip(volumes, tops, folders, strict=True):
        first = by_path[volume.paths[0]]
        rivals = scans[top] + (aside[top] if volume.set_aside else 0)
        if len(some) > 1:
            rivals += sum(count for other, count in scans.items() if other.startswith(f"{top}/"))
        # Files of several inputs may have no input in common.
        root = first.root if f"{top}/".startswith(f"{first.root}/") else top
        folder, stem = top[len(root) :].lstrip("/"), volume.short_name
        if rivals == 1:
            above, _, stem = (folder or root).rpartition("/")
            root, folder = (root, above) if folder else (above, "")
        yield Entry(root, folder, stem, "", "dicom", volume.paths, volume)


def _meeting(folders: Collection[str]) -> str:
    """The deepest folder above all folders; the first of them where that is no more than the whole disk."""
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels)]
    return "/".join(common) if any(common) else min(folders)


def _reference(file: Candidate, facts: FileFacts, kind: str) -> Entry:
    suffix = suffix_of(file.path)
    stem = file.path.name[: -len(suffix)] if suffix else file.path.name
    personal, drawn_on = personal_words(facts.path, facts.limits), referenced_series(facts.path, facts.limits)
    return Entry(file.root, file.folder, stem, suffix, kind, (file.path,), None, drawn_on, personal)


def referenced_series(path: Path, limits: Limits = DEFAULT_LIMITS) -> frozenset[str]:
    """Digests of the series that a segmentation or structure set was drawn on; empty where it does not say."""
    from segtool.formats.dicom.odd import odd_references

    try:
        uids = odd_references(path, "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence", limits=limits)
    except UnreadableFileError:
        return frozenset()
    return frozenset(digest(uid) for uid in uids if uid)


def _copies(copies: Sequence[tuple[Path, Path]]) -> Iterator[Problem]:
    """One line for each folder that holds copies of files of another."""
    groups: dict[tuple[Path, Path], list[tuple[Path, Path]]] = {}
    for copy, kept in copies:
        groups.setdefault((copy.parent, kept.parent), []).append((copy, kept))
    for (folder, other), pairs in groups.items():
        what = "1 DICOM file is" if len(pairs) == 1 else f"{len(pairs)} DICOM files are"
        where = "beside them" if folder == other else f"in {other}"
        # Such as a series that was processed, or compressed, and kept its identity.
        differing = "" if _same_bytes(*pairs[0]) else ", but other bytes"
        yield Problem(
            str(folder),
            f"{what} there again {where} (the same SOPInstanceUID{differing}), such as {pairs[0][0].name}",
            f"{'One of each counts' if folder == other else 'Those there count'}. Take away what is not wanted.",
            loses_case=False,
        )


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
