"""Whose an item is, where the recipe says how names tell."""

from pathlib import Path

import pytest
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.data.listing import listed
from segtool_train.recipe import parse_recipe


def recipe_with(pattern: str):
    return parse_recipe(RECIPE.replace("[data]\n", f"[data]\npatient = '{pattern}'\n"), "tiny", "recipe")


def test_the_first_group_of_the_pattern_is_the_patient(discs: Path) -> None:
    listing = listed(recipe_with(r"^\d\d(\d)"), discs)
    assert {(item.name, item.patient) for item in listing.items} >= {("0007", "0"), ("0012", "1")}
    assert listing.notes == (r"patients by '^\\d\\d(\\d)': 2 of 20 cases",)


def test_a_folder_in_another_layout_names_that_one(discs: Path) -> None:
    wrong = parse_recipe(RECIPE, "tiny", "recipe", {"data.layout": "hdf5_xy"})
    with pytest.raises(UsageError, match=r"looks like layout 'cheng', index.*Train with --set data\.layout=cheng"):
        listed(wrong, discs)


def test_a_folder_in_no_layout_is_named_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"index\.csv is missing\. Give the folder"):
        listed(parse_recipe(RECIPE, "tiny", "recipe"), tmp_path)


def test_a_case_in_whose_name_there_is_no_patient_is_named(discs: Path) -> None:
    with pytest.raises(UsageError, match=r"case '0010'.*Change the pattern"):
        listed(recipe_with(r"^000(\d)"), discs)


@pytest.mark.parametrize(("pattern", "fault"), [("(", "not a regular expression"), ("^0", "no group")])
def test_a_pattern_that_cannot_name_a_patient_is_refused(pattern: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        recipe_with(pattern)
