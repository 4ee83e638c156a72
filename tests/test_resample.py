"""Linear resampling, one matrix an axis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.resample import Interpolation, linear_matrix, resize


@pytest.mark.parametrize(
    ("values", "size", "expected"),
    [
        ([0, 1], 4, [0, 0.25, 0.75, 1]),
        # Output 0 lies at 0.5. Distances 0.5, 0.5, 1.5, 2.5 under a triangle of half-width 2 weigh .75 .75 .25 0.
        ([1, 3, 5, 7], 2, [4.25 / 1.75, 9.75 / 1.75]),
        ([5], 3, [5, 5, 5]),
    ],
)
def test_hand_worked_rows(values: list[float], size: int, expected: list[float]) -> None:
    np.testing.assert_allclose(resize(np.array(values, np.float32), (size,)), expected, rtol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40))
def test_rows_add_up_to_one(size_in: int, size_out: int) -> None:
    np.testing.assert_allclose(linear_matrix(size_in, size_out).sum(axis=1), 1, rtol=1e-5)


@given(st.integers(2, 30), st.integers(0, 30))
def test_enlarging_a_ramp_gives_a_ramp_between_the_first_and_last_voxel(size_in: int, more: int) -> None:
    size_out = size_in + more
    out = resize(np.arange(size_in, dtype=np.float32), (size_out,))
    centres = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
    np.testing.assert_allclose(out, np.clip(centres, 0, size_in - 1), atol=1e-4)


def test_leading_axes_and_every_spatial_axis_are_independent() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(2, 3, 5, 7)).astype(np.float32)
    once = resize(array, (4, 9, 6))
    step = array
    for axis, size in ((1, 4), (2, 9), (3, 6)):
        step = np.moveaxis(np.moveaxis(step, axis, -1) @ linear_matrix(array.shape[axis], size).T, -1, axis)
    np.testing.assert_allclose(once, step, rtol=1e-4, atol=1e-5)
    assert once.dtype == np.float32


def test_the_same_size_costs_no_copy() -> None:
    array = np.ones((4, 4), np.float32)
    assert resize(array, (4, 4)) is array


@given(st.integers(1, 12), st.sampled_from([0, 1, 2]))
def test_halving_equals_the_matrix(half: int, axis: int) -> None:
    shape = [3, 4, 5]
    shape[axis] = 2 * half
    array = np.random.default_rng(half).normal(size=shape).astype(np.float32)
    target = list(shape)
    target[axis] = half
    expected = np.moveaxis(np.moveaxis(array, axis, -1) @ linear_matrix(2 * half, half).T, -1, axis)
    np.testing.assert_allclose(resize(array, target), expected, atol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 7))
def test_planes_mixed_as_they_come_are_those_of_the_whole(
    size_in: int, size_out: int, deliveries: list[int], step: int
) -> None:
    planes = np.random.default_rng(0).normal(size=(2, size_in, 3, 2)).astype(np.float32)
    along = Interpolation(size_in, size_out)
    made: list[np.ndarray] = []
    done = first = known = 0
    while known < size_in:
        known = min(size_in, known + deliveries[len(made) % len(deliveries)])
        while (stop := min(along.ready(known), done + step)) > done:
            made.append(along.take(planes[:, first:known], first, done, stop))
            done = stop
        first = along.first_needed(done)
        assert first <= known
    np.testing.assert_allclose(np.concatenate(made, 1), resize(planes, (size_out, 3, 2)), atol=1e-5)
