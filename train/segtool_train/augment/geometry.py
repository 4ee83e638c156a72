"""Changes of place: image and target go through one grid."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's users know it by

from segtool_train.augment.chance import Tensor, an_image, chosen, lowest, signed, smooth_field
from segtool_train.augment.recipe import AugmentationRecipe


def move(image: Tensor, target: Tensor, recipe: AugmentationRecipe) -> tuple[Tensor, Tensor]:
    """Rotate, scale, stretch, shift, deform, mirror and transpose, in one resampling; or mirror pixel by pixel."""
    if not recipe.resamples:
        return _flip(image, target, recipe)
    affine = _affine_2d(image, recipe) if image.ndim == 4 else _affine_3d(image, recipe)
    # Of one channel: grids have none, and torch makes them for as many images as affines.
    grid = F.affine_grid(affine, [image.shape[0], 1, *image.shape[2:]], align_corners=False)
    if recipe.elastic:
        rank = image.ndim - 2
        grid = grid + torch.einsum("nij,n...j->n...i", affine[:, :, :rank], _elastic(image, recipe))
    # What comes in from outside becomes the image's lowest value and background.
    floor = lowest(image)
    return (
        F.grid_sample(image - floor, grid, align_corners=False) + floor,
        F.grid_sample(target, grid, align_corners=False),
    )


def _affine_2d(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """``(N, 2, 3)`` from output to input coordinates in [-1, 1], x (columns) first."""
    n = image.shape[0]
    moved = chosen(n, recipe.affine_probability, image)
    angle = signed(n, math.radians(recipe.rotation_deg), image) * moved
    zoom = torch.exp(signed(n, recipe.scale, image) * moved)
    stretch = torch.exp(signed(n, recipe.anisotropy, image) * moved)
    across, down = _mirror(n, recipe.flip_horizontal, image), _mirror(n, recipe.flip_vertical, image)
    # Rows and columns of a frame that is not square differ in length, and an angle is one of lengths.
    ratio = image.shape[2] / image.shape[3]
    cos, sin = torch.cos(angle), torch.sin(angle)
    column = torch.stack([cos * zoom * stretch * across, sin * zoom * across / ratio], dim=1)
    row = torch.stack([-sin * zoom * down * ratio, cos * zoom / stretch * down], dim=1)
    affine = torch.stack([column, row, _shifts(image, moved, recipe)], dim=2)
    swapped = torch.rand(n, device=image.device) < recipe.transpose
    return torch.where(swapped[:, None, None], affine.flip(1), affine)


def _affine_3d(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """``(N, 3, 4)`` from output to input coordinates, x (the last axis) first.

    Each image is rotated about one axis, drawn at random.
    """
    n = image.shape[0]
    moved = chosen(n, recipe.affine_probability, image)
    angle = signed(n, math.radians(recipe.rotation_deg), image) * moved
    zoom = torch.exp(signed(n, recipe.scale, image) * moved)
    half = torch.tensor(image.shape[:1:-1], dtype=torch.float32, device=image.device)  # x, y, z
    axis = torch.randint(3, (n,), device=image.device)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    rows = torch.arange(n, device=image.device)
    matrix = torch.eye(3, device=image.device).repeat(n, 1, 1)
    matrix[rows, one, one] = matrix[rows, two, two] = torch.cos(angle)
    matrix[rows, one, two] = -torch.sin(angle) * half[two] / half[one]
    matrix[rows, two, one] = torch.sin(angle) * half[one] / half[two]
    probabilities = (recipe.flip_horizontal, recipe.flip_vertical, recipe.flip_depth)
    mirror = torch.stack([_mirror(n, probability, image) for probability in probabilities], dim=1)
    return torch.cat(
        [matrix * zoom[:, None, None] * mirror[:, None, :], _shifts(image, moved, recipe)[:, :, None]], dim=2
    )


def _elastic(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """``(N, *S, R)``, move of every output point in coordinates of [-1, 1], x first."""
    n, rank = image.shape[0], image.ndim - 2
    far = torch.rand(n, device=image.device) * chosen(n, recipe.elastic_probability, image)
    far = far * recipe.elastic * 2 / recipe.elastic_cells
    points = [recipe.elastic_cells + 3] * rank
    control = torch.rand(n, rank, *points, device=image.device) * 2 - 1
    return smooth_field(control * an_image(far, image), image.shape[2:]).movedim(1, -1)


def _shifts(image: Tensor, moved: Tensor, recipe: AugmentationRecipe) -> Tensor:
    axes = [signed(image.shape[0], recipe.shift, image) * moved for _ in range(image.ndim - 2)]
    return torch.stack(axes, dim=1)


def _mirror(count: int, probability: float, like: Tensor) -> Tensor:
    """``(N,)`` of 1 and -1."""
    return torch.where(torch.rand(count, device=like.device) < probability, -1.0, 1.0)


def _flip(image: Tensor, target: Tensor, recipe: AugmentationRecipe) -> tuple[Tensor, Tensor]:
    """Mirror without resampling."""
    chances = {-1: recipe.flip_horizontal, -2: recipe.flip_vertical}
    if image.ndim == 5:
        chances[-3] = recipe.flip_depth
    for axis, probability in chances.items():
        flipped = an_image(torch.rand(image.shape[0], device=image.device) < probability, image)
        image = torch.where(flipped, image.flip(axis), image)
        target = torch.where(flipped, target.flip(axis), target)
    return image, target
