import pytest
import torch

from segtool_train.augment import AugmentationRecipe, augment

SQUARE, OBLONG, VOLUME = (6, 1, 32, 32), (6, 1, 24, 48), (4, 2, 16, 12, 20)


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
    changes = AugmentationRecipe(
        gamma=0.3, contrast=0.2, brightness=0.2, noise=0.1, noise_probability=1, low_resolution=1
    )
    moved, target = augment(image, image.clone(), changes)
    assert torch.equal(target, image)
    assert not torch.allclose(moved, image, atol=0.05)
    assert torch.isfinite(moved).all()


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
