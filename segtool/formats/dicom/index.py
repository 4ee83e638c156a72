"""Headers of many DICOM files, as far as it takes to tell which of them make up a volume.

Values stay the bytes they are: of 50,000 files most need no more than a comparison.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from segtool.errors import LimitError, UnreadableFileError
from segtool.formats.dicom.alike import AlikeHeaders
from segtool.formats.dicom.elements import OddError, digest, looks_like_dicom
from segtool.formats.dicom.plain import HIGHEST
from segtool.formats.dicom.walk import Wanted
from segtool.limits import DEFAULT_LIMITS, Limits

HEADER_END = 0x0029_0000
"""What groups files precedes it; what scanners add behind is long."""

TAGS: Wanted = {
    0x0008_0008: ("ImageType", b"CS"),
    0x0008_0016: ("SOPClassUID", b"UI"),
    0x0008_0018: ("SOPInstanceUID", b"UI"),
    0x0008_0060: ("Modality", b"CS"),
    0x0010_0020: ("PatientID", b"LO"),
    0x0018_0080: ("RepetitionTime", b"DS"),
    0x0018_0081: ("EchoTime", b"DS"),
    0x0018_0082: ("InversionTime", b"DS"),
    0x0018_0086: ("EchoNumbers", b"IS"),
    0x0018_1060: ("TriggerTime", b"DS"),
    0x0018_1314: ("FlipAngle", b"DS"),
    0x0018_9087: ("DiffusionBValue", b"FD"),
    0x0020_000D: ("StudyInstanceUID", b"UI"),
    0x0020_000E: ("SeriesInstanceUID", b"UI"),
    0x0020_0012: ("AcquisitionNumber", b"IS"),
    0x0020_0013: ("InstanceNumber", b"IS"),
    0x0020_0032: ("ImagePositionPatient", b"DS"),
    0x0020_0037: ("ImageOrientationPatient", b"DS"),
    0x0020_0052: ("FrameOfReferenceUID", b"UI"),
    0x0020_0100: ("TemporalPositionIdentifier", b"IS"),
    0x0028_0002: ("SamplesPerPixel", b"US"),
    0x0028_0004: ("PhotometricInterpretation", b"CS"),
    0x0028_0008: ("NumberOfFrames", b"IS"),
    0x0028_0010: ("Rows", b"US"),
    0x0028_0011: ("Columns", b"US"),
    0x0028_0030: ("PixelSpacing", b"DS"),
}

_KEYWORDS = frozenset(keyword for keyword, _ in TAGS.values())
_OF_AN_OBJECT = frozenset({"SOPClassUID", "SeriesInstanceUID", "Rows"})
"""What has none of them is no object of DICOM, whatever its first bytes."""

_LONGEST = 4096
"""Bytes of a value that are kept. Those wanted have some dozen."""

_PROBE, _BATCH, _THREADS = 64, 32, 8
"""Files read before it is known whether storage is slow, files a task, and how many wait for storage at once."""


@dataclass(slots=True, eq=False)
class FileFacts:
    """What the header of one file says. No method raises: what cannot be understood counts as absent.

    Args:
        path: The file.
        values: By keyword of :data:`TAGS`, as they lie in the file.
        endian: ``<`` or ``>``.
        limits: What the file may claim, whoever reads more of it.
    """

    path: Path
    values: Mapping[str, bytes]
    endian: str = "<"
    limits: Limits = DEFAULT_LIMITS

    def text(self, keyword: str) -> str:
        """A code or a UID; empty where there is none."""
        return self.values.get(keyword, b"").strip(b"\0 ").decode("ascii", "replace")

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Several codes."""
        text = self.text(keyword)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def integer(self, keyword: str) -> int | None:
        """A number of two bytes."""
        value = self.values.get(keyword, b"")
        return int.from_bytes(value, "big" if self.endian == ">" else "little") if len(value) == 2 else None

    def number(self, keyword: str) -> float | None:
        """The first of the numbers that are written as text."""
        return _float(self.values.get(keyword, b"").split(b"\\", 1)[0])

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Exactly ``count`` numbers that are written as text."""
        found = [number for part in self.values.get(keyword, b"").split(b"\\") if (number := _float(part)) is not None]
        return tuple(found) if len(found) == count else None

    def digest(self, keyword: str) -> str:
        """Of a UID; empty where there is none."""
        return digest(self.text(keyword))

    @property
    def series(self) -> str:
        """Digest of the SeriesInstanceUID. A file without one is a series of its own."""
        return self.digest("SeriesInstanceUID") or digest(str(self.path))

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows, columns; None for what is no image."""
        rows, columns = self.integer("Rows"), self.integer("Columns")
        return None if rows is None or columns is None else (rows, columns)

    @property
    def frames(self) -> int:
        """Of one file, mostly 1."""
        return int(self.number("NumberOfFrames") or 1)


def _float(value: bytes) -> float | None:
    try:
        number = float(value.strip(b"\0 "))
    except ValueError:
        return None
    return number if abs(number) < HIGHEST else None


def read_facts(paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> list[FileFacts | None]:
    """The headers of files, one for each path in their order; None for what is no readable object of DICOM.

    What claims more than the limits allow is none; :func:`why_unread` tells it from the rest.

    Threads help where storage keeps a file waiting, and only there: all else is work that they cannot share.
    """
    headers = AlikeHeaders(TAGS, HEADER_END)
    start, start_cpu = time.perf_counter(), time.thread_time()
    found = [_facts(path, headers, limits) for path in paths[:_PROBE]]
    elapsed_s, busy_s = time.perf_counter() - start, time.thread_time() - start_cpu
    rest = paths[_PROBE:]
    if busy_s > elapsed_s / 2 or not rest:
        return found + [_facts(path, headers, limits) for path in rest]
    batches = [rest[first : first + _BATCH] for first in range(0, len(rest), _BATCH)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="segtool-header") as pool:
        for batch in pool.map(lambda batch: [_facts(path, headers, limits) for path in batch], batches):
            found += batch
    return found


def why_unread(path: Path, limits: Limits) -> LimitError | None:
    """Which limit a file is above that has no facts; None where it is damaged, or something else."""
    try:
        _values(path, AlikeHeaders(TAGS, HEADER_END), limits)
    except LimitError as error:
        return error
    except (UnreadableFileError, OSError):
        pass
    return None


def _facts(path: Path, headers: AlikeHeaders, limits: Limits) -> FileFacts | None:
    try:
        values, endian = _values(path, headers, limits)
    except (UnreadableFileError, OSError):
        return None
    if not _OF_AN_OBJECT & values.keys():
        return None
    if len(max(values.values(), key=len)) > _LONGEST:
        values = {keyword: value[:_LONGEST] for keyword, value in values.items()}
    return FileFacts(path, values, endian, limits)


def _values(path: Path, headers: AlikeHeaders, limits: Limits) -> tuple[Mapping[str, bytes], str]:
    try:
        found = headers.find_in_file(path)
    except OddError:
        if not looks_like_dicom(path):
            return {}, "<"
        # Brings pydicom.
        from segtool.formats.dicom.odd import odd_elements

        return odd_elements(path, _KEYWORDS, limits)
    return found.values, found.endian
