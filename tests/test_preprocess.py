"""The one preprocessing, forth and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.case import Case
from segtool.geometry import ORIENTATIONS, Geometry
from segtool.postprocess import SliceAssembler, VolumeAssembler
from segtool.preprocess import Placement, SlicedCase, WindowedCase, nonzero_box, normalise, slice_orientation
from segtool.spec import ChannelSpec, IntensitySpec, LabelSpec, ModelSpec, SliceSpec, VolumeSpec


def make_spec(**changes: object) -> ModelSpec:
    parts = {
        "name": "m",
        "channels": (ChannelSpec(name="t1ce"),),
        "labels": (LabelSpec(name="tumour", value=1),),
        "input": SliceSpec(size=(16, 16)),
        "intensity": IntensitySpec(kind="none"),
    }
    return ModelSpec(**(parts | changes))


VALUES = np.array([[0, 2, 4], [0, 6, 100]], np.int16)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"kind": "none"}, [[0, 2, 4], [0, 6, 100]]),
        ({"kind": "minmax"}, [[0, 0.02, 0.04], [0, 0.06, 1]]),
        # Over 2 4 6 100: mean 28, deviation sqrt((26² + 24² + 22² + 72²) / 4) = sqrt(1730).
        ({"kind": "zscore", "background": "zero"}, (np.array([[28, 2, 4], [28, 6, 100]]) - 28) / 1730**0.5),
        ({"kind": "zscore", "foreground": "nonzero"}, (VALUES - 28.0) / 1730**0.5),
        # Above 5: 6 and 100, mean 53, deviation 47.
        ({"kind": "zscore", "foreground": "above", "foreground_fraction": 0.05}, (VALUES - 53.0) / 47),
        # The ranks nearest to 0 and 80 % of six values are the 1st and 5th: clipped to [0, 6].
        ({"kind": "minmax", "percentiles": (0, 80)}, [[0, 2 / 6, 4 / 6], [0, 1, 1]]),
    ],
)
def test_normalisation_by_hand(rule: dict[str, object], expected: np.ndarray) -> None:
    np.testing.assert_allclose(normalise(VALUES, IntensitySpec(**rule)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["zscore", "minmax"])
def test_a_constant_image_becomes_zero(kind: str) -> None:
    assert (normalise(np.full((3, 3), 7), IntensitySpec(kind=kind)) == 0).all()


def test_normalising_leaves_the_case_untouched() -> None:
    image = VALUES.astype(np.float32)
    normalise(image, IntensitySpec())
    np.testing.assert_array_equal(image, VALUES)


@pytest.mark.parametrize(
    ("native", "spacing", "inner", "offset"),
    [
        ((32, 32), (1, 1), (16, 16), (0, 0)),
        ((32, 16), (1, 1), (16, 8), (0, 4)),
        ((10, 20), (2, 1), (16, 16), (0, 0)),
        ((100, 1), (1, 1), (16, 1), (0, 7)),
    ],
)
def test_letterbox_keeps_the_aspect_ratio_in_mm(
    native: tuple[int, int], spacing: tuple[float, float], inner: tuple[int, int], offset: tuple[int, int]
) -> None:
    placement = Placement.fit(native, spacing, SliceSpec(size=(16, 16)))
    assert (placement.inner, placement.offset) == (inner, offset)


def straight(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> Geometry:
    return Geometry.of_volume(shape, np.diag([*spacing, 1]))


@pytest.mark.parametrize(
    ("geometry", "plane", "orientation"),
    [
        (straight((9, 9, 9), (1, 1, 5)), "acquired", "SPL"),
        (straight((9, 9, 9), (1, 5, 1)), "acquired", "PIL"),
        (straight((9, 9, 9), (5, 1, 1)), "acquired", "LIP"),
        (straight((9, 9, 9), (1, 1, 1)), "acquired", "SPL"),
        (straight((9, 4, 9), (1, 1, 1)), "acquired", "PIL"),
        (straight((9, 4, 9), (1, 1, 1)), "sagittal", "LIP"),
    ],
)
def test_volumes_are_cut_across_their_widest_spacing(geometry: Geometry, plane: str, orientation: str) -> None:
    assert slice_orientation(geometry, plane) == orientation


def test_axial_slices_hang_with_the_nose_up_and_the_left_side_on_the_right() -> None:
    data = np.zeros((1, 8, 8, 2), np.float32)
    data[0, 1, 6, 1] = 1  # RAS: right half would be x > 0; index 1 of 8 lies on the left, index 6 is anterior
    affine = np.eye(4)
    affine[:3, 3] = -3.5
    sliced = SlicedCase(Case("a", data, Geometry.of_volume((8, 8, 2), affine)), make_spec())
    row, column = np.argwhere(sliced.view(data, 1)[0])[0]
    assert row < 4 < column


def test_padding_holds_the_lowest_value_of_the_slice() -> None:
    case = Case("a", np.arange(5, 13).reshape(1, 4, 2), Geometry.of_pixels((4, 2)))
    tensor = SlicedCase(case, make_spec()).tensor(0)
    assert (tensor[0, :, :4] == tensor[0, :, 4:12].min()).all()


def test_blank_slices_are_recognised() -> None:
    data = np.zeros((1, 2, 4, 4))
    data[0, 1, 2, 2] = 1
    sliced = SlicedCase(Case("a", data, Geometry.of_pixels((2, 4, 4))), make_spec())
    assert [sliced.is_blank(i) for i in range(2)] == [True, False]


def test_targets_take_the_reference_values_of_each_label() -> None:
    labels = (
        LabelSpec(name="a", value=1, reference_values=(1, 4)),
        LabelSpec(name="b", value=2, reference_values=(2,)),
    )
    case = Case("a", np.ones((1, 16, 16)), Geometry.of_pixels((16, 16)))
    reference = np.zeros((16, 16), np.uint8)
    reference[0, :4] = [1, 2, 4, 3]
    target = SlicedCase(case, make_spec(labels=labels)).target(reference, 0)
    assert target[:, 0, :4].tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]


def test_the_box_holds_every_voxel_that_is_not_zero_in_any_channel() -> None:
    data = np.zeros((2, 5, 6, 7))
    data[0, 1, 2, 3] = data[1, 3, 2, 6] = -1
    assert nonzero_box(data) == (slice(1, 4), slice(2, 3), slice(3, 7))
    assert nonzero_box(np.zeros((1, 2, 3, 4))) == (slice(0, 2), slice(0, 3), slice(0, 4))


@st.composite
def volumes(draw: st.DrawFn) -> tuple[Geometry, np.ndarray]:
    shape = draw(st.tuples(*[st.integers(3, 9)] * 3))
    spacing = draw(st.tuples(*[st.sampled_from([0.7, 1.0, 3.0])] * 3))
    base = straight(shape, spacing)
    geometry = base.moved(base.reorientation_to(draw(st.sampled_from(sorted(ORIENTATIONS)))))
    seed = draw(st.integers(0, 99))
    return geometry, (np.random.default_rng(seed).random(geometry.shape) > 0.7).astype(np.uint8)


@settings(deadline=None)
@given(volumes())
def test_a_2d_label_map_overlays_its_volume_exactly_in_any_orientation(
    case: tuple[Geometry, np.ndarray],
) -> None:
    # A network that copies its input, at the input's own resolution, must give the mask back, voxel by voxel.
    geometry, mask = case
    spec = make_spec(input=SliceSpec(size=(64, 64), fit="stretch"))
    sliced = SlicedCase(Case("a", mask[None], geometry), spec)
    native = sliced.placement(0).native
    sliced.placement = lambda _index: Placement(native, native, native, (0, 0))
    assembler = SliceAssembler(sliced, spec, 0.5, keep_probabilities=True)
    for index in range(sliced.count):
        assembler.add(index, sliced.tensor(index) - 0.5)
    labels, probabilities = assembler.finish()
    np.testing.assert_array_equal(labels.labels, mask)
    assert labels.geometry is geometry
    assert probabilities is not None
    np.testing.assert_array_equal(probabilities[0] > 0.5, mask == 1)


@settings(deadline=None)
@given(volumes(), st.sampled_from(sorted(ORIENTATIONS)), st.booleans())
def test_a_3d_label_map_overlays_its_volume_exactly_in_any_orientation(
    case: tuple[Geometry, np.ndarray], orientation: str, crop: bool
) -> None:
    geometry, mask = case
    mask[0, 0, 0] = 1
    spec = make_spec(input=VolumeSpec(patch=(16, 16, 16), orientation=orientation, crop_to_nonzero=crop))
    prepared = WindowedCase(Case("a", mask[None], geometry), spec)
    np.testing.assert_array_equal(prepared.target(mask)[0], prepared.tensor[0])
    assembler = VolumeAssembler(prepared, spec, 0.5, keep_probabilities=True)
    assembler.add(prepared.tensor - 0.5)
    labels, probabilities = assembler.finish()
    np.testing.assert_array_equal(labels.labels, mask)
    assert probabilities is not None
    assert probabilities.shape == (1, *mask.shape)


def test_resampling_to_the_networks_spacing_and_back_keeps_a_large_block() -> None:
    mask = np.zeros((20, 20, 10), np.uint8)
    mask[4:16, 6:14, 2:8] = 1
    spec = make_spec(input=VolumeSpec(patch=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0), crop_to_nonzero=False))
    prepared = WindowedCase(Case("a", mask[None].astype(np.float32), straight(mask.shape, (1, 1, 2))), spec)
    assert prepared.tensor.shape == (1, 20, 20, 20)
    assembler = VolumeAssembler(prepared, spec, 0.5)
    # In slabs of any depth.
    for start, stop in ((0, 1), (1, 9), (9, 20)):
        assembler.add(prepared.tensor[:, start:stop] - 0.5)
    labels, _ = assembler.finish()
    np.testing.assert_array_equal(labels.labels, mask)


def test_a_cropped_slice_fills_the_frame_and_its_labels_return_to_their_place() -> None:
    data = np.zeros((1, 30, 40, 3), np.float32)
    data[0, 5:13, 20:28] = 1.0 + np.arange(3)
    geometry = Geometry(data.shape[1:], np.diag([1.0, 1.0, 5.0, 1.0]), "volume")
    spec = make_spec(input=SliceSpec(size=(16, 16), crop_to_nonzero=True))
    prepared = SlicedCase(Case("a", data, geometry), spec)
    assert (prepared.placement(0).native, prepared.placement(0).inner) == ((8, 8), (16, 16))
    assert (prepared.tensor(1) == 2).all()
    assembler = SliceAssembler(prepared, spec, 0.5)
    for index in range(prepared.count):
        assembler.add(index, np.full((1, 16, 16), 4.0, np.float32))
    labels, _ = assembler.finish()
    np.testing.assert_array_equal(labels.labels, data[0] > 0)


def test_each_picture_of_a_stack_is_cropped_as_if_it_were_alone() -> None:
    data = np.zeros((1, 2, 24, 24), np.float32)
    data[0, 0, 2:10, 4:12], data[0, 1, 10:22, 8:20] = np.arange(8), np.arange(12)
    spec = make_spec(input=SliceSpec(size=(16, 16), crop_to_nonzero=True))
    stack = SlicedCase(Case("a", data, Geometry.of_pixels((2, 24, 24))), spec)
    assembler = SliceAssembler(stack, spec, 0.5, keep_probabilities=True)
    for index in range(2):
        alone = SlicedCase(Case("b", data[:, index], Geometry.of_pixels((24, 24))), spec)
        np.testing.assert_array_equal(stack.tensor(index), alone.tensor(0))
        np.testing.assert_array_equal(stack.target(data[0] > 0, index), alone.target(data[0, index] > 0, 0))
        assembler.add(index, np.full((1, 16, 16), 4.0, np.float32))
    labels, probabilities = assembler.finish()
    boxes = np.zeros((2, 24, 24), bool)
    boxes[0, 2:10, 5:12] = boxes[1, 10:22, 9:20] = True  # the first column of each ramp is 0
    np.testing.assert_array_equal(labels.labels, boxes)
    np.testing.assert_array_equal(probabilities[0] > 0, boxes)


def test_statistics_of_the_volume_keep_slices_comparable_and_the_background_zero() -> None:
    data = np.zeros((1, 16, 16, 2), np.float32)
    data[0, 4:12, 4:12, 0], data[0, 4:12, 4:12, 1] = 10, 30
    geometry = Geometry(data.shape[1:], np.diag([1.0, 1.0, 5.0, 1.0]), "volume")
    # All voxels that are not 0: mean 20, deviation 10.
    intensity = IntensitySpec(foreground="nonzero", background="zero", scope="volume")
    prepared = SlicedCase(Case("a", data, geometry), make_spec(intensity=intensity))
    np.testing.assert_allclose(np.unique(prepared.tensor(0)), [-1, 0])
    np.testing.assert_allclose(np.unique(prepared.tensor(1)), [0, 1])
    picture = Case("b", data[..., 0], Geometry.of_pixels((16, 16)))
    alone = SlicedCase(picture, make_spec(intensity=intensity)).tensor(0)
    np.testing.assert_array_equal(alone, 0)


def test_the_frame_around_a_slice_with_a_zero_background_is_background() -> None:
    picture = np.zeros((1, 8, 16), np.float32)
    picture[0, 2:6, 2:14] = np.arange(12)
    intensity = IntensitySpec(foreground="nonzero", background="zero")
    frame = SlicedCase(Case("a", picture, Geometry.of_pixels((8, 16))), make_spec(intensity=intensity)).tensor(0)
    assert (frame[0, :4] == 0).all()
    assert frame.min() < 0
