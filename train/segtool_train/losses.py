"""Losses, by name, each with its options. A loss takes logits ``(N, K, *S)`` and targets and gives one number."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's users know it by
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segtool.errors import UsageError

Tensor = torch.Tensor
Loss = Callable[[Tensor, Tensor], Tensor]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

_EPSILON = 1.0  # in pixels: keeps the ratio defined, and its gradient small, where both masks are empty


def spatial(tensor: Tensor) -> tuple[int, ...]:
    """The spatial axes of ``(N, C, *S)``."""
    return tuple(range(2, tensor.ndim))


def with_background(target: Tensor) -> Tensor:
    """Shares of ``L`` labels to shares of ``1 + L`` classes that add up to 1, background first."""
    return torch.cat([(1 - target.sum(dim=1, keepdim=True)).clamp(min=0), target], dim=1)


def soft_dice(probability: Tensor, target: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    """1 minus the soft Dice over ``axes``, averaged over the axes that are left.

    Args:
        probability: ``(N, C, *S)`` in [0, 1].
        target: ``(N, C, *S)`` shares in [0, 1].
        axes: Summed over.
        epsilon: Added above and below the line, in pixels.

    Source: Milletari, Navab, Ahmadi, V-Net, 3DV 2016, with plain sums in the denominator.
    """
    overlap = (probability * target).sum(axes)
    size = probability.sum(axes) + target.sum(axes)
    return 1 - ((2 * overlap + epsilon) / (size + epsilon)).mean()


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of ``(N, L, *S)`` logits against shares in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, target)


def dice(logits: Tensor, target: Tensor, epsilon: float = _EPSILON, batch: bool = False) -> Tensor:
    """Soft Dice of sigmoids, label by label, for each image or for the whole batch, then averaged."""
    axes = spatial(logits)
    return soft_dice(logits.sigmoid(), target, (0, *axes) if batch else axes, epsilon)


def bce_dice(logits: Tensor, target: Tensor, epsilon: float = _EPSILON) -> Tensor:
    """Binary cross-entropy plus soft Dice."""
    return bce(logits, target) + dice(logits, target, epsilon)


def ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of ``(N, 1 + L, *S)`` logits against the shares of ``L`` labels."""
    return F.cross_entropy(logits, with_background(target))


def softmax_dice(logits: Tensor, target: Tensor, epsilon: float = _EPSILON) -> Tensor:
    """Soft Dice of the softmax, per class over the whole batch, background included, then averaged."""
    return soft_dice(logits.softmax(dim=1), with_background(target), (0, *spatial(logits)), epsilon)


def ce_dice(logits: Tensor, target: Tensor, epsilon: float = _EPSILON) -> Tensor:
    """0.3 cross-entropy + 0.7 soft Dice of the softmax.

    Source: Cecchin, Dugo, Soldà, Improved 3D U-Net for Brain Tumor Segmentation on BraTS Dataset.
    """
    return 0.3 * ce(logits, target) + 0.7 * softmax_dice(logits, target, epsilon)


class LossOptions(BaseModel, ABC):
    """The options of a loss, and how to make it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    activation: ClassVar[Literal["sigmoid", "softmax"]] = "sigmoid"
    """Of the spec that the loss is for."""

    @abstractmethod
    def build(self) -> Loss:
        """The loss itself."""


class Bce(LossOptions):
    """See :func:`bce`; no options."""

    def build(self) -> Loss:
        """The loss itself."""
        return bce


class Dice(LossOptions):
    """See :func:`dice`."""

    epsilon: Positive = _EPSILON
    batch: bool = False

    def build(self) -> Loss:
        """The loss itself."""
        return partial(dice, epsilon=self.epsilon, batch=self.batch)


class BceDice(LossOptions):
    """See :func:`bce_dice`."""

    epsilon: Positive = _EPSILON

    def build(self) -> Loss:
        """The loss itself."""
        return partial(bce_dice, epsilon=self.epsilon)


class Focal(LossOptions):
    """Cross-entropy that pixels which are right already hardly enter.

    Args:
        gamma: How much less they count; 0 is plain cross-entropy.
        alpha: Weight of the labels against the background's ``1 - alpha``; None weighs both 1.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    gamma: Annotated[float, Field(ge=0)] = 2.0
    alpha: Share | None = None

    def build(self) -> Loss:
        """The loss itself."""
        from monai.losses.focal_loss import FocalLoss

        loss: Loss = FocalLoss(gamma=self.gamma, alpha=self.alpha)
        return loss


class Tversky(LossOptions):
    """Soft Dice with a weight of its own for each kind of mistake; 0.5 and 0.5 are Dice.

    Args:
        alpha: Of pixels wrongly labelled.
        beta: Of labelled pixels missed.
        epsilon: Added above and below the line, in pixels.

    Source: Salehi, Erdogmus, Gholipour, Tversky loss function for image segmentation, MLMI 2017.
    """

    alpha: Positive = 0.3
    beta: Positive = 0.7
    epsilon: Positive = _EPSILON

    def build(self) -> Loss:
        """The loss itself."""
        from monai.losses.tversky import TverskyLoss

        loss: Loss = TverskyLoss(
            sigmoid=True, alpha=self.alpha, beta=self.beta, smooth_nr=self.epsilon, smooth_dr=self.epsilon
        )
        return loss


class Ce(LossOptions):
    """See :func:`ce`; no options."""

    activation = "softmax"

    def build(self) -> Loss:
        """The loss itself."""
        return ce


class SoftmaxDice(LossOptions):
    """See :func:`softmax_dice`."""

    activation = "softmax"
    epsilon: Positive = _EPSILON

    def build(self) -> Loss:
        """The loss itself."""
        return partial(softmax_dice, epsilon=self.epsilon)


class CeDice(LossOptions):
    """See :func:`ce_dice`."""

    activation = "softmax"
    epsilon: Positive = _EPSILON

    def build(self) -> Loss:
        """The loss itself."""
        return partial(ce_dice, epsilon=self.epsilon)


LOSSES: dict[str, type[LossOptions]] = {
    "bce": Bce,
    "dice": Dice,
    "bce_dice": BceDice,
    "focal": Focal,
    "tversky": Tversky,
    "ce": Ce,
    "softmax_dice": SoftmaxDice,
    "ce_dice": CeDice,
}


def get_loss(name: str, options: dict[str, Any]) -> LossOptions:
    """The loss called ``name`` with its options checked.

    Raises:
        UsageError: No such loss, or an option that it does not take.
    """
    if name not in LOSSES:
        raise UsageError(f"loss {name!r} is not known", f"Name one of: {', '.join(LOSSES)}.")
    try:
        return LOSSES[name].model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"]) or "options"
        takes = ", ".join(LOSSES[name].model_fields) or "none"
        raise UsageError(
            f"loss {name!r}: option {option!r} is not valid ({first['msg']})", f"It takes: {takes}."
        ) from error
