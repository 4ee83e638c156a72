"""Random changes of a batch, on whichever device it lies. Masks move exactly as their images do.

Works on the output of :mod:`segtool.preprocess` and draws from torch's global generators, so that one seed a step
repeats a step. Every image of a batch gets a draw of its own, which its channels share.
"""

from segtool_train.augment.artefacts import add_noise, bias, blur, ghost, lower_resolution
from segtool_train.augment.chance import Tensor
from segtool_train.augment.geometry import move
from segtool_train.augment.intensity import bend, stretch
from segtool_train.augment.recipe import AugmentationRecipe
from segtool_train.augment.transplant import transplant

__all__ = ["AugmentationRecipe", "augment"]

# In the order of an acquisition: the coil's field, the scanner's greys, motion, the point spread, noise; and last
# what a viewer's smaller matrix does.
_GREYS = (bias, bend, stretch, ghost, blur, add_noise, lower_resolution)


def augment(image: Tensor, target: Tensor, recipe: AugmentationRecipe) -> tuple[Tensor, Tensor]:
    """Change a batch at random.

    Args:
        image: ``(N, C, *S)`` normalised intensities, two or three spatial axes.
        target: ``(N, L, *S)`` shares in [0, 1].
        recipe: How far each change goes.

    Returns:
        New image and target of the same shapes.
    """
    image, target = move(image, target, recipe)
    image, target = transplant(image, target, recipe)
    for change in _GREYS:
        image = change(image, recipe)
    return image, target
