"""What an epoch leaves behind: a line, a row, a curve, the best weights, a checkpoint."""

import csv
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from segtool.atomic import atomic_path, write_text
from segtool.spec import ModelSpec
from segtool_train.curves import draw_curves
from segtool_train.frameworks import pl
from segtool_train.module import SegmentationModule
from segtool_train.recipe import TrainingRecipe
from segtool_train.run_folder import RunFolder

Row = dict[str, float]


@dataclass
class History:
    """All epochs so far. Part of the checkpoint."""

    rows: list[Row] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = -1
    stopping_best: float = -math.inf
    stale: int = 0

    def add(self, row: Row, min_delta: float) -> bool:
        """Take an epoch's row; True where its validation Dice is the best so far."""
        self.rows.append(row)
        dice = row["val_dice"]
        self.stale = 0 if dice > self.stopping_best + min_delta else self.stale + 1
        self.stopping_best = max(self.stopping_best, dice) if self.stale == 0 else self.stopping_best
        # The first epoch is the best so far even where its Dice is not a number.
        if not self.rows[:-1] or dice > self.best:
            self.best = -math.inf if math.isnan(dice) else dice
            self.best_epoch = int(row["epoch"])
            return True
        return False

    def to_csv(self) -> str:
        """All rows, with the columns of the first."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in self.rows)
        return text.getvalue()


def _short(value: float) -> float | str:
    return value if isinstance(value, int) else f"{value:.6g}"


class Recorder(pl.Callback):
    """Writes the run's folder at each epoch's end and stops early where the recipe says so.

    Args:
        run: The folder.
        training: Early stopping and checkpoints.
        spec: Becomes spec.json, with the best epoch's scores in its provenance.
        log: Takes one line an epoch.
    """

    def __init__(self, run: RunFolder, training: TrainingRecipe, spec: ModelSpec, log: Callable[[str], None]) -> None:
        self.history = History()
        self._run, self._training, self._spec, self._log = run, training, spec, log
        self._started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return dict(vars(self.history))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.history = History(**state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start the first epoch's clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch; validation has run."""
        assert isinstance(pl_module, SegmentationModule)
        epoch = trainer.current_epoch + 1
        scores = pl_module.scores
        row: Row = {
            "epoch": epoch,
            "train_loss": pl_module.mean_loss,
            "val_dice": scores.mean,
            **{f"val_dice_{name}": value for name, value in scores.by_group.items()},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "elapsed_s": time.perf_counter() - self._started,
        }
        stopping = self._training.early_stopping
        is_best = self.history.add(row, stopping.min_delta if stopping else 0.0)
        if is_best:
            self._run.write_best(pl_module.kept.state_dict(), self._with_scores(row))
        write_text(self._run.metrics_file, self.history.to_csv())
        draw_curves(self.history.rows, self._run.curves_file)
        stop = stopping is not None and self.history.stale >= stopping.patience
        if epoch % self._training.checkpoint_every == 0 or stop or epoch == self._training.epochs:
            with atomic_path(self._run.last_file) as temporary:
                trainer.save_checkpoint(temporary)
        self._started = time.perf_counter()
        self._log(_line(row, self._training.epochs, is_best))
        if stop:
            assert stopping is not None
            self._log(f"stop    no better Dice in {stopping.patience} epochs")
            trainer.should_stop = True

    def _with_scores(self, row: Row) -> ModelSpec:
        """The spec, saying which epoch the weights are from and what it reached."""
        scores = {key: round(value, 4) for key, value in row.items() if key.startswith("val_dice")}
        validation = {
            "measure": "mean Dice of validation samples on the network's grid",
            "epoch": row["epoch"],
        }
        provenance = {**self._spec.provenance, "validation": {**validation, **_finite(scores)}}
        return self._spec.model_copy(update={"provenance": provenance})


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if math.isnan(value) else value for key, value in scores.items()}


def _line(row: Row, epochs: int, is_best: bool) -> str:
    groups = "  ".join(f"{k.removeprefix('val_dice_')} {v:.4f}" for k, v in row.items() if k.startswith("val_dice_"))
    return (
        f"epoch {int(row['epoch'])}/{epochs}  loss {row['train_loss']:.4f}  val dice {row['val_dice']:.4f}"
        f"{'  ' + groups if groups else ''}  {row['elapsed_s']:.1f} s{'  best' if is_best else ''}"
    )
