import numpy as np
import pytest
from PIL import Image

from segtool.case import Case, LabelMap
from segtool.errors import OutputError
from segtool.geometry import Geometry
from segtool.overlay import (
    BOTH,
    PREDICTION,
    REFERENCE,
    WHITE,
    choose_slices,
    contour,
    draw,
    grey,
    overlay_case,
    write_overlay,
)


def square(shape=(8, 8), rows=slice(2, 6), columns=slice(2, 6)):
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = 1
    return mask


def case_of(image, geometry, reference=None):
    labels = None if reference is None else LabelMap(reference, geometry)
    return Case("a", image[None], geometry, labels)


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


RED, GREEN, YELLOW, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 0), (0, 0, 0)


def is_colour(rgb, colour):
    return (rgb == colour).all(axis=-1)


def test_a_contour_is_one_pixel_wide_and_inside():
    expected = square()
    expected[3:5, 3:5] = 0
    np.testing.assert_array_equal(contour(square()), expected)


def test_a_contour_runs_along_the_edge_of_the_picture():
    assert contour(np.ones((3, 3), np.uint8)).sum() == 8


def test_labels_that_touch_are_told_apart():
    labels = np.ones((5, 6), np.uint8)
    labels[:, 3:] = 2
    np.testing.assert_array_equal(contour(labels)[2], [1, 0, 1, 1, 0, 1])


def test_grey_spreads_the_percentiles_and_ignores_outliers():
    image = np.arange(1000, dtype=np.int16).reshape(20, 50)
    image[0, 0] = -30000
    found = grey(image)
    assert found.dtype == np.uint8
    assert (found.min(), found.max()) == (0, WHITE)
    assert found[10, 0] == pytest.approx(WHITE / 2, abs=2)  # 500 of 999


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (np.full((4, 4), 7.0), {0}),
        (np.full((4, 4), np.nan), {0}),
        (np.eye(200), {0, WHITE}),  # half a percent of bright pixels: both percentiles are 0
    ],
    ids=["constant", "NaN", "few bright"],
)
def test_grey_has_an_answer_for_degenerate_pictures(image, values):
    assert set(np.unique(grey(image))) == values


def test_reference_is_green_prediction_red_and_both_yellow(tmp_path):
    write_overlay(tmp_path / "a.png", np.zeros((8, 8)), square(), square(columns=slice(3, 7)))
    rgb = pixels(tmp_path / "a.png")
    assert [tuple(rgb[at]) for at in ((3, 2), (3, 6), (2, 4), (0, 0))] == [RED, GREEN, YELLOW, BLACK]


def test_equal_masks_are_all_yellow():
    drawn = draw(np.zeros((8, 8)), square(), square())
    assert (drawn == BOTH).sum() == 12
    assert not np.isin(drawn, (PREDICTION, REFERENCE)).any()


def test_pixels_of_the_picture_are_square_and_contours_one_wide():
    drawn = draw(np.zeros((8, 8)), square(), spacing=(2.0, 1.0))
    assert drawn.shape == (16, 8)
    red = drawn == PREDICTION
    np.testing.assert_array_equal(np.nonzero(red[:, 4])[0], [4, 11])  # 2..5 twice as high
    assert red.sum() == 2 * 4 + 2 * 6


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="does not lie"):
        draw(np.zeros((8, 8)), np.zeros((8, 7), np.uint8))


def test_a_written_overlay_is_a_colour_png(tmp_path):
    path = tmp_path / "overlays" / "a.png"
    write_overlay(path, np.zeros((64, 64), np.uint16), square((64, 64)), dice=0.84)
    rgb = pixels(path)
    assert rgb.shape == (64, 64, 3)
    assert tuple(rgb[2, 60]) == BLACK
    assert rgb[:16, :60].min(axis=-1).max() > 150  # the text, smoothed


def test_an_undefined_dice_is_not_printed(tmp_path):
    for name, dice in (("nan", float("nan")), ("none", None)):
        write_overlay(tmp_path / f"{name}.png", np.zeros((64, 64)), square((64, 64)), dice=dice)
    np.testing.assert_array_equal(pixels(tmp_path / "nan.png"), pixels(tmp_path / "none.png"))


def test_an_overlay_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Choose another folder"):
        write_overlay(tmp_path / "file" / "a.png", np.zeros((8, 8)), square())


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ([0, 0, 0, 0], (2,)),  # nothing anywhere: the middle
        ([0, 1, 2, 1, 0], (1, 2, 3)),
        ([5, 1, 0, 0], (0, 1)),  # no neighbour before the first
        ([0, 1, 1, 1, 9, 1, 1, 1, 0], (3, 4, 5)),
        ([1, 1, 1, 1, 9, 1, 1, 1, 1], (2, 4, 6)),  # 9 slices, a quarter is 2
    ],
)
def test_the_fullest_slice_is_shown_with_its_neighbours(sizes, shown):
    prediction = np.zeros((len(sizes), 3, 3), np.uint8)
    for index, size in enumerate(sizes):
        prediction[index].flat[:size] = 1
    assert choose_slices(prediction) == shown


def test_without_a_prediction_the_reference_chooses_the_slice():
    reference = np.zeros((5, 3, 3), np.uint8)
    reference[4] = 1
    assert choose_slices(np.zeros_like(reference), reference) == (3, 4)


def marked_volume(orientation, spacing_ras):
    """A volume stored in any orientation with one bright voxel left, anterior and superior of the middle."""
    ras = Geometry.of_volume((5, 6, 7), np.diag([*spacing_ras, 1.0]))
    image = np.zeros((5, 6, 7), np.float32)
    image[0, 5, 6] = 1  # R grows with the index, so 0 is the patient's left
    labels = (image > 0).astype(np.uint8)
    move = ras.reorientation_to(orientation)
    return move.apply(image), move.apply(labels), ras.moved(move)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASL", "PIR", "SRA", "IPL"])
@pytest.mark.parametrize(
    ("spacing", "shape", "corner"),
    [
        # The slice that is shown: rows x columns, and where left/anterior/superior lies in it.
        ((1, 1, 5), (6, 5), (0, -1)),  # axial: anterior up, left on the right side
        ((1, 5, 1), (7, 5), (0, -1)),  # coronal: superior up, left on the right side
        ((5, 1, 1), (7, 6), (0, 0)),  # sagittal: superior up, anterior on the left side
    ],
    ids=["axial", "coronal", "sagittal"],
)
def test_volumes_are_shown_radiologically_across_the_widest_spacing(tmp_path, orientation, spacing, shape, corner):
    image, labels, geometry = marked_volume(orientation, spacing)
    overlay_case(tmp_path / "a.png", case_of(image, geometry), LabelMap(labels, geometry))
    rgb = pixels(tmp_path / "a.png")
    # The marked slice is the first or the last one, hence one neighbour: two panels and a gap.
    assert rgb.shape == (shape[0], 2 * shape[1] + 4, 3)
    panels = rgb[:, : shape[1]], rgb[:, -shape[1] :]
    red = [is_colour(panel, RED) for panel in panels]
    assert [panel.sum() for panel in red] in ([1, 0], [0, 1])
    assert max(panel[corner] for panel in red)


def test_a_picture_is_shown_as_it_lies_with_its_dice(tmp_path):
    geometry = Geometry.of_pixels((64, 80))
    labels = square((64, 80), slice(30, 50), slice(30, 50))
    case = case_of(np.zeros((64, 80), np.uint8), geometry, labels)
    overlay_case(tmp_path / "a.png", case, LabelMap(labels, geometry))
    write_overlay(tmp_path / "b.png", case.data[0], labels, labels, dice=1.0)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_each_picture_of_a_stack_has_its_own_dice(tmp_path):
    geometry = Geometry.of_pixels((3, 64, 64))
    labels = np.stack([square((64, 64), slice(30, 40), slice(30, 40 + i)) for i in (0, 5, 0)])
    reference = labels.copy()
    reference[0] = 0
    case = case_of(np.zeros(labels.shape, np.uint8), geometry, reference)
    overlay_case(tmp_path / "a.png", case, LabelMap(labels, geometry))
    rgb = pixels(tmp_path / "a.png")
    assert rgb.shape == (64, 3 * 64 + 2 * 4, 3)
    first, second, third = (rgb[:16, start : start + 60] for start in (0, 68, 136))
    np.testing.assert_array_equal(second, third)  # both Dice 1.00
    assert (first != second).any()


def test_a_real_volume_is_drawn(tmp_path, real_data):
    files = sorted((real_data / "progression").glob("**/*.nii*"))
    if not files:
        pytest.skip("no progression scans")
    from segtool.case import Source
    from segtool.formats import get_format

    nifti = get_format("nifti")
    image = nifti.read_image(Source("nifti", (files[0],)))
    labels = (image.data[0] > np.percentile(image.data[0], 99)).astype(np.uint8)
    case = Case("a", image.data, image.geometry)
    overlay_case(tmp_path / "a.png", case, LabelMap(labels, image.geometry))
    assert is_colour(pixels(tmp_path / "a.png"), RED).any()
