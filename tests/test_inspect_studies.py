"""The lines in which ``segtool inspect`` tells of a DICOM study."""

from dataclasses import replace
from typing import Any

from segtool.commands.inspect_studies import study_lines
from segtool.scan.judged import JudgedSeries, Study

USED = JudgedSeries(
    "series-1", "24 slices of 256x256", "axial 2D, number 5", "t1", (), 10, {"t1": 10}, ('+6 "t1"', "+4 TE"), "t1"
)
STUDY = Study("P1", (USED,), {}, ("t1: 2 series fit equally",), ())


def lines(*series: JudgedSeries, **more: Any) -> list[str]:
    return [line.strip() for line in study_lines([replace(STUDY, series=series or STUDY.series, **more)])]


def test_a_study_counts_its_series_and_those_that_serve_a_channel() -> None:
    aside = (("series-9", "a screenshot"),)
    told = lines(USED, replace(USED, used_as=""), aside=aside)
    assert told[0] == "study   P1: 2 series, 1 used, 1 set aside"
    assert told[-1] == "set aside, a screenshot: series-9"


def test_a_series_is_told_as_the_console_lists_it_and_each_rule_that_made_it_a_channel() -> None:
    assert lines()[1:] == [
        "t1      series-1  24 slices of 256x256  axial 2D, number 5  seen as t1, 10 points",
        '+6 "t1"',
        "+4 TE",
    ]


def test_a_header_that_says_neither_plane_nor_number_leaves_no_gap() -> None:
    assert "256x256  seen as t1" in lines(replace(USED, acquired=""))[1]


def test_a_series_of_another_kind_takes_one_line_and_a_rival_as_many_as_the_one_that_was_taken() -> None:
    other = replace(USED, name="series-2", seen_as="dwi", score=40, evidence=("+20 diff", "+20 type"), used_as="")
    rival = replace(USED, name="series-3", used_as="")
    told = lines(USED, other, rival)
    assert told[4].endswith("seen as dwi, 40 points: +20 diff; +20 type")
    assert told[6:] == ['+6 "t1"', "+4 TE"]


def test_a_series_of_which_nothing_speaks_ends_without_a_colon() -> None:
    nothing = replace(USED, seen_as="", score=0, evidence=(), used_as="")
    assert lines(nothing)[1].endswith("nothing speaks for a channel")


def test_notes_stand_with_the_study_only_where_it_became_no_case() -> None:
    note = STUDY.notes[0]
    assert note not in lines()
    assert note in lines(missing={"t2": "nothing speaks for any series"})
