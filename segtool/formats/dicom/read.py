"""Reads the files of a DICOM series: plain ones by a short road, all others through pydicom."""

import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from segtool.case import Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.alike import AlikeHeaders
from segtool.formats.dicom.elements import Elements, OddError
from segtool.formats.dicom.plain import PlainPixels, PlainTags, plain_pixels
from segtool.formats.dicom.slice import TAGS, Slice, intensities, slice_of, unreadable
from segtool.limits import DEFAULT_LIMITS, Limits

_HEADERS = AlikeHeaders(TAGS)

_ODD = (OddError, UnreadableFileError, ValueError, TypeError)
"""Also what the short road would refuse: the other one says why."""


class SeriesReader:
    """Reads the files of a series one after another; what their headers have in common is understood once.

    What it makes of a file does not depend on those before. Several threads may share a reader.

    Args:
        limits: What a file may claim.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
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

            return odd_header(path, self._limits)

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

        header, pixels = odd_slice(path, content, self._limits)
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
        header, pixels = slice_of(PlainTags(elements), path, self._limits), plain_pixels(elements)
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


def headers_of(source: Source) -> list[Slice]:
    """The headers of all files of a series.

    Raises:
        UnreadableFileError: As for :meth:`SeriesReader.header`.
    """
    reader = SeriesReader(source.limits)
    return [reader.header(path) for path in source.paths]


def read_header(path: Path) -> Slice:
    """As :meth:`SeriesReader.header`, of a single file."""
    return _READER.header(path)


def read_slice(path: Path) -> tuple[Slice, AnyArray]:
    """As :meth:`SeriesReader.slice`, of a single file."""
    return _READER.slice(path)
