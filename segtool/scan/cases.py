"""Puts files together into cases: channels by name, references by place."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segtool.case import UNNAMED, CaseSource, Source
from segtool.errors import UsageError
from segtool.scan.case_names import plain_name, unique_names
from segtool.scan.coco import coco_reference
from segtool.scan.drafts import Draft, StudyFindings
from segtool.scan.found import Entry, Problem, Scan, ScanOptions
from segtool.scan.layouts import Layouts, Reading
from segtool.scan.names import ChannelNames, is_brain_mask, natural_key
from segtool.scan.privacy import Privacy
from segtool.scan.references import is_reference, pair, pair_with_folder
from segtool.scan.surroundings import references_around
from segtool.scan.walk import find_entries
from segtool.spec import ModelSpec

HOLD_REFERENCES = frozenset({"hdf5", "matlab"})
"""Formats whose files have several datasets. As ``may_hold_reference``, without importing them."""


def scan(inputs: Sequence[Path], spec: ModelSpec | None = None, options: ScanOptions | None = None) -> Scan:
    """Find the cases below folders and files. Reads names, and headers of DICOM files, but no pixels.

    Args:
        inputs: Folders, searched with all their subfolders, and files.
        spec: The model the cases are for: its channel names and aliases come before the built-in ones.
        options: What the user says about the files; None where there is no way to say it, so that no remedy
            names an option.

    Raises:
        UsageError: An input does not exist, an input or the whole holds no case, or a pattern names a channel
            that the model does not have.
    """
    found = survey(inputs, spec, options)
    if not found.cases:
        raise no_case(inputs, found.problems, privacy=found.privacy)
    return found


def survey(inputs: Sequence[Path], spec: ModelSpec | None = None, options: ScanOptions | None = None) -> Scan:
    """As :func:`scan`, also where DICOM studies are there and none of them is a case."""
    has_options, options = options is not None, options or ScanOptions()
    _check_patterns(spec, options)
    names = ChannelNames(spec, options.channels)
    found = find_entries(inputs, options.masks, options.follow_links, options.limits)
    masks = options.masks.resolve().as_posix() if options.masks else None
    entries = [e for e in found.entries if not is_brain_mask(e.stem) and e.identity != masks]
    references = [entry for entry in entries if is_reference(entry)]
    aside = {id(entry) for entry in references}
    images = [entry for entry in entries if id(entry) not in aside]
    around = references_around(found, options.follow_links, options.limits)
    problems = list(found.problems)
    privacy = None if options.identify else _privacy([*entries, *around], found.personal)
    usable = [entry for entry in images if entry.volume is None or not entry.volume.set_aside]
    layouts = Layouts(usable, names, spec, problems)
    studies = _studies(images, layouts, names, spec, options, privacy, has_options)
    drafts = [*_drafts([entry for entry in images if entry.volume is None], layouts, names, problems), *studies.drafts]
    problems += [*studies.problems, *_unmatched(names)]
    if not drafts and not studies.told:
        raise no_case(inputs, problems, references, privacy)
    drafts.sort(key=lambda draft: natural_key(plain_name(draft.entry, draft.base)))
    if options.masks is None:
        paired = _pair_beside(drafts, references, around, names, problems)
    else:
        paired = _pair_named(drafts, names, options.masks, problems, options)
    called = unique_names([(draft.entry, draft.base, tuple(draft.channels)) for draft in drafts], privacy)
    cases = []
    for draft, name, candidates in zip(drafts, called, paired, strict=True):
        problems += _conflicts(draft, name, candidates, has_options)
        if all(len(files) == 1 for files in draft.channels.values()):
            cases.append(_case(draft, name, candidates, spec, options))
    cases.sort(key=lambda case: natural_key(case.name))
    by_draft = {id(draft): name for draft, name in zip(drafts, called, strict=True)}
    told = [
        replace(study, case=by_draft.get(id(draft)) or plain_name(draft.entry, draft.base, privacy))
        for draft, study in studies.told
    ]
    told.sort(key=lambda study: natural_key(study.case))
    hidden = privacy or Privacy()
    return Scan(tuple(cases), tuple(one.told(hidden.plain) for one in problems), hidden, tuple(told))


def _privacy(entries: Iterable[Entry], words: Iterable[str]) -> Privacy | None:
    """What DICOM headers say of patients, those of entries beside other ``words``; None where they say nothing."""
    personal = set(words).union(*(entry.told_of_patient for entry in entries))
    return Privacy(personal) if personal else None


def _studies(
    images: Sequence[Entry],
    layouts: Layouts,
    names: ChannelNames,
    spec: ModelSpec | None,
    options: ScanOptions,
    privacy: Privacy | None,
    has_options: bool,
) -> StudyFindings:
    """The cases of DICOM series. Without such, the rules are not even read."""
    volumes = [entry for entry in images if entry.volume is not None]
    if not volumes and options.rules is None:
        return StudyFindings()
    from segtool.scan.studies import Studies

    return Studies(layouts, names, spec, options, privacy, has_options=has_options).drafts(volumes)


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


def no_case(
    inputs: Sequence[Path],
    problems: Sequence[Problem],
    references: Sequence[Entry] = (),
    privacy: Privacy | None = None,
) -> UsageError:
    """The error of inputs that hold no case."""
    where = ", ".join(map(str, inputs[:3])) + (", ..." if len(inputs) > 3 else "")
    plain = (privacy or Privacy()).plain
    if problems:
        problem = f"{problems[0].where}: {problems[0].problem}"
        return UsageError(f"{where}: no case found. {plain(problem)}", plain(problems[0].remedy))
    what = f"only references such as {plain(references[0].where)}" if references else "no case"
    return UsageError(
        f"{where}: {what} found",
        "Scans are not called _mask or _seg and lie outside labels/ and masks/.",
    )


def _drafts(images: Iterable[Entry], layouts: Layouts, names: ChannelNames, problems: list[Problem]) -> list[Draft]:
    """Groups files that share folder, base and kind and carry different channels."""
    drafts: dict[tuple[str, ...], Draft] = {}
    for entry in images:
        matches = names.by_pattern(entry.stem, entry.suffix)
        if len({channel for _, channel in matches}) > 1:
            fitting = " and ".join(sorted({channel for _, channel in matches}))
            problems.append(
                Problem(entry.where, f"fits the patterns of {fitting}", "Make the --channel patterns narrower.")
            )
            continue
        if matches:
            reading: Reading = (matches[0][0], {matches[0][1]: None}, ())
        else:
            reading = layouts.read(entry)
            # Where the user says which files are a channel, a nameless one is not.
            if names.by_user and reading[1].get(UNNAMED, 0) is None:
                continue
        base, channels, notes = reading
        named = len(channels) == 1 and UNNAMED not in channels and None in channels.values()
        # Only files of one named channel each make up a case together.
        own = () if named else (entry.stem, entry.suffix)
        draft = drafts.setdefault((entry.directory, base, entry.format, *own), Draft(entry, base, notes=notes))
        draft.stems.append(entry.stem)
        for channel, index in channels.items():
            draft.channels.setdefault(channel, []).append((entry, index))
    return list(drafts.values())


def _unmatched(names: ChannelNames) -> Iterator[Problem]:
    for name, pattern in names.unmatched.items():
        yield Problem(f"--channel {name}={pattern}", "fits no file name", "A glob fits whole names: begin it with *.")


def _pair_beside(
    drafts: Sequence[Draft],
    references: Sequence[Entry],
    around: Sequence[Entry],
    names: ChannelNames,
    problems: list[Problem],
) -> list[list[Entry]]:
    found, orphans = pair(drafts, [*references, *around], names)
    # References around the inputs may belong to scans that were not given.
    excused = {id(entry) for entry in around}
    problems += (
        Problem(
            entry.where,
            "a reference without its scan",
            "Put the scan beside it under the same name, or take the reference away.",
            loses_case=False,
        )
        for entry in orphans
        if id(entry) not in excused
    )
    return found


def _pair_named(
    drafts: Sequence[Draft], names: ChannelNames, masks: Path, problems: list[Problem], options: ScanOptions
) -> list[list[Entry]]:
    scans = {entry.identity for draft in drafts for entry, _ in _files(draft)}
    found = find_entries([masks], follow_links=options.follow_links, limits=options.limits)
    problems += (replace(problem, loses_case=False) for problem in found.problems)
    references = [entry for entry in found.entries if entry.format != "dicom" and entry.identity not in scans]
    if not references:
        raise UsageError(f"{masks}: no reference found", "Give the folder of the label maps with --masks.")
    paired, unpaired = pair_with_folder(drafts, references, names, masks)
    problems += unpaired
    for draft, entries in zip(drafts, paired, strict=True):
        if not entries and not _holds_reference(draft):
            draft.notes += (f"no reference found in {masks}",)
    return paired


def _files(draft: Draft) -> list[tuple[Entry, int | None]]:
    return [file for files in draft.channels.values() for file in files]


def _holds_reference(draft: Draft) -> bool:
    """True where the case's only file may hold the reference beside the image."""
    return len(draft.stems) == 1 and draft.entry.format in HOLD_REFERENCES


def _case(
    draft: Draft, name: str, candidates: Sequence[Entry], spec: ModelSpec | None, options: ScanOptions
) -> CaseSource:
    channels = {
        channel: _source(*draft.channels[channel][0], options.image_dataset, options.lenient)
        for channel in _in_order(draft.channels, spec)
    }
    reference = None
    if len(candidates) == 1:
        reference = _source(candidates[0], None, options.mask_dataset)
    elif not candidates and _holds_reference(draft):
        reference = _source(draft.entry, None, options.mask_dataset)
    elif not candidates and options.masks is None:
        reference = coco_reference(draft.entry, options.follow_links)
    held = {channel: replace(source, limits=options.limits) for channel, source in channels.items()}
    return CaseSource(name, held, reference and replace(reference, limits=options.limits), draft.notes)


def _conflicts(draft: Draft, name: str, candidates: Sequence[Entry], has_options: bool) -> Iterator[Problem]:
    """Files between which names cannot decide."""
    for channel, files in draft.channels.items():
        if len(files) > 1:
            both = ", ".join(entry.where for entry, _ in files)
            yield Problem(
                name,
                f"several files are {channel}: {both}",
                f"Keep one, or pass --channel {channel}=PATTERN." if has_options else "Keep one.",
            )
    if len(candidates) > 1:
        both = ", ".join(entry.where for entry in candidates)
        remedy = "Keep one, or name their folder with --masks." if has_options else "Keep one."
        yield Problem(name, f"several references fit: {both}", remedy)


def _in_order(channels: Iterable[str], spec: ModelSpec | None) -> list[str]:
    """The model's channels in its order, so that its first one gives the case's grid; then the others."""
    order = (*(spec.channel_names if spec else ()), "t1", "t1ce", "t2", "flair")
    return sorted(channels, key=lambda name: (order.index(name) if name in order else len(order), name))


def _source(entry: Entry, index: int | None, dataset: str | None, lenient: bool = False) -> Source:
    chosen = dataset if entry.format in HOLD_REFERENCES else None
    return Source(entry.format, entry.paths, chosen, index, lenient=lenient and entry.format == "dicom")
