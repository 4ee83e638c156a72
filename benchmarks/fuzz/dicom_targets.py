"""Targets: DICOM slices and series, plain and compressed, segmentations, structure sets, directories."""

import struct
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydicom.uid import ImplicitVRLittleEndian

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.dicom_mutations import changed, elements_of
from benchmarks.fuzz.dicom_seeds import (
    compressed_slices,
    directories,
    packed,
    plain_slices,
    segmentations,
    slice_of,
    structure_sets,
)
from benchmarks.fuzz.mutations import havoc, odd_number
from benchmarks.fuzz.target import Target, all_of
from segtool.case import Source
from segtool.errors import SegtoolError
from segtool.formats.dicom.index import read_facts
from segtool.formats.dicom.odd import odd_slice
from segtool.formats.dicom.read import SeriesReader
from segtool.formats.dicom.seg import DicomSegFormat
from segtool.formats.dicom.series import DicomFormat
from segtool.formats.dicom.slice import intensities
from segtool.formats.dicom.stack import stack_plan
from segtool.formats.dicom.volumes import volumes_of
from segtool.formats.rtstruct import RtStructFormat
from segtool.geometry import Geometry
from segtool.scan import ScanOptions, scan
from segtool.scan.archives import unpacked
from segtool.scan.plainly import scan_unpacked

_FORM, _SEG, _RT = DicomFormat(), DicomSegFormat(), RtStructFormat()
_GRID = Geometry.of_volume((8, 6, 4), np.array([[-0.75, 0, 0, 10], [0, -0.5, 0, 20.5], [0, 0, 3.0, 0], [0, 0, 0, 1]]))
"""Of four of :func:`~benchmarks.fuzz.dicom_seeds.slice_of`."""
_DECODERS = ("pydicom.encaps", "pydicom.pixels.decoders.base", "pydicom.pixels.utils")


_READ = 4
"""What is told of a slice that was read; of one that was refused one line."""
_SCANS = 10
"""Of so many inputs one is scanned too, which takes longer than all the rest."""


def one_of(many: int, path: Path) -> bool:
    """True for one of ``many`` inputs, the same whenever it is tried."""
    return zlib.crc32(path.read_bytes()) % many == 0


class _Elements(Target):
    suffix = ".dcm"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.formats", "segtool.scan", "pydicom.filereader", "pydicom.values")

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """An element."""
        return changed(data, choices)


class Dicom(_Elements):
    """One slice, by the short road and by pydicom's, which must agree; and what the index makes of it."""

    def seeds(self) -> list[bytes]:
        """Of every syntax without compression."""
        return list(plain_slices())

    def read(self, path: Path) -> object:
        """As a file alone, and as the index has it."""
        both_roads(path, self)
        volumes_of(one for one in read_facts([path]) if one)
        source = Source("dicom", (path,), limits=self.limits)
        return all_of(
            lambda: _FORM.describe(source).geometry.describe(),
            lambda: _FORM.read_image(source).geometry.orientation,
        )


def both_roads(path: Path, target: Target) -> None:
    """Read a slice by the short road and by the other. Where both read it, they must give the same.

    Raises:
        AssertionError: They do not.
    """
    short = _outcome(lambda: SeriesReader(target.limits).slice(path))
    other = _outcome(lambda: _by_pydicom(path, target))
    if len(short) == len(other) == _READ:
        assert short == other, f"two roads: {short} and {other}"


def _by_pydicom(path: Path, target: Target) -> tuple[Any, Any]:
    header, pixels = odd_slice(path, path.read_bytes(), target.limits)
    return header, intensities(header, pixels)


def _outcome(read: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any function
    try:
        header, values = read()
    except SegtoolError as error:
        return (str(error),)
    return header, values.shape, values.dtype.newbyteorder("="), values.astype(values.dtype.newbyteorder("=")).tobytes()


class DicomSeries(_Elements):
    """Four slices, one of them changed: read as a series, leniently too, and found by the scan."""

    def seeds(self) -> list[bytes]:
        """The second slice."""
        more: list[dict[str, object]] = [{}, {"RescaleSlope": "0.5", "RescaleIntercept": "1"}, {"PixelPaddingValue": 7}]
        return [packed(slice_of(1, **one)) for one in more] + [packed(slice_of(1), ImplicitVRLittleEndian)]

    def place(self, folder: Path, data: bytes) -> Path:
        """Among the others."""
        series = folder / "series"
        if not series.is_dir():
            series.mkdir()
            for number in (0, 2, 3):
                (series / f"{number}.dcm").write_bytes(packed(slice_of(number)))
        (series / "1.dcm").write_bytes(data)
        return series

    def read(self, path: Path) -> object:
        """All that is asked of a series."""
        files = tuple(path / f"{number}.dcm" for number in range(4))
        strict = Source("dicom", files, limits=self.limits)
        lenient = Source("dicom", files, lenient=True, limits=self.limits)
        if one_of(_SCANS, path / "1.dcm"):
            scan([path], None, ScanOptions(limits=self.limits))
        return all_of(
            lambda: _FORM.describe(strict).geometry.describe(),
            lambda: _FORM.read_image(strict).geometry.orientation,
            lambda: _FORM.read_image(lenient).geometry.orientation,
            lambda: stack_plan(lenient).to_slices(np.zeros(stack_plan(lenient).geometry.shape, np.uint8)),
        )


class DicomCompressed(_Elements):
    """One slice whose pixels are compressed: elements, fragments and codestreams change."""

    instrument: ClassVar[tuple[str, ...]] = ("segtool.formats", *_DECODERS)

    def seeds(self) -> list[bytes]:
        """Of every syntax that is read."""
        return list(compressed_slices())

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """Mostly what lies in fragments."""
        found = elements_of(data)
        fragments = [one for one in found if one.tag == 0xFFFE_E000 and one.end > one.value]
        if not fragments or choices.whole(0, 3) == 0:
            return changed(data, choices)
        one = choices.one(fragments)
        code = data[one.value : one.end]
        code = _marker_changed(code, choices) if choices.whole(0, 1) else havoc(code, choices)
        code += b"\0" * (len(code) % 2)
        return data[: one.value - 4] + struct.pack("<I", len(code)) + code + data[one.end :]

    def read(self, path: Path) -> object:
        """As a file alone."""
        source = Source("dicom", (path,), limits=self.limits)
        return all_of(
            lambda: _FORM.describe(source).geometry.describe(),
            lambda: _FORM.read_image(source).geometry.orientation,
        )


def _marker_changed(code: bytes, choices: Choices) -> bytes:
    """A number behind one of the markers of a codestream, or in the header of RLE."""
    markers = [place for place in range(len(code) - 1) if code[place] == 0xFF and code[place + 1] >= 0x4F] or [0]
    start = choices.one(markers) + choices.whole(0, 48)
    kind = choices.one((">H", ">I", ">B", "<I"))
    if start + struct.calcsize(kind) > len(code):
        return havoc(code, choices)
    (old,) = struct.unpack_from(kind, code, start)
    new = struct.pack(kind, int(odd_number(choices, kind, old)))
    return code[:start] + new + code[start + len(new) :]


class DicomSeg(_Elements):
    """Segmentations of each kind, on a grid of their own and on that of a scan."""

    instrument: ClassVar[tuple[str, ...]] = ("segtool.formats", "segtool.geometry", "pydicom.values", *_DECODERS)
    fixed: ClassVar[tuple[str, ...]] = (
        "compressed frames left out ended in pydicom's StopIteration: one line now",
        "pixels of 775000 km ended in a ValueError: one line now",
        "a frame of a segment of which nothing tells had a number too high for its array: it has room now",
    )

    def seeds(self) -> list[bytes]:
        """Ours."""
        return list(segmentations())

    def read(self, path: Path) -> object:
        """As a reference, and as the scan finds it."""
        volumes_of(one for one in read_facts([path]) if one)
        source = Source("dicom-seg", (path,), limits=self.limits)
        return all_of(
            lambda: _SEG.read_labels(source),
            lambda: _SEG.read_labels_on(source, _GRID),
        )


class RtStruct(_Elements):
    """Contours on the grid of a scan."""

    instrument: ClassVar[tuple[str, ...]] = (
        "segtool.formats",
        "segtool.geometry",
        "pydicom.filereader",
        "pydicom.values",
    )

    def seeds(self) -> list[bytes]:
        """Squares with holes."""
        return list(structure_sets())

    def read(self, path: Path) -> object:
        """As a reference."""
        return _RT.read_labels_on(Source("rtstruct", (path,), limits=self.limits), _GRID)


class Dicomdir(_Elements):
    """A directory, which only ever stands for its folder: the same scan is found whatever it says."""

    suffix = ""

    def seeds(self) -> list[bytes]:
        """Of a disk; one record names a file outside."""
        return list(directories())

    def place(self, folder: Path, data: bytes) -> Path:
        """Beside a series."""
        disk = folder / "disk"
        if not disk.is_dir():
            (disk / "SCAN").mkdir(parents=True)
            for number in range(3):
                (disk / "SCAN" / str(number)).write_bytes(packed(slice_of(number)))
            (folder / "ETC").write_bytes(packed(slice_of(9, SeriesInstanceUID="1.2.99")))
        path = disk / "DICOMDIR"
        path.write_bytes(data)
        return path

    def read(self, path: Path) -> object:
        """As an input, and under another name among the files."""
        if one_of(_SCANS, path):
            with unpacked([path], self.limits) as folders:
                (case,) = scan_unpacked(folders, None, ScanOptions(limits=self.limits)).cases
            assert {one.parent.name for one in case.first.paths} == {"SCAN"}
        return volumes_of(one for one in read_facts([path]) if one)
