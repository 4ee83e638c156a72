"""Windows cover everything, and blending a copy gives the input back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import volume_spec

from segtool.sliding_window import Windows, gaussian, slide, window_extent, window_starts
from segtool.spec import ModelSpec, VolumeSpec

extents = st.tuples(*[st.integers(1, 20)] * 3)
patches = st.tuples(*[st.integers(1, 12)] * 3)


@settings(deadline=None)
@given(extents, patches, st.floats(0, 0.9), st.integers(1, 5))
def test_blending_a_network_that_copies_returns_the_input(
    shape: tuple[int, ...], patch: tuple[int, ...], overlap: float, batch: int
) -> None:
    tensor = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    blended = slide(tensor, lambda x: x.copy(), patch, overlap, batch)
    np.testing.assert_allclose(blended, tensor, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.9))
def test_windows_touch_both_ends_and_overlap_enough(size: int, patch: int, overlap: float) -> None:
    starts = window_starts(size, patch, overlap)
    assert starts[0] == 0
    assert starts[-1] + patch >= size
    gaps = np.diff(starts)
    assert (gaps >= 1).all()
    # Spreading evenly rounds to whole voxels, so a step may be longer by less than one.
    assert (gaps < max(1.0, patch * (1 - overlap)) + 1).all()


@pytest.mark.parametrize(
    ("size", "patch", "overlap", "starts"),
    [(10, 10, 0.5, [0]), (4, 10, 0.5, [0]), (20, 10, 0.5, [0, 5, 10]), (21, 10, 0.0, [0, 6, 11])],
)
def test_hand_placed_windows(size: int, patch: int, overlap: float, starts: list[int]) -> None:
    assert window_starts(size, patch, overlap) == starts


def test_the_network_sees_full_patches_padded_with_the_lowest_value() -> None:
    seen = []

    def run(x: np.ndarray) -> np.ndarray:
        seen.append(x)
        return x.copy()

    slide(np.full((1, 2, 2), 5.0, np.float32) - np.eye(2, dtype=np.float32), run, (4, 4), 0.5)
    assert seen[0].shape == (1, 1, 4, 4)
    assert seen[0].min() == 4.0
    assert (seen[0] == 4.0).sum() == 12 + 2


def test_weights_peak_in_the_middle_and_never_vanish() -> None:
    weights = gaussian((9, 5))
    assert weights.argmax() == 4 * 5 + 2
    assert weights[4, 2] == 1
    assert weights.min() > 0


def test_progress_counts_every_window_once() -> None:
    calls: list[tuple[int, int]] = []
    slide(np.zeros((1, 10, 20), np.float32), lambda x: x, (10, 10), 0.5, 2, on_window=lambda *c: calls.append(c))
    assert calls == [(2, 3), (3, 3)]


@pytest.mark.parametrize("depth", [3, 8, 37])
def test_slabs_are_the_planes_in_order_and_never_more_than_a_window_deep(depth: int) -> None:
    tensor = np.random.default_rng(0).normal(size=(1, depth, 9, 8)).astype(np.float32)
    windows = Windows(tensor, (8, 6, 6), 0.5)
    slabs = list(windows.slabs(lambda x: x.copy()))
    assert len(slabs) == windows.slab_count
    assert [slab.start for slab in slabs] == list(np.cumsum([0, *(slab.logits.shape[1] for slab in slabs[:-1])]))
    assert max(slab.logits.shape[1] for slab in slabs) <= 8
    np.testing.assert_allclose(np.concatenate([slab.logits for slab in slabs], 1), tensor, atol=1e-5)


def test_the_network_is_not_asked_about_windows_of_one_value() -> None:
    tensor = np.zeros((2, 8, 24), np.float32)
    tensor[0, 4, 20] = 1
    asked = []

    def run(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return np.zeros_like(x)

    windows = Windows(tensor, (8, 8), 0.0)
    (slab,) = windows.slabs(run, background=np.array([7, -7], np.float32))
    assert (windows.count, sum(asked)) == (3, 1)
    np.testing.assert_allclose(slab.logits[:, :, :16], np.array([7, -7]).reshape(2, 1, 1) * np.ones((2, 8, 16)))
    assert (slab.logits[:, :, 16:] == 0).all()


def whole_spec(voxels: int | None) -> ModelSpec:
    """Patches of 16, or one window of a case of up to so many voxels, whose axes divide by 4."""
    box = VolumeSpec(patch=(16, 16, 16), crop_to_nonzero=False, whole_case_voxels=voxels)
    return volume_spec(input=box, divisor=4)


@pytest.mark.parametrize(
    ("shape", "voxels", "extent"),
    [
        ((20, 21, 9), None, (16, 16, 16)),
        ((20, 21, 9), 20 * 24 * 12, (20, 24, 12)),
        ((20, 21, 9), 20 * 24 * 12 - 1, (16, 16, 16)),
        ((3, 40, 8), 10**6, (4, 40, 8)),
    ],
)
def test_a_case_is_one_window_as_far_as_its_spec_says(
    shape: tuple[int, ...], voxels: int | None, extent: tuple[int, ...]
) -> None:
    assert window_extent(shape, whole_spec(voxels)) == extent
    assert window_extent(shape, whole_spec(voxels).in_windows()) == (16, 16, 16)


def test_one_window_is_answered_once_and_not_weighed() -> None:
    tensor = np.random.default_rng(0).normal(size=(1, 20, 21, 9)).astype(np.float32)
    seen = []

    def run(x: np.ndarray) -> np.ndarray:
        seen.append(x.shape)
        return x / 3

    assert np.array_equal(slide(tensor, run, window_extent((20, 21, 9), whole_spec(10**6)), 0.5), tensor / 3)
    assert seen == [(1, 1, 20, 24, 12)]
