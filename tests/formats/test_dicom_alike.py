"""What one file teaches of the next changes nothing of what is read, only how long it takes."""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dicom_files import PLAIN, by_pydicom, dataset_of, header_outcome, outcome, private_block, saved, sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian

from segtool.case import Source
from segtool.formats.dicom.alike import AlikeHeaders
from segtool.formats.dicom.elements import OddError, find, find_in_file, values_in_file, walk_to_tag
from segtool.formats.dicom.index import read_facts
from segtool.formats.dicom.odd import odd_header
from segtool.formats.dicom.read import SeriesReader
from segtool.formats.dicom.series import DicomFormat
from segtool.formats.dicom.slice import TAGS

END = 0x0028_0000
ENDS = (None, END)


def walked(content, end):
    return find(content, TAGS) if end is None else walk_to_tag(content, TAGS, end)[0]


def found_by(act, *arguments):
    try:
        return act(*arguments)
    except OddError as error:
        return type(error)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Files whose headers are nearly the same, in each of three encodings."""
    folder = tmp_path_factory.mktemp("alike")
    nested = sequence(sequence(None, undefined=True), None, undefined=True)
    made = []
    for syntax in PLAIN:
        for number, changes in enumerate(
            (
                {},
                {"ImagePositionPatient": ["-1.25", "2e1", "+3"]},
                {"ImagePositionPatient": ["-1.5", "2e1", "+3.125"], "SOPInstanceUID": "1.2.3.5678"},
                {"ReferencedImageSequence": nested},
                {"RescaleSlope": "2", "RescaleIntercept": "-1"},
            )
        ):
            dataset = dataset_of("uint16", **({"PixelData": bytes(24)} | changes))
            made.append(saved(folder / f"{syntax.keyword}{number}.dcm", dataset, syntax).read_bytes())
    return made


# They have seen whatever the examples before have shown them.
WARM = {end: AlikeHeaders(TAGS, end) for end in ENDS}


@pytest.mark.parametrize("end", ENDS)
@given(data=st.data())
@settings(max_examples=400)
def test_elements_are_those_of_a_walk_whatever_the_bytes(contents, end, data):
    content = bytearray(data.draw(st.sampled_from(contents)))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(120, len(content) - 1))
        match data.draw(st.sampled_from(("change", "insert", "remove"))):
            case "change":
                content[place] = data.draw(st.integers(0, 255))
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=4))
            case "remove":
                del content[place : place + data.draw(st.integers(1, 4))]
    content = bytes(content[: data.draw(st.integers(132, len(content) + 1))])
    assert found_by(WARM[end].find, content) == found_by(walked, content, end)


@pytest.mark.parametrize("end", ENDS)
def test_every_byte_matters_as_it_does_to_a_walk(contents, end):
    content = contents[3 + len(contents) // 3]
    for place in range(128, len(content)):
        alike = AlikeHeaders(TAGS, end)
        alike.find(content)
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        assert found_by(alike.find, changed) == found_by(walked, changed, end)


@pytest.mark.parametrize("end", ENDS)
def test_a_header_that_ends_early_is_as_for_a_walk(contents, end):
    for content in contents[::4]:
        alike = AlikeHeaders(TAGS, end)
        alike.find(content)
        for length in range(0, len(content), 3):
            assert found_by(alike.find, content[:length]) == found_by(walked, content[:length], end)


def test_a_syntax_of_the_same_length_is_another_one(contents):
    content = contents[5]
    alike = AlikeHeaders(TAGS)
    assert alike.find(content).endian == "<"
    big = content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0")
    assert big != content
    assert found_by(alike.find, big) == found_by(find, big, TAGS)


@pytest.mark.parametrize("size", [0, 40, 80, 20_000, 300_000, 2, 0])
def test_headers_of_any_length_follow_each_other(tmp_path, size):
    alike = AlikeHeaders(TAGS)
    for number, length in enumerate((0, size, 10, 100_000, size, 0)):
        path = saved(tmp_path / f"{number}.dcm", private_block(dataset_of(), length))
        assert alike.find_in_file(path) == find_in_file(path, TAGS) == find(path.read_bytes(), TAGS)


def test_the_elements_before_a_tag_are_found_without_a_preamble_too(tmp_path):
    alike = AlikeHeaders(TAGS, END)
    path = saved(tmp_path / "a.dcm", dataset_of())
    for begin in (0, 132, 0, 132):
        bare = tmp_path / "bare"
        bare.write_bytes(path.read_bytes()[begin:])
        found = alike.find_in_file(bare)
        assert (found.values, found.endian) == values_in_file(bare, TAGS, END)
        assert found.values["Modality"] == b"MR"
        assert "Rows" not in found.values


def test_no_more_than_some_layouts_are_kept(tmp_path):
    alike = AlikeHeaders(TAGS)
    for size in range(0, 100, 2):
        alike.find_in_file(saved(tmp_path / "a.dcm", private_block(dataset_of(), size)))
    assert len(alike._layouts) == 32
    many = sequence(*[None] * 5000, undefined=True)
    huge = AlikeHeaders(TAGS)
    huge.find_in_file(saved(tmp_path / "a.dcm", dataset_of(ReferencedImageSequence=many)))
    assert not huge._layouts


def test_threads_share_what_is_known(contents):
    alike = AlikeHeaders(TAGS)
    expected = [find(content, TAGS) for content in contents]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [alike.find(content) for content in contents], range(40)):
            assert found == expected


# Each value that a header may have beside another one, and those that make a file odd or refused.
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "ImagePositionPatient": st.sampled_from([None, "", ["1", "2", "3"], ["-1.75", "2", "3"], ["1", "2"]]),
        "ImageOrientationPatient": st.sampled_from([None, [0, 1, 0, 1, 0, 0]]),
        "PixelSpacing": st.sampled_from([None, [1, 1], [0, 1]]),
        "SliceThickness": st.sampled_from([None, "", "2"]),
        "RescaleSlope": st.sampled_from(["1", "2", "0.5"]),
        "RescaleIntercept": st.sampled_from(["0", "-1024"]),
        "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "RGB"]),
        "FrameOfReferenceUID": st.sampled_from(["1.2", "1.3"]),
        "PixelPaddingValue": st.sampled_from([0, 5]),
        "BitsStored": st.sampled_from([12, 16]),
        "Modality": st.sampled_from([None, "CT", "SEG"]),
        "ImageType": st.sampled_from([["ORIGINAL", "PRIMARY"], ["DERIVED", "MOSAIC"]]),
        "NumberOfFrames": st.sampled_from([1, 2]),
    },
)
SYNTAXES = st.sampled_from([*PLAIN, DeflatedExplicitVRLittleEndian])
READER = SeriesReader()


@given(CHANGES, SYNTAXES, st.sampled_from(["uint16", "int16", "int32"]), st.sampled_from([(3, 4), (4, 3)]))
@settings(max_examples=150, deadline=None)
def test_a_file_is_read_alike_whatever_came_before(tmp_path_factory, changes, syntax, dtype, size):
    path = saved(tmp_path_factory.getbasetemp() / "one.dcm", dataset_of(dtype, size, **changes), syntax)
    into = np.full((3, 4), 77, np.uint16)
    expected = outcome(by_pydicom, path)
    assert outcome(lambda one: READER.slice(one, into=into), path) == expected
    assert outcome(READER.slice, path) == outcome(SeriesReader().slice, path) == expected
    assert header_outcome(READER.header, path) == header_outcome(odd_header, path)


STRAIGHT = {
    "as stored": ({}, True),
    "4 bits unused": ({"BitsStored": 12}, True),
    "another place": ({"ImagePositionPatient": [1, 2, 3]}, True),
    "rescaled": ({"RescaleSlope": "2"}, False),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, False),
    "another type": ({"dtype": "int16"}, False),
    "another size": ({"size": (4, 3)}, False),
}


@pytest.mark.parametrize("what", STRAIGHT)
def test_pixels_go_straight_to_their_place_where_they_fit(tmp_path, what):
    changes, is_straight = STRAIGHT[what]
    path = saved(tmp_path / "a.dcm", dataset_of(**({"dtype": "uint16"} | changes)))
    stack = np.full((3, 3, 4), 77, "<u2")
    row = stack[1]
    header, values = SeriesReader().slice(path, into=row)
    assert (values is row) == is_straight
    expected_header, expected = by_pydicom(path)
    assert header == expected_header
    np.testing.assert_array_equal(values, expected)
    assert (stack[::2] == 77).all()
    assert is_straight or (row == 77).all()


def test_damage_in_the_midst_of_a_series_is_as_in_a_file_alone(tmp_path):
    chance, reader = random.Random(3), SeriesReader()
    path = saved(tmp_path / "a.dcm", dataset_of("uint16", BitsStored=12))
    content = path.read_bytes()
    into = np.zeros((3, 4), np.uint16)
    damaged = [content[:length] for length in range(128, len(content), 5)]
    damaged += [content + bytes(more) for more in (1, 2, 24)]
    for _ in range(150):
        changed = bytearray(content)
        changed[chance.randrange(128, len(content))] = chance.randrange(256)
        damaged.append(bytes(changed))
    for each in damaged:
        path.write_bytes(content)
        reader.slice(path, into=into)
        path.write_bytes(each)
        assert outcome(lambda one: reader.slice(one, into=into), path) == outcome(by_pydicom, path)


def test_a_file_that_shrinks_while_it_is_read_gives_no_half_slice(tmp_path, monkeypatch):
    """The first read of pixels gives half of them; whoever asks again gets them all."""

    class Short(io.FileIO):
        def readinto(self, buffer):
            return super().readinto(memoryview(buffer).cast("B")[:10])

    path = saved(tmp_path / "a.dcm", dataset_of("uint16"))
    expected = by_pydicom(path)[1]
    monkeypatch.setattr(Path, "open", lambda self, *_, **__: Short(self))
    into = np.zeros((3, 4), np.uint16)
    _, values = SeriesReader().slice(path, into=into)
    assert values is not into
    np.testing.assert_array_equal(values, expected)


def test_a_series_of_changing_lengths_and_types_is_read_slice_by_slice(tmp_path):
    kinds = ({}, {"BitsStored": 12}, {"SOPInstanceUID": "1.2.3.4.567"}, {"PhotometricInterpretation": "MONOCHROME1"})
    paths = []
    for z in range(12):
        place = [0, 0, f"{z}." + z % 5 * "0"]
        dataset = dataset_of("uint16", **kinds[z % 4], ImagePositionPatient=place)
        paths.append(saved(tmp_path / f"{z}.dcm", dataset, PLAIN[z % 3]))
    image = DicomFormat().read_image(Source("dicom", tuple(paths)))
    for z, path in enumerate(paths):
        np.testing.assert_array_equal(image.data[0, :, :, z], by_pydicom(path)[1].T)


def test_keys_of_series_that_take_turns_are_their_own(tmp_path):
    kinds = ({}, {"SeriesInstanceUID": "1.2.4"}, {"Modality": "CT"}, {"Rows": None, "PixelData": None})
    paths = [saved(tmp_path / f"{n}.dcm", dataset_of(**kind)) for n, kind in enumerate(kinds)]
    facts = read_facts(paths + paths)
    assert [one.values for one in facts[:4]] == [one.values for one in facts[4:]]
    assert facts[0].series == facts[2].series != facts[1].series
    assert [one.text("Modality") for one in facts[:4]] == ["MR", "MR", "CT", "MR"]
    assert [one.size is not None for one in facts[:4]] == [True, True, True, False]


def test_files_without_a_series_are_series_of_their_own(tmp_path):
    paths = [saved(tmp_path / f"{n}.dcm", dataset_of(SeriesInstanceUID=None)) for n in range(2)]
    first, second = read_facts(paths)
    assert first.series != second.series
