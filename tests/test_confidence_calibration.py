"""The temperature and the calibration error, on logits whose truth is known."""

import numpy as np
import pytest
from tiny import bright_spec

from segtool.case import LabelMap
from segtool.errors import UsageError
from segtool.geometry import Geometry
from segtool.postprocess.calibration import Calibrator, fit_temperature, likelihood, reliability
from segtool.spec import ConfidenceSpec, LabelSpec, ModelSpec

THREE = bright_spec(activation="softmax", labels=(LabelSpec(name="a", value=1, reference_values=(1,)),
                                                 LabelSpec(name="b", value=2, reference_values=(2,))))  # fmt: skip


def drawn(temperature: float, spec: ModelSpec, count: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``temperature`` times too sure, and a truth drawn from what they should be."""
    random = np.random.default_rng(1)
    honest = random.normal(0, 2, (spec.output_channels, count))
    if spec.activation == "sigmoid":
        truth = random.random(honest.shape) < 1 / (1 + np.exp(-honest))
    else:
        shares = np.exp(honest) / np.exp(honest).sum(axis=0)
        kinds = (random.random(count) > np.cumsum(shares, axis=0)).sum(axis=0)
        truth = np.stack([kinds == kind + 1 for kind in range(len(spec.labels))])
    return (temperature * honest).astype(np.float32), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("spec", [bright_spec(), THREE], ids=["sigmoid", "softmax"])
def test_the_temperature_that_made_the_logits_is_found(temperature: float, spec: ModelSpec) -> None:
    assert fit_temperature(*drawn(temperature, spec), spec) == pytest.approx(temperature, rel=0.02)


@pytest.mark.parametrize("spec", [bright_spec(), THREE], ids=["sigmoid", "softmax"])
def test_honest_probabilities_have_hardly_any_error_and_too_sure_ones_have(spec: ModelSpec) -> None:
    logits, truth = drawn(3.0, spec)
    assert reliability(logits / 3, truth, spec).ece < 0.005
    assert reliability(logits, truth, spec).ece > 0.05


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.9, 0.9, 0.9, 0.1, 0.1]])
    truth = np.array([[True, True, True, False, False, False]])
    found = reliability(np.log(p / (1 - p)), truth, bright_spec())
    # Four voxels at 0.9 of which 0.75 are true, two at 0.1 of which none is.
    assert found.ece == pytest.approx((4 * 0.15 + 2 * 0.1) / 6, abs=1e-6)
    assert found.nll == pytest.approx(-(3 * np.log(0.9) + np.log(0.1) + 2 * np.log(0.9)) / 6, abs=1e-6)
    filled = {index: (one.count, one.frequency) for index, one in enumerate(found.bins) if one.count}
    assert filled == {1: (2, 0.0), 13: (4, 0.75)}
    assert sum(one.count for one in found.bins) == 6


def test_the_likelihood_of_softmax_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.2], [0.2, 0.3], [0.1, 0.5]]))
    truth = np.array([[False, False], [False, True]])  # background, then the second label
    assert likelihood(logits, truth, THREE) == pytest.approx(-(np.log(0.7) + np.log(0.5)) / 2)


def case(size: int = 100, corner: int = 40) -> tuple[np.ndarray, LabelMap, LabelMap]:
    labels = np.zeros((size, size), np.uint8)
    labels[corner : corner + 10, corner : corner + 10] = 1
    logits = np.where(labels, 2.0, -2.0)[np.newaxis]
    logits[:, :5] = 8.0  # wrong, and far from anything
    return logits, LabelMap(labels, grid := Geometry.of_pixels((size, size))), LabelMap(labels, grid)


def test_voxels_are_those_around_the_structures() -> None:
    calibrator = Calibrator(bright_spec())
    calibrator.add("one", *case())
    found = calibrator.judge(1.0)
    assert (found.cases, found.voxels) == (1, (10 + 2 * 16) ** 2)
    assert {index for index, one in enumerate(found.before.bins) if one.count} == {1, 13}  # no 8 among them


def test_order_changes_nothing_and_large_cases_are_sampled() -> None:
    cases = {f"case {number}": case(400, 20 + 30 * number) for number in range(3)}
    cases = {name: (np.random.default_rng(3).normal(0, 3, one[0].shape), *one[1:]) for name, one in cases.items()}
    big = np.zeros((400, 400), np.uint8)
    big[50:350, 50:350] = 1
    cases["big"] = cases["case 0"][0], LabelMap(big, cases["case 0"][1].geometry), cases["case 0"][2]
    found = []
    for names in (list(cases), list(cases)[::-1]):
        calibrator = Calibrator(bright_spec())
        for name in names:
            calibrator.add(name, *cases[name])
        found.append(calibrator.learn())
    assert found[0] == found[1]
    assert found[0].voxels == 3 * 42 * 42 + 4096


def test_pictures_of_a_stack_are_cases() -> None:
    logits, predicted, reference = case()
    stack = Geometry.of_pixels((2, 100, 100))
    two = [LabelMap(np.stack([one.labels, 0 * one.labels]), stack) for one in (predicted, reference)]
    calibrator = Calibrator(bright_spec())
    calibrator.add("stack", np.stack([logits, logits], axis=1), *two)
    assert calibrator.cases == 1  # the second picture has nothing marked


def test_nothing_marked_anywhere_is_said_so() -> None:
    logits, predicted, _ = case()
    calibrator = Calibrator(bright_spec())
    calibrator.add("empty", logits, *[LabelMap(predicted.labels * 0, predicted.geometry)] * 2)
    with pytest.raises(UsageError, match="reference_values"):
        calibrator.learn()


def test_faultless_cases_do_not_take_all_doubt_away() -> None:
    logits = np.array([[-3.0, -0.5, 0.5, 3.0]], np.float32)
    assert fit_temperature(logits, logits > 0, bright_spec()) == pytest.approx(0.25, rel=0.01)


def test_a_spec_with_a_temperature_is_of_schema_5_and_comes_back_equal() -> None:
    spec = bright_spec(confidence=ConfidenceSpec(temperature=1.7, ece_before=0.1, ece_after=0.02, cases=9))
    assert spec.schema_version == 5
    assert ModelSpec.from_json(spec.to_json(), "x") == spec
    assert "confidence" not in bright_spec().to_json()


@pytest.mark.parametrize("temperature", [0, -1, 1e9, float("nan")])
def test_a_temperature_is_a_positive_number(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        ConfidenceSpec(temperature=temperature)
