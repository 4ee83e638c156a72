"""Geometry: orientations, moves and crops keep every voxel where it is in the patient."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segtool.geometry import ORIENTATIONS, Geometry


def rotation(rx: float, ry: float, rz: float) -> np.ndarray:
    def about(axis: int, angle: float) -> np.ndarray:
        a, b = [i for i in range(3) if i != axis]
        m = np.eye(3)
        m[a, a] = m[b, b] = np.cos(angle)
        m[a, b], m[b, a] = -np.sin(angle), np.sin(angle)
        return m

    return about(0, rx) @ about(1, ry) @ about(2, rz)


angles = st.floats(-0.6, 0.6)
spacings = st.floats(0.3, 6.0)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any axis order, any flips, oblique by up to 0.6 rad an axis, anisotropic."""
    axes = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    affine = np.eye(4)
    linear = np.zeros((3, 3))
    for index, (patient, sign) in enumerate(zip(axes, signs, strict=True)):
        linear[patient, index] = sign
    tilt = rotation(draw(angles) / 2, draw(angles) / 2, draw(angles) / 2)
    affine[:3, :3] = tilt @ linear @ np.diag(draw(st.tuples(spacings, spacings, spacings)))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return Geometry.of_volume(draw(st.tuples(*[st.integers(1, 6)] * 3)), affine)


def places(geometry: Geometry) -> np.ndarray:
    """RAS millimetres of every voxel, ``(*S, 3)``."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij"), -1)
    return index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]


@given(geometries(), st.sampled_from(sorted(ORIENTATIONS)))
def test_reorienting_moves_voxels_together_with_their_affine(geometry: Geometry, wanted: str) -> None:
    move = geometry.reorientation_to(wanted)
    moved = geometry.moved(move)
    assert moved.orientation == wanted
    where = np.moveaxis(places(geometry), -1, 0)
    np.testing.assert_allclose(np.moveaxis(move.apply(where), 0, -1), places(moved), atol=1e-9)
    np.testing.assert_array_equal(move.undo(move.apply(where)), where)


@given(geometries(), st.data())
def test_cropping_keeps_voxels_in_place(geometry: Geometry, data: st.DataObject) -> None:
    box = []
    for n in geometry.shape:
        start = data.draw(st.integers(0, n - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, n))))
    np.testing.assert_allclose(places(geometry.cropped(tuple(box))), places(geometry)[tuple(box)], atol=1e-9)


@pytest.mark.parametrize(
    ("linear", "orientation"),
    [
        (np.diag([1, 1, 1]), "RAS"),
        (np.diag([-1, -1, 1]), "LPS"),
        ([[0, 0, 1], [1, 0, 0], [0, -1, 0]], "AIR"),
    ],
)
def test_orientation_of_straight_grids(linear: np.ndarray, orientation: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = linear
    assert Geometry.of_volume((2, 3, 4), affine).orientation == orientation


def test_spacing_is_the_length_of_each_column() -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(0.3, -0.2, 0.1) @ np.diag([0.5, 2.0, 3.0])
    assert Geometry.of_volume((2, 2, 2), affine).spacing_mm == pytest.approx((0.5, 2.0, 3.0))


def test_there_are_48_orientations() -> None:
    assert len(ORIENTATIONS) == 48


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((2, 2), np.eye(4), "has 3 axes"),
        ((2, 2, 0), np.eye(4), "at least 1"),
        ((2, 2, 2), np.full((4, 4), np.nan), "finite"),
        ((2, 2, 2), np.diag([1, 0, 1, 1]), "voxels of 1 x 0 x 1 mm, wanted 0.001 to 10000 mm"),
        ((2, 2, 2), np.diag([1, 1e-6, 1, 1]), "voxels of 1 x 1e-06 x 1 mm"),
        ((2, 2, 2), np.diag([1, 1, 1e30, 1]), "voxels of 1 x 1 x 1e\\+30 mm"),
        ((2, 2, 2), np.diag([1, 1, 1e200, 1]), "voxels of 1 x 1 x inf mm"),
        ((2, 2, 2), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        ((2, 2, 2), np.array([[1, 0, 0, 1e9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "1e\\+09 mm from the origin"),
        ((2, 2, 2), np.diag([1, 1, 1, 2]), "last row of the affine is 0 0 0 2"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(shape: tuple[int, ...], affine: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry.of_volume(shape, affine)


def test_same_grid_allows_a_hundredth_of_a_millimetre() -> None:
    first = Geometry.of_volume((10, 10, 10), np.eye(4))
    for shift, same in [(0.005, True), (0.02, False)]:
        affine = np.eye(4)
        affine[0, 3] = shift
        assert first.same_grid(Geometry.of_volume((10, 10, 10), affine)) is same


def test_corners_decide_same_grid_when_the_spacing_differs() -> None:
    stretched = np.diag([1.01, 1, 1, 1])
    assert not Geometry.of_volume((10, 2, 2), np.eye(4)).same_grid(Geometry.of_volume((10, 2, 2), stretched))


def test_every_unknown_orientation_is_refused() -> None:
    geometry = Geometry.of_volume((2, 2, 2), np.eye(4))
    for wrong in ("RRS", "XYZ", "ra", "ras"):
        with pytest.raises(ValueError, match="not an orientation"):
            geometry.reorientation_to(wrong)
    assert all(len(set(o)) == 3 for o in itertools.islice(ORIENTATIONS, 5))
