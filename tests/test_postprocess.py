"""From logits to labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.case import Case
from segtool.geometry import Geometry
from segtool.postprocess import SliceAssembler, activate, decide, postprocess
from segtool.preprocess import SlicedCase
from segtool.spec import ChannelSpec, LabelSpec, ModelSpec, PostprocessSpec, SliceSpec


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


def test_pictures_of_a_stack_are_unrelated() -> None:
    stack = np.zeros((2, 1, 4), np.uint8)
    stack[0, 0, :3] = stack[1, 0, 3] = 1
    kept = postprocess(stack, PostprocessSpec(largest_component=True), True)
    np.testing.assert_array_equal(kept, stack)


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["sigmoid", "softmax"]),
    st.sampled_from([0.5, 0.3]),
    st.integers(0, 99),
)
def test_resampling_only_the_labelled_part_changes_no_pixel(
    shape: tuple[int, int], activation: str, threshold: float, seed: int
) -> None:
    spec = make_spec(activation)
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.5, 1.0, (spec.output_channels, 16, 16)).astype(np.float32)
    if activation == "softmax":
        logits[0] += 3
    logits[:, : rng.integers(16)] -= 4 * (activation == "sigmoid")
    sliced = SlicedCase(Case("a", np.ones((1, *shape)), Geometry.of_pixels(shape)), spec)
    whole = decide(sliced.placement.to_native(logits), spec, threshold)
    assembler = SliceAssembler(sliced, spec, threshold)
    assembler.add(0, logits)
    np.testing.assert_array_equal(assembler.finish()[0].labels, whole)
