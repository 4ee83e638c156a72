"""What headers say of a patient stays out of names and messages."""

from pathlib import Path

import pytest

from segtool.formats.dicom.facts import DicomVolume, SeriesFacts
from segtool.scan.case_names import plain_name, unique_names
from segtool.scan.found import Entry
from segtool.scan.privacy import Privacy

WORDS = ("doe^john", "doe", "john", "id77", "19610203", "a1", "st. mary")


@pytest.mark.parametrize(
    "part",
    [
        "DOE_JOHN",
        "john.doe",
        "xxDOEJOHNxx",
        "mri-1961-02-03",
        "19610203",
        "1961.02.03_T1",
        "scan ID77",
        "A1",
        "St_Mary",
    ],
)
def test_a_part_of_a_path_that_tells_the_patient_is_found(part: str) -> None:
    assert Privacy(WORDS).is_personal(part)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("müller^jörg", ["MUELLER", "muller-jorg", "Müller", "Mu\u0308ller", "JörgMüller", "MUELLER_2"]),
        ("mueller^joerg", ["Müller", "muller", "JÖRG_MÜLLER"]),
        ("weiß", ["WEISS", "Weiß"]),
        ("søren", ["soren", "SOEREN", "Søren"]),
        ("van der berg^jan", ["vanDerBerg", "VANDERBERG2", "JanBerg"]),
        ("wu^bo", ["WuBo", "BoWu", "wu_bo"]),
        ("yamada^tarou=山田^太郎=やまだ^たろう", ["山田太郎", "太郎_山田", "x山田x", "TarouYamada"]),
        ("19610203", ["03.02.1961", "3.2.1961", "02-03-1961", "03-FEB-1961", "1961_02_03T1", "610203"]),
        ("1.2.840.99.20191231.5555", ["1.2.840.99.20191231.5555", "1.2.840.99.20191231.5555.3.dcm"]),
    ],
)
def test_one_name_has_several_spellings(word: str, parts: list[str]) -> None:
    assert [part for part in parts if not Privacy([word]).is_personal(part)] == []


@pytest.mark.parametrize("part", ["1961", "1.2.840.99", "mullion", "mule", "bow", "1961-03-04", "99610203", "山"])
def test_what_only_resembles_them_is_left_alone(part: str) -> None:
    words = ("müller^jörg", "wu^bo", "山田^太郎", "19610203", "1.2.840.99.20191231.5555")
    assert not Privacy(words).is_personal(part)


def test_accents_that_follow_their_letters_are_hidden_with_them() -> None:
    assert Privacy(["müller^jörg"]).plain("/in/Jo\u0308rg_Mu\u0308ller/IM1: gone") == "/in/***/IM1: gone"


def test_a_day_over_three_folders_is_a_day() -> None:
    assert plain_name(entry("2019/12/31"), "T1", Privacy(["20191231"])) == "study-abababab/T1"


@pytest.mark.parametrize("part", ["doer", "johnson", "id778", "19610204", "a12", "t1", "series_3", ""])
def test_other_parts_are_left_alone(part: str) -> None:
    assert not Privacy(WORDS).is_personal(part)


@pytest.mark.parametrize("word", ["anonymous", "Phantom", "unknown", "", " ", "^", "***"])
def test_what_tells_nobody_hides_nothing(word: str) -> None:
    assert not Privacy([word]).is_personal("a phantom of an unknown, anonymous head ^ ***")


def test_a_message_keeps_everything_else() -> None:
    privacy = Privacy(WORDS, {"/tmp/unpacked-1": "scans.zip"})
    line = "/tmp/unpacked-1/Doe_John/1961-02-03/IM1: cannot be read as DICOM. Export it again."
    assert privacy.plain(line) == "scans.zip/***/***/IM1: cannot be read as DICOM. Export it again."


def entry(folder: str, study: str = "ab" * 32, root: str = "/in") -> Entry:
    volume = DicomVolume((Path("IM1"),), study, "cd" * 32, "", "", SeriesFacts())
    return Entry(root, folder, "T1", "", "dicom", (Path("IM1"),), volume)


@pytest.mark.parametrize(
    ("folder", "base", "name"),
    [
        ("site3/DOE_JOHN/19610203_MR", "T1", "site3/study-abababab/T1"),
        ("site3/P7", "T1", "site3/P7/T1"),
        ("", "Doe", "study-abababab"),
    ],
)
def test_the_name_of_a_case_has_a_digest_in_place_of_the_patient(folder: str, base: str, name: str) -> None:
    assert plain_name(entry(folder), base, Privacy(WORDS)) == name


def test_a_root_that_is_called_after_the_patient_does_not_show() -> None:
    assert plain_name(entry("", root="/in/JOHN"), "", Privacy(WORDS)) == "study-abababab"
    rows = [(entry("", root="/in/JOHN"), "T1", ("t1",)), (entry("", root="/in/DOE"), "T1", ("t1",))]
    assert unique_names(rows, Privacy(WORDS)) == ["T1", "T1-t1"]


def test_without_a_study_the_series_gives_the_pseudonym() -> None:
    assert plain_name(entry("john", study=""), "", Privacy(WORDS)) == "series-cdcdcdcd"
