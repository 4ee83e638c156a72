"""Thresholds and rules learnt on validation cases, with answers worked out by hand."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.errors import UsageError
from segtool.geometry import Geometry
from segtool.metrics import dice
from segtool.postprocess import decide, own_thresholds, postprocess
from segtool.postprocess.learning import Learnt, PostprocessLearner, Search, learn_postprocessing
from segtool.spec import ChannelSpec, LabelRules, LabelSpec, ModelSpec, PostprocessSpec, SliceSpec

NOTHING = Search(
    thresholds=(), min_component_voxels=(), min_component_shares=(), largest_component=False, fill_holes=False
)


def make_spec(labels: int = 1, activation: str = "sigmoid", **changes: object) -> ModelSpec:
    parts = {
        "name": "m",
        "channels": (ChannelSpec(name="t1ce"),),
        "labels": tuple(LabelSpec(name="abc"[i], value=i + 1, reference_values=(i + 1,)) for i in range(labels)),
        "input": SliceSpec(size=(16, 16)),
        "activation": activation,
    }
    return ModelSpec(**(parts | changes))


def learn(shares: list, reference: list, spec: ModelSpec | None = None, **search: object) -> Learnt:
    """From one picture of one row; ``shares`` of one label, or a list a label."""
    probabilities = np.array(shares, np.float32).reshape(len((spec or make_spec()).labels), 1, -1)
    labels = np.array([reference], np.uint8)
    options = Search(**({name: getattr(NOTHING, name) for name in Search.__dataclass_fields__} | search))
    return learn_postprocessing(
        [(probabilities, labels, Geometry.of_pixels(labels.shape))], spec or make_spec(), options
    )


def scores(learnt: Learnt, label: str = "a") -> dict[float, float]:
    return {row.threshold: row.dice for row in learnt.table if row.label == label}


def test_every_threshold_is_scored_and_the_best_one_chosen() -> None:
    learnt = learn([0.9, 0.45, 0.45, 0.25, 0.1], [1, 1, 1, 0, 0], thresholds=(0.2, 0.4))
    assert scores(learnt) == {0.5: 2 / 4, 0.4: 1.0, 0.2: 6 / 7}
    assert learnt.thresholds == {"a": 0.4}
    assert learnt.spec.labels[0].threshold == 0.4
    assert learnt.spec.threshold == 0.5


def test_of_equal_thresholds_the_nearest_wins() -> None:
    learnt = learn([0.9, 0.35, 0.35], [1, 1, 1], thresholds=(0.1, 0.2, 0.3))
    assert learnt.thresholds == {"a": 0.3}


def test_the_default_stays_unless_the_gain_exceeds_the_margin() -> None:
    # 999 of 1000 voxels are found with 0.5, all with 0.4: Dice 1998 / 1999 against 1.
    shares, reference = [0.9] * 999 + [0.45], [1] * 1000
    assert learn(shares, reference, thresholds=(0.4,)).thresholds == {"a": 0.5}
    assert learn(shares, reference, thresholds=(0.4,), margin=0.0001).thresholds == {"a": 0.4}


def test_small_components_go_where_they_are_wrong() -> None:
    learnt = learn([0.9, 0.9, 0.9, 0, 0.9, 0, 0.9], [1, 1, 1, 0, 0, 0, 0], min_component_voxels=(2, 4))
    assert [(row.rules.min_component_voxels, row.dice) for row in learnt.table] == [(0, 6 / 8), (2, 1.0), (4, 0.0)]
    assert learnt.postprocess == PostprocessSpec(min_component_voxels=2)


def test_the_simpler_of_two_equal_rules_wins() -> None:
    # Without the single voxel at 0.6 all is right: a rule does it, a threshold does it, both do it.
    learnt = learn([0.9, 0.9, 0, 0.6], [1, 1, 0, 0], thresholds=(0.7,), min_component_voxels=(2,))
    (chosen,) = (row for row in learnt.table if row.is_chosen)
    assert (chosen.threshold, chosen.rules) == (0.5, LabelRules(min_component_voxels=2))


def test_two_changes_are_made_where_each_pays() -> None:
    # 0.4 finds the whole lesion and, with it, a far voxel that the rule removes.
    learnt = learn([0.9, 0.45, 0.45, 0, 0.45], [1, 1, 1, 0, 0], thresholds=(0.4,), min_component_voxels=(2,))
    (chosen,) = (row for row in learnt.table if row.is_chosen)
    assert (chosen.threshold, chosen.rules.min_component_voxels, chosen.dice) == (0.4, 2, 1.0)


def test_shares_and_the_largest_component_are_tried() -> None:
    row, truth = [0.9] * 4 + [0] + [0.9] * 2 + [0] + [0.9], [1] * 4 + [0] + [1] * 2 + [0, 0]
    assert learn(row, truth, min_component_shares=(0.3,)).postprocess.min_component_share == 0.3
    assert learn(row, [1] * 4 + [0] * 5, largest_component=True).postprocess.largest_component


def test_cavities_are_filled_where_the_reference_fills_them() -> None:
    ring = np.full((1, 3, 3), 0.9, np.float32)
    ring[0, 1, 1] = 0.1
    full, hollow = np.ones((3, 3), np.uint8), (ring[0] > 0.5).astype(np.uint8)
    for truth, fills in ((full, True), (hollow, False)):
        learnt = learn_postprocessing([(ring, truth, Geometry.of_pixels((3, 3)))], make_spec())
        assert learnt.postprocess.fill_holes is fills


def test_a_rule_of_the_model_that_hurts_is_dropped() -> None:
    spec = make_spec(postprocess=PostprocessSpec(largest_component=True))
    learnt = learn([0.9, 0.9, 0, 0.9], [1, 1, 0, 1], spec)
    assert learnt.postprocess == PostprocessSpec()
    assert learnt.as_dict()["a"]["before"]["dice"] == 4 / 5
    assert learnt.as_dict()["a"]["now"]["dice"] == 1.0


def test_labels_learn_by_themselves() -> None:
    spec = make_spec(2)
    learnt = learn(
        [[0.4, 0.4, 0, 0, 0], [0, 0, 0.9, 0, 0.9]], [1, 1, 2, 0, 0], spec, thresholds=(0.3,), largest_component=True
    )
    assert learnt.thresholds == {"a": 0.3, "b": 0.5}
    assert learnt.postprocess == PostprocessSpec(labels={"b": LabelRules(largest_component=True)})


def test_a_later_label_keeps_its_voxels_from_an_earlier_one() -> None:
    # b is written over a where both are likely, so that no threshold of a can gain there.
    learnt = learn([[0.4, 0.4], [0.0, 0.9]], [1, 2], make_spec(2), thresholds=(0.3,))
    assert scores(learnt) == {0.5: 0.0, 0.3: 1.0}


def test_only_cases_with_the_label_count_and_the_others_stand_beside() -> None:
    search = Search(**({n: getattr(NOTHING, n) for n in Search.__dataclass_fields__} | {"thresholds": (0.2,)}))
    learner = PostprocessLearner(make_spec(), search)
    for share, truth in ((0.9, 1), (0.3, 0)):
        learner.add(np.full((1, 1, 4), share), np.full((1, 4), truth), Geometry.of_pixels((1, 4)))
    rows = {row.threshold: row for row in learner.finish().table}
    assert (rows[0.5].dice, rows[0.5].dice_all, rows[0.5].cases) == (1.0, 1.0, 1)
    assert (rows[0.2].dice, rows[0.2].dice_all, rows[0.2].cases) == (1.0, 0.5, 1)


def test_a_stack_counts_picture_by_picture() -> None:
    shares, truth = np.zeros((1, 2, 1, 3), np.float16), np.zeros((2, 1, 3), np.uint8)
    shares[0, 0, 0, :2], truth[0, 0, :2] = 0.9, 1
    shares[0, 1, 0, :1], truth[1, 0, :2] = 0.9, 1
    learnt = learn_postprocessing([(shares, truth, Geometry.of_pixels((2, 1, 3)))], make_spec(), NOTHING)
    assert (learnt.table[0].cases, learnt.table[0].dice) == (2, (1 + 2 / 3) / 2)


def test_references_without_any_label_teach_nothing() -> None:
    with pytest.raises(UsageError, match="Check the values of the references"):
        learn([0.9, 0.9], [0, 3])


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="of a model with 1 labels"):
        PostprocessLearner(make_spec()).add(np.zeros((2, 1, 3)), np.zeros((1, 3), int), Geometry.of_pixels((1, 3)))


def pictures(rng: np.random.Generator, labels: int, activation: str) -> Iterator[tuple]:
    for _ in range(2):
        logits = rng.normal(0, 2, (labels + (activation == "softmax"), 9, 9)).astype(np.float32)
        if activation == "softmax":
            weights = np.exp(logits)
            shares = (weights / weights.sum(axis=0))[1:]
        else:
            shares = 1 / (1 + np.exp(-logits))
        yield logits, shares, rng.integers(0, labels + 1, (9, 9))


PRESENT = {
    "a": LabelRules(fill_holes=True),
    "b": LabelRules(min_component_voxels=3, fill_holes=True),
    "c": LabelRules(largest_component=True),
}


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(["sigmoid", "softmax"]), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_every_row_is_the_dice_that_inference_gets(activation: str, labels: int, seed: int, ruled: bool) -> None:
    present = {name: PRESENT[name] for name in "abc"[:labels] if ruled}
    spec = make_spec(labels, activation, postprocess=PostprocessSpec(labels=present))
    cases = list(pictures(np.random.default_rng(seed), labels, activation))
    search = Search(thresholds=(0.3, 0.6), min_component_voxels=(3,), min_component_shares=(0.5,))
    learnt = learn_postprocessing([(s, r, Geometry.of_pixels((9, 9))) for _, s, r in cases], spec, search)
    for row in learnt.table:
        changed = [
            label.model_copy(update={"threshold": row.threshold}) if label.name == row.label else label
            for label in spec.labels
        ]
        rules = PostprocessSpec(labels={**present, row.label: row.rules})
        tried = spec.model_copy(update={"labels": tuple(changed), "postprocess": rules})
        value = next(label.value for label in spec.labels if label.name == row.label)
        values = []
        for logits, _, reference in cases:
            made = postprocess(decide(logits, tried, own_thresholds(tried)), rules, False, tried.labels)
            values.append(dice(made == value, reference == value))
        assert row.dice == pytest.approx(np.mean(values))
