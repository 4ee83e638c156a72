"""Lightning, told what to do and what to leave alone."""

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Sampler

from segtool_train.data.dataset import EpochShuffle
from segtool_train.failures import explain
from segtool_train.frameworks import SIGTERMException, ignore_lightning_warnings, pl
from segtool_train.module import SegmentationModule
from segtool_train.processes import Processes
from segtool_train.recipe import Precision, Recipe
from segtool_train.run_folder import RunFolder

_PRECISIONS: dict[Precision, Literal["bf16-mixed", "16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "fp32": "32-true",
}
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a run that was told to end, as shells have it."""


class RankShare(Sampler[tuple[int, int]]):
    """One process's part of every batch, so that all together see the batches that one alone would see.

    Args:
        shuffle: Keys of all processes.
        batch: Keys a batch.
        processes: Who shares.
    """

    def __init__(self, shuffle: EpochShuffle, batch: int, processes: Processes) -> None:
        self._shuffle, self._batch, self._processes = shuffle, min(batch, len(shuffle)), processes
        self._share = processes.share(self._batch)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._shuffle.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._shuffle) // self._processes.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start = self._processes.rank * self._share
        for place, key in enumerate(self._shuffle):
            if start <= place % self._batch < start + self._share:
                yield key


def make_trainer(recipe: Recipe, processes: Processes, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """A trainer that writes and says nothing of its own."""
    training = recipe.training
    # Frozen parts get no gradient, which the processes must know of: they wait for each other's gradients.
    frozen = training.freeze_encoder_epochs or training.unfreeze_from
    return pl.Trainer(
        accelerator="gpu" if processes.device == "cuda" else "cpu",
        devices=processes.local,
        num_nodes=processes.machines,
        strategy="auto" if processes.world == 1 else "ddp_find_unused_parameters_true" if frozen else "ddp",
        use_distributed_sampler=False,
        precision=_PRECISIONS[training.precision],
        max_epochs=training.epochs,
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=training.gradient_clip,
        benchmark=processes.device == "cuda",  # all batches have one shape
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def fit(
    trainer: pl.Trainer,
    module: SegmentationModule,
    loaders: tuple[Any, Any],
    checkpoint: Path | None,
    recipe: Recipe,
    run: RunFolder,
    log: Callable[[str], None],
) -> None:
    """Train to the end.

    Args:
        trainer: From :func:`make_trainer`.
        module: Loop and network.
        loaders: Of training and of validation.
        checkpoint: To go on from.
        recipe: For explanations of failures.
        run: As ``recipe``.
        log: Told why it ends before its time.

    Raises:
        UserError: The loss is not finite, or memory is short.
        KeyboardInterrupt: As it came.
        SystemExit: The process was told to end.
    """
    with warnings.catch_warnings():
        ignore_lightning_warnings()
        try:
            trainer.fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
        except SIGTERMException as stop:
            log(f"stop    told to end in epoch {trainer.current_epoch + 1}{_way_on(run)}")
            raise SystemExit(TERMINATED) from stop
        except SystemExit as stop:
            # Lightning turns an interruption into exit code 1, without a word.
            if trainer.interrupted:
                log(f"stop    interrupted in epoch {trainer.current_epoch + 1}{_way_on(run)}")
                raise KeyboardInterrupt from stop
            raise
        except Exception as error:
            explained = explain(error, recipe, run)
            if explained is None:
                raise
            raise explained from error


def _way_on(run: RunFolder) -> str:
    return "; --resume goes on from the last checkpoint" if run.last_file.exists() else "; nothing is kept of it yet"
