import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_cheng import RECIPE

from segtool.case import CaseSource, Source
from segtool.errors import UsageError
from segtool_train.data.base import Item
from segtool_train.data.split import Split, split_items
from segtool_train.data.split_rule import SplitRecipe, choice_of_test
from segtool_train.recipe import parse_recipe


def items(patients: int, slices: int = 3) -> list[Item]:
    """Patient p is of group p % 3, with slices in the folds p and p + 1, as some patients of real sets cross folds."""
    source = Source("png", (Path("x.png"),))
    return [
        Item(CaseSource(f"{p}-{s}", {"t1ce": source}, source), f"p{p:02d}", "abc"[p % 3], str((p + s % 2) % 5 + 1))
        for p in range(patients)
        for s in range(slices)
    ]


@pytest.mark.parametrize(
    "rule",
    [
        SplitRecipe(test_fold="5"),
        SplitRecipe(test_fold="5", validation_fold="4"),
        SplitRecipe(test=0.2),
        SplitRecipe(test=0.2, seed=3),
        SplitRecipe(folds=4, fold=3),
        SplitRecipe(validation=0),
        SplitRecipe(),
    ],
)
def test_no_patient_lies_on_two_sides_and_no_item_is_lost(rule: SplitRecipe):
    everything = items(20)
    split = split_items(everything, rule)
    owner = {item.name: item.patient for item in everything}
    sides = [{owner[name] for name in side} for side in (split.train, split.validation, split.test)]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert sorted((*split.train, *split.validation, *split.test)) == sorted(owner)
    assert [set(p) for p in (split.train_patients, split.validation_patients, split.test_patients)] == sides


def test_a_patient_with_any_slice_in_the_test_fold_is_tested_whole():
    split = split_items(items(10), SplitRecipe(test_fold="5"))
    # Folds p + 1 and p + 2 (mod 5): fold 5 holds slices of patients 3, 4, 8 and 9.
    assert split.test_patients == ("p03", "p04", "p08", "p09")
    assert len(split.test) == 4 * 3


def test_the_same_seed_gives_the_same_split_and_another_another():
    one, two, three = (split_items(items(20), SplitRecipe(validation=0.5, seed=s)) for s in (1, 1, 2))
    assert one == two != three


def test_a_split_is_read_back_as_written(tmp_path: Path):
    split = split_items(items(6), SplitRecipe())
    split.write(tmp_path / "split.json")
    assert Split.read(tmp_path / "split.json") == split


def test_a_fold_that_nobody_is_in_is_refused():
    with pytest.raises(UsageError, match="test_fold"):
        split_items(items(6), SplitRecipe(test_fold="9"))


def test_too_few_patients_are_refused():
    with pytest.raises(UsageError, match="Give more patients"):
        split_items(items(1), SplitRecipe())


def test_a_split_by_shares_stays_as_released_models_were_made_with_it():
    split = split_items(items(10), SplitRecipe(test=0.2, validation=0.25, seed=7))
    assert (split.test_patients, split.validation_patients) == (("p03", "p08"), ("p01", "p02"))


def test_official_folds_test_and_validate_and_a_patient_in_both_is_tested():
    split = split_items(items(10), SplitRecipe(test_fold="5", validation_fold="4"))
    # Fold 4 holds slices of patients 2, 3, 7 and 8, of whom 3 and 8 are in fold 5 too.
    assert split.test_patients == ("p03", "p04", "p08", "p09")
    assert split.validation_patients == ("p02", "p07")


def test_no_share_for_validation_lets_all_others_train():
    split = split_items(items(10), SplitRecipe(test_fold="5", validation=0))
    assert split.validation == split.validation_patients == ()
    assert len(split.train_patients) == 10 - 4


def test_a_share_that_is_asked_for_is_at_least_one_patient():
    split = split_items(items(4), SplitRecipe(test=0.01, validation=0.01))
    assert split.sizes() == {
        "train": {"patients": 2, "items": 6},
        "validation": {"patients": 1, "items": 3},
        "test": {"patients": 1, "items": 3},
    }


@pytest.mark.parametrize("seed", range(3))
def test_each_patient_tests_in_exactly_one_of_the_folds_and_each_fold_holds_its_share_of_every_group(seed: int):
    splits = [split_items(items(20), SplitRecipe(folds=5, fold=fold, seed=seed)) for fold in range(5)]
    assert Counter(patient for split in splits for patient in split.test_patients) == Counter(
        f"p{p:02d}" for p in range(20)
    )
    for split in splits:
        groups = Counter(int(patient[1:]) % 3 for patient in split.test_patients)
        assert len(split.test_patients) == 4  # of 20 patients
        assert all(groups[group] in (1, 2) for group in range(3))  # of 7, 7 and 6 patients
    assert splits[0] == split_items(items(20), SplitRecipe(folds=5, fold=0, seed=seed))


def test_by_slice_patients_lie_on_two_sides_and_the_split_says_how_many():
    split = split_items(items(4), SplitRecipe(by="slice", test=0.25, validation=0.5, seed=1))
    assert [len(side) for side in (split.train, split.validation, split.test)] == [5, 4, 3]  # 12 slices, 9 left
    sides = [set(p) for p in (split.train_patients, split.validation_patients, split.test_patients)]
    leaking = sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert split.patients_on_two_sides == len(leaking) > 0
    assert split.provenance()["patients_on_two_sides"] == len(leaking)
    assert split.provenance()["rule"].startswith("by slice: ")


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (SplitRecipe(), "by patient: 0 % test, 12 % of the rest validate, seed 0"),
        (SplitRecipe(test_fold="5", seed=2), "by patient: official fold 5 tests, 12 % of the rest validate, seed 2"),
        (SplitRecipe(test_fold="test", validation_fold="valid"), "official fold valid validates"),
        (SplitRecipe(folds=5, fold=1), "by patient: fold 1 of 5 tests, 12 % of the rest validate, seed 0"),
        (SplitRecipe(by="slice", file=Path("a/b.json")), "by slice: as a file says"),
    ],
)
def test_a_rule_reads_as_a_sentence(rule: SplitRecipe, text: str):
    assert text in str(rule)


@pytest.mark.parametrize(
    "choices",
    [
        {"test_fold": "5", "test": 0.2},
        {"folds": 5, "test_fold": "5"},
        {"file": "split.json", "folds": 5},
        {"file": "split.json", "validation_fold": "4"},
        {"folds": 5, "fold": 5},
        {"fold": 1},
        {"folds": 1},
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(choices: dict[str, object]):
    with pytest.raises(ValidationError):
        SplitRecipe.model_validate(choices)


def test_flags_replace_the_recipes_choice_and_keep_the_rest():
    def rule(**choice: object) -> SplitRecipe:
        return parse_recipe(RECIPE, "discs", "here", choice_of_test(**choice)).data.split  # type: ignore[arg-type]

    before = SplitRecipe(test_fold="5", validation=0.25)
    assert rule() == before
    assert rule(by="slice") == before.model_copy(update={"by": "slice"})
    assert rule(test_fold="2") == SplitRecipe(test_fold="2", validation=0.25)
    assert rule(folds=5, fold=1) == before.choosing(folds=5, fold=1) == SplitRecipe(folds=5, fold=1, validation=0.25)
    assert rule(file=Path("s.json")) == SplitRecipe(file=Path("s.json"), validation=0.25)
    with pytest.raises(UsageError, match="Give one of them"):
        rule(test_fold="2", file=Path("s.json"))


def write_file(path: Path, content: object) -> SplitRecipe:
    path.write_text(json.dumps(content), encoding="utf-8")
    return SplitRecipe(file=path)


def test_a_split_file_names_patients_or_cases_and_leaves_out_the_rest(tmp_path: Path):
    rule = write_file(tmp_path / "split.json", {"train": ["p00", "1-0", "1-2"], "test": ["p03"]})
    split = split_items(items(5), rule)
    assert split.train == ("0-0", "0-1", "0-2", "1-0", "1-2")
    assert (split.validation, split.test_patients) == ((), ("p03",))


def test_the_split_of_one_run_serves_another(tmp_path: Path):
    first = split_items(items(10), SplitRecipe(test=0.2, seed=3))
    first.write(tmp_path / "split.json")
    second = split_items(items(10), SplitRecipe(file=tmp_path / "split.json"))
    assert (second.train, second.validation, second.test) == (first.train, first.validation, first.test)


def test_a_split_file_that_shares_patients_is_refused_unless_that_is_asked_for(tmp_path: Path):
    rule = write_file(tmp_path / "split.json", {"train": ["0-0", "p01"], "validation": ["0-1"], "test": ["0-2"]})
    with pytest.raises(UsageError, match=r"1 patient lies on two sides.*--split slice"):
        split_items(items(3), rule)
    split = split_items(items(3), rule.model_copy(update={"by": "slice"}))
    assert split.patients_on_two_sides == 1


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ({"train": ["p00", "p17"]}, "first 'p17'.*Correct the file"),
        ({"train": ["p00"], "test": ["0-1"]}, "1 of its cases on two sides.*Leave each on one side"),
        ({"train": [], "test": ["p00"]}, "under 'train'"),
        ({"test": ["p00"]}, "no list of names under 'train'"),
        ({"train": ["p00"], "tset": ["p01"]}, "'tset'.*Write"),
        ({"train": "p00"}, "'train' is no list of names"),
        ({"train": [3]}, "'train' is no list of names"),
        ([], "Write"),
    ],
)
def test_a_split_file_that_cannot_be_used_says_how_to_write_it(tmp_path: Path, content: object, remedy: str):
    rule = write_file(tmp_path / "split.json", content)
    with pytest.raises(UsageError, match=remedy):
        split_items(items(3), rule)


def test_a_split_file_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match=r"nothing\.json: cannot be read"):
        split_items(items(3), SplitRecipe(file=tmp_path / "nothing.json"))


def test_a_split_of_a_version_that_stored_no_rule_is_read(tmp_path: Path):
    path = tmp_path / "split.json"
    sides = {"train_patients": ["a"], "validation_patients": ["b"], "test_patients": []}
    path.write_text(json.dumps({**sides, "train": ["1"], "validation": ["2"], "test": []}), encoding="utf-8")
    split = Split.read(path)
    assert split == Split(("a",), ("b",), (), ("1",), ("2",), ())
    assert split.provenance()["rule"] == "by patient"


def test_who_is_broken_is_left_out_and_moves_nobody_else():
    everything = items(10)
    split = split_items(everything, SplitRecipe(test_fold="5"))
    name = split.train[0]
    mended = split.without([item for item in everything if item.name == name], everything)
    assert mended.train == split.train[1:]
    assert (mended.validation, mended.test, mended.left_out) == (split.validation, split.test, (name,))
