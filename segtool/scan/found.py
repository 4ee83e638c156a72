"""What a scan is asked, what it finds, and the files it works on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from segtool.case import CaseSource
from segtool.errors import printable
from segtool.formats.dicom.facts import DicomVolume
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.scan.judged import Study
from segtool.scan.privacy import Privacy


@dataclass(frozen=True)
class Problem:
    """Something found that cannot become a case, or not a whole one.

    Args:
        where: The file or the case.
        problem: What is wrong, without a final full stop.
        remedy: What to do about it, as a sentence.
        loses_case: False where every scan is still a case, such as for a reference that fits none.
    """

    where: str
    problem: str
    remedy: str
    loses_case: bool = True

    def told(self, plain: Callable[[str], str]) -> "Problem":
        """The same without what ``plain`` takes out of texts."""
        return replace(self, where=plain(self.where), problem=plain(self.problem), remedy=plain(self.remedy))

    def __str__(self) -> str:
        return printable(" ".join(f"{self.where}: {self.problem}. {self.remedy}".split()))


@dataclass(frozen=True)
class Scan:
    """The cases in natural order of their names, and what did not become one."""

    cases: tuple[CaseSource, ...]
    problems: tuple[Problem, ...] = ()
    privacy: Privacy = field(default_factory=Privacy)
    """What messages about these cases must not tell."""
    studies: tuple[Study, ...] = ()
    """How the series of DICOM studies were told apart, in natural order of the cases' names."""


@dataclass(frozen=True)
class ScanOptions:
    """What the user says about the files.

    Args:
        masks: Folder (or file) of references; those beside the scans then count for nothing.
        channels: Channel name to a pattern on the file name: a glob where it has a wildcard, otherwise text
            that the name contains; compared without case. Comes before every name that segtool knows. Of a DICOM
            series the folder's name, SeriesDescription and ProtocolName are such names.
        image_dataset: Dataset of the image in HDF5 and MATLAB files, None to find it.
        mask_dataset: Dataset of the reference in HDF5 and MATLAB files, None to find it.
        rules: TOML file that tells DICOM series apart in place of the rules in the package.
        lenient: Repair DICOM series that are no even stack, where that can be done.
        identify: Let names and messages show what DICOM headers say of the patient and the study.
        limits: What one file may claim before it is refused.
        follow_links: Follow links that leave the folders of the inputs too.
    """

    masks: Path | None = None
    channels: Mapping[str, str] = field(default_factory=dict)
    image_dataset: str | None = None
    mask_dataset: str | None = None
    rules: Path | None = None
    lenient: bool = False
    identify: bool = False
    limits: Limits = DEFAULT_LIMITS
    follow_links: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One image file, or one DICOM series, below an input.

    Args:
        root: The input folder with links resolved and ``/`` between parts; for an input file the folder that
            holds it.
        folder: Path of the file's folder below ``root`` with ``/`` between parts; empty for ``root`` itself.
        stem: The file's name without its suffix.
        suffix: Lower-case; empty for a DICOM series.
        format: Key of :data:`segtool.formats.FORMATS`.
        paths: The file, or the files of the series in natural order.
        volume: What is known of a DICOM series; None for other kinds of file.
        referenced_series: Of a DICOM file that is a reference (``dicom-seg``, ``rtstruct``): digests of the
            SeriesInstanceUIDs that it was drawn on, as :attr:`DicomVolume.series`.
        personal: Of such a file: what its header says of the patient, as ``SeriesFacts.personal``.
    """

    root: str
    folder: str
    stem: str
    suffix: str
    format: str
    paths: tuple[Path, ...]
    volume: DicomVolume | None = None
    referenced_series: frozenset[str] = frozenset()
    personal: frozenset[str] = frozenset()

    @property
    def told_of_patient(self) -> frozenset[str]:
        """What the header of a DICOM file says of the patient, as ``SeriesFacts.personal``."""
        return self.personal if self.volume is None else self.volume.facts.personal

    @property
    def root_name(self) -> str:
        """The input folder's own name."""
        return self.root.rpartition("/")[2]

    @property
    def directory(self) -> str:
        """The absolute folder of the file."""
        return f"{self.root}/{self.folder}" if self.folder else self.root

    @property
    def identity(self) -> str:
        """The same for the same file met through another input."""
        name = self.paths[0].name if self.suffix else f"{self.stem}/{self.paths[0].name}"
        return f"{self.directory}/{name}"

    @property
    def where(self) -> str:
        """How messages call the file."""
        name = self.paths[0].name if self.suffix else self.stem
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True)
class Candidate:
    """A file that may be DICOM.

    Args:
        root: As of :class:`Entry`.
        folder: Likewise.
        path: As messages show it.
    """

    root: str
    folder: str
    path: Path

    @property
    def directory(self) -> str:
        """The absolute folder of the file."""
        return f"{self.root}/{self.folder}" if self.folder else self.root

    @property
    def identity(self) -> str:
        """The same for the same file met through another input."""
        return f"{self.directory}/{self.path.name}"
