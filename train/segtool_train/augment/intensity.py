"""Changes of grey that leave every pixel where it is and apart from its neighbours."""

import torch

from segtool_train.augment.chance import Tensor, an_image, chosen, lowest, signed
from segtool_train.augment.recipe import AugmentationRecipe

_DARKEST = 1e-4  # gamma's slope is infinite at 0


def bend(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Gamma on the image's own range."""
    if not recipe.gamma:
        return image
    exponent = _drawn(image, recipe.gamma, recipe.gamma_probability)
    floor = lowest(image)
    extent = image.amax(tuple(range(2, image.ndim)), keepdim=True) - floor
    unit = ((image - floor) / extent.clamp(min=_DARKEST)).clamp(_DARKEST, 1)
    return unit ** torch.exp(exponent) * extent + floor


def stretch(image: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Contrast and brightness."""
    if not (recipe.contrast or recipe.brightness):
        return image
    factor = torch.exp(_drawn(image, recipe.contrast, recipe.contrast_probability))
    return image * factor + _drawn(image, recipe.brightness, recipe.brightness_probability)


def _drawn(image: Tensor, amount: float, probability: float) -> Tensor:
    """``(N, 1, ...)`` in [-amount, amount], 0 where an image is not chosen."""
    n = image.shape[0]
    return an_image(signed(n, amount, image) * chosen(n, probability, image), image)
