"""Cases being put together."""

from dataclasses import dataclass, field

from segtool.scan.found import Entry, Problem
from segtool.scan.judged import Study
from segtool.scan.references import Group


@dataclass
class Draft(Group):
    """A group with its channels: name to (file, position in the file)."""

    channels: dict[str, list[tuple[Entry, int | None]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class StudyFindings:
    """What the DICOM volumes of a scan became."""

    drafts: list[Draft] = field(default_factory=list)
    told: list[tuple[Draft, Study]] = field(default_factory=list)
    """Each study with the draft whose name it bears; a draft that is no case only lends its name."""
    problems: list[Problem] = field(default_factory=list)
