"""What a scanner, a patient and a viewer do to an image: coil, motion, blur, noise, fewer pixels."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's users know it by

from segtool_train.augment.chance import Tensor, an_image, chosen, lowest, signed, smooth_field
from segtool_train.augment.recipe import AugmentationRecipe

_BIAS_CELLS = 2  # as smooth as a coil's field: about one hill across the image
_FEWEST_GHOSTS, _MOST_GHOSTS = 2, 5
_SHARPEST = 1e-3  # pixels: a blur of 0 would divide by it


def bias(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Multiply by a smooth positive field, above the image's lowest value, which stands for air.

    Source: cubic B-splines as the field's model, Tustison et al., IEEE Trans. Med. Imaging 29(6), 2010.
    """
    if not recipe.bias_field:
        return image
    n, rank = image.shape[0], image.ndim - 2
    strength = torch.rand(n, device=image.device) * chosen(n, recipe.bias_field_probability, image)
    control = torch.rand(n, 1, *[_BIAS_CELLS + 3] * rank, device=image.device) * 2 - 1
    field = smooth_field(control * an_image(strength * recipe.bias_field, image), image.shape[2:])
    floor = lowest(image)
    return (image - floor) * torch.exp(field) + floor


def ghost(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Weaken every g-th line of k-space along a random axis: g faint copies appear, spread evenly along it.

    The central line, which holds the mean, is kept. Source: the model of TorchIO's RandomGhosting, Pérez-García
    et al., Computer Methods and Programs in Biomedicine 208, 2021.
    """
    if not recipe.ghosting:
        return image
    n, axes = image.shape[0], tuple(range(2, image.ndim))
    strength = torch.rand(n, device=image.device) * chosen(n, recipe.ghosting_probability, image) * recipe.ghosting
    along = torch.randint(len(axes), (n,), device=image.device)
    ghosts = torch.randint(_FEWEST_GHOSTS, _MOST_GHOSTS + 1, (n,), device=image.device)
    kept = torch.ones((), device=image.device)
    for number, axis in enumerate(axes):
        lines = _frequencies(image.shape[axis], axis == axes[-1], image)  # of a real transform: half of the last axis
        hit = (lines % ghosts[:, None] == 0) & (lines != 0) & (along == number)[:, None]
        weight = 1 - strength[:, None] * hit
        kept = kept * weight.view(n, 1, *(lines.numel() if other == axis else 1 for other in axes))
    ghosted: Tensor = torch.fft.irfftn(torch.fft.rfftn(image, dim=axes) * kept, s=image.shape[2:], dim=axes)
    return ghosted


def _frequencies(pixels: int, half: bool, like: Tensor) -> Tensor:
    """Whole numbers of waves across the image, in the order of the transform, without sign."""
    every = torch.arange(pixels // 2 + 1 if half else pixels, device=like.device)
    return torch.minimum(every, pixels - every)


def blur(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Gaussian blur; weights that would reach beyond an edge go to the pixels inside."""
    if not recipe.blur:
        return image
    n = image.shape[0]
    width = torch.rand(n, device=image.device) * chosen(n, recipe.blur_probability, image) * recipe.blur
    exponent = -0.5 / width.clamp(min=_SHARPEST)[:, None, None] ** 2
    for axis in range(2, image.ndim):
        place = torch.arange(image.shape[axis], dtype=torch.float32, device=image.device)
        weights = torch.exp((place[:, None] - place) ** 2 * exponent)
        weights = weights / weights.sum(dim=2, keepdim=True)  # (N, pixels out, pixels in)
        image = torch.einsum("nij,nc...j->nc...i", weights, image.movedim(axis, -1)).movedim(-1, axis)
    return image


def add_noise(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Gaussian noise of a random strength."""
    if not recipe.noise:
        return image
    n = image.shape[0]
    noisy = signed(n, 1.0, image).add(1).div(2) < recipe.noise_probability
    return image + torch.randn_like(image) * an_image(signed(n, recipe.noise, image).abs() * noisy, image)


def lower_resolution(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """The batch at half its resolution, enlarged again, where chance has it."""
    if not recipe.low_resolution or float(torch.rand(())) >= recipe.low_resolution:
        return image
    if image.ndim == 4:
        small = F.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
        return F.interpolate(small, size=image.shape[2:], mode="bilinear")
    small = F.avg_pool3d(image, 2)
    return F.interpolate(small, size=image.shape[2:], mode="trilinear")
