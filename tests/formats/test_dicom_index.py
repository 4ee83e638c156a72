"""What headers say of many files: facts, volumes of a series, what is set aside."""

import random
import threading
import time
from pathlib import Path

import pydicom
import pytest
from dicom_series import PERSONAL, write_slices
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from segtool.formats.dicom import index as dicom_index
from segtool.formats.dicom.facts import DicomVolume
from segtool.formats.dicom.index import FileFacts, read_facts
from segtool.formats.dicom.texts import plane_of, series_facts
from segtool.formats.dicom.volumes import Volumes, volumes_of

AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


def facts_of(*paths):
    found = read_facts(paths)
    assert all(found)
    return found


def index(paths) -> Volumes:
    return volumes_of(facts_of(*paths))


def parts(paths) -> dict[str, int]:
    """Part of each volume that is a scan to its number of files."""
    return {volume.part: len(volume.paths) for volume in index(paths).volumes if not volume.set_aside}


def only(paths) -> DicomVolume:
    (volume,) = index(paths).volumes
    return volume


def at(*heights, **tags):
    return [{"ImagePositionPatient": [-10, -20, height]} | tags for height in heights]


# Facts


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_header_says_the_same_in_every_encoding(tmp_path, syntax):
    tags = {"EchoTime": "2.5", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "DiffusionBValue": 1000.0}
    (file,) = facts_of(*write_slices(tmp_path, [tags], syntax=syntax))
    assert (file.size, file.frames, file.number("EchoTime")) == ((2, 3), 1, 2.5)
    assert file.texts("ImageType") == ("ORIGINAL", "PRIMARY", "M")
    assert file.numbers("ImagePositionPatient", 3) == (-10, -20, 0)
    facts = series_facts(file)
    assert (facts.diffusion_b_value, facts.plane, facts.spacing_mm) == (1000, "axial", (1, 1))


@pytest.mark.parametrize("meta", [True, False], ids=["with a meta header", "without"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_file_without_preamble_says_the_same(tmp_path, syntax, meta):
    (path,) = write_slices(tmp_path, [{}], syntax=syntax)
    (wanted,) = facts_of(path)
    content = path.read_bytes()[132:]
    length = pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength + 12
    path.write_bytes(content if meta else content[length:])
    (found,) = facts_of(path)
    assert found.values == wanted.values


@pytest.mark.parametrize("content", [b"", b"no", bytes(200), b"\x08\x00\x05\x00CS" + bytes(20), b"PK\x03\x04" * 60])
def test_what_is_no_object_of_dicom_has_no_facts(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert read_facts([tmp_path / "a", tmp_path / "gone"]) == [None, None]


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 1100), byte=st.integers(0, 255))
def test_no_damage_of_a_header_is_more_than_a_missing_fact(tmp_path_factory, place, byte):
    folder = tmp_path_factory.mktemp("damage")
    (path,) = write_slices(folder, [{"EchoTime": "2.5"}])
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    assert len(volumes_of(filter(None, read_facts([path]))).volumes) <= 1


def test_texts_come_in_the_letters_of_the_header_and_name_nobody_in_print(tmp_path):
    tags = {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Müller^Jörg",
        "SeriesDescription": "Schädel t1 km",
        "InstitutionName": "Klinik am Berg",
        "ContrastBolusAgent": "Gadovist",
    }
    facts = series_facts(*facts_of(*write_slices(tmp_path, [tags])))
    assert (facts.series_description, facts.contrast_agent) == ("Schädel t1 km", "Gadovist")
    assert {"müller", "jörg", "klinik am berg", "berg", "20191231", "id987654", "acc555"} <= facts.personal
    assert not {"am", "klinik"} & facts.personal, "they would be hidden wherever a message has them"
    assert not any(word in repr(facts) for word in ("ller", "Sch", "Klinik", *PERSONAL.values()))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PatientName": "Li^A"}, {"li^a", "li"}),
        ({"PatientID": "12", "StudyID": "1"}, set()),
        ({"PatientID": "1234"}, {"1234"}),
        ({"PatientID": "#1"}, set()),
        ({"StudyInstanceUID": "1.2.840.99.20191231.5555"}, {"1.2.840.99.20191231.5555"}),
        ({"AcquisitionDateTime": "20191231101112.5"}, {"20191231"}),
        ({"PatientID": "X7"}, {"x7"}),
        ({"InstitutionName": "Hospital of Ely"}, {"hospital of ely"}),
        ({"InstitutionName": "University Hospital"}, {"university hospital"}),
    ],
)
def test_words_that_identify_nobody_are_not_personal(tmp_path, tags, words):
    nothing = dict.fromkeys((*PERSONAL, "StudyID"), "")
    assert series_facts(*facts_of(*write_slices(tmp_path, [nothing | tags]))).personal == words


@pytest.mark.parametrize(
    ("encoded", "character_set", "wanted"),
    [
        (b"Sch\xe4del", "ISO_IR 100", "Schädel"),
        (b"\xb3\xb4", "ISO_IR 109", "³´"),
        ("頭".encode("gb18030"), "GB18030", "頭"),
        (b"\x1b$B\x46\x2c\x1b(B", "\\ISO 2022 IR 87", "頭"),
    ],
)
def test_character_sets_are_those_of_the_standard(tmp_path, encoded, character_set, wanted):
    (path,) = write_slices(tmp_path, [{"SeriesDescription": "X" * (len(encoded) + len(encoded) % 2)}])
    dataset = pydicom.dcmread(path)
    dataset.SpecificCharacterSet = character_set.split("\\")
    dataset.save_as(path)
    content = path.read_bytes()
    padded = encoded.ljust(len(encoded) + len(encoded) % 2)
    path.write_bytes(content.replace(b"X" * len(padded), padded))
    assert series_facts(*facts_of(path)).series_description == wanted


def test_slow_storage_is_read_by_several_threads_in_the_same_order(tmp_path, monkeypatch):
    paths = write_slices(tmp_path, [{} for _ in range(150)])
    quick = [file.values for file in facts_of(*paths)]

    threads = set()

    def slow(path, headers, limits, read=dicom_index._values):
        time.sleep(0.001)
        threads.add(threading.get_ident())
        return read(path, headers, limits)

    monkeypatch.setattr(dicom_index, "_values", slow)
    assert [file.values for file in facts_of(*paths)] == quick
    assert len(threads) > 2


@pytest.mark.parametrize(
    ("directions", "plane"),
    [
        (AXIAL, "axial"),
        (CORONAL, "coronal"),
        (SAGITTAL, "sagittal"),
        ((-1, 0, 0, 0, 1, 0), "axial"),
        ((0.9, 0.1, 0.4, -0.1, 1, 0), "axial"),
        ((0, 0, 0, 0, 0, 0), ""),
        (None, ""),
    ],
)
def test_a_plane_is_named_by_the_nearest_axis_of_the_patient(directions, plane):
    assert plane_of(directions) == plane


# Volumes of a series


def test_a_series_whose_slices_each_count_an_acquisition_is_one_volume(tmp_path):
    slices = [{"AcquisitionNumber": k, "TriggerTime": k * 10, "EchoTime": 2 + k / 100} for k in range(6)]
    assert parts(write_slices(tmp_path, slices)) == {"": 6}


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ({"EchoTime": 10, "EchoNumbers": 1}, {"EchoTime": 90, "EchoNumbers": 2}, {"echo-1": 4, "echo-2": 4}),
        ({"EchoTime": 90}, {"EchoTime": "10.0"}, {"echo-1": 4, "echo-2": 4}),
        ({"AcquisitionNumber": 3}, {"AcquisitionNumber": 7}, {"acquisition-3": 4, "acquisition-7": 4}),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, {"time-1": 4, "time-2": 4}),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, {"b-0": 4, "b-1000": 4}),
        ({"InversionTime": 100}, {"InversionTime": 2000}, {"inversion-1": 4, "inversion-2": 4}),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "M"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
            {"magnitude": 4, "phase": 4},
        ),
        ({}, {}, {"time-1": 4, "time-2": 4}),
    ],
)
def test_a_tag_that_explains_why_slices_lie_on_one_another_parts_them(tmp_path, first, second, wanted):
    paths = write_slices(tmp_path, at(0, 3, 6, 9, **first) + at(0, 3, 6, 9, **second))
    random.Random(1).shuffle(paths)
    assert parts(paths) == wanted


def test_pictures_that_alternate_slice_by_slice_are_parted_by_their_numbers(tmp_path):
    assert parts(write_slices(tmp_path, at(0, 0, 3, 3, 6, 6))) == {"time-1": 3, "time-2": 3}


def test_echoes_of_several_times_are_parted_by_both(tmp_path):
    slices = [
        one
        for time_ in (1, 2, 3)
        for echo in (10, 90)
        for one in at(0, 3, EchoTime=echo, TemporalPositionIdentifier=time_)
    ]
    assert parts(write_slices(tmp_path, slices)) == {
        f"echo-{echo}-time-{time_}": 2 for echo in (1, 2) for time_ in (1, 2, 3)
    }


@pytest.mark.parametrize(
    ("creator", "tag", "kind", "values"),
    [
        ("SIEMENS MR HEADER", 0x0C, "IS", ("0", "1000")),
        ("GEMS_PARM_01", 0x39, "IS", (["1000000000", "8"], ["1000001000", "8"])),
        ("Philips Imaging DD 001", 0x03, "FL", (0.0, 1000.0)),
    ],
)
def test_b_values_in_private_tags_part_a_diffusion_series(tmp_path, creator, tag, kind, values):
    group = {"S": 0x0019, "G": 0x0043, "P": 0x2001}[creator[0]]
    paths = write_slices(tmp_path, at(0, 3, 6, InstanceNumber=1) * 2)
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = f"1.2.7.{number + 1}"
        dataset.private_block(group, creator, create=True).add_new(tag, kind, values[number // 3])
        dataset.save_as(path)
    assert parts(paths) == {"b-0": 3, "b-1000": 3}


def test_a_repeated_slice_that_nothing_explains_stays_for_whoever_reads_the_volume(tmp_path):
    assert parts(write_slices(tmp_path, at(0, 3, 6, 6, 9))) == {"": 5}


def test_a_tag_that_would_leave_pieces_parts_nothing(tmp_path):
    slices = at(0, 3, 6, AcquisitionNumber=1) + at(6, 9, 12, AcquisitionNumber=2)
    assert parts(write_slices(tmp_path, slices)) == {"": 6}


def test_stacks_of_several_planes_and_sizes_are_volumes_of_their_own(tmp_path):
    slices = [
        {"ImagePositionPatient": [0, 0, 3 * k], "ImageOrientationPatient": directions, "Rows": rows}
        for directions, rows in ((AXIAL, 2), (SAGITTAL, 2), (SAGITTAL, 1))
        for k in range(7)
    ]
    for one in slices[7:]:
        one["ImagePositionPatient"] = one["ImagePositionPatient"][::-1]
    assert parts(write_slices(tmp_path, slices)) == {
        "plane-axial-size-2x3": 7,
        "plane-sagittal-size-2x3": 7,
        "plane-sagittal-size-1x3": 7,
    }


def test_two_stacks_of_one_plane_are_counted(tmp_path):
    tilted = [1, 0, 0, 0, 0.96, 0.28]
    assert parts(write_slices(tmp_path, at(0, 3, 6) + at(0, 3, ImageOrientationPatient=tilted))) == {
        "part-1": 3,
        "part-2": 2,
    }


@settings(max_examples=40, deadline=None)
@given(
    places=st.integers(2, 5),
    echoes=st.integers(1, 3),
    times=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_every_file_is_in_exactly_one_volume_and_no_two_slices_of_it_at_one_place(places, echoes, times, seed):
    files = [
        FileFacts(
            Path(f"{place}-{echo}-{time_}"),
            {
                "SOPInstanceUID": f"1.{place}.{echo}.{time_}".encode(),
                "SeriesInstanceUID": b"1.2.3",
                "Rows": b"\x02\x00",
                "Columns": b"\x02\x00",
                "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0",
                "ImagePositionPatient": f"0\\0\\{3.3 * place:.4f}".encode(),
                "EchoTime": str(10 * echo).encode(),
                "AcquisitionNumber": str(time_).encode(),
            },
        )
        for place in range(places)
        for echo in range(echoes)
        for time_ in range(times)
    ]
    random.Random(seed).shuffle(files)
    found = volumes_of(files).volumes
    assert sorted(path for volume in found for path in volume.paths) == sorted(file.path for file in files)
    assert len(found) == echoes * times == len({volume.part for volume in found})
    assert all(len({path.name[0] for path in volume.paths}) == places for volume in found)


# One and the same


def test_copies_count_once_and_those_among_the_others_are_kept(tmp_path):
    paths = write_slices(tmp_path / "b", at(0, 3, 6))
    (copy,) = write_slices(tmp_path / "a", at(0))
    found = index([copy, *paths])
    assert found.volumes[0].paths == tuple(paths)
    assert found.copies == [(copy, paths[0])]


def test_one_uid_for_all_slices_makes_no_copies_of_them(tmp_path):
    found = index(write_slices(tmp_path, at(0, 3, 6), SOPInstanceUID="1.2.3"))
    assert ([len(volume.paths) for volume in found.volumes], found.copies) == ([3], [])


def test_one_uid_for_the_series_of_two_patients_keeps_them_apart(tmp_path):
    first = write_slices(tmp_path / "a", at(0, 3), PatientID="1")
    second = write_slices(tmp_path / "b", at(0, 3), PatientID="2")
    assert [volume.paths for volume in index(first + second).volumes] == [tuple(first), tuple(second)]


def test_a_study_for_each_slice_does_not_take_a_series_apart(tmp_path):
    paths = write_slices(tmp_path, [one | {"StudyInstanceUID": f"1.5.{k}"} for k, one in enumerate(at(0, 3, 6))])
    assert parts(paths) == {"": 3}


# Set aside

DERIVED = ["DERIVED", "PRIMARY"]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "LOCALIZER"]}, "localizer"),
        ({"ImageType": [*DERIVED, "DIFFUSION", "ADC", "ND"]}, "derived, no scan: diffusion (ADC)"),
        ({"ImageType": [*DERIVED, "DIFFUSION", "TRACEW", "NORM"]}, "derived, no scan: diffusion (TRACEW)"),
        ({"ImageType": [*DERIVED, "PROJECTION IMAGE"]}, "derived, no scan: projection (PROJECTION IMAGE)"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SUBTRACTION"]}, "derived, no scan: subtraction (SUBTRACTION)"),
        ({"ImageType": [*DERIVED, "PERFUSION", "RELCBV"]}, "derived, no scan: perfusion (PERFUSION)"),
        ({"SOPClassUID": EnhancedMRImageStorage}, "enhanced multi-frame, all slices in one file"),
        ({"NumberOfFrames": 20}, "multi-frame, all slices in one file"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "Siemens mosaic, all slices in one picture"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colours (RGB), not grey values"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colours (PALETTE COLOR), not grey values"),
        ({"PhotometricInterpretation": "GERDA"}, "colours, not grey values"),
        (
            {"SOPClassUID": SecondaryCaptureImageStorage, "ImagePositionPatient": None},
            "screenshot (secondary capture)",
        ),
        ({"Modality": "SR", "Rows": None, "Columns": None}, "structured report (SR), no scan"),
        ({"Modality": "PR", "Rows": None, "Columns": None}, "presentation state (PR), no scan"),
        ({"Modality": "RTDOSE"}, "radiotherapy dose (RTDOSE), no scan"),
        ({"Modality": "XX", "Rows": None}, "object without pixels (XX), no scan"),
    ],
)
def test_what_is_no_scan_is_set_aside_with_the_reason(tmp_path, tags, reason):
    slices = at(0, 3) if tags.get("ImagePositionPatient", 0) is not None else [{}, {}]
    assert only(write_slices(tmp_path, [one | tags for one in slices])).set_aside.startswith(reason)


@pytest.mark.parametrize(
    "image_type",
    [
        ["DERIVED", "SECONDARY"],
        ["DERIVED", "PRIMARY"],
        ["DERIVED", "PRIMARY", "M", "ND", "NORM", "DIS2D", "FM"],
        ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"],
        ["DERIVED", "PRIMARY", "MPR"],
        ["DERIVED", "SECONDARY", "MPR", "CSA MPR", "", "CSAPARALLEL", "M", "ND", "NORM"],
        ["ORIGINAL", "PRIMARY", "MPR"],
        ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"],
        [],
    ],
)
def test_plain_derived_series_and_lone_reformats_are_scans(tmp_path, image_type):
    assert only(write_slices(tmp_path, at(0, 3), ImageType=image_type)).set_aside == ""


def test_slices_that_a_workstation_wrote_as_captures_in_their_place_are_scans(tmp_path):
    assert only(write_slices(tmp_path, at(0, 3), SOPClassUID=SecondaryCaptureImageStorage)).set_aside == ""


def test_a_mosaic_is_known_by_its_private_marker(tmp_path):
    (path,) = write_slices(tmp_path, [{}])
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 36)
    dataset.save_as(path)
    assert only([path]).set_aside == "Siemens mosaic, all slices in one picture"


@pytest.mark.parametrize(
    ("per_plane", "reason"), [(1, "localizer of 3 slices in 3 planes"), (5, "localizer of 15 slices in 3 planes")]
)
def test_few_slices_in_several_planes_are_a_localizer(tmp_path, per_plane, reason):
    slices = [
        {"ImageOrientationPatient": directions, "ImagePositionPatient": [3 * k, 3 * k, 3 * k]}
        for directions in (AXIAL, CORONAL, SAGITTAL)
        for k in range(per_plane)
    ]
    assert only(write_slices(tmp_path, slices)).set_aside == reason


def test_many_slices_in_three_planes_are_three_scans(tmp_path):
    slices = [
        {"ImageOrientationPatient": directions, "ImagePositionPatient": [3 * k, 3 * k, 3 * k]}
        for directions in (AXIAL, CORONAL, SAGITTAL)
        for k in range(21)
    ]
    assert parts(write_slices(tmp_path, slices)) == {"plane-axial": 21, "plane-coronal": 21, "plane-sagittal": 21}


def test_slices_that_are_each_turned_in_their_own_way_stay_one_volume_which_reading_refuses(tmp_path):
    slices = [{"ImageOrientationPatient": [1, 0, 0, 0, 1, 0.01 * k]} for k in range(8)]
    assert parts(write_slices(tmp_path, slices)) == {"": 8}


def test_pictures_of_one_place_are_no_volume(tmp_path):
    assert only(write_slices(tmp_path, at(5, 5, 5, 5))).set_aside == "4 pictures of one place, no volume"


def test_a_single_slice_counts_where_its_study_has_nothing_else(tmp_path):
    single = write_slices(tmp_path / "a", at(0), SeriesInstanceUID="1.2.8")
    assert only(single).set_aside == ""
    whole = write_slices(tmp_path / "b", at(0, 3))
    other = write_slices(tmp_path / "c", at(0), SeriesInstanceUID="1.2.9", StudyInstanceUID="1.2.99")
    reasons = {volume.paths[0].parent.name: volume.set_aside for volume in index(single + whole + other).volumes}
    assert reasons == {"a": "a single slice, while its study has whole scans", "b": "", "c": ""}


def test_a_reformat_is_set_aside_where_its_source_is_there(tmp_path):
    times = {"EchoTime": 2.3, "RepetitionTime": 1900}
    source = write_slices(tmp_path / "a", at(0, 3, 6), **times)
    reformat = write_slices(
        tmp_path / "b", at(0, 4), SeriesInstanceUID="1.2.8", ImageType=["DERIVED", "PRIMARY", "MPR"], **times
    )
    assert [volume.set_aside for volume in index(source + reformat).volumes] == [
        "",
        "a reformat (MPR) of another series of its study",
    ]
    other = write_slices(tmp_path / "c", at(0, 3, 6), EchoTime=90, RepetitionTime=5000)
    assert not any(volume.set_aside for volume in index(other + reformat).volumes), "it is all there is of its source"
    second = write_slices(
        tmp_path / "d", at(0, 4), SeriesInstanceUID="1.2.10", ImageType=["DERIVED", "PRIMARY", "MPR"], **times
    )
    assert not any(volume.set_aside for volume in index(reformat + second).volumes)


def test_slices_without_a_place_leave_the_others_a_volume(tmp_path):
    slices = [*at(0, 3, 6), {"ImagePositionPatient": None}]
    found = index(write_slices(tmp_path, slices)).volumes
    assert {volume.part: (len(volume.paths), bool(volume.set_aside)) for volume in found} == {
        "plane-axial": (3, False),
        "unplaced": (1, True),
    }
