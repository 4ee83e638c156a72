"""Puts files together into cases: channels by name, references by place."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtool.case import UNNAMED, CaseSource, Source
from segtool.errors import UsageError
from segtool.formats import get_format
from segtool.scan.found import Entry, Problem, Scan, ScanOptions
from segtool.scan.layouts import Layouts, Reading
from segtool.scan.names import ChannelNames, folder_role, is_brain_mask, natural_key, safe_part
from segtool.scan.references import Group, is_reference, pair, pair_with_folder
from segtool.scan.walk import Found, find_entries
from segtool.spec import ModelSpec


@dataclass
class _Draft(Group):
    """A group with its channels: name to (file, position in the file)."""

    channels: dict[str, list[tuple[Entry, int | None]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def scan(inputs: Sequence[Path], spec: ModelSpec | None = None, options: ScanOptions | None = None) -> Scan:
    """Find the cases below folders and files. Reads names, and headers of DICOM files, but no pixels.

    Args:
        inputs: Folders, searched with all their subfolders, and files.
        spec: The model the cases are for: its channel names and aliases come before the built-in ones.
        options: What the user says about the files.

    Raises:
        UsageError: An input does not exist, an input or the whole holds no case, or a pattern names a channel
            that the model does not have.
    """
    options = options or ScanOptions()
    _check_patterns(spec, options)
    names = ChannelNames(spec, options.channels)
    found = find_entries(inputs, options.masks)
    entries = [entry for entry in found.entries if not is_brain_mask(entry.stem)]
    references = [entry for entry in entries if is_reference(entry)]
    aside = {id(entry) for entry in references}
    images = [entry for entry in entries if id(entry) not in aside]
    problems = list(found.problems)
    drafts = _drafts(images, Layouts(images, references, names, spec, problems), names, problems)
    if not drafts:
        raise _no_case(inputs, references, problems)
    drafts.sort(key=lambda draft: natural_key(_plain_name(draft)))
    if options.masks is None:
        paired = _pair_beside(drafts, references, names, problems)
    else:
        paired = _pair_named(drafts, names, options.masks, problems)
    called = _unique_names(drafts)
    cases = []
    for draft, name, candidates in zip(drafts, called, paired, strict=True):
        case = _case(draft, name, candidates, options, problems)
        if case:
            cases.append(case)
    if not cases:
        raise _no_case(inputs, references, problems)
    cases.sort(key=lambda case: natural_key(case.name))
    return Scan(tuple(cases), tuple(problems))


def _check_patterns(spec: ModelSpec | None, options: ScanOptions) -> None:
    own = ChannelNames(spec, {})
    for name, pattern in options.channels.items():
        if not pattern:
            raise UsageError(f"--channel {name}=: the pattern is empty", f"Write --channel {name}=PATTERN.")
        if spec and own.resolve(name) not in spec.channel_names:
            raise UsageError(
                f"--channel {name}: the model {spec.name} has no such channel",
                f"Its channels are {', '.join(spec.channel_names)}.",
            )


def _no_case(inputs: Sequence[Path], references: Sequence[Entry], problems: Sequence[Problem]) -> UsageError:
    where = ", ".join(map(str, inputs[:3])) + (", ..." if len(inputs) > 3 else "")
    if problems:
        return UsageError(
            f"{where}: no case found. {problems[0].where}: {problems[0].problem}", problems[0].remedy
        )
    what = f"only references such as {references[0].where}" if references else "no case"
    return UsageError(
        f"{where}: {what} found",
        "Scans are files that are not called _mask or _seg and lie outside labels/ and masks/.",
    )


def _drafts(
    images: Iterable[Entry], layouts: Layouts, names: ChannelNames, problems: list[Problem]
) -> list[_Draft]:
    """Groups files that share folder, base and kind and carry different channels."""
    drafts: dict[tuple[str, ...], _Draft] = {}
    for entry in images:
        matches = names.by_pattern(entry.stem, entry.suffix)
        if len({channel for _, channel in matches}) > 1:
            fitting = " and ".join(sorted({channel for _, channel in matches}))
            problems.append(
                Problem(
                    entry.where, f"fits the patterns of {fitting}", "Make the --channel patterns narrower."
                )
            )
            continue
        if matches:
            reading: Reading = (matches[0][0], {matches[0][1]: None}, ())
        else:
            reading = layouts.read(entry)
        base, channels, notes = reading
        named = len(channels) == 1 and UNNAMED not in channels and None in channels.values()
        # Only files of one named channel each make up a case together.
        own = () if named else (entry.stem, entry.suffix)
        draft = drafts.setdefault(
            (entry.directory, base, entry.format, *own), _Draft(entry, base, notes=notes)
        )
        draft.stems.append(entry.stem)
        for channel, index in channels.items():
            draft.channels.setdefault(channel, []).append((entry, index))
    return list(drafts.values())


def _plain_name(draft: _Draft) -> str:
    """The name as the files have it: path below the input without suffix and channel."""
    parts = [*draft.entry.folder.split("/"), draft.base]
    return "/".join(safe_part(part) for part in parts if part) or safe_part(draft.entry.root_name)


def _unique_names(drafts: Sequence[_Draft]) -> list[str]:
    """A name for each draft: the plain one, or one told apart by kind of file, channels or number.

    Names that differ in case alone count as equal, because some systems could not hold both results.
    """
    # Pictures keep the plain name: their users see it most.
    order = sorted(
        range(len(drafts)), key=lambda n: (drafts[n].entry.format != "png", drafts[n].entry.suffix)
    )
    taken: dict[str, _Draft] = {}
    names = [""] * len(drafts)
    for number in order:
        draft, plain = drafts[number], _plain_name(drafts[number])
        for name in _alternatives(plain, draft, taken.get(plain.casefold())):
            if name.casefold() not in taken:
                taken[name.casefold()] = draft
                names[number] = name
                break
    return names


def _alternatives(plain: str, draft: _Draft, rival: _Draft | None) -> Iterable[str]:
    yield plain
    if rival and rival.entry.root != draft.entry.root:
        yield f"{safe_part(draft.entry.root_name)}/{plain}"
    if rival and rival.entry.suffix != draft.entry.suffix:
        yield f"{plain}-{draft.entry.suffix.split('.')[1] if draft.entry.suffix else 'dicom'}"
    if any(draft.channels):
        yield f"{plain}-{'-'.join(safe_part(channel) for channel in draft.channels)}"
    yield from (f"{plain}-{count}" for count in range(2, 10**9))


def _pair_beside(
    drafts: Sequence[_Draft], references: Sequence[Entry], names: ChannelNames, problems: list[Problem]
) -> list[list[Entry]]:
    parallel = _parallel_folders(drafts)
    found, orphans = pair(drafts, [*references, *parallel], names)
    # Where only images/ was given, labels/ beside it may hold references of scans that were left out.
    left_out = {id(entry) for entry in parallel}
    problems += (
        Problem(
            entry.where,
            "a reference without its scan",
            "Put the scan beside it under the same name, or take the reference away.",
        )
        for entry in orphans
        if id(entry) not in left_out
    )
    return found


def _parallel_folders(drafts: Sequence[_Draft]) -> list[Entry]:
    """References in ``labels/`` beside an input that is itself called ``images``."""
    entries: list[Entry] = []
    for root in sorted({draft.entry.root for draft in drafts}):
        role = folder_role(Path(root).name)
        if role is None or role[0] != "image":
            continue
        above = Path(root).parent
        for folder in sorted(path for path in above.iterdir() if path.is_dir()):
            if folder_role(folder.name) != ("reference", role[1]):
                continue
            found = _references_in(folder)
            entries += (
                Entry(
                    above.as_posix(),
                    f"{folder.name}/{e.folder}".rstrip("/"),
                    e.stem,
                    e.suffix,
                    e.format,
                    e.paths,
                )
                for e in found
            )
    return entries


def _references_in(folder: Path) -> list[Entry]:
    """Files of a folder of references; none where it is empty or unreadable."""
    try:
        found: Found = find_entries([folder])
    except UsageError:
        return []
    return [entry for entry in found.entries if entry.format != "dicom" and not is_brain_mask(entry.stem)]


def _pair_named(
    drafts: Sequence[_Draft], names: ChannelNames, masks: Path, problems: list[Problem]
) -> list[list[Entry]]:
    scans = {os.path.realpath(path) for draft in drafts for e, _ in _files(draft) for path in e.paths}
    found = find_entries([masks])
    references = [
        entry
        for entry in found.entries
        if entry.format != "dicom" and os.path.realpath(entry.paths[0]) not in scans
    ]
    if not references:
        raise UsageError(f"{masks}: no reference found", "Give the folder of the label maps with --masks.")
    paired, unpaired = pair_with_folder(drafts, references, names, masks)
    problems += unpaired
    for draft, entries in zip(drafts, paired, strict=True):
        if not entries and not _holds_reference(draft):
            draft.notes += (f"no reference found in {masks}",)
    return paired


def _files(draft: _Draft) -> list[tuple[Entry, int | None]]:
    return [file for files in draft.channels.values() for file in files]


def _holds_reference(draft: _Draft) -> bool:
    """True where the case's only file may hold the reference beside the image."""
    return len(draft.stems) == 1 and get_format(draft.entry.format).may_hold_reference


def _case(
    draft: _Draft, name: str, candidates: Sequence[Entry], options: ScanOptions, problems: list[Problem]
) -> CaseSource | None:
    for channel, files in draft.channels.items():
        if len(files) > 1:
            both = ", ".join(entry.where for entry, _ in files)
            problems.append(
                Problem(
                    name,
                    f"several files are {channel}: {both}",
                    f"Keep one, or pass --channel {channel}=PATTERN.",
                )
            )
            return None
    if len(candidates) > 1:
        both = ", ".join(entry.where for entry in candidates)
        problems.append(
            Problem(name, f"several references fit: {both}", "Keep one, or name their folder with --masks.")
        )
    channels = {
        channel: _source(entry, options.image_dataset, index)
        for channel, [(entry, index)] in sorted(
            draft.channels.items(), key=lambda item: _channel_key(item[0])
        )
    }
    reference = None
    if len(candidates) == 1:
        reference = _source(candidates[0], options.mask_dataset)
    elif not candidates and _holds_reference(draft):
        reference = _source(draft.entry, options.mask_dataset)
    return CaseSource(name, channels, reference, draft.notes)


def _channel_key(channel: str) -> tuple[int, str]:
    """The order in which people list channels: t1, t1ce, t2, flair, then the others by name."""
    usual = ("t1", "t1ce", "t2", "flair")
    return (usual.index(channel) if channel in usual else len(usual), channel)


def _source(entry: Entry, dataset: str | None, index: int | None = None) -> Source:
    return Source(entry.format, entry.paths, dataset if entry.format in ("hdf5", "matlab") else None, index)
