"""Puts the series of a DICOM study together into a case: which of them is which channel.

The series of a study are scored by the rules of :mod:`segtool.scan.dicom_rules`. Each is seen as what it scores highest
for, and each channel takes one of the series that are seen as it: the one with the most points; among equals an
original before a derived image, a 3D acquisition before slices, axial slices before others, more voxels, finer pixels,
the later series. The user's patterns decide before all that, and names of folders before the rules.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from segtool.case import UNNAMED
from segtool.formats.dicom.facts import DicomVolume
from segtool.scan.candidates import SHOWN, Candidate, Judge, is_alone, rank, seen, tie, told
from segtool.scan.case_names import plain_name
from segtool.scan.dicom_rules import load_rules
from segtool.scan.drafts import Draft, StudyFindings
from segtool.scan.found import Entry, Problem, ScanOptions
from segtool.scan.judged import Study, aside_text
from segtool.scan.layouts import Layouts
from segtool.scan.names import ChannelNames
from segtool.scan.privacy import Privacy
from segtool.spec import ModelSpec

_Key = tuple[str, ...]


@dataclass
class _Group:
    """The volumes of one study."""

    key: _Key
    candidates: list[Candidate] = field(default_factory=list)
    aside: list[Entry] = field(default_factory=list)

    @property
    def common(self) -> str:
        """The deepest folder of all its volumes."""
        return os.path.commonpath([one.folder for one in self.candidates])


class Studies:
    """Makes cases of DICOM volumes.

    Args:
        layouts: Reads names of folders.
        names: How channels are told from names.
        spec: The model, whose channels are wanted; None to show all that are found.
        options: What the user says; ``rules`` among it.
        has_options: False where remedies must name no option.
        privacy: What names must not tell.
    """

    def __init__(
        self,
        layouts: Layouts,
        names: ChannelNames,
        spec: ModelSpec | None,
        options: ScanOptions,
        privacy: Privacy | None,
        *,
        has_options: bool,
    ) -> None:
        self._names, self._spec = names, spec
        self._has_options, self._privacy = has_options, privacy
        rules = load_rules(options.rules)
        self._judge = Judge(rules, layouts, names, spec, identify=options.identify)
        shown = dict.fromkeys(map(self._judge.channel, [*rules.channels, *options.channels]))
        self._wanted = spec.channel_names if spec else tuple(shown)
        self._found = StudyFindings()

    def drafts(self, entries: Sequence[Entry]) -> StudyFindings:
        """The cases of DICOM volumes, those that are set aside among them."""
        groups = self._grouped(entries)
        shared = Counter(group.common for group in groups if group.candidates)
        for group in groups:
            if not group.candidates:
                self._only_aside(group)
            elif self._is_unknown(group):
                # Where the user says which series are a channel, a nameless one is not.
                for one in () if self._names.by_user else group.candidates:
                    self._add(group, {UNNAMED: one}, (), [one], shared)
            else:
                self._choose(group, shared)
        return self._found

    def _grouped(self, entries: Sequence[Entry]) -> list[_Group]:
        volumes = [(entry, entry.volume) for entry in entries if entry.volume is not None]
        tops = _common_folders(volume for volume in volumes if not volume[1].set_aside)
        groups: dict[_Key, _Group] = {}
        for entry, volume in volumes:
            if volume.set_aside:
                continue
            one = self._judge.candidate(entry, volume, tops.get(volume.study, ""))
            if isinstance(one, Problem):
                self._found.problems.append(one)
            else:
                key: _Key = (volume.study,) if volume.study else (entry.directory, one.base if is_alone(entry) else "")
                groups.setdefault(key, _Group(key)).candidates.append(one)
        for entry, volume in volumes:
            if volume.set_aside:
                key = (volume.study,) if volume.study else _nearest(entry.directory, groups)
                groups.setdefault(key, _Group(key)).aside.append(entry)
        return _merged_by_name(list(groups.values()))

    def _is_unknown(self, group: _Group) -> bool:
        """True where nothing is told of any volume and each is a case, as files of other kinds would be."""
        told = any(one.seen_as or one.tied for one in group.candidates)
        return not told and (len(group.candidates) == 1 or len(group.key) > 1 or self._spec is None)

    def _choose(self, group: _Group, shared: Mapping[str, int]) -> None:
        chosen: dict[str, Candidate] = {}
        notes: list[str] = []
        for channel in self._wanted:
            fitting = sorted(
                (one for one in group.candidates if one.seen_as == channel), key=lambda one: rank(one, channel)
            )
            if fitting:
                chosen[channel] = fitting[0]
                notes += tie(channel, fitting)
        if not chosen and len(group.candidates) == 1 and (self._spec is None or len(self._wanted) == 1):
            self._take_only(group, shared)
            return
        missing = [channel for channel in self._wanted if channel not in chosen] if self._spec or not chosen else []
        if missing and (len(group.candidates) > 1 or not chosen):
            self._miss(group, missing, chosen, notes, shared)
            return
        self._add(group, chosen, notes, group.candidates, shared)

    def _take_only(self, group: _Group, shared: Mapping[str, int]) -> None:
        (one,) = group.candidates
        if self._spec is None or not one.seen_as:
            self._add(group, {one.seen_as or UNNAMED: one}, (), [one], shared)
            return
        (wanted,) = self._wanted
        note = f"taken as {wanted}, the only series of its study, though its header says {one.seen_as}"
        self._add(group, {wanted: one}, (note,), [one], shared)

    def _add(
        self,
        group: _Group,
        chosen: Mapping[str, Candidate],
        notes: Sequence[str],
        candidates: Sequence[Candidate],
        shared: Mapping[str, int],
    ) -> None:
        draft = self._placed(group, candidates, list(chosen.values()), shared)
        # What is set aside is told once, with the study's first case.
        aside = _aside(group) if candidates[0] is group.candidates[0] else ()
        beside = (f"set aside: {aside_text(aside)}",) if aside else ()
        draft.channels = {channel: [(one.entry, None)] for channel, one in chosen.items()}
        draft.notes = (*notes, *beside)
        self._found.drafts.append(draft)
        self._tell(draft, candidates, chosen, {}, notes, aside)

    def _tell(
        self,
        draft: Draft,
        candidates: Sequence[Candidate],
        chosen: Mapping[str, Candidate],
        missing: Mapping[str, str],
        notes: Sequence[str],
        aside: Sequence[tuple[str, str]],
    ) -> None:
        used = {id(one): channel for channel, one in chosen.items()}
        order = [*chosen.values(), *(one for one in candidates if id(one) not in used)]
        series = tuple(told(one, used.get(id(one))) for one in order)
        self._found.told.append((draft, Study("", series, missing, tuple(notes), tuple(aside))))

    def _miss(
        self,
        group: _Group,
        missing: Sequence[str],
        chosen: Mapping[str, Candidate],
        notes: Sequence[str],
        shared: Mapping[str, int],
    ) -> None:
        draft = self._placed(group, group.candidates, group.candidates, shared)
        nearest = {channel: self._nearest(channel, group.candidates) for channel in missing if self._spec}
        aside = _aside(group)
        self._tell(draft, group.candidates, chosen, nearest, notes, aside)
        each = [f"{one.volume.short_name} {seen(one)}" for one in group.candidates]
        shown = [*each[:SHOWN], *([f"{len(each) - SHOWN} more"] if len(each) > SHOWN else [])]
        beside = f"; set aside: {aside_text(aside)}" if aside else ""
        count = "its only series" if len(each) == 1 else f"its {len(each)} series"
        remedy = (
            f"Pass --channel {missing[0]}=PATTERN or --rules FILE; `segtool inspect` shows the evidence."
            if self._has_options
            else f"Give that series a folder of its own called {missing[0]}."
        )
        wanted = ", ".join(missing) if self._spec else f"channel such as {', '.join(self._wanted)}"
        self._found.problems.append(
            Problem(self._name(draft), f"no {wanted} among {count} ({'; '.join(shown)}{beside})", remedy)
        )

    def _nearest(self, channel: str, candidates: Sequence[Candidate]) -> str:
        """The best candidate for a channel that none is, and why it was not enough."""
        best = max(candidates, key=lambda one: one.scores.get(channel, 0))
        score = best.scores.get(channel, 0)
        if score <= 0:
            return "nothing speaks for any series"
        why = seen(best) if best.seen_as or best.tied else f"{self._judge.rules.threshold:g} are wanted"
        return f"nearest is {best.volume.short_name} with {score:g} points, {why}"

    def _only_aside(self, group: _Group) -> None:
        entry = group.aside[0]
        draft = Draft(entry, "" if entry.folder else entry.stem)
        aside = _aside(group)
        self._tell(draft, (), {}, {}, (), aside)
        self._found.problems.append(
            Problem(
                self._name(draft),
                f"nothing left to segment, set aside: {aside_text(aside)}",
                "Give the folder of the scan itself, or convert it to NIfTI.",
            )
        )

    def _name(self, draft: Draft) -> str:
        return plain_name(draft.entry, draft.base, self._privacy)

    def _placed(
        self, group: _Group, candidates: Sequence[Candidate], used: Sequence[Candidate], shared: Mapping[str, int]
    ) -> Draft:
        """A draft with the study's name and place."""
        first = used[0]
        everything = frozenset(one.volume.series for one in group.candidates if one.volume.series)
        series = frozenset(one.volume.series for one in used if one.volume.series)
        stems = [one.entry.stem for one in used]
        if len(candidates) == 1:
            base = first.base if first.named != UNNAMED or not is_alone(first.entry) else first.entry.stem
            return Draft(first.entry, base, stems, series, everything)
        common, root = group.common, first.entry.root
        base = f"study-{first.volume.study[:8]}" if shared[common] > 1 and first.volume.study else ""
        if f"{common}/".startswith(f"{root}/"):
            return Draft(replace(first.entry, folder=common[len(root) + 1 :]), base, stems, series, everything)
        # Its series lie below several inputs.
        return Draft(first.entry, base or first.base, stems, series, everything)


def _common_folders(volumes: Iterable[tuple[Entry, DicomVolume]]) -> dict[str, str]:
    folders: dict[str, list[str]] = {}
    for entry, volume in volumes:
        folders.setdefault(volume.study, []).append(entry.directory)
    return {study: os.path.commonpath(some) for study, some in folders.items()}


def _nearest(directory: str, groups: Mapping[_Key, _Group]) -> _Key:
    """Where what is set aside belongs without a study: the scans of its folder or of one above or below it."""
    for key in groups:
        if len(key) > 1 and (f"{directory}/".startswith(f"{key[0]}/") or f"{key[0]}/".startswith(f"{directory}/")):
            return key
    return (directory, "")


def _merged_by_name(groups: Sequence[_Group]) -> list[_Group]:
    """Joins studies of one volume each that lie in folders named by channels of one case.

    Some programs that take names out of headers give every series a study of its own.
    """
    merged: dict[_Key, _Group] = {}
    kept: list[_Group] = []
    for group in groups:
        if len(group.candidates) != 1 or group.candidates[0].named == UNNAMED:
            kept.append(group)
            continue
        (one,) = group.candidates
        key = (one.entry.directory, one.base)
        rival = merged.get(key)
        if rival is None or one.named in {other.named for other in rival.candidates}:
            merged.setdefault(key, group)
            kept.append(group)
        else:
            rival.candidates.append(one)
            rival.aside += group.aside
    return kept


def _aside(group: _Group) -> list[tuple[str, str]]:
    return [(entry.volume.short_name, entry.volume.set_aside) for entry in group.aside if entry.volume is not None]
