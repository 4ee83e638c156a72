"""Small DICOM files to begin with: slices of every syntax, segmentations, structure sets, directories."""

import io
import struct
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RLELossless,
    RTStructureSetStorage,
)

from benchmarks.common import REAL_DATA
from segtool.case import LabelMap, Source
from segtool.formats import get_format
from segtool.outputs import Result, get_output
from segtool.spec import ChannelSpec, LabelSpec, ModelSpec, SliceSpec

PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
SIZE = (6, 8)
"""Rows, columns."""
_LARGER = (33, 36)
"""Encoders of JPEG 2000 want so many for their six resolutions."""


def slice_of(number: int = 0, bits: int = 16, size: tuple[int, int] = SIZE, **changes: object) -> Dataset:
    """A slice of an axial series, 3 mm above the one before it; a tag set to None is left out."""
    rows, columns = size
    values = np.random.default_rng(number).integers(0, 2**bits - 1, size).astype(f"<u{bits // 8}")
    tags: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": f"1.2.3.{number + 1}",
        "StudyInstanceUID": "1.2.6",
        "SeriesInstanceUID": "1.2.3",
        "FrameOfReferenceUID": "1.2.9",
        "Modality": "MR",
        "SeriesDescription": "t1 mprage",
        "PatientName": "Nobody^Known",
        "PatientID": "0815",
        "StudyDate": "20191231",
        "EchoTime": "3.5",
        "SliceThickness": "3",
        "InstanceNumber": number + 1,
        "ImagePositionPatient": ["-10", "-20.5", f"{3 * number}"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": ["0.5", "0.75"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": values.tobytes(),
    }
    dataset = Dataset()
    for keyword, value in (tags | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def packed(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian, *, has_ends: bool = False) -> bytes:
    """The file; with ``has_ends`` sequences and items end with delimiters."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", MRImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    _with_ends(dataset, has_ends)
    if "PixelData" in dataset and not syntax.is_compressed:
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 and syntax != ExplicitVRBigEndian else "OW"
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, implicit_vr=syntax == ImplicitVRLittleEndian,
                     little_endian=syntax != ExplicitVRBigEndian, enforce_file_format=True)  # fmt: skip
    return out.getvalue()


def _with_ends(dataset: Dataset, has_ends: bool) -> None:
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = has_ends
            for item in element.value:
                item.is_undefined_length_sequence_item = has_ends
                _with_ends(item, has_ends)


def _coded() -> Dataset:
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "T1"
    outer.ReferencedSOPInstanceUID, outer.PurposeOfReferenceCodeSequence = "1.2.5", [inner]
    return outer


@cache
def plain_slices() -> tuple[bytes, ...]:
    """Of every syntax without compression, with sequences, padding, rescale, and without a place."""
    made = [packed(slice_of(), syntax) for syntax in (*PLAIN, DeflatedExplicitVRLittleEndian)]
    more: list[dict[str, object]] = [
        {"RescaleSlope": "0.5", "RescaleIntercept": "-3", "PixelPaddingValue": 7, "PixelPaddingRangeLimit": 20},
        {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11},
        {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None},
        {"ReferencedImageSequence": [_coded(), _coded()], "SequenceName": "*tfl3d1"},
    ]
    made += [packed(slice_of(**one), has_ends=True) for one in more]
    made += [packed(slice_of(bits=8)), made[1][132:]]
    for path in sorted((REAL_DATA / "dicom").rglob("*.dcm"))[:1]:
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID in PLAIN:
            dataset.PixelData = dataset.PixelData[: 2 * 64]
            dataset.Rows = dataset.Columns = 8
            made.append(packed(dataset, dataset.file_meta.TransferSyntaxUID))
    return tuple(made)


def blank_htj2k(rows: int, columns: int) -> bytes:
    """A codestream of 16 bits whose only packet is empty. Source: ITU-T T.800 annex A, T.814 annex A."""
    segments = {
        0x51: struct.pack(">HHIIIIIIIIHBBB", 41, 0x4000, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1),
        0x50: struct.pack(">HIH", 8, 0x0002_0000, 0),
        0x52: struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 0, 4, 4, 0x40, 1),
        0x5C: struct.pack(">HBB", 4, 0x40, 16 << 3),
        0x90: struct.pack(">HHIBB", 10, 0, 12 + 2 + 1, 0, 1),
    }
    head = b"".join(bytes((0xFF, marker)) + segment for marker, segment in segments.items())
    return b"\xff\x4f" + head + b"\xff\x93" + b"\0" + b"\xff\xd9"


@cache
def compressed_slices() -> tuple[bytes, ...]:
    """Of every syntax that is read here, by whatever encoder there is."""
    made = []
    for syntax, bits in ((RLELossless, 16), (RLELossless, 8), (JPEGLSLossless, 16), (JPEG2000Lossless, 16),
                         (JPEG2000, 8), (JPEG2000Lossless, 8)):  # fmt: skip
        dataset = slice_of(bits=bits, size=_LARGER)
        if bits == 16:
            dataset.BitsStored, dataset.HighBit = 12, 11
            dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") & 4095).tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
        dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
        dataset.compress(syntax, **({"j2k_cr": [4]} if syntax == JPEG2000 else {}), generate_instance_uid=False)
        made.append(packed(dataset, syntax))
    dataset = slice_of()
    dataset.PixelData = pydicom.encaps.encapsulate([blank_htj2k(*SIZE)])
    dataset["PixelData"].VR = "OB"
    made.append(packed(dataset, HTJ2K))
    made += [_jpeg(syntax) for syntax in (JPEGBaseline8Bit, JPEGLosslessSV1)]
    return tuple(made)


def _jpeg(syntax: UID) -> bytes:
    """8 bits by Pillow; the lossless one is of a predictor for which all differences are 0."""
    from PIL import Image

    dataset, out = slice_of(bits=8), io.BytesIO()
    if syntax == JPEGBaseline8Bit:
        Image.fromarray(np.frombuffer(dataset.PixelData, np.uint8).reshape(SIZE)).save(out, "JPEG", quality=90)
    else:
        rows, columns = SIZE
        # One code of one bit, for a difference of nothing, 48 times.
        out.write(b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB3B", 11, 8, rows, columns, 1, 1, 0x11, 0))
        out.write(b"\xff\xc4" + struct.pack(">HB16BB", 20, 0, 1, *[0] * 15, 0))
        out.write(b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0) + bytes(6) + b"\xff\xd9")
    code = out.getvalue()
    dataset.PixelData = pydicom.encaps.encapsulate([code + b"\0" * (len(code) % 2)])
    dataset["PixelData"].VR = "OB"
    return packed(dataset, syntax)


@cache
def segmentations() -> tuple[bytes, ...]:
    """Ours of each kind, as written, with ends of sequences, and compressed."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(4):
            paths.append(Path(folder, f"{number}.dcm"))
            paths[-1].write_bytes(packed(slice_of(number)))
        scan = Source("dicom", tuple(paths))
        geometry = get_format("dicom").describe(scan).geometry
        labels = np.zeros(geometry.shape, np.uint8)
        labels[1:4, 2, 1] = 1
        labels[4, 1:3, 2] = 4
        spec = ModelSpec(
            name="fuzz",
            channels=(ChannelSpec(name="t1"),),
            labels=(LabelSpec(name="NCR", value=1), LabelSpec(name="ET", value=4)),
            input=SliceSpec(size=(16, 16)),
        )
        result = Result("a", scan, LabelMap(labels, geometry), spec, "ab" * 32)
        shares = np.stack([labels == 1, labels == 4]).astype(np.float32) * np.float32(0.7)
        made = []
        for kind, one in (
            ("dicom-seg", result),
            ("dicom-labelmap", result),
            ("dicom-seg", replace(result, probabilities=shares)),
        ):
            path = Path(folder, "seg.dcm")
            get_output(kind).write(path, one)
            dataset = pydicom.dcmread(path)
            made += [path.read_bytes(), packed(dataset, has_ends=True)]
        made.append(packed(dataset, DeflatedExplicitVRLittleEndian))
        dataset.compress(RLELossless, generate_instance_uid=False)
        return (*made, packed(dataset, RLELossless, has_ends=True))


@cache
def structure_sets() -> tuple[bytes, ...]:
    """Squares with holes, points and lines, of two structures."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = RTStructureSetStorage, "1.2.3.7", "RTSTRUCT"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number in (1, 5):
        described, drawn = Dataset(), Dataset()
        described.ROINumber = drawn.ReferencedROINumber = number
        described.ROIName, described.ReferencedFrameOfReferenceUID = "GTV", "1.2.9"
        described.ROIDescription = "label value 2" if number == 5 else ""
        drawn.ContourSequence = []
        for kind, edge in (("CLOSED_PLANAR", 2.0), ("CLOSED_PLANAR", 1.0), ("POINT", 0.0), ("CLOSEDPLANAR_XOR", 2.5)):
            contour = Dataset()
            contour.ContourGeometricType = kind
            corners = [
                (-7 - edge, -18 - edge),
                (-7 + edge, -18 - edge),
                (-7 + edge, -18 + edge),
                (-7 - edge, -18 + edge),
            ]
            contour.NumberOfContourPoints = len(corners)
            contour.ContourData = [f"{mm:.2f}" for x, y in corners for mm in (x, y, 3.0 * (number == 5))]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(described)
        dataset.ROIContourSequence.append(drawn)
    return (
        packed(dataset, ImplicitVRLittleEndian),
        packed(dataset, has_ends=True),
        packed(dataset, DeflatedExplicitVRLittleEndian),
        packed(dataset, ExplicitVRBigEndian, has_ends=True),
    )


@cache
def directories() -> tuple[bytes, ...]:
    """Of a disk with one image, and one that lies outside."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.FileSetID = MediaStorageDirectoryStorage, "DISK"
    records = []
    for kind, name in (("PATIENT", None), ("IMAGE", ["SCAN", "0"]), ("IMAGE", ["..", "..", "ETC"])):
        record = Dataset()
        record.OffsetOfTheNextDirectoryRecord = record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
        record.RecordInUseFlag, record.DirectoryRecordType = 0xFFFF, kind
        if name:
            record.ReferencedFileID = name
        records.append(record)
    dataset.DirectoryRecordSequence = records
    return packed(dataset, has_ends=True), packed(dataset)
