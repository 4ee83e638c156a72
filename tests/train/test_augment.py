import pytest
import torch
from pydantic import ValidationError

from segtool_train.augment import AugmentationRecipe, augment

SQUARE, OBLONG, VOLUME = (6, 1, 32, 32), (6, 1, 24, 48), (4, 2, 16, 12, 20)

GREYS = (
    {"gamma": 0.3},
    {"contrast": 0.2},
    {"brightness": 0.2},
    {"noise": 0.1, "noise_probability": 1},
    {"low_resolution": 1},
    {"bias_field": 0.5, "bias_field_probability": 1},
    {"ghosting": 0.8, "ghosting_probability": 1},
    {"blur": 2, "blur_probability": 1},
)


def blob(shape: tuple[int, ...]) -> torch.Tensor:
    """Bright around a point off the centre: no flip, turn or shift leaves it in place."""
    grids = torch.meshgrid(*(torch.linspace(0, 1, n) for n in shape[2:]), indexing="ij")
    distance = sum((grid - centre) ** 2 for grid, centre in zip(grids, (0.4, 0.65, 0.55), strict=False))
    return torch.exp(-30 * torch.as_tensor(distance)).expand(shape).clone()


@pytest.mark.parametrize("shape", [SQUARE, OBLONG, VOLUME])
@pytest.mark.parametrize(
    "change",
    [
        {"rotation_deg": 40.0},
        {"scale": 0.3, "shift": 0.2},
        {"anisotropy": 0.2, "rotation_deg": 10.0},
        {"flip_horizontal": 0.5, "flip_vertical": 0.5, "flip_depth": 0.5},
        {"flip_horizontal": 0.5, "flip_vertical": 0.5, "flip_depth": 0.5, "rotation_deg": 5.0},
        {"transpose": 0.5},
        {"elastic": 0.4},
        {"elastic": 0.4, "elastic_cells": 7, "elastic_probability": 1.0, "rotation_deg": 15.0, "flip_vertical": 0.5},
        {"rotation_deg": 40.0, "scale": 0.3, "affine_probability": 0.5},
    ],
)
def test_masks_move_exactly_as_their_images(shape: tuple[int, ...], change: dict[str, float]):
    torch.manual_seed(0)
    image = blob(shape)
    moved, target = augment(image, image[:, :1].clone(), AugmentationRecipe(**change))
    assert moved.shape == image.shape
    # The image is shifted to 0 and back, so that what comes in from outside is its lowest value.
    lowest = float(image.min())
    assert torch.allclose(moved[:, :1].clamp(min=lowest), target.clamp(min=lowest), atol=1e-5)


def test_a_recipe_of_nothing_changes_nothing():
    image = blob(SQUARE)
    moved, target = augment(image, image, AugmentationRecipe())
    assert torch.equal(moved, image)
    assert torch.equal(target, image)


def test_intensity_changes_leave_the_mask_alone():
    torch.manual_seed(0)
    image = blob(SQUARE)
    for change in GREYS:
        moved, target = augment(image, image.clone(), AugmentationRecipe(**change))
        assert torch.equal(target, image), change
        assert not torch.allclose(moved, image, atol=0.02), change
        assert torch.isfinite(moved).all(), change


def test_a_constant_image_stays_finite():
    torch.manual_seed(0)
    flat = torch.zeros(SQUARE)
    moved, _ = augment(flat, flat, AugmentationRecipe(gamma=0.3, rotation_deg=10, contrast=0.1))
    assert torch.isfinite(moved).all()


def test_a_rotation_in_an_oblong_frame_keeps_areas():
    torch.manual_seed(0)
    disc = torch.zeros(1, 1, 40, 80)
    disc[:, :, 15:25, 35:45] = 1
    for _ in range(5):
        _, target = augment(disc, disc, AugmentationRecipe(rotation_deg=90))
        assert float(target.sum()) == pytest.approx(100, rel=0.05)


def test_one_seed_repeats_a_batch():
    recipe = AugmentationRecipe(rotation_deg=20, gamma=0.2, noise=0.1, low_resolution=0.5)
    image = blob(SQUARE)
    torch.manual_seed(3)
    one, _ = augment(image, image, recipe)
    torch.manual_seed(3)
    two, _ = augment(image, image, recipe)
    assert torch.equal(one, two)


CHANCES = (
    ("affine_probability", {"rotation_deg": 40.0, "scale": 0.3, "shift": 0.2}),
    ("elastic_probability", {"elastic": 0.4}),
    ("bias_field_probability", {"bias_field": 0.5}),
    ("gamma_probability", {"gamma": 0.3}),
    ("contrast_probability", {"contrast": 0.3}),
    ("brightness_probability", {"brightness": 0.3}),
    ("ghosting_probability", {"ghosting": 0.8}),
    ("blur_probability", {"blur": 2.0}),
    ("noise_probability", {"noise": 0.1}),
)


@pytest.mark.parametrize("shape", [(60, 1, 16, 16), (60, 2, 8, 8, 8)])
@pytest.mark.parametrize(("name", "change"), CHANCES)
def test_a_probability_is_the_share_of_changed_images(name: str, change: dict[str, float], shape: tuple[int, ...]):
    torch.manual_seed(0)
    image = torch.rand(shape)
    # Of those that are chosen, the weakest draws change too little to be told from gamma's rounding.
    for probability, fewest, most in ((0, 0, 0), (0.5, 15, 40), (1, 41, 60)):
        moved, _ = augment(image, image, AugmentationRecipe(**{name: probability, **change}))
        changed = (moved - image).abs().flatten(1).amax(1) > 2e-4
        assert fewest <= int(changed.sum()) <= most


@pytest.mark.parametrize("shape", [(40, 56), (24, 20, 28)])
def test_an_elastic_deformation_never_folds(shape: tuple[int, ...]):
    torch.manual_seed(0)
    rank = len(shape)
    # Images that are their own coordinates say where every pixel came from.
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    coordinates = torch.stack(axes).expand(8, rank, *shape)
    moved, _ = augment(coordinates, coordinates, AugmentationRecipe(elastic=0.4, elastic_probability=1))
    assert not torch.allclose(moved, coordinates, atol=1)
    inside = moved[(..., *[slice(6, -6)] * rank)]  # 0.4 of 56 / 4 pixels: from there on nothing is from outside
    slopes = torch.stack(torch.gradient(inside, dim=tuple(range(2, rank + 2))), dim=-1)
    assert bool((torch.linalg.det(slopes.movedim(1, -2)) > 0).all())


def test_ghosts_are_faint_copies_spread_evenly_and_keep_the_mean():
    torch.manual_seed(0)
    point = torch.zeros(40, 1, 60, 60)  # 60 is divisible by 2, 3, 4 and 5
    point[:, :, 7, 11] = 60.0
    moved, _ = augment(point, point, AugmentationRecipe(ghosting=1, ghosting_probability=1))
    assert torch.allclose(moved.mean((1, 2, 3)), point.mean((1, 2, 3)), atol=1e-5)
    counts = set()
    for image in moved[:, 0]:
        down, across = ((line < -0.1).nonzero().flatten().tolist() for line in (image[:, 11], image[7]))
        start, copies = (7, down) if down else (11, across)
        count = len(copies) + 1
        assert sorted((copy - start) % 60 for copy in copies) == [60 // count * k for k in range(1, count)]
        counts.add(count)
    assert {2, 3, 4, 5} <= counts <= {1, 2, 3, 4, 5}  # 1: too faint to be found


def test_a_blurred_point_is_a_gaussian_and_keeps_its_sum():
    torch.manual_seed(2)
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1.0
    moved, _ = augment(point, point, AugmentationRecipe(blur=3, blur_probability=1))
    profile = moved[0, 0].sum(0)
    assert float(profile.sum()) == pytest.approx(1, abs=1e-4)
    variance = float((profile * (torch.arange(41) - 20.0) ** 2).sum())
    assert 0 < variance < 9
    # A Gaussian of this variance, one pixel from its centre.
    assert float(profile[21] / profile[20]) == pytest.approx(float(torch.exp(torch.tensor(-0.5 / variance))), rel=1e-3)


def test_a_blur_leaves_a_constant_image_alone_up_to_its_edges():
    flat = torch.full(VOLUME, 3.0)
    moved, _ = augment(flat, flat, AugmentationRecipe(blur=2, blur_probability=1))
    assert torch.allclose(moved, flat, atol=1e-4)


def test_a_bias_field_is_smooth_positive_bounded_and_spares_air():
    torch.manual_seed(0)
    image = torch.ones(6, 2, 64, 48)
    image[:, :, :, :4] = 0  # air
    moved, _ = augment(image, image, AugmentationRecipe(bias_field=0.5, bias_field_probability=1))
    assert bool((moved[..., :4] == 0).all())
    field = moved[..., 4:].log()
    assert float(field.abs().max()) <= 0.5
    assert torch.equal(field[:, 0], field[:, 1])  # channels share it
    assert float(field.diff(dim=2).abs().max()) < 0.05  # 0.5 to -0.5 takes half a frame and more
    assert float((field.amax((1, 2, 3)) - field.amin((1, 2, 3))).max()) > 0.1


@pytest.mark.parametrize("shape", [OBLONG, VOLUME])
def test_nothing_leaves_the_device_of_the_batch(shape: tuple[int, ...]):
    changes: dict[str, float] = {"rotation_deg": 30, "affine_probability": 0.5, "transpose": 0.5, "elastic": 0.4}
    for change in GREYS:
        changes |= change
    # The meta device refuses to be combined with any other, as CUDA does.
    image = torch.empty(shape, device="meta")
    for recipe in (AugmentationRecipe(**changes), AugmentationRecipe(flip_vertical=0.5)):
        assert {part.device.type for part in augment(image, image[:, :1], recipe)} == {"meta"}


def test_an_elastic_amount_that_would_fold_is_refused():
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.4"):
        AugmentationRecipe(elastic=0.5)


@pytest.mark.parametrize("shape", [(2, 1, 40, 56), (2, 2, 20, 24, 28)])
def test_a_transplanted_lesion_lies_on_tissue_and_keeps_its_contrast(shape: tuple[int, ...]):
    # Tissue of 1 in the middle of air at 0; the first image has a lesion of 2 above its surroundings.
    middle = tuple(slice(n // 4, 3 * n // 4) for n in shape[2:])
    inside = tuple(slice(n // 2, n // 2 + 4) for n in shape[2:])
    image, target = torch.zeros(shape), torch.zeros(shape)[:, :1]
    image[(slice(None), slice(None), *middle)] = 1
    image[1] *= 3  # a scanner with other greys
    image[(0, slice(None), *inside)] = 3
    target[(0, slice(None), *inside)] = 1
    torch.manual_seed(3)
    changed, labels = augment(image, target, AugmentationRecipe(transplant=1.0))
    assert torch.equal(changed[0], image[0])  # its donor has no lesion
    assert torch.equal(labels[0], target[0])
    assert labels[1].sum() > 0
    assert (labels[1, 0][image[1, 0] == 0] == 0).all()
    assert torch.equal((changed[1] != image[1])[:, labels[1, 0] == 1].all(), torch.tensor(True))
    difference = changed[1] - image[1]
    assert 0.6 * 2 * 0.5 < difference.max() <= 2.01
    far = torch.nn.functional.pad(labels[1:], [4] * 2 * (len(shape) - 2))
    pool = torch.nn.functional.max_pool2d if len(shape) == 4 else torch.nn.functional.max_pool3d
    assert (difference[:, pool(far, 9, stride=1)[0, 0] == 0] == 0).all()


def test_a_batch_without_lesions_or_of_one_image_is_left_alone():
    image = blob(SQUARE)
    for size in (1, 6):
        changed, labels = augment(image[:size], torch.zeros(size, 1, 32, 32), AugmentationRecipe(transplant=1.0))
        assert torch.equal(changed, image[:size])
        assert not labels.any()
