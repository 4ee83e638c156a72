"""The gates: what is compared, what fails, and what the line says."""

from pathlib import Path

import numpy as np
import pytest
from tiny import bright_spec

from segtool.errors import ModelError
from segtool.spec import LabelSpec
from segtool_export.cases import Sample
from segtool_export.parity import CaseParity, LabelParity, Parity, compare_case

TWO = (LabelSpec(name="core", value=1), LabelSpec(name="rim", value=2))


def logits(*rows: str) -> np.ndarray:
    """``(1, H, W)``: # is inside."""
    return np.array([[[3.0 if pixel == "#" else -3.0 for pixel in row] for row in rows]], np.float32)


def parity(precision: str, *labels: LabelParity) -> Parity:
    cases = tuple(CaseParity(f"case {number}", 0.25, {"tumour": label}) for number, label in enumerate(labels))
    return Parity(precision, "onnxruntime", cases)


def test_a_case_is_compared_with_the_original_and_with_the_reference():
    sample = Sample("a", np.zeros((1, 1, 4), np.float32), np.array([[[True, True, False, False]]]))
    case = compare_case(sample, logits("##.."), logits("###."), bright_spec())
    # Original and reference have the same two pixels, the export has three: 2 * 2 / (2 + 3).
    assert case.labels["tumour"] == LabelParity(dice=0.8, differing=1, before=1.0, after=0.8)
    assert case.max_abs_diff == 6


def test_a_reference_without_the_structure_says_nothing_about_its_dice():
    sample = Sample("a", np.zeros((1, 1, 2), np.float32), np.zeros((1, 1, 2), bool))
    assert compare_case(sample, logits("#."), logits("#."), bright_spec()).labels["tumour"].before is None


def test_every_label_is_compared_by_itself():
    before = np.array([[[3, 3, -3, -3]], [[-3, -3, 3, -3]]], np.float32)
    after = np.array([[[3, 3, -3, -3]], [[-3, -3, 3, 3]]], np.float32)
    case = compare_case(Sample("a", np.zeros((1, 1, 4), np.float32)), before, after, bright_spec(labels=TWO))
    assert case.labels["core"].dice == 1
    assert case.labels["rim"].dice == pytest.approx(2 / 3)
    assert case.mask_dice == pytest.approx(2 / 3)


def test_logits_that_are_no_numbers_never_pass():
    nan = np.full((1, 8, 8), np.nan, np.float32)
    case = compare_case(Sample("a", np.zeros((1, 8, 8), np.float32)), nan, nan, bright_spec())
    result = Parity("int8", "onnxruntime", (case,))
    assert result.failure() is not None


@pytest.mark.parametrize(
    ("precision", "labels", "says"),
    [
        ("fp32", [LabelParity(1.0, 0), LabelParity(0.9990, 12)], "mask Dice >= 0.9999 in every case fails on 'case 1'"),
        ("fp16", [LabelParity(1.0, 0), LabelParity(0.98, 12)], "mask Dice >= 0.99 in every case fails on 'case 1'"),
        ("fp16", [LabelParity(0.998, 12)] * 3, "mean mask Dice >= 0.999 fails on tumour with 0.998"),
        ("int8", [LabelParity(0.985, 9)] * 3, "mean mask Dice >= 0.99 fails on tumour"),
        ("int8", [LabelParity(0.999, 9, 0.90, 0.89)], "loss of Dice to the reference <= 0.005 fails on tumour"),
    ],
)
def test_a_gate_that_fails_is_named_with_case_and_remedy(precision: str, labels: list[LabelParity], says: str):
    with pytest.raises(ModelError) as raised:
        parity(precision, *labels).check(Path("model.onnx"))
    assert says in str(raised.value)
    assert "model.onnx: not written" in str(raised.value)
    assert raised.value.remedy.startswith(("Try another", "Export with", "Give more"))


@pytest.mark.parametrize(
    ("precision", "labels"),
    [
        ("fp32", [LabelParity(0.96, 1)]),  # one pixel of a lesion of a dozen: no finer step exists
        ("fp16", [LabelParity(0.995, 12)] + [LabelParity(1.0, 0)] * 9),
        ("int8", [LabelParity(0.95, 40)] + [LabelParity(0.999, 3)] * 9),
        ("int8", [LabelParity(0.999, 9, 0.900, 0.896)]),
    ],
)
def test_what_is_within_the_gates_passes(precision: str, labels: list[LabelParity]):
    assert parity(precision, *labels).failure() is None


def test_the_provenance_has_worst_mean_and_both_dice_to_the_reference():
    facts = parity("int8", LabelParity(0.99, 9, 0.8, 0.81), LabelParity(1.0, 0)).to_provenance()
    assert facts["mask_dice_worst"] == 0.99
    assert facts["mask_dice_mean"] == 0.995
    assert facts["labels"]["tumour"]["reference_dice_before"] == 0.8
    assert facts["labels"]["tumour"]["reference_dice_after"] == 0.81
