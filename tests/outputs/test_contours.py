"""Masks as polygons along the edges of their pixels, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segtool.formats.polygons import polygons_mask
from segtool.outputs.contours import INSET, outlines


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[letter == "x" for letter in row] for row in rows])


def polygons_of(*rows: str) -> list[np.ndarray]:
    return outlines(mask_of(*rows)[np.newaxis])[0]


@st.composite
def masks(draw) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))
    full = draw(st.sampled_from([0.3, 0.5, 0.7, 0.85, 0.95]))
    return np.random.default_rng(draw(st.integers(0, 2**32))).random(shape) < full


HALF = 0.5 - INSET


def test_a_pixel_is_a_square_just_inside_its_edges_clockwise():
    (square,) = polygons_of("...", "..x")
    np.testing.assert_allclose(
        square, [(2 - HALF, 1 - HALF), (2 + HALF, 1 - HALF), (2 + HALF, 1 + HALF), (2 - HALF, 1 + HALF)]
    )


def test_corners_are_only_where_the_outline_turns():
    (shape,) = polygons_of("xxxx", "xxxx", "xx..")
    assert np.rint(shape).tolist() == [[0, 0], [3, 0], [3, 1], [1, 1], [1, 2], [0, 2]]


def test_pixels_that_share_a_corner_do_not_touch():
    one, other = polygons_of("x.", ".x")
    assert one.max() < 0.5 < other.min()


def test_a_hole_hangs_on_a_channel_that_is_walked_in_both_directions():
    (ring,) = polygons_of("xxxx", "xx.x", "xxxx")
    # The outer four, the hole's four, and the two ends of the channel twice, of which one is a corner of the hole.
    assert len(ring) == 4 + 4 + 3
    edges = {(tuple(a), tuple(b)) for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True)}
    channel = [(a, b) for a, b in edges if (b, a) in edges]
    assert len(channel) == 2
    assert {round(y) for edge in channel for _, y in edge} <= {0, 1}


@pytest.mark.parametrize(
    "rows",
    [
        ("xxxxx", "x...x", "x.x.x", "x...x", "xxxxx"),  # an island in a hole
        ("xxxxxxx", "xx.x.xx", "xxxxxxx"),  # two holes at one height: the second hangs on the first
        ("xxxx.", "x.xxx", "xx.xx", "xxxxx"),  # a hole that winds over a corner
        ("xxx", "x.x", "x.x"),  # open at the picture's edge
        (".xx", "x.x", "xxx"),  # a ring open at a corner only
        ("xxxxxx", "xx.xxx", "xxxx.x", "x.xxxx", "xxxxxx"),
    ],
)
def test_shapes_come_back(rows):
    wanted = mask_of(*rows)
    np.testing.assert_array_equal(polygons_mask(polygons_of(*rows), wanted.shape), wanted)


@given(masks())
@settings(max_examples=150, deadline=None)
def test_every_mask_comes_back_by_every_way_of_filling(mask):
    for polygons, wanted in zip(outlines(mask), mask, strict=True):
        np.testing.assert_array_equal(polygons_mask(polygons, wanted.shape), wanted)
        # Readers that unite polygons, and know nothing of holes, ...
        united = [polygons_mask([polygon], wanted.shape) for polygon in polygons]
        np.testing.assert_array_equal(np.any([np.zeros_like(wanted), *united], axis=0), wanted)
        # ... and those that round corners to pixels and draw the border too.
        rounded = [np.rint(polygon) for polygon in polygons]
        np.testing.assert_array_equal(polygons_mask(rounded, wanted.shape, with_border=True), wanted)


@given(masks())
@settings(max_examples=50, deadline=None)
def test_one_polygon_for_each_group_of_pixels_that_share_edges(mask):
    for polygons, one in zip(outlines(mask), mask, strict=True):
        assert len(polygons) == ndimage.label(one)[1]


def test_an_edge_that_two_polygons_share_leaves_no_pixel_out_and_doubles_none():
    left, right = np.array([(0, 0), (2, 0), (2, 3), (0, 3.0)]), np.array([(2, 0), (4, 0), (4, 3), (2, 3.0)])
    np.testing.assert_array_equal(
        polygons_mask([left], (4, 5)).astype(int) + polygons_mask([right], (4, 5)),
        polygons_mask([np.array([(0, 0), (4, 0), (4, 3), (0, 3.0)])], (4, 5)),
    )


def test_with_its_border_a_polygon_through_centres_has_their_pixels():
    # As programs draw that trace the outermost pixels; a pixel alone is a point, a line is walked back.
    ring = [np.array([(1, 1), (4, 1), (4, 4), (1, 4.0)]), np.array([(1, 2), (2, 1), (3, 1), (4, 2), (4, 3), (1, 3.0)])]
    assert polygons_mask(ring, (6, 6), with_border=True)[1:5, 1:5].any(axis=0).all()
    assert np.argwhere(polygons_mask([np.array([(3, 2.0)])], (6, 6), with_border=True)).tolist() == [[2, 3]]
    line = polygons_mask([np.array([(0.004, 2), (2, 3.996)])], (6, 6), with_border=True)
    assert np.argwhere(line).tolist() == [[2, 0], [3, 1], [4, 2]]


def test_what_lies_outside_the_picture_is_cut():
    far = np.array([(-5, -5), (50, -5), (50, 1.2), (-5, 1.2)])
    assert polygons_mask([far], (4, 3)).sum(axis=1).tolist() == [3, 3, 0, 0]
