"""The loop's content, step by step, as a LightningModule."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from segtool.errors import UserError
from segtool.sliding_window import slide
from segtool.spec import ModelSpec
from segtool_train.augment import augment
from segtool_train.data.dataset import Batch
from segtool_train.frameworks import pl
from segtool_train.losses import LOSSES
from segtool_train.recipe import Recipe, TrainingRecipe
from segtool_train.scores import Scores, decided, dice_per_sample, summarise

_EMA_RAMP = 10  # steps: early averages follow the weights closely, as the first ones are random
_VALIDATION_OVERLAP = 0.25  # of 3D windows: less than at inference, for speed

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "sgd": torch.optim.SGD,
}


class SegmentationModule(pl.LightningModule):
    """Trains ``network`` by ``recipe`` and validates the averaged weights in full precision.

    Args:
        network: Maps ``(N, C, *S)`` to logits ``(N, K, *S)``.
        encoder: The pre-trained part of ``network``, None where there is none.
        recipe: Loss, optimiser, schedule, augmentation.
        steps: Of the whole training.
        groups: Class of every sample by number, for reports.
    """

    def __init__(
        self, network: nn.Module, encoder: nn.Module | None, recipe: Recipe, steps: int, groups: Sequence[str]
    ) -> None:
        super().__init__()
        # Weights and images in one layout: with weights in the other, every convolution reorders them anew and
        # a step on a CPU takes 1.4 times as long.
        self._channels_last = recipe.spec.input.rank == 2
        if self._channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
        self.network = network
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if recipe.training.ema_decay else None
        self.scores = Scores(math.nan, {})
        self.mean_loss = math.nan
        self._encoder = [encoder] if encoder is not None else []  # in a list: it is part of network already
        self._recipe, self._steps, self._groups = recipe, steps, groups
        self._loss = LOSSES[recipe.training.loss]
        self._dice: list[tuple[int, list[float]]] = []
        self._losses: list[torch.Tensor] = []
        self._plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] = {}

    @property
    def spec(self) -> ModelSpec:
        """What the network takes and gives."""
        return self._recipe.spec

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and saved."""
        return self.network if self.averaged is None else self.averaged

    # Optimiser and schedule

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - one of many shapes that Lightning takes
        """One optimiser, and a schedule a step where the recipe has one."""
        training = self._recipe.training
        extra = {"momentum": 0.9, "nesterov": True} if training.optimiser == "sgd" else {}
        optimiser = OPTIMISERS[training.optimiser](
            self.network.parameters(),
            lr=training.lr,
            weight_decay=training.weight_decay,
            **extra,
        )
        if training.schedule.name == "plateau":
            # Lightning steps plateaus after it has saved the epoch's checkpoint, so that a resumed run would
            # miss a step; this one is stepped and saved here.
            self._plateau = ReduceLROnPlateau(
                optimiser,
                "max",
                training.schedule.factor,
                training.schedule.patience,
                threshold=0.0,
                min_lr=training.schedule.floor,
            )
            if self._plateau_state:
                self._plateau.load_state_dict(self._plateau_state)
            return optimiser
        schedule = _per_step(optimiser, training, self._steps)
        if schedule is None:
            return optimiser
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the plateau's state."""
        checkpoint["plateau"] = self._plateau.state_dict() if self._plateau is not None else {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the plateau's state back, before or after the optimiser is made."""
        self._plateau_state = checkpoint.get("plateau", {})
        if self._plateau is not None and self._plateau_state:
            self._plateau.load_state_dict(self._plateau_state)

    # Training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Seed the step, so that a resumed run draws what an uninterrupted one would have drawn."""
        torch.manual_seed((self._recipe.training.seed << 32) + self.global_step)
        if batch_idx == 0:
            self._losses = []
            frozen = self.current_epoch < self._recipe.training.freeze_encoder_epochs
            for encoder in self._encoder:
                encoder.requires_grad_(not frozen)
                encoder.train(not frozen)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Loss of one augmented batch.

        Raises:
            UserError: The loss is NaN or infinite.
        """
        with torch.autocast(self.device.type, enabled=False):
            image, target = augment(batch.image, batch.target, self._recipe.augmentation)
        logits = self.network(self._laid_out(image))
        with torch.autocast(self.device.type, enabled=False):
            loss = self._loss(logits.float(), target)
        if not bool(torch.isfinite(loss)):
            raise UserError(
                f"the loss became {float(loss.detach())} in epoch {self.current_epoch + 1}, batch {batch_idx + 1}; "
                "last.ckpt in the run's folder is the last good state",
                "Lower [training] lr, or train with --precision fp32.",
            )
        self._losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401, ARG002
        """Move the averaged weights towards the new ones."""
        if self.averaged is None:
            return
        decay = self._recipe.training.ema_decay
        assert decay is not None
        step = self.global_step
        _move_towards(self.averaged, self.network, 1 - min(decay, (1 + step) / (_EMA_RAMP + step)))

    def _laid_out(self, image: torch.Tensor) -> torch.Tensor:
        """Channels last in memory for slices, where CPUs and tensor cores convolve faster."""
        return image.contiguous(memory_format=torch.channels_last) if self._channels_last else image

    # Validation

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's scores."""
        self._dice = []
        if self._losses:
            self.mean_loss = float(torch.stack(self._losses).mean())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Dice of every sample, in full precision: exported files compute in it."""
        with torch.autocast(self.device.type, enabled=False):
            logits = self._logits(batch.image)
        dice = dice_per_sample(decided(logits, self.spec), batch.target)
        self._dice += list(zip(batch.samples.tolist(), dice.tolist(), strict=True))

    def on_validation_epoch_end(self) -> None:
        """Summarise, and let the plateau look."""
        self.scores = summarise(self._dice, self._groups, self.spec)
        if self._plateau is not None and self.trainer.state.fn == "fit":
            self._plateau.step(0.0 if math.isnan(self.scores.mean) else self.scores.mean)

    def _logits(self, image: torch.Tensor) -> torch.Tensor:
        if self.spec.input.rank == 2:
            logits: torch.Tensor = self.kept(self._laid_out(image))
            return logits
        patch = self.spec.input.patch

        def run(window: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            answer: np.ndarray[Any, Any] = self.kept(torch.from_numpy(window).to(self.device)).float().cpu().numpy()
            return answer

        blended = [slide(volume, run, patch, _VALIDATION_OVERLAP) for volume in image.cpu().numpy()]
        return torch.from_numpy(np.stack(blended)).to(self.device)


def _per_step(optimiser: torch.optim.Optimizer, training: TrainingRecipe, steps: int) -> LRScheduler | None:
    """The schedule that moves every step, None for a constant rate."""
    if training.schedule.name == "onecycle":
        return OneCycleLR(optimiser, training.lr, total_steps=steps, pct_start=training.schedule.warmup)
    if training.schedule.name == "cosine":
        return CosineAnnealingLR(optimiser, steps, eta_min=training.schedule.floor)
    return None


@torch.no_grad()
def _move_towards(averaged: nn.Module, network: nn.Module, share: float) -> None:
    """Move every float tensor of ``averaged``, running statistics included, by ``share`` of its distance."""
    floats: list[tuple[torch.Tensor, torch.Tensor]] = []
    for mine, theirs in zip(_tensors(averaged), _tensors(network), strict=True):
        if mine.dtype.is_floating_point:
            floats.append((mine, theirs))
        else:
            mine.copy_(theirs)
    torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], share)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from (parameter.data for parameter in module.parameters())
    yield from module.buffers()
