"""From DICOM series to cases: which series of a study is which channel."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_series
from series_headers import AGENT, EPI_DWI, FLAIR_2D, FLASH_2D, SE_T1, TSE_T2, facts
from tiny import spec_of

from segtool.case import UNNAMED
from segtool.errors import UsageError
from segtool.formats.dicom.facts import DicomVolume
from segtool.scan import Scan, ScanOptions, cases, scan
from segtool.scan.cases import survey
from segtool.scan.found import Entry
from segtool.scan.walk import Found
from segtool.spec import ChannelSpec

FOUR = ("t1", "t1ce", "t2", "flair")
Header = tuple[str, dict[str, object]]
USUAL: dict[str, Header] = {
    "a": ("t1_se_tra", SE_T1),
    "b": ("t1_se_tra KM", SE_T1 | AGENT),
    "c": ("t2_tse_tra", TSE_T2),
    "d": ("t2_tirm_tra_dark-fluid", FLAIR_2D),
    "e": ("ep2d_diff_b1000", EPI_DWI),
}
"""A study by the first digit of its series."""


def volume(series: str, header: Header, study: str = "5", slices: int = 20, **more: object) -> DicomVolume:
    paths = tuple(Path(f"{series}/{number}.dcm") for number in range(slices))
    known = {key: more.pop(key) for key in ("part", "set_aside") if key in more}
    return DicomVolume(paths, study * 64 if study else "", series * 64, known.get("part", ""), "f" * 64,
                       facts(header[0], header[1], **more), known.get("set_aside", ""))  # fmt: skip


def entry(one: DicomVolume, folder: str = "P1", stem: str = "") -> Entry:
    return Entry("/in", folder, stem or one.short_name, "", "dicom", one.paths, one)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch):
    """Scans entries that no file stands for."""

    def run(
        *entries: Entry, channels: tuple[str, ...] = (), patterns: Mapping[str, str] | None = None, **options: bool
    ) -> Scan:
        monkeypatch.setattr(cases, "find_entries", lambda *_: Found(list(entries)))
        model = spec_of(*channels) if channels else None
        return survey([Path("/in")], model, ScanOptions(channels=patterns or {}, **options))

    return run


def usual(study: str = "5", folder: str = "P1") -> list[Entry]:
    return [entry(volume(series, header, study), folder) for series, header in USUAL.items()]


def taken(scanned: Scan) -> dict[str, str]:
    """Channel to the series that serves it, of the only case."""
    (case,) = scanned.cases
    return {channel: source.path.parent.name for channel, source in case.channels.items()}


def test_the_series_of_a_study_become_its_channels(seen) -> None:
    scanned = seen(*usual(), channels=FOUR)
    assert taken(scanned) == {"t1": "a", "t1ce": "b", "t2": "c", "flair": "d"}
    assert (scanned.cases[0].name, scanned.cases[0].notes, scanned.problems) == ("P1", (), ())
    (study,) = scanned.studies
    assert [(one.name[:8], one.used_as, one.seen_as) for one in study.series] == [
        ("series-a", "t1", "t1"),
        ("series-b", "t1ce", "t1ce"),
        ("series-c", "t2", "t2"),
        ("series-d", "flair", "flair"),
        ("series-e", "", "dwi"),
    ]


def test_a_model_of_one_channel_takes_its_series_of_the_study(seen) -> None:
    scanned = seen(*usual(), channels=("flair",))
    assert (taken(scanned), scanned.cases[0].name) == ({"flair": "d"}, "P1")


def test_channels_go_by_the_names_that_the_model_has_for_them(seen, monkeypatch) -> None:
    monkeypatch.setattr(cases, "find_entries", lambda *_: Found(usual()))
    model = spec_of("T1Gd", ChannelSpec(name="fluid", aliases=("FLAIR",)))
    assert taken(survey([Path("/in")], model, ScanOptions())) == {"T1Gd": "b", "fluid": "d"}


def test_without_a_model_a_study_shows_all_its_channels(seen) -> None:
    assert list(taken(seen(*usual()))) == ["t1", "t1ce", "t2", "flair"]


def test_a_study_over_several_folders_is_one_case_named_by_the_deepest_common_one(seen) -> None:
    entries = [entry(volume(s, USUAL[s]), "P1/day", stem) for s, stem in (("b", "IM1"), ("d", "IM2"))]
    scanned = seen(*entries, channels=("t1ce", "flair"))
    assert (scanned.cases[0].name, taken(scanned)) == ("P1/day", {"t1ce": "b", "flair": "d"})


def test_studies_that_share_a_folder_are_told_apart_by_a_digest(seen) -> None:
    scanned = seen(*usual("5"), *usual("6"), channels=FOUR)
    assert [case.name for case in scanned.cases] == ["P1/study-55555555", "P1/study-66666666"]


def test_a_missing_channel_is_a_problem_that_tells_what_was_seen_and_what_to_do(seen) -> None:
    entries = usual()
    del entries[2]
    entries.append(entry(volume("f", ("loc", FLASH_2D), set_aside="localizer of 3 slices in 3 planes")))
    scanned = seen(*entries, channels=FOUR)
    assert scanned.cases == ()
    (problem,) = scanned.problems
    assert problem.loses_case
    assert str(problem).startswith("P1: no t2 among its 4 series (series-aaaaaaaa seen as t1; ")
    assert "set aside: 1 series (localizer of 3 slices in 3 planes)" in str(problem)
    assert "--channel t2=PATTERN or --rules FILE" in problem.remedy
    (study,) = scanned.studies
    assert list(study.missing) == ["t2"]
    assert (study.case, study.aside) == ("P1", (("series-ffffffff", "localizer of 3 slices in 3 planes"),))
    with pytest.raises(UsageError, match=r"no case found\. P1: no t2"):
        scan([Path("/in")], spec_of(*FOUR), ScanOptions())


def test_the_nearest_series_of_a_missing_channel_is_told_with_why_it_is_not_it(seen) -> None:
    scanned = seen(*usual()[:2], entry(volume("d", ("T2 TIRM dark fluid", TSE_T2))), channels=FOUR)
    assert scanned.studies[0].missing["t2"] == "nearest is series-dddddddd with 4 points, seen as flair"


@pytest.mark.parametrize(
    ("first", "second", "winner", "reason"),
    [
        ({"slices": 20}, {"slices": 30}, "b", "more voxels"),
        ({"type": ("DERIVED", "SECONDARY"), "slices": 90}, {}, "b", "an original image"),
        ({"acquisition_type": "2D", "slices": 90}, {"acquisition_type": "3D"}, "b", "a 3D acquisition"),
        ({"plane": "sagittal", "slices": 90}, {"plane": "axial"}, "b", "axial slices"),
        ({"spacing_mm": (0.5, 0.5)}, {"spacing_mm": (1.0, 1.0)}, "a", "finer pixels"),
        ({"series_number": 9}, {"series_number": 4}, "a", "the later series"),
        ({}, {}, "a", ""),
    ],
)
def test_between_series_that_fit_equally_a_note_says_what_decided(
    seen, first: Mapping[str, object], second: Mapping[str, object], winner: str, reason: str
) -> None:
    header = ("T1 +C", {})
    scanned = seen(entry(volume("a", header, **first)), entry(volume("b", header, **second)), channels=("t1ce",))
    assert taken(scanned) == {"t1ce": winner}
    (note,) = scanned.cases[0].notes
    order = "series-aaaaaaaa, series-bbbbbbbb" if winner == "a" else "series-bbbbbbbb, series-aaaaaaaa"
    tail = f" ({reason} first)" if reason else ""
    assert note == f"t1ce: 2 series fit equally ({order}), taken series-{winner * 8}{tail}"


def test_more_points_beat_more_voxels(seen) -> None:
    scanned = seen(
        entry(volume("a", ("POST", SE_T1), slices=90)), entry(volume("b", ("T1 POST", SE_T1))), channels=("t1ce",)
    )
    assert (taken(scanned), scanned.cases[0].notes) == ({"t1ce": "b"}, ())


def test_each_part_of_a_series_may_be_a_channel(seen) -> None:
    early = volume("a", ("pd+t2_tse", TSE_T2 | {"te": 14}), part="echo-1")
    late = replace(volume("a", ("pd+t2_tse", TSE_T2), part="echo-2"), paths=(Path("late/1.dcm"),))
    assert taken(seen(entry(early), entry(late), channels=("t2",))) == {"t2": "late"}


def test_the_only_series_of_a_study_serves_a_model_of_one_channel_and_a_note_says_what_it_seems(seen) -> None:
    scanned = seen(entry(volume("a", ("T1 nativ", SE_T1)), "", "P1"), channels=("t1ce",))
    assert taken(scanned) == {"t1ce": "a"}
    assert scanned.cases[0].notes == ("taken as t1ce, the only series of its study, though its header says t1",)


def test_the_only_series_of_which_nothing_is_told_has_no_name(seen) -> None:
    scanned = seen(entry(volume("a", ("head", {})), "", "P1"), channels=("t1ce",))
    assert (list(scanned.cases[0].channels), scanned.cases[0].name) == ([UNNAMED], "P1")


def test_one_series_for_a_model_of_four_channels_leaves_the_missing_ones_to_the_reading(seen) -> None:
    assert list(seen(entry(volume("a", USUAL["b"])), channels=FOUR).cases[0].channels) == ["t1ce"]


def test_series_without_a_study_and_without_evidence_stay_cases_of_their_own(seen) -> None:
    scanned = seen(*(entry(volume(s, ("", {}), study="")) for s in "ab"), channels=("t1ce",))
    assert [case.name for case in scanned.cases] == ["P1/series-aaaaaaaa", "P1/series-bbbbbbbb"]


def test_series_of_one_folder_without_a_study_are_one_where_headers_tell_them_apart(seen) -> None:
    scanned = seen(*(entry(volume(s, USUAL[s], study="")) for s in "bd"), channels=("t1ce", "flair"))
    assert (taken(scanned), scanned.cases[0].name) == ({"t1ce": "b", "flair": "d"}, "P1")


def test_series_of_different_folders_without_a_study_are_not_joined(seen) -> None:
    scanned = seen(entry(volume("b", USUAL["b"], ""), "", "P1"), entry(volume("d", USUAL["d"], ""), "", "P2"))
    assert [(case.name, list(case.channels)) for case in scanned.cases] == [("P1", ["t1ce"]), ("P2", ["flair"])]


def test_series_that_each_have_a_study_are_joined_by_folders_named_like_channels(seen) -> None:
    scanned = seen(
        entry(volume("a", ("", {}), "5"), "P1", "T1ce"), entry(volume("b", ("", {}), "6"), "P1", "FLAIR"),
        channels=("t1ce", "flair"),
    )  # fmt: skip
    assert (taken(scanned), scanned.cases[0].name) == ({"t1ce": "a", "flair": "b"}, "P1")


def test_a_folder_named_like_a_channel_decides_against_the_header(seen) -> None:
    scanned = seen(
        entry(volume("a", USUAL["c"]), "P1", "T1ce"), entry(volume("b", USUAL["b"]), "P1", "other"), channels=("t1ce",)
    )
    assert taken(scanned) == {"t1ce": "a"}


def test_a_folder_that_is_a_description_is_read_as_one(seen) -> None:
    scanned = seen(entry(volume("a", ("", {})), "P1", "POST_T1"), entry(volume("b", ("", {})), "P1", "PRE_T1"))
    assert taken(scanned) == {"t1": "b", "t1ce": "a"}


@pytest.mark.parametrize("pattern", ["zweite", "*zweite*", "ZWEITE messung", "*measure*"])
def test_a_pattern_of_the_user_decides_by_description_and_protocol(seen, pattern: str) -> None:
    odd = entry(volume("9", ("zweite Messung", {"protocol": "my measurement"})))
    scanned = seen(*usual(), odd, channels=("t1ce",), patterns={"t1ce": pattern})
    assert (taken(scanned), scanned.problems) == ({"t1ce": "9"}, ())


def test_a_pattern_that_fits_no_series_and_one_of_two_for_a_series_are_told(seen) -> None:
    scanned = seen(*usual(), channels=("t1ce", "t2"), patterns={"t2": "nowhere"})
    assert [problem.problem for problem in scanned.problems] == ["fits no file name"]
    scanned = seen(*usual(), channels=("t1ce", "t2"), patterns={"t2": "*KM", "t1ce": "t1_se*"})
    assert [problem.problem for problem in scanned.problems if problem.where.startswith("series-")] == [
        "fits the patterns of t1ce and t2"
    ]


def test_what_is_set_aside_is_told_once_a_case_by_reason(seen) -> None:
    aside = [entry(volume(s, ("loc", FLASH_2D), set_aside="a localizer")) for s in "12"]
    shot = entry(volume("3", ("", {}), set_aside="a screenshot"))
    scanned = seen(*usual(), *aside, shot, channels=FOUR)
    assert scanned.cases[0].notes == ("set aside: 2 series (a localizer), 1 series (a screenshot)",)
    assert [name for name, _ in scanned.studies[0].aside] == ["series-11111111", "series-22222222", "series-33333333"]


def test_a_study_of_which_all_is_set_aside_is_a_problem(seen) -> None:
    scanned = seen(*usual(), entry(volume("1", ("", {}), "6", set_aside="a screenshot"), "P2"), channels=FOUR)
    (problem,) = scanned.problems
    assert str(problem).startswith("P2: nothing left to segment, set aside: 1 series (a screenshot)")
    assert problem.loses_case


def test_repairing_is_asked_of_dicom_sources_alone(seen) -> None:
    nifti = Entry("/in", "", "x_t1ce", ".nii.gz", "nifti", (Path("x_t1ce.nii.gz"),))
    scanned = seen(*usual(), nifti, channels=("t1ce",), lenient=True)
    assert {case.first.format: case.first.lenient for case in scanned.cases} == {"dicom": True, "nifti": False}


@pytest.mark.parametrize(("drawn_on", "found"), [("b", True), ("c", True), ("9", False)])
def test_a_segmentation_belongs_to_the_study_on_a_series_of_which_it_was_drawn(
    seen, drawn_on: str, found: bool
) -> None:
    seg = Entry("/in", "elsewhere", "7", ".dcm", "dicom-seg", (Path("7.dcm"),), None, frozenset([drawn_on * 64]))
    scanned = seen(*usual(), seg, channels=("t1ce",))
    reference = scanned.cases[0].reference
    assert (reference is not None and reference.format == "dicom-seg") is found
    assert any("reference without its scan" in problem.problem for problem in scanned.problems) is not found


def test_a_segmentation_of_the_channel_itself_comes_before_one_of_another_series(seen) -> None:
    segs = [Entry("/in", "x", s, ".dcm", "rtstruct", (Path(f"{s}.dcm"),), None, frozenset([s * 64])) for s in "cb"]
    reference = seen(*usual(), *segs, channels=("t1ce",)).cases[0].reference
    assert reference is not None
    assert reference.path.name == "b.dcm"


def test_real_files_are_paired_and_their_names_tell_no_patient(tmp_path: Path) -> None:
    tags = {
        "SeriesDescription": ("Gerda t1 km", "Gerda t2_tirm dark-fluid"),
        "EchoTime": (12, 120),
        "RepetitionTime": (500, 9000),
    }
    for number in range(2):
        more = {keyword: values[number] for keyword, values in tags.items()}
        names = [f"{number}{k}.dcm" for k in range(3)]
        write_series(tmp_path / "Geheim_Gerda", np.ones((8, 9, 3), np.int16), names, f"1.2.{number}", **more)
    scanned = scan([tmp_path], spec_of("t1ce", "flair"), ScanOptions())
    (case,) = scanned.cases
    assert list(case.channels) == ["t1ce", "flair"]
    assert case.name.startswith("study-")
    told = repr((case, scanned.problems, scanned.studies)).replace(str(tmp_path / "Geheim_Gerda"), "")
    assert "erda" not in told
    shown = scan([tmp_path], spec_of("t1ce", "flair"), ScanOptions(identify=True))
    assert shown.cases[0].name == "Geheim_Gerda"
    assert "Gerda t1 km" in repr(shown.studies)
