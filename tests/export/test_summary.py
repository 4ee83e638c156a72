import math

import pytest
from evaluation_rows import row

from segtool_export.summary import groups_of, mean_and_interval, summarise_rows


def test_means_are_over_the_cases_that_have_the_structure():
    rows = [row("1", 0.8, patient="a"), row("2", 0.0, patient="b"), row("3", 0.0, patient="b", in_reference=False)]
    summary = summarise_rows(rows, "tumour")
    assert (summary["n"], summary["patients"], summary["n_with_reference"]) == (3, 2, 2)
    assert (summary["n_dice_0"], summary["n_missed"], summary["n_spurious"]) == (1, 1, 1)
    assert mean_and_interval(summary, "dice")[0] == pytest.approx(0.4)
    assert mean_and_interval(summary, "soft_dice")[0] == pytest.approx(0.4)
    assert mean_and_interval(summary, "hd95_px") == (4.0, None)  # one value has no interval


def test_intervals_draw_patients_whole():
    # Two patients, one always 0 and one always 1: a draw of two gives the mean 0, 1/2 or 1, with a quarter of the
    # draws at either end. Slices drawn one by one would almost never give 0 or 1.
    rows = [
        row(f"{patient}{i}", dice, patient=patient) for patient, dice in (("a", 0.0), ("b", 1.0)) for i in range(50)
    ]
    assert mean_and_interval(summarise_rows(rows, "tumour"), "dice") == (0.5, [0.0, 1.0])


def test_what_is_undefined_is_none_for_json():
    summary = summarise_rows([row("1", math.nan, in_reference=False)], "tumour")
    assert mean_and_interval(summary, "dice") == (None, None)
    assert mean_and_interval(summary, "hd95_mm") == (None, None)
    assert summary["dice_mean_all"] == 1.0


def test_classes_are_given_where_there_are_several():
    rows = [row("1", 0.5, group="glioma"), row("2", 0.7, group="meningioma")]
    assert list(groups_of(rows)) == ["all", "glioma", "meningioma"]
    assert list(groups_of(rows[:1])) == ["all"]
