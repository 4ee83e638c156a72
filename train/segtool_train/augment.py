"""Random changes of a batch, on whichever device it lies. Masks move exactly as their images do.

Works on the output of :mod:`segtool.preprocess` and draws from torch's global generators, so that one seed an
epoch repeats an epoch.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's users know it by
from pydantic import BaseModel, ConfigDict, Field

Tensor = torch.Tensor
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]

_DARKEST = 1e-4  # gamma's slope is infinite at 0


class AugmentationRecipe(BaseModel):
    """How far each change goes; 0, the default, leaves it out.

    Args:
        rotation_deg: Largest rotation, in the plane of a slice; for volumes in a random plane.
        scale: Largest natural logarithm of the zoom.
        anisotropy: Largest natural logarithm of the stretch of columns against rows (slices only).
        shift: Largest shift, as a share of half the extent.
        flip_horizontal: Probability to swap left and right (volumes: along the last axis).
        flip_vertical: Probability to swap up and down (volumes: along the middle axis).
        flip_depth: Probability to swap along the first axis of a volume.
        transpose: Probability to swap rows and columns (slices only).
        gamma: Largest natural logarithm of the exponent on the image's own range.
        contrast: Largest natural logarithm of the factor on the normalised intensity.
        brightness: Largest offset of the normalised intensity.
        noise: Largest standard deviation of Gaussian noise.
        noise_probability: How many images get noise.
        low_resolution: Probability that a batch is halved in resolution and enlarged again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Amount = 0.0
    anisotropy: Amount = 0.0
    shift: Amount = 0.0
    flip_horizontal: Share = 0.0
    flip_vertical: Share = 0.0
    flip_depth: Share = 0.0
    transpose: Share = 0.0
    gamma: Amount = 0.0
    contrast: Amount = 0.0
    brightness: Amount = 0.0
    noise: Amount = 0.0
    noise_probability: Share = 0.5
    low_resolution: Share = 0.0

    @property
    def resamples(self) -> bool:
        """True where images are resampled, not only mirrored."""
        return any((self.rotation_deg, self.scale, self.anisotropy, self.shift, self.transpose))


def augment(image: Tensor, target: Tensor, recipe: AugmentationRecipe) -> tuple[Tensor, Tensor]:
    """Change a batch at random.

    Args:
        image: ``(N, C, *S)`` normalised intensities.
        target: ``(N, L, *S)`` shares in [0, 1].
        recipe: How far each change goes.

    Returns:
        New image and target of the same shapes.
    """
    if image.ndim == 4 and recipe.resamples:
        image, target = _resample(image, target, _affine_2d(image, recipe))
    elif image.ndim == 5 and recipe.resamples:
        image, target = _resample(image, target, _affine_3d(image, recipe))
    else:
        image, target = _flip(image, target, recipe)
    return _intensity(image, recipe), target


def _signed(count: int, amount: float, like: Tensor) -> Tensor:
    """``(N,)`` uniform in [-amount, amount]."""
    return (torch.rand(count, device=like.device) * 2 - 1) * amount


def _mirror(count: int, probability: float, like: Tensor) -> Tensor:
    """``(N,)`` of 1 and -1."""
    return torch.where(torch.rand(count, device=like.device) < probability, -1.0, 1.0)


def _affine_2d(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """``(N, 2, 3)`` from output to input coordinates in [-1, 1], x (columns) first."""
    n = image.shape[0]
    angle = _signed(n, math.radians(recipe.rotation_deg), image)
    zoom = torch.exp(_signed(n, recipe.scale, image))
    stretch = torch.exp(_signed(n, recipe.anisotropy, image))
    across, down = _mirror(n, recipe.flip_horizontal, image), _mirror(n, recipe.flip_vertical, image)
    # Rows and columns of a frame that is not square differ in length, and an angle is one of lengths.
    ratio = image.shape[2] / image.shape[3]
    cos, sin = torch.cos(angle), torch.sin(angle)
    column = torch.stack([cos * zoom * stretch * across, sin * zoom * across / ratio], dim=1)
    row = torch.stack([-sin * zoom * down * ratio, cos * zoom / stretch * down], dim=1)
    moved = torch.stack([column, row, _shifts(n, 2, image, recipe)], dim=2)
    swapped = torch.rand(n, device=image.device) < recipe.transpose
    return torch.where(swapped[:, None, None], moved.flip(1), moved)


def _affine_3d(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """``(N, 3, 4)`` from output to input coordinates, x (the last axis) first.

    Each image is rotated about one axis, drawn at random.
    """
    n = image.shape[0]
    angle = _signed(n, math.radians(recipe.rotation_deg), image)
    zoom = torch.exp(_signed(n, recipe.scale, image))
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
        [matrix * zoom[:, None, None] * mirror[:, None, :], _shifts(n, 3, image, recipe)[:, :, None]], dim=2
    )


def _shifts(count: int, rank: int, like: Tensor, recipe: AugmentationRecipe) -> Tensor:
    return torch.stack([_signed(count, recipe.shift, like) for _ in range(rank)], dim=1)


def _resample(image: Tensor, target: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """Both through one grid; what lies outside becomes the image's lowest value and background."""
    grid = F.affine_grid(affine, list(image.shape), align_corners=False)
    lowest = _lowest(image)
    return (
        F.grid_sample(image - lowest, grid, align_corners=False) + lowest,
        F.grid_sample(target, grid, align_corners=False),
    )


def _flip(image: Tensor, target: Tensor, recipe: AugmentationRecipe) -> tuple[Tensor, Tensor]:
    """Mirror without resampling."""
    chances = {-1: recipe.flip_horizontal, -2: recipe.flip_vertical}
    if image.ndim == 5:
        chances[-3] = recipe.flip_depth
    for axis, probability in chances.items():
        chosen = (torch.rand(image.shape[0], device=image.device) < probability).view(-1, *[1] * (image.ndim - 1))
        image = torch.where(chosen, image.flip(axis), image)
        target = torch.where(chosen, target.flip(axis), target)
    return image, target


def _lowest(image: Tensor) -> Tensor:
    return image.amin(tuple(range(2, image.ndim)), keepdim=True)


def _intensity(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Gamma, contrast, brightness, noise and low resolution; one draw an image, shared by its channels."""
    n = image.shape[0]

    def draw(amount: float) -> Tensor:
        return _signed(n, amount, image).view(-1, *[1] * (image.ndim - 1))

    if recipe.gamma:
        lowest = _lowest(image)
        extent = image.amax(tuple(range(2, image.ndim)), keepdim=True) - lowest
        unit = ((image - lowest) / extent.clamp(min=_DARKEST)).clamp(_DARKEST, 1)
        image = unit ** torch.exp(draw(recipe.gamma)) * extent + lowest
    if recipe.contrast or recipe.brightness:
        image = image * torch.exp(draw(recipe.contrast)) + draw(recipe.brightness)
    if recipe.noise:
        chosen = draw(1.0).add(1).div(2) < recipe.noise_probability
        image = image + torch.randn_like(image) * (draw(recipe.noise).abs() * chosen)
    if recipe.low_resolution and float(torch.rand(())) < recipe.low_resolution:
        image = _halved(image)
    return image


def _halved(image: Tensor) -> Tensor:
    """The image at half its resolution, enlarged again."""
    if image.ndim == 4:
        small = F.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
        return F.interpolate(small, size=image.shape[2:], mode="bilinear")
    small = F.avg_pool3d(image, 2)
    return F.interpolate(small, size=image.shape[2:], mode="trilinear")
