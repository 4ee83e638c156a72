"""Reads the files of a DICOM series: plain ones by a short road, all others through pydicom."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom_elements import OddError, find, find_in_file, looks_like_dicom
from segtool.formats.dicom_plain import PlainTags, stored_values
from segtool.formats.dicom_slice import TAGS, Slice, intensities, slice_of, unreadable

_NOT_IMAGES = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC"}
_SERIES = {
    0x0008_0005: ("SpecificCharacterSet", b"CS"),
    0x0008_0016: ("SOPClassUID", b"UI"),
    0x0008_0060: ("Modality", b"CS"),
    0x0020_000E: ("SeriesInstanceUID", b"UI"),
    0x0028_0010: ("Rows", b"US"),
    0x0028_0011: ("Columns", b"US"),
}

_ODD = (OddError, UnreadableFileError, ValueError, TypeError)
"""Also what the short road would refuse: the other one says why."""


@dataclass(frozen=True)
class SeriesKey:
    """To which series a file belongs, without anything that identifies a patient.

    Args:
        digest: SHA-256 of the SeriesInstanceUID, hexadecimal; files of one series share it.
        is_image: False for segmentations, reports and the like.
        modality: Such as ``MR``; empty where the header has none.
    """

    digest: str
    is_image: bool
    modality: str

    @property
    def short_name(self) -> str:
        """``series-`` and 8 hexadecimal digits: fit for file names and messages."""
        return f"series-{self.digest[:8]}"


def read_series_key(path: Path) -> SeriesKey | None:
    """Read the header of ``path`` as far as grouping needs it; None where it is not a readable DICOM object.

    A file without SeriesInstanceUID is a series of its own.
    """
    try:
        found = _series_values(path)
    except (UnreadableFileError, OSError):
        return None
    if not {"SOPClassUID", "SeriesInstanceUID", "Rows"} & found.keys():
        return None
    modality = found.get("Modality", "")
    is_image = "Rows" in found and "Columns" in found and modality not in _NOT_IMAGES
    name = found.get("SeriesInstanceUID") or str(path)
    return SeriesKey(hashlib.sha256(name.encode()).hexdigest(), is_image, modality)


def _series_values(path: Path) -> dict[str, str]:
    try:
        tags = PlainTags(find_in_file(path, _SERIES))
        texts = {keyword: tags.get(keyword) for keyword in ("Modality", "SeriesInstanceUID") if keyword in tags}
        return texts | {keyword: "" for keyword in ("SOPClassUID", "Rows", "Columns") if keyword in tags}
    except (OddError, OSError):
        if not looks_like_dicom(path):
            return {}
        from segtool.formats.dicom_odd import odd_values

        return odd_values(path, *(keyword for keyword, _ in _SERIES.values()))


def read_header(path: Path) -> Slice:
    """The header of one file; pixels stay on disk.

    Raises:
        UnreadableFileError: Not DICOM, truncated, or an image of a kind that has no slices.
    """
    try:
        return slice_of(PlainTags(find_in_file(path, TAGS)), path)
    except (*_ODD, OSError):
        from segtool.formats.dicom_odd import odd_header

        return odd_header(path)


def read_slice(path: Path) -> tuple[Slice, AnyArray]:
    """Header and values ``(rows, columns)``: stored integers, or float32 where a rescale applies.

    MONOCHROME1 is turned round within the range of its bits, so that bright stays bright. The values may be a view
    of what was read, in the file's byte order.

    Raises:
        UnreadableFileError: As for :func:`read_header`; pixels missing, truncated or compressed beyond what
            is installed.
    """
    try:
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error
    try:
        elements = find(content, TAGS)
        header, pixels = slice_of(PlainTags(elements), path), stored_values(content, elements)
    except _ODD:
        # Brings pydicom, which takes longer to import than a plain series to read.
        from segtool.formats.dicom_odd import odd_slice

        header, pixels = odd_slice(path, content)
    return header, intensities(header, pixels)
