"""The short road through plain DICOM files gives what pydicom gives, or leaves the file to it."""

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
from dicom_files import PLAIN, by_pydicom, dataset_of, header_outcome, outcome, private_block, saved, sequence
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

from segtool.case import Source
from segtool.errors import UnreadableFileError
from segtool.formats.dicom import read as dicom_read
from segtool.formats.dicom.elements import OddError, find, find_in_file
from segtool.formats.dicom.index import read_facts
from segtool.formats.dicom.odd import odd_header
from segtool.formats.dicom.plain import plain_pixels
from segtool.formats.dicom.series import DicomFormat
from segtool.formats.dicom.slice import TAGS
from segtool.formats.dicom.stack import in_order
from segtool.limits import Limits


def same(path):
    """What both roads make of a file, which must be equal to the bit."""
    (header, values), (other, expected) = dicom_read.read_slice(path), by_pydicom(path)
    assert header == other == dicom_read.read_header(path) == odd_header(path)
    assert values.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(values, expected)


def is_plain(path):
    try:
        content = path.read_bytes()
        elements = find(content, TAGS)
    except OddError:
        return False
    return plain_pixels(elements) is not None and elements.start + elements.length == len(content)


HEADERS = {
    "as it comes": {},
    "odd number of bytes": {"dtype": "uint8", "size": (3, 5)},
    "signed bytes": {"dtype": "int8"},
    "unsigned": {"dtype": "uint16"},
    "32 bits": {"dtype": "int32"},
    "32 bits unsigned": {"dtype": "uint32"},
    "12 bits below others": {"dtype": "uint16", "BitsStored": 12, "HighBit": 11},
    "12 bits with a sign": {"BitsStored": 12, "HighBit": 11},
    "5 bits of a byte": {"dtype": "int8", "BitsStored": 5, "HighBit": 4},
    "20 bits of 32": {"dtype": "int32", "BitsStored": 20, "HighBit": 19},
    "inverted": {"dtype": "uint16", "BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"},
    "inverted 32 bits": {"dtype": "uint32", "PhotometricInterpretation": "MONOCHROME1"},
    "inverted with a sign": {"PhotometricInterpretation": "MONOCHROME1"},
    "rescaled": {"RescaleSlope": "0.37", "RescaleIntercept": "-1024"},
    "rescaled 32 bits": {"dtype": "int32", "RescaleSlope": "1.7", "RescaleIntercept": " 3.5E-1"},
    "empty thickness": {"SliceThickness": "", "SpacingBetweenSlices": "4"},
    "one frame": {"NumberOfFrames": 1},
    "no place": {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None},
    "no modality": {"Modality": None},
    "sequences": {"ReferencedImageSequence": sequence(None, None, undefined=False)},
    "sequences with ends": {
        "ReferencedImageSequence": sequence(sequence(None, undefined=True), None, undefined=True),
        "RequestAttributesSequence": sequence(undefined=True),
    },
    "a long header": {"ImageComments": "a" * 10240, "UserContentLabel": None},
}


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("what", HEADERS)
def test_a_plain_file_is_read_as_pydicom_reads_it(tmp_path, syntax, what):
    path = saved(tmp_path / "a.dcm", dataset_of(**HEADERS[what]), syntax)
    # Bytes written as words of big endian are for pydicom to put back.
    assert is_plain(path) == (not (syntax == ExplicitVRBigEndian and HEADERS[what].get("dtype", "")[-4:] == "int8"))
    same(path)


def test_sequences_with_ends_have_ends(tmp_path):
    content = saved(tmp_path / "a.dcm", dataset_of(**HEADERS["sequences with ends"])).read_bytes()
    assert content.count(b"\xfe\xff\xdd\xe0") == 3
    assert content.count(b"\xfe\xff\x0d\xe0") == 3


@pytest.mark.parametrize("size", [20_000, 300_000])
def test_a_header_longer_than_the_first_bytes_is_found(tmp_path, size):
    path = saved(tmp_path / "a.dcm", private_block(dataset_of(), size))
    assert find_in_file(path, TAGS).start > size
    same(path)


def rle(dataset):
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def with_trailing(dataset):
    dataset.DataSetTrailingPadding = bytes(8)
    return dataset


ODD = {
    "deflated": (dataset_of, DeflatedExplicitVRLittleEndian),
    "RLE": (lambda: rle(dataset_of()), RLELossless),
    "bytes as words": (lambda: dataset_of("uint8", (3, 5)), ExplicitVRBigEndian),
    "padding": (lambda: dataset_of(PixelData=bytes(30)), ExplicitVRLittleEndian),
    "elements after the pixels": (lambda: with_trailing(dataset_of()), ExplicitVRLittleEndian),
    "64 bits": (lambda: dataset_of("int64"), ExplicitVRLittleEndian),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_not_plain_is_left_to_pydicom(tmp_path, what):
    make, syntax = ODD[what]
    path = saved(tmp_path / "a.dcm", make(), syntax)
    assert not is_plain(path)
    same(path)


EDITS = {
    "an unknown type": (b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00ZZ"),
    "a tag before its place": (b"\x18\x00\x50\x00DS", b"\x08\x00\x50\x00DS"),
    "a number with a letter": (b"-1.5\\2e1\\+3 ", b"-1.5\\2e1\\+x "),
    "a number that is none": (b"-1.5\\2e1\\+3 ", b"-1.5\\nan\\+3 "),
    "a number beyond all": (b"-1.5\\2e1\\+3 ", b"-1.5\\9e9\\+3 "),
    "an underscore": (b"-1.5\\2e1\\+3 ", b"-1_5\\2e1\\+3 "),
    "a zero byte in a number": (b"-1.5\\2e1\\+3 ", b"-1.5\\2e1\\+3\0"),
    "another sign": (b"\x28\x00\x03\x01US\x02\x00\x01\x00", b"\x28\x00\x03\x01US\x02\x00\x07\x00"),
    "more bits than there are": (b"\x28\x00\x01\x01US\x02\x00\x10\x00", b"\x28\x00\x01\x01US\x02\x00\x63\x00"),
    "no rows": (b"\x28\x00\x10\x00US\x02\x00\x03\x00", b"\x28\x00\x10\x00US\x02\x00\x00\x00"),
    "more rows": (b"\x28\x00\x10\x00US\x02\x00\x03\x00", b"\x28\x00\x10\x00US\x02\x00\x04\x00"),
    "fewer rows": (b"\x28\x00\x10\x00US\x02\x00\x03\x00", b"\x28\x00\x10\x00US\x02\x00\x02\x00"),
    "rows as a signed number": (b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00SS"),
    "pixels of another type": (b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00UN"),
    "pixels without an end": (b"OW\0\0\x18\0\0\0", b"OW\0\0\xff\xff\xff\xff"),
    "an implicit syntax for explicit elements": (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),
    "a zero byte in the character set": (b"ISO_IR 100", b"ISO\x00IR 100"),
    "no such grey": (b"MONOCHROME2", b"MONOCHROME3"),
    "no such syntax": (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.1\0"),
}


def agree(path):
    assert outcome(dicom_read.read_slice, path) == outcome(by_pydicom, path)
    assert header_outcome(dicom_read.read_header, path) == header_outcome(odd_header, path)


@pytest.mark.parametrize("what", EDITS)
def test_both_roads_say_the_same_of_a_file_that_is_not_to_the_letter(tmp_path, what):
    before, after = EDITS[what]
    path = saved(tmp_path / "a.dcm", dataset_of())
    content = path.read_bytes()
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, after))
    agree(path)


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.keyword)
def test_both_roads_say_the_same_of_damage(tmp_path, syntax):
    chance = random.Random(9)
    sequences = sequence(sequence(None, undefined=True), None, undefined=True)
    made = dataset_of("uint16", BitsStored=12, HighBit=11, ReferencedImageSequence=sequences, PixelData=bytes(24))
    path = saved(tmp_path / "a.dcm", made, syntax)
    content = path.read_bytes()
    for length in range(128, len(content), 7):
        path.write_bytes(content[:length])
        agree(path)
    for _ in range(250):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 2)):
            damaged[chance.randrange(128, len(content))] = chance.randrange(256)
        path.write_bytes(damaged)
        agree(path)


def test_sequences_nested_without_end_are_no_crash(tmp_path):
    path = saved(tmp_path / "a.dcm", dataset_of())
    content = path.read_bytes()
    place = content.index(b"\x10\x00\x10\x00PN")
    level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(content[:place] + 3000 * level + content[place:])
    agree(path)


def test_a_deflated_file_that_ends_early_is_one_line(tmp_path):
    path = saved(tmp_path / "a.dcm", dataset_of(size=(32, 32)), DeflatedExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-1000])
    assert read_facts([path]) == [None]
    for read in (dicom_read.read_slice, dicom_read.read_header):
        with pytest.raises(UnreadableFileError, match="truncated"):
            read(path)


def test_64_bits_are_inverted_in_their_own_type(tmp_path):
    dataset = dataset_of("uint64", PhotometricInterpretation="MONOCHROME1")
    _, values = dicom_read.read_slice(saved(tmp_path / "a.dcm", dataset))
    stored = np.frombuffer(dataset.PixelData, np.uint64).reshape(3, 4)
    np.testing.assert_array_equal(values, ~stored)


def test_a_series_beyond_memory_is_one_line(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.dcm", dataset_of())
    header, _ = dicom_read.read_slice(path)
    huge = np.broadcast_to(np.uint8(0), (2**30, 2**30))
    monkeypatch.setattr(dicom_read.SeriesReader, "slice", lambda *_, **__: (header, huge))
    with pytest.raises(UnreadableFileError, match="MemoryError"):
        DicomFormat().read_image(Source("dicom", (path, path), limits=Limits(voxels=2**62)))


def test_every_file_is_read_once(tmp_path, monkeypatch):
    paths = []
    for number in range(3):
        dataset = dataset_of(ImagePositionPatient=[0, 0, number], RescaleSlope="2")
        paths.append(saved(tmp_path / f"{number}.dcm", dataset))
    opened = []

    def counted(real):
        def count(file, *args, **options):
            opened.append(Path(file).name)
            return real(file, *args, **options)

        return count

    monkeypatch.setattr(io, "open", counted(io.open))
    monkeypatch.setattr(os, "open", counted(os.open))
    DicomFormat().read_image(Source("dicom", tuple(paths)))
    assert sorted(opened) == ["0.dcm", "1.dcm", "2.dcm"]
    opened.clear()
    assert [facts.text("Modality") for facts in read_facts(paths[:1])] == ["MR"]
    assert opened == ["0.dcm"]


def test_slices_of_different_types_become_one_that_holds_both(tmp_path):
    kinds = ({"dtype": "uint16"}, {}, {"RescaleSlope": "2"})
    paths = [
        saved(tmp_path / f"{z}.dcm", dataset_of(**kind, ImagePositionPatient=[0, 0, z]), ExplicitVRBigEndian)
        for z, kind in enumerate(kinds)
    ]
    source = Source("dicom", tuple(paths[:2]))
    image = DicomFormat().read_image(source)
    assert image.data.dtype.name == "int32" == DicomFormat().describe(source).dtype
    whole = DicomFormat().read_image(Source("dicom", tuple(paths)))
    for index, path in enumerate(paths):
        np.testing.assert_array_equal(whole.data[0, :, :, index], by_pydicom(path)[1].T)


@given(st.integers(1, 9).flatmap(lambda count: st.permutations(range(count))))
def test_a_stack_is_put_in_order_in_its_place(order):
    stack = np.arange(2 * len(order)).reshape(len(order), 2)
    expected = stack[order]
    ordered = in_order(stack, np.array(order))
    assert np.shares_memory(ordered, stack)
    np.testing.assert_array_equal(ordered, expected)


def test_real_files_are_read_as_pydicom_reads_them(real_data):
    files = [path for path in (real_data / "dicom").rglob("*") if path.is_file() and path.suffix != ".gz"]
    plain = 0
    for path in sorted(files)[::7]:
        plain += is_plain(path)
        agree(path)
    assert plain
