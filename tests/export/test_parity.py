"""The gates: what is compared, what fails, and what the line says."""

from pathlib import Path

import numpy as np
import pytest
from tiny import bright_spec

from segtool.errors import ModelError
from segtool.spec import LabelSpec
from segtool_export.cases import Sample
from segtool_export.cli import export
from segtool_export.parity import GATES, CaseParity, LabelParity, Parity, compare_case

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
    assert case.labels["tumour"] == LabelParity(differing=1, pixels=5, before=1.0, after=0.8)
    assert case.labels["tumour"].dice == 0.8
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


SAME, ONE_OF_A_DOZEN = LabelParity(0, 2000), LabelParity(1, 25)


@pytest.mark.parametrize(
    ("precision", "labels", "says"),
    [
        ("fp32", [SAME, LabelParity(2, 2000)], "mask Dice >= 0.9999 in every case fails on 'case 1' with 0.999000"),
        ("fp16", [SAME, LabelParity(12, 600)], "mask Dice >= 0.99 in every case fails on 'case 1' with 0.980000"),
        ("fp16", [LabelParity(4, 2000)] * 3, "mask Dice >= 0.999 over all cases fails on tumour with 0.998000"),
        ("int8", [LabelParity(30, 2000)] * 3, "mask Dice >= 0.99 over all cases fails on tumour with 0.985000"),
        # A lesion of two pixels that is gone in every case: no case counts, all of them together do.
        ("int8", [LabelParity(2, 2)] * 9, "mask Dice >= 0.99 over all cases fails on tumour with 0.000000 (18 pixels"),
        ("int8", [LabelParity(2, 2000, 0.90, 0.89)], "loss of Dice to the reference <= 0.005 fails on tumour"),
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
        ("fp32", [ONE_OF_A_DOZEN]),  # no finer step exists
        ("fp16", [LabelParity(10, 2000), *[SAME] * 9]),
        ("fp16", [LabelParity(4, 40), *[SAME] * 9]),
        ("int8", [LabelParity(100, 2000), *[SAME] * 9]),
        ("int8", [LabelParity(2, 2000, 0.900, 0.896)]),
    ],
)
def test_what_is_within_the_gates_passes(precision: str, labels: list[LabelParity]):
    assert parity(precision, *labels).failure() is None


def test_the_provenance_has_worst_mean_and_both_dice_to_the_reference():
    facts = parity("int8", LabelParity(2, 200, 0.8, 0.81), LabelParity(0, 800)).to_provenance()
    assert facts["mask_dice_worst"] == 0.99
    assert facts["mask_dice_mean"] == 0.995
    assert facts["labels"]["tumour"]["mask_dice_together"] == 0.998
    assert (facts["gate"], facts["gate_worst"], facts["gate_loss"]) == (0.99, 0.9, 0.005)
    assert facts["labels"]["tumour"]["reference_dice_before"] == 0.8
    assert facts["labels"]["tumour"]["reference_dice_after"] == 0.81


def test_the_help_states_the_gates_as_they_are():
    said = " ".join((export.__doc__ or "").split())
    fp32, fp16, int8 = (GATES[precision] for precision in ("fp32", "fp16", "int8"))
    assert f"is {fp32.together} or more in fp32, {fp16.together} in fp16, {int8.together} in int8" in said
    assert f"below {fp32.worst}, {fp16.worst}, {int8.worst}" in said
    assert f"no more than {fp32.pixels}, {fp16.pixels}, {int8.pixels} pixels" in said
    assert {gate.loss for gate in GATES.values()} == {0.005}
    assert "falls by 0.005 at most" in said


@pytest.mark.parametrize(
    ("differing", "says"),
    [
        ((3, 0), None),  # 0.9985 and 1
        ((3, 3), "mask Dice >= 0.999 in the mean over labels fails with 0.998500"),
        ((5, 0, 0), "mask Dice >= 0.998 over all cases fails on core with 0.997500"),
        ((0,), None),
        ((3,), "mask Dice >= 0.999 in the mean over labels fails with 0.998500"),
    ],
)
def test_bf16_is_held_to_the_mean_over_labels(differing: tuple[int, ...], says: str | None):
    labels = dict(zip(("core", "rim", "centre"), (LabelParity(count, 2000) for count in differing), strict=False))
    failure = Parity("bf16", "openvino", (CaseParity("a", 0.1, labels),)).failure()
    assert failure is None if says is None else failure is not None and says in failure.reason
