"""The loop's content, step by step, as a LightningModule."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from segtool.sliding_window import slide, window_extent
from segtool.spec import ModelSpec
from segtool_train.augment import augment
from segtool_train.data.dataset import Batch
from segtool_train.encoder import Encoder
from segtool_train.failures import LossNotFiniteError, NetworkNotFiniteError
from segtool_train.frameworks import pl
from segtool_train.losses import get_loss
from segtool_train.optimisation import make_optimiser, make_plateau, make_schedule
from segtool_train.processes import exchange
from segtool_train.recipe import Recipe
from segtool_train.scores import Scores, count_overlap, decided, summarise

_EMA_RAMP = 10  # steps: early averages follow the weights closely, as the first ones are random
_VALIDATION_OVERLAP = 0.25  # of 3D windows: less than at inference, for speed


class SegmentationModule(pl.LightningModule):
    """Trains ``network`` by ``recipe`` and validates the averaged weights in full precision.

    Args:
        network: Maps ``(N, C, *S)`` to logits ``(N, K, *S)``.
        encoder: The pre-trained part of ``network``, None where there is none.
        recipe: Loss, optimiser, schedule, augmentation.
        steps: Of the optimiser in the whole training.
        names: Item of every sample by number.
        groups: Class of every sample by number, for reports.
    """

    def __init__(
        self,
        network: nn.Module,
        encoder: Encoder | None,
        recipe: Recipe,
        steps: int,
        names: Sequence[str],
        groups: Sequence[str],
    ) -> None:
        super().__init__()
        # Weights and images in one layout: with weights in the other, every convolution reorders them anew and
        # a step on a CPU takes 1.4 times as long.
        self._channels_last = recipe.spec.input.rank == 2
        if self._channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
        self.network = network
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if recipe.training.ema_decay else None
        self._encoder, self._recipe, self._steps = encoder, recipe, steps
        self._names, self._groups = names, groups
        self._loss = get_loss(recipe.training.loss.name, recipe.training.loss.options).build()
        self._losses: list[torch.Tensor] = []
        self._unchecked: tuple[torch.Tensor, int, torch.Tensor] | None = None
        self._step_before = 0
        self._samples: list[torch.Tensor] = []
        self._overlaps: list[torch.Tensor] = []
        self._validation_losses: list[torch.Tensor] = []
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

    def compile_networks(self) -> None:
        """Let torch compile both networks as they are first called; names of their weights stay."""
        for network in (self.network, self.averaged):
            if network is not None:
                network.compile()

    # Optimiser and schedule

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - one of many shapes that Lightning takes
        """One optimiser, and a schedule a step where the recipe has one."""
        training = self._recipe.training
        optimiser = make_optimiser(self.network, self._encoder.module if self._encoder else None, training)
        # Lightning steps plateaus after it has saved the epoch's checkpoint, so that a resumed run would
        # miss a step; this one is stepped and saved here.
        self._plateau = make_plateau(optimiser, training)
        if self._plateau is not None and self._plateau_state:
            self._plateau.load_state_dict(self._plateau_state)
        schedule = make_schedule(optimiser, training, self._steps)
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
        """Seed the batch, so that a resumed run draws what an uninterrupted one would have drawn."""
        number = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        number = number * self.trainer.world_size + self.global_rank
        torch.manual_seed((self._recipe.training.seed << 32) + number)
        self._step_before = self.global_step
        if batch_idx == 0:
            self._losses = []
            if self._encoder is not None:
                self._encoder.thaw(self.current_epoch, self._recipe.training)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Loss of one augmented batch.

        Raises:
            LossNotFiniteError: The loss of the batch before is NaN or infinite.
        """
        self._require_finite()
        with torch.autocast(self.device.type, enabled=False):
            image, target = augment(batch.image, batch.target, self._recipe.augmentation)
        logits = self.network(self._laid_out(image))
        with torch.autocast(self.device.type, enabled=False):
            loss = self._loss(logits.float(), target)
        self._losses.append(loss.detach())
        self._unchecked = loss.detach(), batch_idx, batch.samples
        return loss * self._share_of_window(batch_idx)

    def _share_of_window(self, batch: int) -> float:
        """What Lightning's division by ``accumulate`` must be mended by: an epoch's last window may be shorter."""
        accumulate, batches = self._recipe.training.accumulate, int(self.trainer.num_training_batches)
        return accumulate / min(accumulate, batches - batch // accumulate * accumulate)

    def _require_finite(self) -> None:
        """Look at the last batch's loss: later than it is made, as a GPU would have to stand still for it."""
        if self._unchecked is None:
            return
        loss, batch, samples = self._unchecked
        self._unchecked = None
        if not bool(torch.isfinite(loss)):
            names = [self._names[sample] for sample in samples.tolist()]
            raise LossNotFiniteError(float(loss), self.current_epoch + 1, batch + 1, names)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401, ARG002
        """Move the averaged weights towards the new ones."""
        step = self.global_step
        if self.averaged is None or step == self._step_before:  # gradients still accumulate
            return
        decay = self._recipe.training.ema_decay
        assert decay is not None
        _move_towards(self.averaged, self.network, 1 - min(decay, (1 + step) / (_EMA_RAMP + step)))

    def _laid_out(self, image: torch.Tensor) -> torch.Tensor:
        """Channels last in memory for slices, where CPUs and tensor cores convolve faster."""
        return image.contiguous(memory_format=torch.channels_last) if self._channels_last else image

    # Validation

    def on_validation_epoch_start(self) -> None:
        """Give every process the first one's running statistics, which are the ones that are saved."""
        self._require_finite()
        if self.trainer.world_size > 1:
            for buffer in self.kept.buffers():
                dist.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Overlap of every sample, in full precision: exported files compute in it."""
        with torch.autocast(self.device.type, enabled=False):
            logits = self._logits(batch.image)
            self._validation_losses.append(self._loss(logits, batch.target) * len(batch.samples))
        self._overlaps.append(count_overlap(decided(logits, self.spec), batch.target))
        self._samples.append(batch.samples)

    def conclude_epoch(self) -> tuple[float, Scores | None]:
        """Mean training loss and validation scores over all processes, None where nothing validates.

        Steps the plateau. To be called once an epoch, after validation.

        Raises:
            LossNotFiniteError: The last loss is NaN or infinite.
            NetworkNotFiniteError: The weights are, or what they answer. Nothing of the epoch must be kept then.
        """
        self._require_finite()
        losses = exchange(float(torch.stack(self._losses).mean()))
        scores = self._take_scores()
        finite = scores is None or math.isfinite(scores.loss)
        if not (finite and all(bool(torch.isfinite(weight).all()) for weight in self.kept.parameters())):
            raise NetworkNotFiniteError(self.current_epoch + 1)
        if self._plateau is not None and scores is not None:
            self._plateau.step(scores.goodness(self._recipe.training.monitor))
        return sum(losses) / len(losses), scores

    def _take_scores(self) -> Scores | None:
        """Scores of the samples since the last call."""
        if self._samples:
            samples = torch.cat(self._samples).tolist()
            counts = torch.cat(self._overlaps).cpu()
            mine = samples, counts, float(torch.stack(self._validation_losses).sum())
        else:
            mine = [], torch.zeros(0, len(self.spec.labels), 3, dtype=torch.int64), 0.0
        self._samples, self._overlaps, self._validation_losses = [], [], []
        parts = exchange(mine)
        samples = [sample for part, _, _ in parts for sample in part]
        if not samples:
            return None
        loss = sum(part for _, _, part in parts) / len(samples)
        return summarise(samples, torch.cat([part for _, part, _ in parts]), self._groups, self.spec, loss)

    def _logits(self, image: torch.Tensor) -> torch.Tensor:
        if self.spec.input.rank == 2:
            logits: torch.Tensor = self.kept(self._laid_out(image))
            return logits

        def run(window: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            answer: np.ndarray[Any, Any] = self.kept(torch.from_numpy(window).to(self.device)).float().cpu().numpy()
            return answer

        blended = [
            slide(volume, run, window_extent(volume.shape[1:], self.spec), _VALIDATION_OVERLAP)
            for volume in image.cpu().numpy()
        ]
        return torch.from_numpy(np.stack(blended)).to(self.device)


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
