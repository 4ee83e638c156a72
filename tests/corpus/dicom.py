"""DICOM series, compressed and deflated files, segmentations, structure sets, and the rules that tell series apart."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_files import dataset_of, saved
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    RTStructureSetStorage,
    SegmentationStorage,
)

from corpus import Row
from segtool.case import Source
from segtool.errors import LimitError, UsageError
from segtool.formats.dicom.facts import SeriesFacts
from segtool.formats.dicom.index import read_facts
from segtool.formats.dicom.quiet import quiet
from segtool.formats.dicom.seg import DicomSegFormat
from segtool.formats.dicom.series import DicomFormat
from segtool.formats.dicom.texts import series_facts
from segtool.formats.rtstruct import RtStructFormat
from segtool.geometry import Geometry
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.scan.dicom_rules import load_rules

FORM, SEG, RT = DicomFormat(), DicomSegFormat(), RtStructFormat()
GRID = Geometry.of_volume((64, 64, 4), np.diag([-1.0, -1, 2, 1]))
WIDE = Geometry.of_volume((1000, 1000, 1), np.diag([-1.0, -1, 2, 1]))
AGAIN = "export or copy it again"
FEW = Limits(labels=100)
VOXELS, LABELS = "raise the limit: --limit voxels=", "raise the limit: --limit labels="
DRAWN, DRAWING = Limits(drawn_pixels=2**19), "raise the limit: --limit drawn_pixels="


def series(*changes: dict[str, Any], syntax: Any = ExplicitVRLittleEndian, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Puts a file for each of ``changes``, 2 mm above the one before."""

    def write(folder: Path) -> Source:
        with quiet():
            paths = [
                saved(folder / f"{k}.dcm", dataset_of(**{"ImagePositionPatient": [0, 0, 2 * k]} | one), syntax)
                for k, one in enumerate(changes)
            ]
        return Source("dicom", tuple(paths), limits=limits)

    return write


def frames(syntax: Any, code: bytes, **changes: Any) -> Any:
    """Puts a slice of 3 rows and 4 columns whose compressed pixels are ``code``."""
    return series({"PixelData": pydicom.encaps.encapsulate([code]), **changes}, syntax=syntax)


BOMB = pydicom.filewriter.zlib.compress(bytes(2**25), 9)[2:-4]


def raw(
    kind: str,
    tail: bytes,
    syntax: str = "1.2.840.10008.1.2.1",
    limits: Limits = DEFAULT_LIMITS,
    preamble: bytes = bytes(128) + b"DICM",
) -> Any:
    """Puts a file whose elements are ``tail``."""

    def write(folder: Path) -> Source:
        uid = syntax.encode() + b"\0" * (len(syntax) % 2)
        head = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
        (folder / "a.dcm").write_bytes(preamble + head + tail)
        return Source(kind, (folder / "a.dcm",), limits=limits)

    return write


def image(given: Source) -> None:
    """What predict asks of a scan."""
    FORM.read_image(given)


def labels(given: Source) -> None:
    """What predict asks of a segmentation."""
    SEG.read_labels_on(given, GRID)


def contours(given: Source) -> None:
    """What predict asks of a structure set."""
    RT.read_labels_on(given, GRID)


def j2k(rows: int, columns: int, precinct: int = 15) -> bytes:
    """The header of a codestream; precincts of ``2**precinct`` pixels each way."""
    size = struct.pack(">HH8IHBBB", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
    coding = struct.pack(">HBBHBBBBBBB", 13, 1, 0, 1, 0, 0, 4, 4, 0, 1, precinct * 17)
    return b"\xff\x4f\xff\x51" + size + b"\xff\x52" + coding + b"\xff\xd9"


def jpeg(marker: int, rows: int, columns: int) -> bytes:
    """The header of a JPEG or JPEG-LS."""
    return (
        b"\xff\xd8\xff"
        + bytes([marker])
        + struct.pack(">HBHHB3B", 11, 8, rows, columns, 1, 1, 0x11, 0)
        + b"\xff\xda\0\2"
    )


def rle(*segments: bytes) -> bytes:
    """A frame of RLE."""
    offsets = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


# Elements


def element(tag: int, kind: bytes, value: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, kind)
    size = len(value) if length is None else length
    is_long = kind in (b"SQ", b"OB", b"OW", b"UN")
    return head + (struct.pack("<HI", 0, size) if is_long else struct.pack("<H", size)) + value


ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
OPEN = element(0x0040_A730, b"SQ", b"", 0xFFFF_FFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFF_FFFF)
KIND = element(0x0008_0016, b"UI", SegmentationStorage.encode()) + element(0x0008_0060, b"CS", b"SEG ")
STRUCTURES = element(0x0008_0060, b"CS", b"RTSTRUCT")
PRIVATE = b"".join(element(0x0009_1000 + n, b"LO", b"") for n in range(2000)) * 10


# Objects


def segmentation(
    edit: Callable[[pydicom.Dataset], object], syntax: Any = ExplicitVRLittleEndian, limits: Limits = DEFAULT_LIMITS
) -> Any:
    """Puts a fractional segmentation of two frames, changed by ``edit``."""

    def write(folder: Path) -> Source:
        dataset = pydicom.Dataset()
        dataset.file_meta, dataset.SOPInstanceUID = pydicom.dataset.FileMetaDataset(), "1.2.3"
        dataset.SOPClassUID, dataset.Modality, dataset.SegmentationType = SegmentationStorage, "SEG", "FRACTIONAL"
        dataset.Rows = dataset.Columns = 4
        dataset.NumberOfFrames, dataset.MaximumFractionalValue, dataset.SamplesPerPixel = 2, 255, 1
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", bytes(32)
        segment, shared = pydicom.Dataset(), pydicom.Dataset()
        segment.SegmentNumber = 1
        dataset.SegmentSequence = [segment]
        plane, measures, number = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        plane.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        number.ReferencedSegmentNumber = 1
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
        shared.SegmentIdentificationSequence = [number]
        dataset.SharedFunctionalGroupsSequence = [shared]
        dataset.PerFrameFunctionalGroupsSequence = []
        for k in range(2):
            group, place = pydicom.Dataset(), pydicom.Dataset()
            place.ImagePositionPatient = [0, 0, 2 * k]
            group.PlanePositionSequence = [place]
            dataset.PerFrameFunctionalGroupsSequence.append(group)
        edit(dataset)
        return Source("dicom-seg", (saved(folder / "a.dcm", dataset, syntax),), limits=limits)

    return write


def put(keyword: str, value: Any, *path: str) -> Callable[[pydicom.Dataset], None]:
    """Sets a tag, in the last items of the sequences ``path``."""

    def edit(dataset: pydicom.Dataset) -> None:
        for name in path:
            dataset = getattr(dataset, name)[-1]
        setattr(dataset, keyword, value)

    return edit


def structures(points: list[float] | bytes, count: int = 1, number: int = 1, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Puts ``count`` structures with one contour each."""

    def write(folder: Path) -> Source:
        dataset = pydicom.Dataset()
        dataset.file_meta, dataset.SOPInstanceUID = pydicom.dataset.FileMetaDataset(), "1.2.3"
        dataset.SOPClassUID, dataset.Modality = RTStructureSetStorage, "RTSTRUCT"
        dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
        for n in range(count):
            roi, drawn, contour = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
            roi.ROINumber = drawn.ReferencedROINumber = number + n
            contour.ContourGeometricType = "CLOSED_PLANAR"
            text = points if isinstance(points, bytes) else "\\".join(f"{mm:g}" for mm in points).encode()
            tag = pydicom.tag.Tag("ContourData")
            contour[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(text), text, 0, True, True)
            drawn.ContourSequence = [contour]
            dataset.StructureSetROISequence.append(roi)
            dataset.ROIContourSequence.append(drawn)
        return Source("rtstruct", (saved(folder / "a.dcm", dataset, ImplicitVRLittleEndian),), limits=limits)

    return write


def zigzag(count: int, *, along: bool = False) -> bytes:
    """A polygon whose every edge goes from the first row to the last, or every other one along a row."""
    corners = ((n // 2 % 64, 63 * (n % 2)) if along else (63 * (n % 2), n % 64) for n in range(count))
    return b"\\".join(b"%d\\%d\\0" % corner for corner in corners)


def text(name: str, content: str) -> Callable[[Path], Path]:
    """Puts a file of rules."""

    def write(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return write


LAUGHS = "[words]\n" + "".join(f'a{n} = ["@a{n + 1}", "@a{n + 1}"]\n' for n in range(40)) + 'a40 = ["x"]\n'
ONE = '[[selections]]\nname = "t1"\n[selections.conditions]\n'
FACTS = SeriesFacts(series_description="x y z", contrast_agent=" " * 4000 + "x")


def judge(path: Path) -> None:
    """Rules, and a verdict."""
    load_rules(path).judge(FACTS, "x")


def facts(given: Source) -> None:
    """What the index keeps of a header."""
    (found,) = read_facts(given.paths)
    assert found is not None
    assert max(map(len, found.values.values())) <= 4096
    assert len(series_facts(found).series_description) <= 256


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "rows 0": ({"Rows": 0}, AGAIN),
    "bits stored 0": ({"BitsStored": 0}, AGAIN),
    "bits stored beyond those there are, inverted": (
        {"BitsStored": 65535, "PhotometricInterpretation": "MONOCHROME1"},
        AGAIN,
    ),
    "a slope of 1e300": ({"RescaleSlope": "1e300"}, AGAIN),
    "a slope of infinity": ({"RescaleSlope": "1e999"}, AGAIN),
    "an intercept beyond all": ({"RescaleIntercept": "-1e300"}, AGAIN),
    "a spacing of 0": ({"PixelSpacing": ["0", "1"]}, "PixelSpacing"),
    "a negative spacing": ({"PixelSpacing": ["-1", "1"]}, "PixelSpacing"),
    "a spacing of 1e-300": ({"PixelSpacing": ["1e-300", "1"]}, "PixelSpacing"),
    "a spacing of 1e8": ({"PixelSpacing": ["1e8", "1e8"]}, "PixelSpacing"),
    "a spacing of 1e300": ({"PixelSpacing": ["1e300", "1"]}, AGAIN),
    "parallel directions": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular"),
    "directions of no unit": ({"ImageOrientationPatient": [5, 0, 0, 0, 5, 0]}, "perpendicular"),
    "a position of 1e300": ({"ImagePositionPatient": ["0", "0", "1e300"]}, AGAIN),
    "frames beyond counting": ({"NumberOfFrames": 2**31 - 1}, "multi-frame"),
}

ROWS: dict[str, Row] = {
    **{name: Row(series(changes), image, words) for name, (changes, words) in HEADERS.items()},
    "65535 rows and columns": Row(series({"Rows": 65535, "Columns": 65535}), image, VOXELS, LimitError),
    "65535 rows and columns, deflated": Row(
        series({"Rows": 65535, "Columns": 65535}, syntax=DeflatedExplicitVRLittleEndian), image, VOXELS, LimitError
    ),
    "a slice of more than its share": Row(series({}, limits=Limits(voxels=12 * 32 - 1)), image, VOXELS, LimitError),
    "a series of more voxels than allowed": Row(
        series(*[{}] * 33, limits=Limits(voxels=12 * 32)), image, VOXELS, LimitError
    ),
    "fewer pixels than rows": Row(series({"Rows": 4000, "Columns": 4000}), image, AGAIN),
    "JPEG 2000 of another size": Row(frames(JPEG2000Lossless, j2k(6000, 6000)), image, "6000x6000x1.*3x4x1"),
    "JPEG 2000 in precincts of a pixel": Row(
        frames(JPEG2000Lossless, j2k(4000, 4000, 0), Rows=4000, Columns=4000), image, "nothing that fits"
    ),
    "JPEG 2000 cut in its header": Row(frames(JPEG2000Lossless, j2k(3, 4)[:20]), image, AGAIN),
    "JPEG of another size": Row(frames(JPEGBaseline8Bit, jpeg(0xC0, 60000, 60000)), image, "60000x60000x1.*3x4x1"),
    "JPEG-LS of another size": Row(frames(JPEGLSLossless, jpeg(0xF7, 60000, 60000)), image, "60000x60000x1.*3x4x1"),
    "JPEG without a frame": Row(frames(JPEGBaseline8Bit, b"\xff\xd8\xff\xd9"), image, "nothing that fits"),
    # The decoder panicked, which ended the whole run.
    "RLE that unpacks to more than there is": Row(
        frames(RLELossless, rle(b"\x81\7", b"\xf5\7")), image, "nothing that fits"
    ),
    "RLE of too few segments": Row(frames(RLELossless, rle(b"\xf5\7")), image, "nothing that fits"),
    "RLE whose segments lie nowhere": Row(
        frames(RLELossless, struct.pack("<16I", 2, 64, 2**32 - 1, *[0] * 13)), image, "nothing that fits"
    ),
    "a series nested 10000 deep": Row(raw("dicom", OPEN * 10_000), image, AGAIN),
    "a segmentation nested 10000 deep": Row(raw("dicom-seg", KIND + OPEN * 10_000), labels, AGAIN),
    "an undefined length without end": Row(
        raw("dicom-seg", KIND + element(0x0062_0002, b"SQ", ITEM, 0xFFFF_FFFF)), labels, AGAIN
    ),
    "20000 items": Row(
        raw("dicom-seg", KIND + element(0x5200_9230, b"SQ", ITEM * 20_000), limits=FEW), labels, LABELS, LimitError
    ),
    # Half a million of them took 9 seconds and 300 MB, of a file of 4 MB.
    "10000 items without elements": Row(
        raw("dicom-seg", KIND + element(0x5200_9230, b"SQ", ITEM * 10_000), limits=Limits(labels=2000)),
        labels,
        "claims 10000 items in 80... bytes.*" + LABELS,
        LimitError,
    ),
    "20000 private elements": Row(raw("dicom-seg", KIND + PRIVATE, limits=FEW), labels, LABELS, LimitError),
    "20000 private elements of a structure set": Row(
        raw("rtstruct", STRUCTURES + PRIVATE, limits=FEW), contours, LABELS, LimitError
    ),
    "a deflated bomb as a segmentation": Row(
        segmentation(put("PixelData", bytes(2**25)), DeflatedExplicitVRLittleEndian, Limits(voxels=2**20)),
        labels,
        VOXELS,
        LimitError,
        64,
    ),
    "a deflated bomb as a structure set": Row(
        raw(
            "rtstruct",
            pydicom.filewriter.zlib.compress(bytes(2**25), 9)[2:-4],
            DeflatedExplicitVRLittleEndian,
            Limits(voxels=2**20),
        ),
        contours,
        VOXELS,
        LimitError,
        64,
    ),
    # The packed part began like a tag below those of the header, or there was no preamble: unpacked without bound.
    "a deflated bomb that begins like a tag": Row(
        raw("rtstruct", b"\0\0\0\xff\xff" + BOMB, DeflatedExplicitVRLittleEndian, Limits(voxels=2**20)),
        contours,
        VOXELS,
        LimitError,
        64,
    ),
    "a deflated bomb without preamble": Row(
        raw("dicom", BOMB, DeflatedExplicitVRLittleEndian, Limits(voxels=2**20), preamble=b""),
        image,
        VOXELS,
        LimitError,
        64,
    ),
    "fractions of nothing": Row(segmentation(put("MaximumFractionalValue", 0)), labels, "Export it again"),
    "pixels of 775000 km": Row(
        segmentation(put("PixelSpacing", [7.75e8, 7.75e8], "SharedFunctionalGroupsSequence", "PixelMeasuresSequence")),
        labels,
        "wanted 0.001 to 10000 mm along each axis",
    ),
    "compressed frames left out": Row(
        segmentation(put("PixelData", pydicom.encaps.encapsulate([rle(bytes([241, 0]))])), RLELossless),
        labels,
        "fewer compressed frames than the 2 that it claims",
    ),
    "a segment of which nothing tells": Row(
        segmentation(
            lambda dataset: (
                put(
                    "ReferencedSegmentNumber", 32_770, "SharedFunctionalGroupsSequence", "SegmentIdentificationSequence"
                )(dataset),
                put("PixelData", bytes([255] * 32))(dataset),
            )
        ),
        labels,
    ),
    "more frames than places": Row(segmentation(put("NumberOfFrames", 100_000)), labels, "100000 frames and 2 places"),
    "more segments than labels": Row(
        segmentation(lambda d: setattr(d, "SegmentSequence", [d.SegmentSequence[0]] * 101), limits=FEW),
        labels,
        LABELS,
        LimitError,
    ),
    "a segment number beyond all labels": Row(
        segmentation(put("SegmentDescription", "label value 99999", "SegmentSequence")), labels, AGAIN
    ),
    "frames a kilometre apart": Row(
        segmentation(
            put("ImagePositionPatient", [0, 0, "1e6"], "PerFrameFunctionalGroupsSequence", "PlanePositionSequence"),
            limits=Limits(voxels=2**20),
        ),
        labels,
        VOXELS,
        LimitError,
    ),
    "frames of 60000 rows": Row(
        segmentation(lambda d: (put("Rows", 60000)(d), put("Columns", 60000)(d))), labels, VOXELS, LimitError
    ),
    "contours at 1e300": Row(structures([1e300, 0, 0, 1, 0, 0, 1, 1, 0]), contours, AGAIN),
    "contours at nan": Row(structures(b"nan\\0\\0\\1\\0\\0\\1\\1\\0"), contours, AGAIN),
    "contours of half a point": Row(structures([0, 0, 0, 1]), contours, AGAIN),
    "more contours than labels": Row(
        structures([0, 0, 0, 1, 0, 0, 1, 1, 0], 101, limits=FEW), contours, LABELS, LimitError
    ),
    "structures numbered beyond all labels": Row(structures([0, 0, 0, 1, 0, 0, 1, 1, 0], 3, 2**31 - 4), contours),
    # Their borders were marked all at once: gigabytes for a file of 3 MB, and minutes.
    "a polygon that crosses all rows 20000 times": Row(structures(zigzag(20_000)), contours),
    "a polygon that goes along rows 20000 times": Row(structures(zigzag(20_000, along=True)), contours),
    "a polygon that crosses more than may be drawn": Row(
        structures(zigzag(5_000), limits=DRAWN), contours, DRAWING, LimitError
    ),
    "a polygon that goes along more than may be drawn": Row(
        structures(zigzag(5_000, along=True), limits=DRAWN), contours, DRAWING, LimitError
    ),
    "structures that cover more than may be drawn": Row(
        structures([0, 0, 0, 999, 0, 0, 999, 999, 0], 100, limits=Limits(drawn_pixels=2**21)),
        lambda given: RT.read_labels_on(given, WIDE),
        "around 100000000 pixels.*" + DRAWING,
        LimitError,
    ),
    "words that double with every list": Row(text("a.toml", f'{LAUGHS}{ONE}Text = ["@a0"]\n'), judge),
    "lists of words a hundred deep": Row(
        text(
            "a.json",
            json.dumps(
                {
                    "words": {f"a{n}": [f"@a{n + 1}"] for n in range(99)} | {"a99": ["x"]},
                    "selections": [{"name": "t1", "conditions": {"Text": ["@a0"]}}],
                }
            ),
        ),
        judge,
        "more than 50 deep",
        UsageError,
    ),
    "points beyond numbers": Row(
        text("a.json", f'{{"threshold": {10**400}, "selections": []}}'), judge, "threshold", UsageError
    ),
    "an echo time beyond numbers": Row(
        text("a.toml", f"{ONE}EchoTime = [1, 0x{'f' * 5000}]\n"), judge, "wanted a number", UsageError
    ),
    "an expression that repeats without end": Row(
        text("a.toml", f'{ONE}Text = "a{{99999999999}}"\n'), judge, "no regular expression", UsageError
    ),
    "an agent of 4000 blanks": Row(text("a.toml", f"{ONE}ContrastBolusAgent = false\n"), judge),
    "a description of 60000 letters": Row(
        series({"SeriesDescription": "a" * 60_000, "ImageType": "A" * 60_000}), facts
    ),
}
