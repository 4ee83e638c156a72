"""Losses, by name. Each takes logits ``(N, K, *S)`` and targets and gives one number."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's users know it by

Tensor = torch.Tensor
Loss = Callable[[Tensor, Tensor], Tensor]

_SMOOTH = 1.0  # in pixels: keeps the ratio defined, and its gradient small, where both masks are empty


def spatial(tensor: Tensor) -> tuple[int, ...]:
    """The spatial axes of ``(N, C, *S)``."""
    return tuple(range(2, tensor.ndim))


def with_background(target: Tensor) -> Tensor:
    """Shares of ``L`` labels to shares of ``1 + L`` classes that add up to 1, background first."""
    return torch.cat([(1 - target.sum(dim=1, keepdim=True)).clamp(min=0), target], dim=1)


def soft_dice(probability: Tensor, target: Tensor, axes: tuple[int, ...]) -> Tensor:
    """1 minus the soft Dice over ``axes``, averaged over the axes that are left.

    Source: Milletari, Navab, Ahmadi, V-Net, 3DV 2016, with plain sums in the denominator.
    """
    overlap = (probability * target).sum(axes)
    size = probability.sum(axes) + target.sum(axes)
    return 1 - ((2 * overlap + _SMOOTH) / (size + _SMOOTH)).mean()


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of ``(N, L, *S)`` logits against shares in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, target)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice of sigmoids, image by image and label by label, then averaged."""
    return soft_dice(logits.sigmoid(), target, spatial(logits))


def bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice."""
    return bce(logits, target) + dice(logits, target)


def ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of ``(N, 1 + L, *S)`` logits against the shares of ``L`` labels."""
    return F.cross_entropy(logits, with_background(target))


def ce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """0.3 cross-entropy + 0.7 soft Dice of the softmax, per class over the whole batch, then averaged.

    Source: Cecchin, Dugo, Soldà, Improved 3D U-Net for Brain Tumor Segmentation on BraTS Dataset.
    """
    batch = (0, *spatial(logits))
    return 0.3 * ce(logits, target) + 0.7 * soft_dice(logits.softmax(dim=1), with_background(target), batch)


LOSSES: dict[str, Loss] = {"bce": bce, "dice": dice, "bce_dice": bce_dice, "ce": ce, "ce_dice": ce_dice}
SOFTMAX_LOSSES = frozenset({"ce", "ce_dice"})
"""Losses for a spec with activation ``softmax``; the others are for ``sigmoid``."""
