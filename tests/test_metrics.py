import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segtool import metrics, surface
from segtool.metrics import Counts, confusion

SPACING = (1.0, 2.0, 3.0)
EMPTY = np.zeros((4, 4, 4), bool)


def cube(*corner):
    """A cube of 2x2x2 voxels in a grid of 4x4x4."""
    mask = EMPTY.copy()
    mask[tuple(slice(start, start + 2) for start in corner)] = True
    return mask


CUBE = cube(1, 1, 1)


def masks(count, dims=3):
    return array_shapes(min_dims=dims, max_dims=dims, min_side=1, max_side=6).flatmap(
        lambda shape: st.tuples(*(arrays(bool, shape) for _ in range(count)))
    )


# Overlap


def test_confusion_counts_every_voxel_once():
    prediction = np.array([[1, 1, 0], [0, 0, 0]], bool)
    reference = np.array([[1, 0, 1], [1, 0, 0]], bool)
    assert confusion(prediction, reference) == Counts(tp=1, fp=1, fn=2, tn=2)


@pytest.mark.parametrize(
    ("measure", "answer"),
    [
        (metrics.dice, 2 * 4 / (8 + 8)),
        (metrics.f1, 2 * 4 / (8 + 8)),
        (metrics.iou, 4 / 12),
        (metrics.precision, 4 / 8),
        (metrics.recall, 4 / 8),
        (metrics.specificity, 52 / 56),
    ],
)
def test_cubes_shifted_by_one_voxel_share_half_of_each(measure, answer):
    assert measure(CUBE, cube(1, 1, 2)) == pytest.approx(answer)


@pytest.mark.parametrize(
    ("prediction", "reference", "answers"),
    [
        # dice, iou, precision, recall, specificity
        (EMPTY, EMPTY, (math.nan, math.nan, math.nan, math.nan, 1.0)),
        (EMPTY, CUBE, (0.0, 0.0, math.nan, 0.0, 1.0)),
        (CUBE, EMPTY, (0.0, 0.0, 0.0, math.nan, 56 / 64)),
        (~EMPTY, ~EMPTY, (1.0, 1.0, 1.0, 1.0, math.nan)),
    ],
    ids=["both empty", "missed", "spurious", "everything"],
)
def test_undefined_ratios_are_nan_and_no_others(prediction, reference, answers):
    names = ("dice", "iou", "precision", "recall", "specificity")
    found = [getattr(metrics, name)(prediction, reference) for name in names]
    np.testing.assert_allclose(found, answers)


def test_volume_is_voxels_times_spacing():
    assert metrics.volume_ml(CUBE, SPACING) == pytest.approx(8 * 6 / 1000)


def test_volume_difference_is_positive_where_too_much_is_predicted():
    more = CUBE | cube(1, 1, 2)  # 12 voxels against 8
    assert metrics.volume_difference_ml(more, CUBE, SPACING) == pytest.approx(4 * 6 / 1000)
    assert metrics.volume_difference_percent(more, CUBE) == pytest.approx(50.0)
    assert metrics.volume_difference_percent(CUBE, more) == pytest.approx(-100 / 3)


def test_volume_difference_in_percent_of_nothing_is_undefined():
    assert math.isnan(metrics.volume_difference_percent(CUBE, EMPTY))


@pytest.mark.parametrize("measure", [metrics.dice, lambda p, r: surface.hd95(p, r, (1, 1))])
def test_masks_of_two_shapes_are_refused(measure):
    with pytest.raises(ValueError, match="two shapes"):
        measure(np.ones((2, 2), bool), np.ones((2, 3), bool))


def test_label_maps_are_refused_where_masks_are_wanted():
    with pytest.raises(ValueError, match="boolean"):
        metrics.dice(np.array([1, 2], np.uint8), np.array([2, 2], np.uint8))


def test_spacing_of_another_number_of_axes_is_refused():
    with pytest.raises(ValueError, match="3 spacings"):
        metrics.volume_ml(CUBE, (1, 1))
    with pytest.raises(ValueError, match="3 spacings"):
        surface.hd95(CUBE, CUBE, (1, 1))


@given(masks(2))
def test_dice_is_symmetric_and_follows_from_iou(pair):
    one, other = pair
    dice, iou = metrics.dice(one, other), metrics.iou(one, other)
    np.testing.assert_equal(dice, metrics.dice(other, one))
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))


@given(masks(2))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pair):
    precision, recall = metrics.precision(*pair), metrics.recall(*pair)
    if precision + recall > 0:
        assert metrics.f1(*pair) == pytest.approx(2 * precision * recall / (precision + recall))


# Surfaces


@pytest.mark.parametrize(
    ("corner", "distance"), [((2, 1, 1), 1.0), ((1, 2, 1), 2.0), ((1, 1, 2), 3.0)], ids=["I", "J", "K"]
)
def test_hd95_of_a_shift_by_one_voxel_is_the_spacing_of_that_axis(corner, distance):
    # Every voxel of a 2x2x2 cube is surface: half of them coincide, half lie one step away.
    assert surface.hd95(CUBE, cube(*corner), SPACING) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("corner", "within_1", "within_2"),
    [((2, 1, 1), 1.0, 1.0), ((1, 2, 1), 0.5, 1.0), ((1, 1, 2), 0.5, 0.5)],
    ids=["1 mm", "2 mm", "3 mm"],
)
def test_surface_distance_counts_the_share_within_tolerance(corner, within_1, within_2):
    shares = [surface.normalised_surface_distance(CUBE, cube(*corner), SPACING, mm) for mm in (1.0, 2.0)]
    assert shares == [within_1, within_2]


def test_hd95_pools_both_directions():
    reference = np.zeros(11, bool)
    reference[0] = True
    prediction = reference.copy()
    prediction[10] = True
    # Pooled: 0, 0, 10, whose 95th percentile lies 0.9 of the way to 10. One direction alone would give 9.5.
    assert surface.hd95(prediction, reference, (1.0,)) == pytest.approx(9.0)


def test_the_inside_of_a_structure_is_not_surface():
    full = np.zeros((9, 9), bool)
    full[1:8, 1:8] = True
    hollow = full.copy()
    hollow[4, 4] = False  # its four neighbours become surface, 2 pixels from the outer edge
    distances = surface.surface_distances(hollow, full, (1.0, 1.0))
    assert distances.of_reference.size == 24
    assert sorted(distances.of_prediction) == [0.0] * 24 + [2.0] * 4


def test_the_edge_of_the_grid_is_surface():
    full = np.ones((3, 3), bool)
    assert surface.surface_distances(full, full, (1, 1)).of_prediction.size == 8


@pytest.mark.parametrize(
    ("prediction", "reference", "within"),
    [(EMPTY, EMPTY, math.nan), (EMPTY, CUBE, 0.0), (CUBE, EMPTY, 0.0)],
    ids=["both empty", "missed", "spurious"],
)
def test_there_is_no_distance_to_a_structure_that_is_not_there(prediction, reference, within):
    assert math.isnan(surface.hd95(prediction, reference, SPACING))
    found = surface.normalised_surface_distance(prediction, reference, SPACING, 1.0)
    np.testing.assert_equal(found, within)


@settings(max_examples=30)
@given(masks(1))
def test_equal_masks_have_no_distance(only):
    (mask,) = only
    found = surface.hd95(mask, mask, SPACING)
    assert found == 0.0 if mask.any() else math.isnan(found)


@settings(max_examples=30)
@given(masks(2), st.floats(0.1, 10))
def test_hd95_is_symmetric_and_scales_with_the_spacing(pair, scale):
    one, other = pair
    distance = surface.hd95(one, other, SPACING)
    np.testing.assert_allclose(surface.hd95(other, one, SPACING), distance)
    np.testing.assert_allclose(surface.hd95(one, other, [scale * mm for mm in SPACING]), scale * distance)


@settings(max_examples=30)
@given(masks(2))
def test_distances_are_those_of_every_pair_of_surface_voxels(pair):
    def surface_points(mask):
        padded = np.pad(mask, 1)
        inner = mask.copy()
        for axis in range(3):
            for step in (-1, 1):
                inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
        return np.argwhere(mask & ~inner) * SPACING

    one, other = (surface_points(mask) for mask in pair)
    found = surface.surface_distances(*pair, SPACING)
    if len(one) and len(other):
        table = np.linalg.norm(one[:, None] - other[None], axis=-1)
        np.testing.assert_allclose(found.of_prediction, table.min(axis=1))
        np.testing.assert_allclose(found.of_reference, table.min(axis=0))


# Bootstrap


def test_an_interval_is_the_same_under_one_seed_and_differs_under_another():
    values = np.linspace(0.2, 0.9, 25)
    assert metrics.bootstrap_mean_ci(values, seed=1) == metrics.bootstrap_mean_ci(values, seed=1)
    assert metrics.bootstrap_mean_ci(values, seed=1) != metrics.bootstrap_mean_ci(values, seed=2)


def test_an_interval_drops_nan():
    values = [0.5, 0.7, 0.9]
    assert metrics.bootstrap_mean_ci([*values, math.nan]) == metrics.bootstrap_mean_ci(values)


@pytest.mark.parametrize("values", [[], [0.8], [math.nan, 0.8]], ids=["none", "one", "one and NaN"])
def test_fewer_than_two_values_have_no_interval(values):
    assert np.isnan(metrics.bootstrap_mean_ci(values)).all()


def test_an_interval_is_about_two_standard_errors_to_either_side():
    values = np.random.default_rng(5).normal(0.8, 0.1, 400)
    low, high = metrics.bootstrap_mean_ci(values)
    error = values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_many_cases_are_drawn_piece_by_piece(monkeypatch):
    values = np.linspace(0, 1, 10)
    whole = metrics.bootstrap_mean_ci(values, resamples=100)
    monkeypatch.setattr(metrics, "_DRAWN_AT_ONCE", 35)
    assert metrics.bootstrap_mean_ci(values, resamples=100) == whole


def test_soft_measures_are_products_of_probabilities_and_the_reference():
    probability, reference = np.array([0.5, 1.0, 0.25, 0.25]), np.array([True, True, False, False])
    # sum(y p) 1.5, sum(p) 2, sum(y) 2, sum((1 - y)(1 - p)) 1.5.
    assert metrics.soft_measures(probability, reference) == {
        "soft_accuracy": 3 / 4,
        "soft_precision": 1.5 / 2,
        "soft_recall": 1.5 / 2,
        "soft_iou": 1.5 / 2.5,
        "soft_dice": 3 / 4,
    }


@settings(deadline=None)
@given(masks(2))
def test_soft_measures_of_masks_are_those_of_the_masks(pair):
    prediction, reference = pair
    soft, counts = metrics.soft_measures(prediction.astype(np.float16), reference), confusion(prediction, reference)
    for name in ("precision", "recall", "iou", "dice"):
        np.testing.assert_equal(soft[f"soft_{name}"], getattr(counts, name))


def test_soft_measures_refuse_another_shape():
    with pytest.raises(ValueError, match="probabilities"):
        metrics.soft_measures(np.zeros((1, 3)), np.zeros(3, bool))


def test_values_of_one_group_are_drawn_together():
    values = [0.2] * 50 + [0.8] * 50
    single = metrics.bootstrap_mean_ci(values)
    assert single[1] - single[0] < 0.2
    # Two patients: both means are drawn, and both of either.
    assert metrics.bootstrap_mean_ci(values, groups=["a"] * 50 + ["b"] * 50) == pytest.approx((0.2, 0.8))
    assert metrics.bootstrap_mean_ci(values, groups=[str(i) for i in range(100)]) == pytest.approx(single, abs=0.02)


def test_one_group_has_no_interval():
    assert np.isnan(metrics.bootstrap_mean_ci([0.1, 0.9, math.nan], groups=["a", "a", "b"])).all()
