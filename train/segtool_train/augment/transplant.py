"""Lesions of one image put into another of the batch, at a place where that image shows tissue.

Sets of few patients show lesions of few kinds in few places; a network learns the places.
Source: Yang et al., TumorCP: A Simple but Effective Object-Level Data Augmentation for Tumor Segmentation, MICCAI 2021;
here the greys around the lesion decide its own, and its border is blended.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's users know it by

from segtool_train.augment.chance import Tensor, an_image, chosen, lowest
from segtool_train.augment.recipe import AugmentationRecipe

_TISSUE = 0.15  # of the image's range above its lowest value: less is air
_FAINTEST = 0.6  # share of the lesion's own greys; fainter ones would be labelled and hardly visible
_BLEND = {2: 5, 3: 3}  # pixels of the window that softens the border, by rank
_RING = {2: 15, 3: 7}  # pixels of the window that finds the surroundings
_DEPTH = {2: 31, 3: 15}  # pixels of the window whose share of tissue says how deep inside a pixel lies
_DEEP = 8  # power of that share: the skin and the skull are as bright as the brain, but thin
_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


def transplant(image: Tensor, target: Tensor, recipe: AugmentationRecipe) -> tuple[Tensor, Tensor]:
    """Put the lesion of another image into each chosen one; ``(N, C, *S)`` and ``(N, L, *S)``, both new."""
    n = image.shape[0]
    if not recipe.transplant or n < 2:
        return image, target
    offset = torch.randint(1, n, (1,), device=image.device)
    donors = (torch.arange(n, device=image.device) + offset) % n
    floor = lowest(image)
    extent = image.amax(tuple(range(2, image.ndim)), keepdim=True) - floor
    tissue = ((image - floor) > _TISSUE * extent).any(dim=1, keepdim=True).float()
    greys, labels = _moved(image[donors] - floor[donors], target[donors], _places(tissue))
    lesion = (labels.sum(dim=1, keepdim=True) * tissue).clamp(max=1)
    ring = ((_mean(lesion, _RING) > 0).float() - lesion).clamp(min=0) * tissue
    greys = greys + _average(image, ring) - _average(greys, ring)
    some = an_image(chosen(n, recipe.transplant, image), image) * (lesion.amax(tuple(range(1, image.ndim)), True) > 0)
    strength = an_image(torch.rand(n, device=image.device) * (1 - _FAINTEST) + _FAINTEST, image)
    weight = _mean(lesion, _BLEND) * tissue * some * strength
    labels = labels * tissue * some
    return image * (1 - weight) + greys * weight, target * (1 - lesion * some) + labels


def _places(tissue: Tensor) -> Tensor:
    """``(N, rank)`` in [-1, 1], first axis first: a random pixel deep in the tissue ``(N, 1, *S)`` of each image."""
    shape = tissue.shape[2:]
    deep = tissue * _mean(tissue, _DEPTH) ** _DEEP
    # The small constant lets an image of air have a place, too.
    drawn = torch.multinomial(deep.flatten(1) + 1e-9, 1)[:, 0]
    places = []
    for pixels in reversed(shape):
        places.append((drawn % pixels + 0.5) * (2 / pixels) - 1)
        drawn = drawn // pixels
    return torch.stack(places[::-1], dim=1)


def _moved(greys: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Both shifted so that the centre of the labels of each image lies at its place; 0 comes in from outside."""
    n, rank = greys.shape[0], greys.ndim - 2
    share = labels.sum(dim=1)
    total = share.flatten(1).sum(dim=1).clamp(min=1e-6)
    centres = []
    for axis, pixels in enumerate(greys.shape[2:]):
        at = (torch.arange(pixels, device=greys.device) + 0.5) * (2 / pixels) - 1
        along = share.sum(dim=[1 + other for other in range(rank) if other != axis])
        centres.append((along * at).sum(dim=1) / total)
    shift = torch.stack(centres, dim=1) - places
    affine = torch.eye(rank, rank + 1, device=greys.device).repeat(n, 1, 1)
    affine[:, :, rank] = shift.flip(1)  # x, the last axis, first
    grid = F.affine_grid(affine, list(greys.shape), align_corners=False)
    return F.grid_sample(greys, grid, align_corners=False), F.grid_sample(labels, grid, align_corners=False)


def _mean(mask: Tensor, windows: dict[int, int]) -> Tensor:
    """Mean of ``(N, 1, *S)`` over the window around each pixel."""
    rank = mask.ndim - 2
    window = windows[rank]
    averaged: Tensor = _POOL[rank](mask, window, stride=1, padding=window // 2)
    return averaged


def _average(image: Tensor, weight: Tensor) -> Tensor:
    """``(N, C, 1, ...)``, mean of each channel under ``weight`` ``(N, 1, *S)``."""
    axes = tuple(range(2, image.ndim))
    return (image * weight).sum(axes, keepdim=True) / weight.sum(axes, keepdim=True).clamp(min=1e-6)
