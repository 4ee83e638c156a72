"""One DICOM volume that may be a channel: what speaks for it, and which of two is better."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from segtool.case import UNNAMED
from segtool.channels import canonical_channel
from segtool.formats.dicom.facts import DicomVolume, SeriesFacts
from segtool.scan.dicom_rules import Rules
from segtool.scan.found import Entry, Problem
from segtool.scan.judged import JudgedSeries
from segtool.scan.layouts import Layouts
from segtool.scan.names import ChannelNames, natural_key
from segtool.spec import ModelSpec

BY_FOLDER, BY_USER = 500, 1000
"""Points for a folder that bears a channel's name, and for a pattern of the user's: more than rules give."""
SHOWN = 8
"""Series that one message names."""


@dataclass
class Candidate:
    """One volume, the names that speak for it, and its points by channel of the model or other kind."""

    entry: Entry
    volume: DicomVolume
    base: str
    named: str
    seen_as: str = ""
    tied: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, list[str]] = field(default_factory=dict)

    def speaks_for(self, channel: str, points: float, line: str) -> None:
        """Adds what outweighs the rules."""
        self.scores[channel] = self.scores.get(channel, 0) + points
        self.evidence.setdefault(channel, []).insert(0, line)
        self.seen_as, self.tied = channel, ()

    @property
    def folder(self) -> str:
        """The absolute folder of its files."""
        entry = self.entry
        return entry.directory if entry.stem == self.volume.short_name else f"{entry.directory}/{entry.stem}"


class Judge:
    """Gives volumes their points.

    Args:
        rules: The rules.
        layouts: Reads names of folders.
        names: How channels are told from names.
        spec: The model, whose names channels get.
        identify: Let evidence show the header's text.
    """

    def __init__(
        self, rules: Rules, layouts: Layouts, names: ChannelNames, spec: ModelSpec | None, *, identify: bool
    ) -> None:
        self.rules = rules
        self._layouts, self._names, self._spec, self._identify = layouts, names, spec, identify

    def candidate(self, entry: Entry, volume: DicomVolume, top: str) -> Candidate | Problem:
        """A volume with its points; a problem where the user's patterns contradict each other on it.

        Args:
            entry: The volume.
            volume: Likewise.
            top: The absolute folder that all volumes of its study share.
        """
        base, channels, _ = self._layouts.read(entry)
        by_stem = self._names.by_pattern(entry.stem, "")
        base = by_stem[0][0] if by_stem else base
        named = next(iter(channels)) if is_alone(entry) and len(channels) == 1 else UNNAMED
        folder = _own_folders(entry, volume, top)
        verdict = self.rules.judge(volume.facts, folder, identify=self._identify)
        one = Candidate(entry, volume, base, named, self.channel(verdict.seen_as))
        one.tied = tuple(dict.fromkeys(map(self.channel, verdict.tied)))
        for name, score in verdict.scores.items():
            channel = self.channel(name)
            if score > one.scores.get(channel, float("-inf")):
                one.scores[channel], one.evidence[channel] = score, list(verdict.evidence[name])
        # A folder called T1 means it; one called POST_T1 may be a description, of which the rules know more.
        if named != UNNAMED and (not base or not one.seen_as or named not in map(self.channel, self.rules.names)):
            one.speaks_for(named, BY_FOLDER, f'+{BY_FOLDER} the folder is named "{named}"')
        facts = volume.facts
        texts = (facts.series_description, facts.protocol_name)
        by_text = (match for text in texts for match in self._names.by_pattern(text, ""))
        fitting = {channel for _, channel in (*by_stem, *by_text)}
        if len(fitting) > 1:
            return Problem(
                volume.short_name,
                f"fits the patterns of {' and '.join(sorted(fitting))}",
                "Make the --channel patterns narrower.",
            )
        for channel in fitting:
            one.speaks_for(channel, BY_USER, f"+{BY_USER} fits the pattern of --channel {channel}")
        return one

    def channel(self, name: str) -> str:
        """The model's name of what the rules call ``name``."""
        known = self._names.resolve(name) if name else ""
        if self._spec is None or known in self._spec.channel_names:
            return known
        for channel in self._spec.channels:
            if canonical_channel(name) in {canonical_channel(one) for one in (channel.name, *channel.aliases)} - {None}:
                return channel.name
        return known


def is_alone(entry: Entry) -> bool:
    """True for a volume with a folder of its own, whose name it then bears."""
    return entry.volume is None or entry.stem != entry.volume.short_name


def _own_folders(entry: Entry, volume: DicomVolume, top: str) -> str:
    """The names of the folders that hold this volume and not the whole study; empty where there is none."""
    if not is_alone(entry):
        return ""
    between = entry.directory[len(top) :].strip("/") if volume.study and top else ""
    return f"{between}/{entry.stem}" if between else entry.stem


def seen(one: Candidate) -> str:
    """How messages say what a volume is."""
    if one.tied:
        return f"fits {' and '.join(one.tied)} equally"
    return f"seen as {one.seen_as}" if one.seen_as else "seen as nothing"


def told(one: Candidate, used_as: str | None) -> JudgedSeries:
    """What is reported of a volume; ``used_as`` is None where it serves no channel."""
    best = one.seen_as or max(one.scores, key=lambda name: one.scores[name], default="")
    rows, columns = one.volume.facts.size
    count = len(one.volume.paths)
    return JudgedSeries(
        one.volume.short_name,
        f"{count} {'file' if count == 1 else 'slices'} of {columns}x{rows}",
        _acquired(one.volume.facts),
        one.seen_as,
        one.tied,
        one.scores.get(best, 0),
        dict(one.scores),
        tuple(one.evidence[best]) if one.scores.get(best, 0) > 0 else (),
        used_as or ("" if used_as is None else "image"),
    )


def _acquired(facts: SeriesFacts) -> str:
    how = " ".join(
        filter(None, (facts.plane, facts.acquisition_type if facts.acquisition_type in ("2D", "3D") else ""))
    )
    number = "" if facts.series_number is None else f"number {facts.series_number}"
    return ", ".join(filter(None, (how, number)))


_ORDER = ("an original image", "a 3D acquisition", "axial slices", "more voxels", "finer pixels", "the later series")
"""What decides between series of equal points, in this order."""


def _qualities(one: Candidate) -> tuple[float, ...]:
    """Of :data:`_ORDER`, smaller is better."""
    facts = one.volume.facts
    rows, columns = facts.size
    return (
        float("DERIVED" in facts.image_type),
        float(facts.acquisition_type != "3D"),
        float(facts.acquisition_type != "3D" and facts.plane not in ("axial", "")),
        -float(rows * columns * len(one.volume.paths)),
        facts.spacing_mm[0] * facts.spacing_mm[1] if facts.spacing_mm else float("inf"),
        -float(facts.series_number or 0),
    )


def rank(one: Candidate, channel: str) -> tuple[object, ...]:
    """Sort key, the best first."""
    return (-one.scores.get(channel, 0), *_qualities(one), natural_key(one.volume.short_name))


def tie(channel: str, fitting: Sequence[Candidate]) -> list[str]:
    """A note where points did not decide."""
    equal = [one for one in fitting if one.scores[channel] == fitting[0].scores[channel]]
    if len(equal) < 2:
        return []
    pairs = zip(_ORDER, _qualities(equal[0]), _qualities(equal[1]), strict=True)
    reason = next((why for why, first, second in pairs if first != second), "")
    named = [one.volume.short_name for one in equal]
    names = ", ".join(named[:SHOWN]) + (", ..." if len(named) > SHOWN else "")
    taken = f"taken {equal[0].volume.short_name}" + (f" ({reason} first)" if reason else "")
    return [f"{channel}: {len(equal)} series fit equally ({names}), {taken}"]
