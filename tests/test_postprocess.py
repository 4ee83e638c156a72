"""From logits to labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from segtool.case import Case
from segtool.geometry import Geometry
from segtool.postprocess import SliceAssembler, activate, decide, own_thresholds, postprocess
from segtool.postprocess.components import holes
from segtool.preprocess import SlicedCase
from segtool.spec import ChannelSpec, LabelRules, LabelSpec, ModelSpec, PostprocessSpec, SliceSpec


def make_spec(activation: str) -> ModelSpec:
    return ModelSpec(
        name="m",
        channels=(ChannelSpec(name="t1ce"),),
        labels=(LabelSpec(name="a", value=2), LabelSpec(name="b", value=5)),
        input=SliceSpec(size=(16, 16)),
        activation=activation,
    )


def test_sigmoid_writes_later_labels_over_earlier_ones() -> None:
    logits = np.array([[1.0, 1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]], np.float32)
    assert decide(logits, make_spec("sigmoid"), 0.5).tolist() == [2, 5, 5, 0]


@pytest.mark.parametrize(("threshold", "labels"), [(0.5, [2, 0]), (0.9, [0, 0]), (0.2, [2, 2])])
def test_sigmoid_threshold_is_a_probability(threshold: float, labels: list[int]) -> None:
    # Probabilities of label a: 0.8 and 0.3.
    logits = np.log(np.array([[4.0, 3 / 7], [1e-6, 1e-6]])).astype(np.float32)
    assert decide(logits, make_spec("sigmoid"), threshold).tolist() == labels


@pytest.mark.parametrize(("threshold", "labels"), [(0.5, [0, 5]), (0.35, [2, 5]), (0.95, [0, 0])])
def test_softmax_takes_the_most_probable_class_or_thresholds_their_sum(threshold: float, labels: list[int]) -> None:
    # Columns: background .6, a .3, b .1; and .1, .2, .7.
    logits = np.log(np.array([[0.6, 0.1], [0.3, 0.2], [0.1, 0.7]])).astype(np.float32)
    spec = make_spec("softmax")
    assert decide(logits, spec, threshold).tolist() == labels
    np.testing.assert_allclose(activate(logits, spec), [[0.3, 0.2], [0.1, 0.7]], rtol=1e-5)


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    # Probabilities of a and b by pixel: .4 .1, .4 .4, .8 .3.
    [((0.5, 0.5), [0, 0, 2]), ((0.3, 0.5), [2, 2, 2]), ((0.3, 0.35), [2, 5, 2]), ((0.9, 0.2), [0, 5, 5])],
)
def test_sigmoid_has_a_threshold_a_label(thresholds: tuple[float, float], labels: list[int]) -> None:
    shares = np.array([[0.4, 0.4, 0.8], [0.1, 0.4, 0.3]])
    logits = np.log(shares / (1 - shares)).astype(np.float32)
    assert decide(logits, make_spec("sigmoid"), thresholds).tolist() == labels


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [
        ((0.5, 0.5), [0, 5]),
        # (1 - t) / t is 4 at t = 0.2: 0.6 against 4 x 0.3 and 0.1; 0.1 against 4 x 0.2 and 0.7.
        ((0.2, 0.5), [2, 2]),
        # 1 / 4 at t = 0.8: 0.6 against 0.3 and 0.1 / 4; 0.1 against 0.2 and 0.7 / 4.
        ((0.5, 0.8), [0, 2]),
    ],
)
def test_softmax_weighs_classes_by_the_odds_of_their_thresholds(
    thresholds: tuple[float, float], labels: list[int]
) -> None:
    logits = np.log(np.array([[0.6, 0.1], [0.3, 0.2], [0.1, 0.7]])).astype(np.float32)
    assert decide(logits, make_spec("softmax"), thresholds).tolist() == labels


def test_softmax_with_one_label_cuts_at_its_threshold() -> None:
    spec = make_spec("softmax").model_copy(update={"labels": (LabelSpec(name="a", value=2, threshold=0.3),)})
    shares = np.array([0.29, 0.31, 0.7])
    logits = np.log([1 - shares, shares]).astype(np.float32)
    assert decide(logits, spec, own_thresholds(spec)).tolist() == [0, 2, 2]


ROWS = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 2]], np.uint8)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, ROWS),
        ({"min_component_voxels": 2}, [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]),
        ({"min_component_share": 0.25}, [[1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 2]]),
        ({"min_component_share": 0.26}, [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 2]]),
        ({"largest_component": True}, [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 2]]),
    ],
)
def test_components_are_judged_label_by_label(rules: dict[str, object], expected: np.ndarray) -> None:
    np.testing.assert_array_equal(postprocess(ROWS, PostprocessSpec(**rules), False), expected)


def test_holes_close() -> None:
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    assert postprocess(ring, PostprocessSpec(fill_holes=True), False).all()


@settings(deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6)))
def test_cavities_are_those_of_scipy(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(holes(mask), ndimage.binary_fill_holes(mask) & ~mask)


def test_a_label_in_the_cavity_of_another_stays() -> None:
    rim = np.full((5, 5), 4, np.uint8)
    rim[1:4, 1:4] = 0
    rim[2, 2] = 1
    filled = np.full((5, 5), 4)
    filled[2, 2] = 1
    np.testing.assert_array_equal(postprocess(rim, PostprocessSpec(fill_holes=True), False), filled)


def test_rules_of_a_label_take_the_place_of_the_general_ones() -> None:
    labels = (LabelSpec(name="a", value=1), LabelSpec(name="b", value=2))
    rules = PostprocessSpec(largest_component=True, labels={"b": LabelRules(min_component_voxels=2)})
    rows = np.array([[1, 0, 1, 1, 0, 2, 2, 0, 2, 0, 2, 2]], np.uint8)
    cleaned = postprocess(rows, rules, False, labels)
    assert cleaned.tolist() == [[0, 0, 1, 1, 0, 2, 2, 0, 0, 0, 2, 2]]


def test_pictures_of_a_stack_are_unrelated() -> None:
    stack = np.zeros((2, 1, 4), np.uint8)
    stack[0, 0, :3] = stack[1, 0, 3] = 1
    kept = postprocess(stack, PostprocessSpec(largest_component=True), True)
    np.testing.assert_array_equal(kept, stack)


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["sigmoid", "softmax"]),
    st.sampled_from([0.5, 0.3, (0.4, 0.6), (0.8, 0.2)]),
    st.integers(0, 99),
)
def test_resampling_only_the_labelled_part_changes_no_pixel(
    shape: tuple[int, int], activation: str, threshold: float | tuple[float, float], seed: int
) -> None:
    spec = make_spec(activation)
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.5, 1.0, (spec.output_channels, 16, 16)).astype(np.float32)
    if activation == "softmax":
        logits[0] += 3
    logits[:, : rng.integers(16)] -= 4 * (activation == "sigmoid")
    sliced = SlicedCase(Case("a", np.ones((1, *shape)), Geometry.of_pixels(shape)), spec)
    whole = decide(sliced.placement(0).to_native(logits), spec, threshold)
    assembler = SliceAssembler(sliced, spec, threshold)
    assembler.add(0, logits)
    np.testing.assert_array_equal(assembler.finish()[0].labels, whole)
