import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segtool.geometry import ORIENTATIONS, Geometry
from segtool.measurements import Measurements, measure
from segtool.spec import ModelSpec

SPEC = ModelSpec.model_validate(
    {
        "name": "glioma",
        "channels": [{"name": "t1ce"}],
        "labels": [{"name": "NCR", "value": 1}, {"name": "ET", "value": 3}],
        "regions": {"TC": [1, 3]},
        "input": {"rank": 2, "size": [64, 64]},
    }
)
BINARY = SPEC.model_copy(update={"labels": SPEC.labels[:1], "regions": {}})


UPRIGHT = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""Axial slices of 1 mm as they hang: the first axis to Superior, rows to Posterior, columns to Left."""


def slice_of(*rows):
    return np.array([[int(pixel != ".") for pixel in row] for row in rows], np.uint8)


def of_slice(mask):
    return of_volume(mask[None], UPRIGHT)


def of_volume(labels, affine=None, spec=BINARY):
    return measure(labels, Geometry.of_volume(labels.shape, np.eye(4) if affine is None else affine), spec)["NCR"]


def block(*size, shape=(40, 40, 12), at=(2, 2, 2)):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(start, start + n) for start, n in zip(at, size, strict=True))] = 1
    return labels


# By hand: the outline runs through the middles of the pixels' outer edges, so that corners are cut off.


@pytest.mark.parametrize(
    ("rows", "longest", "perpendicular"),
    [
        (("#",), 1, 1),
        (("##########",), 10, 1),
        (("#", "#", "#"), 3, 1),
        # The ends are 10 columns and 3 rows apart; across, from edge to edge, 4 rows on the slant.
        (("##########",) * 4, math.hypot(10, 3), 4 * math.hypot(10, 3) / 10),
        # From the tip of one leg to the other's, 4 rows and 3 columns; across, from the corner to the inner side.
        (("#...", "#...", "#...", "####"), 5, 5 / 3),
        # A ring is as wide as it would be if it were full.
        (("##########", "#........#", "#........#", "##########"), math.hypot(10, 3), 4 * math.hypot(10, 3) / 10),
    ],
    ids=["pixel", "row", "column", "rectangle", "L", "ring"],
)
def test_diameters_known_by_hand(rows, longest, perpendicular):
    found = of_slice(slice_of(*rows))
    assert found.longest_diameter_mm == pytest.approx(longest)
    assert found.perpendicular_diameter_mm == pytest.approx(perpendicular)


def test_pixels_that_touch_at_a_corner_are_one_lesion():
    found = of_slice(slice_of("#.", ".#"))
    assert (found.lesions, found.volume_ml) == pytest.approx((1, 0.002))
    assert found.longest_diameter_mm == pytest.approx(math.hypot(2, 1))


def test_the_diameters_are_those_of_the_largest_lesion():
    found = of_slice(slice_of("###......", "###......", "###.#####"))
    assert (found.lesions, found.volume_ml, found.largest_lesion_ml) == pytest.approx((2, 0.014, 0.009))
    assert found.longest_diameter_mm == pytest.approx(math.hypot(3, 2))  # the row beside it is 5 long


def test_pictures_are_not_measured():
    with pytest.raises(ValueError, match="on a grid of kind image"):
        measure(slice_of("#"), Geometry.of_pixels((1, 1)), BINARY)


def test_what_is_not_there_has_no_size_and_nothing_else():
    nothing = of_volume(np.zeros((3, 3, 3), np.uint8))
    assert nothing.as_dict() == {"volume_ml": 0.0, "lesions": 0, "measurable_lesions": 0}


def test_a_region_is_one_lesion_where_its_labels_touch():
    labels = np.where(block(6, 1, 1, shape=(9, 9, 9), at=(0, 0, 0)), 3, 0).astype(np.uint8)
    labels[2:4, 0, 0] = 1
    found = measure(labels, Geometry.of_volume(labels.shape, np.eye(4)), SPEC)
    assert {name: one.lesions for name, one in found.items()} == {"NCR": 1, "ET": 2, "TC": 1}
    assert {name: one.longest_diameter_mm for name, one in found.items()} == pytest.approx({"NCR": 2, "ET": 2, "TC": 6})


# Volumes


def test_a_volume_is_measured_in_patient_coordinates():
    affine = np.array([[-2.0, 0, 0, 100], [0, -2, 0, 50], [0, 0, 3, -20], [0, 0, 0, 1]])
    found = of_volume(block(10, 4, 3), affine)
    assert found.volume_ml == pytest.approx(120 * 12 / 1000)
    assert found.longest_diameter_mm == pytest.approx(2 * math.hypot(10, 3))
    assert found.diameter_product_mm2 == pytest.approx(found.longest_diameter_mm * found.perpendicular_diameter_mm)
    # Centres at index 6.5, 3.5 and 3.
    centroid = (found.centroid_right_mm, found.centroid_anterior_mm, found.centroid_superior_mm)
    assert centroid == pytest.approx((100 - 13, 50 - 7, -20 + 9))
    assert (found.plane, found.slice) == ("axial", 2)
    for ends, length in (
        (found.longest_ends_ras_mm, found.longest_diameter_mm),
        (found.perpendicular_ends_ras_mm, found.perpendicular_diameter_mm),
    ):
        assert math.dist(*ends) == pytest.approx(length)
        assert [end[2] for end in ends] == pytest.approx([-20 + 3 * 2] * 2)
    along, across = (np.subtract(*ends) for ends in (found.longest_ends_ras_mm, found.perpendicular_ends_ras_mm))
    assert along @ across == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("spacing", "plane", "longest"),
    [
        ((1, 1, 1), "axial", math.hypot(10, 3)),
        ((1, 1.4, 1), "axial", math.hypot(10, 3 * 1.4)),
        ((1, 1, 6), "axial", math.hypot(10, 3)),
        ((1, 6, 1), "coronal", math.hypot(10, 2)),  # 10 by 3 voxels
        ((6, 1, 1), "sagittal", math.hypot(4, 2)),  # 4 by 3 voxels
    ],
)
def test_diameters_lie_in_axial_slices_or_across_thick_ones(spacing, plane, longest):
    found = of_volume(block(10, 4, 3), np.diag([*spacing, 1.0]))
    assert found.plane == plane
    assert found.longest_diameter_mm == pytest.approx(longest)


@pytest.mark.parametrize(
    ("size", "thickness", "measurable"),
    [
        ((12, 12, 2), 1, 1),
        ((12, 12, 1), 1, 0),  # in one slice only
        ((12, 8, 2), 1, 0),  # 9.3 mm across
        ((10, 10, 2), 7, 0),  # 13.5 mm, less than two slices
        ((12, 12, 2), 7, 1),
    ],
)
def test_a_lesion_is_measurable_from_ten_millimetres_in_two_slices(size, thickness, measurable):
    found = of_volume(block(*size), np.diag([1.0, 1, thickness, 1]))
    assert found.measurable_lesions == measurable
    assert found.sum_of_products_mm2 == pytest.approx(found.diameter_product_mm2 if measurable else 0)


def test_the_sum_is_of_the_five_largest_products():
    sizes = (12, 13, 14, 15, 16, 17)
    labels = np.zeros((120, 40, 4), np.uint8)
    for number, size in enumerate(sizes):
        labels |= block(size, size, 2, shape=labels.shape, at=(20 * number, 0, 0))
    found = of_volume(labels)
    products = [of_volume(block(size, size, 2)).diameter_product_mm2 for size in sizes]
    assert (found.lesions, found.measurable_lesions) == (6, 6)
    assert found.sum_of_products_mm2 == pytest.approx(sum(products[1:]))
    assert found.diameter_product_mm2 == pytest.approx(products[-1])


def test_a_disc_is_as_wide_as_it_is():
    i, j = np.mgrid[:100, :100]
    disc = (np.hypot(i - 50.2, j - 49.7) <= 40).astype(np.uint8)
    found = of_slice(disc)
    assert found.longest_diameter_mm == pytest.approx(80, abs=1)
    assert found.perpendicular_diameter_mm == pytest.approx(80, abs=1)


# Against a search without any wit, and under what must not change anything

VOLUMES = arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 1))
PICTURES = arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 2), elements=st.integers(0, 1))


def outline(mask):
    """Sides of the outline, by walking around every meeting of four pixels."""
    inside = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}
    for row, column in itertools.product(range(-1, mask.shape[0]), range(-1, mask.shape[1])):
        around = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
        full = [pixel in inside for pixel in around]
        middles = [np.add(around[n], around[(n + 1) % 4]) / 2 for n in range(4)]  # after each of the four
        crossed = [n for n in range(4) if full[n] != full[(n + 1) % 4]]
        if len(crossed) == 2:
            yield middles[crossed[0]], middles[crossed[1]]
        elif crossed:
            for n in range(4):
                if not full[n]:  # cut off the corners outside
                    yield middles[n - 1], middles[n]


def searched(mask):
    """The longest diameter, and the widest of the perpendiculars to all that are as long."""
    sides = list(outline(mask))
    points = [point for side in sides for point in side]
    longest = max(math.dist(*pair) for pair in itertools.combinations(points, 2))
    widest = 0.0
    for one, other in itertools.combinations(points, 2):
        if math.dist(one, other) < longest - 1e-9:
            continue
        along = (other - one) / longest
        across = np.array([-along[1], along[0]])
        for place in {round(float(point @ along), 9) for point in points}:
            heights = []
            for begin, end in sides:
                low, high = sorted(((begin @ along, begin @ across), (end @ along, end @ across)))
                if low[0] - 1e-8 <= place <= high[0] + 1e-8:
                    if high[0] - low[0] < 1e-8:
                        heights += [low[1], high[1]]
                    else:
                        share = (place - low[0]) / (high[0] - low[0])
                        heights.append(low[1] + share * (high[1] - low[1]))
            widest = max(widest, max(heights) - min(heights))
    return longest, widest


@given(PICTURES)
@settings(max_examples=60, deadline=None)
def test_diameters_are_those_that_a_search_finds(mask):
    from scipy import ndimage

    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    found = of_slice(mask)
    assert (found.lesions, found.volume_ml) == pytest.approx((count, mask.sum() / 1000))
    if count:
        sizes = np.bincount(numbers.ravel())[1:]
        largest = [searched(numbers == lesion) for lesion in np.flatnonzero(sizes == sizes.max()) + 1]
        longest = max(length for length, _ in largest)
        widest = max(width for length, width in largest if length > longest - 1e-7)
        assert (found.longest_diameter_mm, found.perpendicular_diameter_mm) == pytest.approx((longest, widest))


@given(VOLUMES)
@settings(max_examples=60, deadline=None)
def test_lesions_are_those_of_scipy(labels):
    from scipy import ndimage

    numbers, count = ndimage.label(labels, np.ones((3, 3, 3)))
    found = of_volume(labels)
    assert found.lesions == count
    assert found.volume_ml == pytest.approx(labels.sum() / 1000)
    if count:
        assert found.largest_lesion_ml == pytest.approx(np.bincount(numbers.ravel())[1:].max() / 1000)
        centroid = (found.centroid_right_mm, found.centroid_anterior_mm, found.centroid_superior_mm)
        assert centroid == pytest.approx(ndimage.center_of_mass(labels))


SAME = [name for name in Measurements.__dataclass_fields__ if not name.endswith("_ends_ras_mm") and name != "slice"]


@given(VOLUMES, st.sampled_from(sorted(ORIENTATIONS)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_order_of_voxels_in_the_file_changes_nothing(labels, orientation, thick):
    geometry = Geometry.of_volume(labels.shape, np.diag([1.0, 1.1, 5 if thick else 0.9, 1]))
    move = geometry.reorientation_to(orientation)
    one = measure(labels, geometry, BINARY)["NCR"]
    other = measure(move.apply(labels), geometry.moved(move), BINARY)["NCR"]
    for name in SAME:
        value = getattr(one, name)
        assert getattr(other, name) == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), name


@given(VOLUMES, st.floats(-0.3, 0.3), st.floats(0.5, 2))
@settings(max_examples=40, deadline=None)
def test_turning_the_patient_changes_no_length_and_a_scale_scales_all(labels, angle, scale):
    upright = np.diag([1.0, 1.1, 5, 1])
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    one, other = of_volume(labels, upright), of_volume(labels, turn @ np.diag([scale, scale, scale, 1]) @ upright)
    assert other.volume_ml == pytest.approx(one.volume_ml * scale**3)
    if one.lesions:
        assert other.longest_diameter_mm == pytest.approx(one.longest_diameter_mm * scale)
        assert other.perpendicular_diameter_mm == pytest.approx(one.perpendicular_diameter_mm * scale, abs=1e-6)


def test_slices_that_lean_are_measured_in_their_own_plane():
    leaning = np.eye(4)
    leaning[0, 1] = 0.5  # rows and columns at less than a right angle
    found = of_volume(block(1, 10, 1), leaning)
    assert found.longest_diameter_mm == pytest.approx(10 * math.hypot(1, 0.5))
    assert found.volume_ml == pytest.approx(0.01)
