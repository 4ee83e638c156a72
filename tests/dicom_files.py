"""DICOM files with any header for tests, and what pydicom makes of them."""

import dicom_series
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from segtool.errors import UnreadableFileError
from segtool.formats.dicom.odd import odd_slice
from segtool.formats.dicom.slice import intensities

PLAIN = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
BITS = np.random.default_rng(4)


def sequence(*items, undefined):
    """A sequence with an item for each of ``items``, a nested sequence or None; all have a length or a delimiter."""
    datasets = []
    for number, nested in enumerate(items):
        item = pydicom.Dataset()
        item.ReferencedSOPInstanceUID = f"1.2.{number}"
        if nested is not None:
            item.PurposeOfReferenceCodeSequence = nested
        item.is_undefined_length_sequence_item = undefined
        datasets.append(item)
    made = pydicom.Sequence(datasets)
    made.is_undefined_length = undefined
    return made


def dataset_of(dtype="int16", size=(3, 4), **changes):
    """A header and pixels whose bits are all at random; a tag set to None is left out."""
    dtype = np.dtype(dtype)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    pixels = BITS.bytes(size[0] * size[1] * dtype.itemsize)
    tags = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3",
        "Modality": "MR",
        "PatientName": "Nobody^Known",
        "SliceThickness": "3.5",
        "Rows": size[0],
        "Columns": size[1],
        "ImagePositionPatient": ["-1.5", "2e1", "+3"],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [2, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * dtype.itemsize,
        "BitsStored": 8 * dtype.itemsize,
        "HighBit": 8 * dtype.itemsize - 1,
        "PixelRepresentation": int(dtype.kind == "i"),
        "PixelData": pixels + bytes(len(pixels) % 2),
    }
    return dicom_series.filled(dataset, tags | changes)


def with_ends(dataset):
    """Sequences end with a delimiter where :func:`sequence` was told so; pydicom asks their elements."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = getattr(element.value, "is_undefined_length", False)
            for item in element.value:
                with_ends(item)


def saved(path, dataset, syntax=ExplicitVRLittleEndian):
    with_ends(dataset)
    if "PixelData" in dataset and not syntax.is_compressed:
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 and syntax != ExplicitVRBigEndian else "OW"
    return dicom_series.saved(path, dataset, syntax)


def by_pydicom(path):
    header, pixels = odd_slice(path, path.read_bytes())
    return header, intensities(header, pixels)


def private_block(dataset, size):
    block = dataset.private_block(0x0029, "SOMEBODY", create=True)
    block.add_new(0x10, "OB", bytes(size))
    return dataset


def outcome(read, path):
    """What a road makes of a file: header and values, or its one line."""
    try:
        header, values = read(path)
    except UnreadableFileError as error:
        return str(error)
    return header, values.tolist(), values.dtype.newbyteorder("=")


def header_outcome(read, path):
    try:
        return read(path)
    except UnreadableFileError as error:
        return str(error)
