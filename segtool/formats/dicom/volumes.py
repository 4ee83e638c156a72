"""Puts the files of a DICOM tree together into volumes, from what their headers say."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtool.formats.dicom.aside import (
    MOSAIC,
    has_mosaic_marker,
    in_their_study,
    kind_aside,
    localizer_aside,
    reference_format,
    sort_of,
)
from segtool.formats.dicom.facts import DicomVolume, SeriesFacts
from segtool.formats.dicom.index import FileFacts
from segtool.formats.dicom.split import Part, by_place, untangled
from segtool.formats.dicom.texts import personal_words, series_facts


@dataclass(frozen=True)
class Volumes:
    """What a tree of DICOM files holds.

    Args:
        volumes: Scans, and what is set aside.
        references: Files that hold segmentations, with their format.
        copies: Files that are the same as another one, with that one.
    """

    volumes: list[DicomVolume] = field(default_factory=list)
    references: list[tuple[FileFacts, str]] = field(default_factory=list)
    copies: list[tuple[Path, Path]] = field(default_factory=list)


def volumes_of(files: Iterable[FileFacts]) -> Volumes:
    """Group files by series, wherever they lie, and split the series that hold several volumes.

    Args:
        files: In natural order of their names, which that of each volume follows.
    """
    found = Volumes()
    series: dict[Hashable, list[FileFacts]] = {}
    for file in files:
        kind = reference_format(file)
        if kind:
            found.references.append((file, kind))
        else:
            series.setdefault(_series_key(file), []).append(file)
    for group in series.values():
        found.volumes.extend(_volumes(_once_each(group, found.copies)))
    found.volumes[:] = in_their_study(found.volumes)
    return found


def _series_key(file: FileFacts) -> Hashable:
    """Careless tools give the series of two patients one UID: such series stay apart."""
    values = file.values
    uid = values.get("SeriesInstanceUID")
    return (values.get("PatientID"), uid) if uid else file.path


_IDENTITY = ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "EchoTime", "ImageType", "NumberOfFrames")


def _identity(file: FileFacts) -> Hashable:
    """A SOPInstanceUID alone is no proof, for careless tools give one to all slices."""
    values = file.values
    if values.get("SOPInstanceUID") and (values.get("InstanceNumber") or values.get("ImagePositionPatient")):
        return tuple(map(values.get, _IDENTITY))
    return file.path


def _once_each(files: list[FileFacts], copies: list[tuple[Path, Path]]) -> list[FileFacts]:
    """The files without copies; of copies that which lies among most of the series."""
    by_identity: dict[Hashable, list[FileFacts]] = {}
    for file in files:
        by_identity.setdefault(_identity(file), []).append(file)
    if len(by_identity) == len(files):
        return files
    folders = Counter(file.path.parent for file in files)
    kept: list[FileFacts] = []
    for same in by_identity.values():
        best = max(same, key=lambda file: folders[file.path.parent])
        kept.append(best)
        copies.extend((file.path, best.path) for file in same if file is not best)
    place = {id(file): number for number, file in enumerate(files)}
    return sorted(kept, key=lambda file: place[id(file)])


def _volumes(files: Sequence[FileFacts]) -> Iterator[DicomVolume]:
    """The volumes of one series."""
    sorts = _grouped(files)
    slices = sorts.pop("", [])
    if slices and has_mosaic_marker(slices[0]):
        sorts[MOSAIC], slices = slices, []
    parts = _scans(slices) if slices else []
    several = len(parts) + len(sorts) > 1
    for reason, others in sorts.items():
        yield _volume(others, reason.split(",")[0].split(" (")[0].replace(" ", "-") if several else "", reason)
    named = Counter(label for label, _, _ in parts)
    number: Counter[str] = Counter()
    for label, members, reason in parts:
        number[label] += 1
        # Two volumes that nothing tells apart but their place count up.
        counted = f"{label or 'part'}-{number[label]}" if named[label] > 1 else label
        yield _volume(members, counted, reason or kind_aside(members[0]))


_SORT_TAGS = (
    "Modality", "SOPClassUID", "Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation", "SamplesPerPixel",
    "ImageType",
)  # fmt: skip


def _grouped(files: Sequence[FileFacts]) -> dict[str, list[FileFacts]]:
    """Files by why they are no slices, which is worked out once for all files that say the same."""
    known: dict[Hashable, str] = {}
    groups: dict[str, list[FileFacts]] = {}
    for file in files:
        key = tuple(map(file.values.get, _SORT_TAGS))
        if key not in known:
            known[key] = sort_of(file)
        groups.setdefault(known[key], []).append(file)
    return groups


_MOST_PIECES = 3
"""Stacks of a slice or two that a series may come apart into."""


def _scans(slices: Sequence[FileFacts]) -> list[tuple[str, Sequence[FileFacts], str]]:
    """Label, files and why they are set aside."""
    stacks = by_place(slices)
    planes = Counter({stack.plane: 0 for stack in stacks if stack.plane})
    for stack in stacks:
        if stack.plane:
            planes[stack.plane] += len(stack.files)
    reason = localizer_aside(planes)
    if reason:
        return [("", slices, reason)]
    if len(stacks) > _MOST_PIECES and len(stacks) * 2 > len(slices):
        # Nearly each slice is turned in its own way: reading the volume says so.
        return [("", slices, "")]
    placed = any(stack.plane for stack in stacks)
    return [
        (_label(stack, stacks, part), part.files, _unstackable(part, placed))
        for stack in stacks
        for part in ([stack] if stack.covered == 1 else untangled(stack))
    ]


def _unstackable(part: Part, are_others_placed: bool) -> str:
    """Why slices stack into no volume; empty where they do, or where reading them says more."""
    if not part.plane and are_others_placed:
        return "says nowhere in the patient it lies, unlike the others of its series"
    if part.plane and part.covered == 1 and part.doubled:
        return f"{len(part.files)} pictures of one place, no volume"
    return ""


def _label(stack: Part, stacks: Sequence[Part], part: Part) -> str:
    labels = []
    if len({other.plane for other in stacks}) > 1:
        labels.append(f"plane-{stack.plane}" if stack.plane else "unplaced")
    if len({other.files[0].size for other in stacks}) > 1:
        rows, columns = stack.files[0].size or (0, 0)
        labels.append(f"size-{rows}x{columns}")
    return "-".join((*labels, *part.labels))


def _volume(files: Sequence[FileFacts], part: str, set_aside: str) -> DicomVolume:
    first = files[0]
    is_image = first.size is not None
    facts = (
        series_facts(first)
        if is_image
        else SeriesFacts(
            first.text("Modality"), first.texts("ImageType"), personal=personal_words(first.path, first.limits)
        )
    )
    return DicomVolume(
        tuple(file.path for file in files),
        first.digest("StudyInstanceUID"),
        first.series,
        part,
        first.digest("FrameOfReferenceUID"),
        facts,
        set_aside,
    )
