"""Reads the files of a DICOM series: plain ones by a short road, all others through pydicom."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.alike import AlikeHeaders
from segtool.formats.dicom.elements import Elements, OddError, Wanted, looks_like_dicom
from segtool.formats.dicom.plain import PlainPixels, PlainTags, plain_pixels
from segtool.formats.dicom.slice import TAGS, Slice, intensities, slice_of, unreadable

_NOT_IMAGES = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC"}
_SERIES: Wanted = {
    0x0008_0005: ("SpecificCharacterSet", b"CS"),
    0x0008_0016: ("SOPClassUID", b"UI"),
    0x0008_0060: ("Modality", b"CS"),
    0x0020_000E: ("SeriesInstanceUID", b"UI"),
    0x0028_0010: ("Rows", b"US"),
    0x0028_0011: ("Columns", b"US"),
}
_TEXTS = ("Modality", "SeriesInstanceUID")
_MOST_SERIES = 256
"""Whose keys are remembered: one after another, a few of them mixed."""
_KEYS, _HEADERS = AlikeHeaders(_SERIES), AlikeHeaders(TAGS)

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
        try:
            return _plain_key(tuple(_KEYS.find_in_file(path).values.items()))
        except (OddError, OSError):
            if not looks_like_dicom(path):
                return None
            from segtool.formats.dicom.odd import odd_values

            return _key(odd_values(path, *(keyword for keyword, _ in _SERIES.values())), path)
    except (UnreadableFileError, OSError):
        return None


@lru_cache(_MOST_SERIES)
def _plain_key(values: tuple[tuple[str, bytes], ...]) -> SeriesKey | None:
    """The same for all files of a series, which say the same."""
    tags = PlainTags(Elements(dict(values), "", "<", 0, 0))
    found = {keyword: tags.get(keyword) if keyword in _TEXTS else "" for keyword, _ in values}
    if not found.get("SeriesInstanceUID"):
        raise OddError
    return _key(found, Path())


def _key(found: Mapping[str, str], path: Path) -> SeriesKey | None:
    if not {"SOPClassUID", "SeriesInstanceUID", "Rows"} & found.keys():
        return None
    modality = found.get("Modality", "")
    is_image = "Rows" in found and "Columns" in found and modality not in _NOT_IMAGES
    name = found.get("SeriesInstanceUID") or str(path)
    return SeriesKey(hashlib.sha256(name.encode()).hexdigest(), is_image, modality)


class SeriesReader:
    """Reads the files of a series one after another; what their headers have in common is understood once.

    What it makes of a file does not depend on those before. Several threads may share a reader.
    """

    def __init__(self) -> None:
        self._alike: _Alike | None = None

    def header(self, path: Path) -> Slice:
        """The header of one file; pixels stay on disk.

        Raises:
            UnreadableFileError: Not DICOM, truncated, or an image of a kind that has no slices.
        """
        try:
            return self._understood(_HEADERS.find_in_file(path), path)[0]
        except (*_ODD, OSError):
            from segtool.formats.dicom.odd import odd_header

            return odd_header(path)

    def slice(self, path: Path, into: AnyArray | None = None) -> tuple[Slice, AnyArray]:
        """Header and values ``(rows, columns)``: stored integers, or float32 where a rescale applies.

        MONOCHROME1 is turned round within the range of its bits, so that bright stays bright. The values may be in
        the file's byte order.

        Args:
            path: The file.
            into: Where values go that have its shape and type in the file; then these values are ``into`` itself.
                Any others leave nothing of use there.

        Raises:
            UnreadableFileError: As for :meth:`header`; pixels missing, truncated or compressed beyond what is
                installed.
        """
        try:
            with path.open("rb", buffering=0) as file:
                try:
                    header, pixels = self._plain(file, path, into)
                    return header, intensities(header, pixels)
                except _ODD:
                    file.seek(0)
                    content = file.readall()
        except (OSError, MemoryError) as error:
            raise unreadable(path, error) from error
        # Brings pydicom, which takes longer to import than a plain series to read.
        from segtool.formats.dicom.odd import odd_slice

        header, pixels = odd_slice(path, content)
        return header, intensities(header, pixels)

    def _plain(self, file: FileIO, path: Path, into: AnyArray | None) -> tuple[Slice, AnyArray]:
        """Header and stored values."""
        elements = _HEADERS.find_by(file.read)
        header, pixels = self._understood(elements, path)
        # What follows the pixels may be broken.
        if pixels is None or elements.start + elements.length != file.seek(0, os.SEEK_END):
            raise OddError
        is_as_stored = not header.is_rescaled and header.inverted_from is None
        if into is None or not is_as_stored or into.shape != pixels.shape or into.dtype != pixels.dtype:
            into = np.empty(pixels.shape, pixels.dtype)
        file.seek(elements.start)
        if file.readinto(into.data) != into.nbytes:
            raise OddError
        return header, pixels.settled(into)

    def _understood(self, elements: Elements, path: Path) -> tuple[Slice, PlainPixels | None]:
        """What a header says, and how its pixels lie where they are plain."""
        values = dict(elements.values)
        position = values.pop("ImagePositionPatient", b"")
        key = values, elements.syntax, elements.endian, elements.length
        alike = self._alike
        if alike is not None and position and alike.key == key:
            return _elsewhere(alike.header, path, PlainTags(elements).numbers("ImagePositionPatient", 3)), alike.pixels
        header, pixels = slice_of(PlainTags(elements), path), plain_pixels(elements)
        if position:
            self._alike = _Alike(key, header, pixels)
        return header, pixels


@dataclass(frozen=True)
class _Alike:
    """What all files say whose headers differ in the position alone.

    Args:
        key: All but the position on which the rest depends.
        header: Of one of the files.
        pixels: None where they are not plain.
    """

    key: tuple[dict[str, bytes], str, str, int]
    header: Slice
    pixels: PlainPixels | None


def _elsewhere(header: Slice, path: Path, position: tuple[float, ...] | None) -> Slice:
    """As ``dataclasses.replace``, which takes as long as all else that is done for a header."""
    made = object.__new__(Slice)
    vars(made).update(vars(header), path=path, position=position)
    return made


_READER = SeriesReader()


def read_header(path: Path) -> Slice:
    """As :meth:`SeriesReader.header`, of a single file."""
    return _READER.header(path)


def read_slice(path: Path) -> tuple[Slice, AnyArray]:
    """As :meth:`SeriesReader.slice`, of a single file."""
    return _READER.slice(path)
