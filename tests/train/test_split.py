from pathlib import Path

import pytest

from segtool.case import CaseSource, Source
from segtool.errors import UsageError
from segtool_train.data.base import Item
from segtool_train.data.split import Split, SplitRecipe, split_by_patient


def items(patients: int, slices: int = 3) -> list[Item]:
    """Patient p has slices in the folds p and p + 1, as some patients of real sets cross folds."""
    source = Source("png", (Path("x.png"),))
    return [
        Item(CaseSource(f"{p}-{s}", {"t1ce": source}, source), f"p{p:02d}", fold=str((p + s % 2) % 5 + 1))
        for p in range(patients)
        for s in range(slices)
    ]


@pytest.mark.parametrize(
    "rule", [SplitRecipe(test_fold="5"), SplitRecipe(test=0.2), SplitRecipe(test=0.2, seed=3), SplitRecipe()]
)
def test_no_patient_lies_on_two_sides_and_no_item_is_lost(rule: SplitRecipe):
    everything = items(20)
    split = split_by_patient(everything, rule)
    owner = {item.name: item.patient for item in everything}
    sides = [{owner[name] for name in side} for side in (split.train, split.validation, split.test)]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert sorted((*split.train, *split.validation, *split.test)) == sorted(owner)
    assert [set(p) for p in (split.train_patients, split.validation_patients, split.test_patients)] == sides


def test_a_patient_with_any_slice_in_the_test_fold_is_tested_whole():
    split = split_by_patient(items(10), SplitRecipe(test_fold="5"))
    # Folds p + 1 and p + 2 (mod 5): fold 5 holds slices of patients 3, 4, 8 and 9.
    assert split.test_patients == ("p03", "p04", "p08", "p09")
    assert len(split.test) == 4 * 3


def test_the_same_seed_gives_the_same_split_and_another_another():
    one, two, three = (split_by_patient(items(20), SplitRecipe(validation=0.5, seed=s)) for s in (1, 1, 2))
    assert one == two != three


def test_a_split_is_read_back_as_written(tmp_path: Path):
    split = split_by_patient(items(6), SplitRecipe())
    split.write(tmp_path / "split.json")
    assert Split.read(tmp_path / "split.json") == split


def test_a_fold_that_nobody_is_in_is_refused():
    with pytest.raises(UsageError, match="test_fold"):
        split_by_patient(items(6), SplitRecipe(test_fold="9"))


def test_too_few_patients_are_refused():
    with pytest.raises(UsageError, match="Give more patients"):
        split_by_patient(items(1), SplitRecipe())
