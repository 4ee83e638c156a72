"""What an epoch leaves behind: a line, a row, pictures, the best weights, a checkpoint."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from segtool.atomic import atomic_path, write_text
from segtool.spec import ModelSpec
from segtool_train.bars import draw_bars
from segtool_train.curves import draw_curves
from segtool_train.frameworks import pl
from segtool_train.history import History, Row
from segtool_train.meter import Meter
from segtool_train.module import SegmentationModule
from segtool_train.recipe import TrainingRecipe
from segtool_train.run_folder import RunFolder
from segtool_train.scores import Scores
from segtool_train.trackers import Tracker

_REDRAW_S = 20.0
"""Pictures take a third of a second, which short epochs would feel."""

_MONITORED = {"val_dice": "Dice", "val_loss": "validation loss"}


class Recorder(pl.Callback):
    """Writes the run's folder at each epoch's end and stops early where the recipe says so.

    Every process has one, and they come to the same decisions; only the first writes.

    Args:
        run: The folder.
        training: Early stopping and checkpoints.
        spec: Becomes spec.json, with the best epoch's scores in its provenance.
        log: Takes one line an epoch.
        meter: Of the epoch's time.
        trackers: Take the same rows.
    """

    def __init__(
        self,
        run: RunFolder,
        training: TrainingRecipe,
        spec: ModelSpec,
        log: Callable[[str], None],
        meter: Meter,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.history = History()
        self._run, self._training, self._spec, self._log = run, training, spec, log
        self._meter, self._trackers = meter, trackers
        self._drawn = -math.inf

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return dict(vars(self.history))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.history = History(**state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """A run that had stopped early is at its end when it is resumed, too."""
        trainer.should_stop = self._should_stop

    @property
    def _should_stop(self) -> bool:
        stopping = self._training.early_stopping
        return stopping is not None and self.history.stale >= stopping.patience

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch; validation has run."""
        assert isinstance(pl_module, SegmentationModule)
        epoch = trainer.current_epoch + 1
        loss, scores = pl_module.conclude_epoch()
        row: Row = {
            "epoch": epoch,
            "train_loss": loss,
            **_columns(scores or Scores.none()),
            **_rates(trainer),
            **self._meter.read(pl_module.device),
        }
        stopping = self._training.early_stopping
        goodness = None if scores is None else scores.goodness(self._training.monitor)
        is_best = self.history.add(row, goodness, stopping.min_delta if stopping else 0.0)
        stop = self._should_stop
        last = stop or epoch == self._training.epochs
        if trainer.is_global_zero:
            self._write(pl_module, row, is_best)
        if last or epoch % self._training.checkpoint_every == 0:
            self._checkpoint(trainer)
        # After the checkpoint: where they find no room, the epoch is not lost.
        if trainer.is_global_zero and (last or time.monotonic() - self._drawn > _REDRAW_S):
            self._draw()
        for tracker in self._trackers:
            tracker.add(row)
        self._log(_line(row, self._training.epochs, is_best, validated=scores is not None))
        if stop:
            assert stopping is not None
            self._log(f"stop    no better {_MONITORED[self._training.monitor]} in {stopping.patience} epochs")
            trainer.should_stop = True

    def _write(self, module: SegmentationModule, row: Row, is_best: bool) -> None:
        if is_best:
            self._run.write_best(module.kept.state_dict(), self._with_scores(row))
        write_text(self._run.metrics_file, self.history.to_csv())

    def _draw(self) -> None:
        draw_curves(self.history.rows, self._run.curves_file)
        draw_bars(self.history.best_row, self._run.bars_file)
        self._drawn = time.monotonic()

    def _checkpoint(self, trainer: pl.Trainer) -> None:
        """In all processes: they gather what is saved, and the first one saves it."""
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self._run.last_file)
            return
        with atomic_path(self._run.last_file) as temporary:
            trainer.save_checkpoint(temporary)

    def _with_scores(self, row: Row) -> ModelSpec:
        """The spec, saying which epoch the weights are from and what it reached."""
        scores = {key: round(value, 4) for key, value in row.items() if key.startswith("val_dice")}
        validation = {
            "measure": "mean Dice of validation samples on the network's grid",
            "epoch": row["epoch"],
        }
        provenance = {**self._spec.provenance, "validation": {**validation, **_finite(scores)}}
        return self._spec.model_copy(update={"provenance": provenance})


def _rates(trainer: pl.Trainer) -> Row:
    """Learning rates after the epoch; that of an encoder where it has its own."""
    groups = trainer.optimizers[0].param_groups
    return {name: group["lr"] for name, group in zip(("lr", "encoder_lr"), groups, strict=False)}


def _columns(scores: Scores) -> Row:
    """``val_loss``, then ``val_MEASURE`` and ``val_MEASURE_GROUP``."""
    return {
        "val_loss": scores.loss,
        **{f"val_{measure}": value for measure, value in scores.mean.items()},
        **{
            f"val_{measure}_{group}": means[measure]
            for measure in scores.mean
            for group, means in scores.by_group.items()
        },
    }


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if math.isnan(value) else value for key, value in scores.items()}


def _line(row: Row, epochs: int, is_best: bool, *, validated: bool) -> str:
    validation = ""
    if validated:
        by_class = {k.removeprefix("val_dice_"): v for k, v in row.items() if k.startswith("val_dice_")}
        # Some sets number their classes.
        dice = [f"{f'class {k}' if k.isdigit() else k} {v:.4f}" for k, v in by_class.items()]
        validation = "  ".join([f"  val loss {row['val_loss']:.4f}", f"val dice {row['val_dice']:.4f}", *dice])
    return (
        f"epoch {int(row['epoch'])}/{epochs}  loss {row['train_loss']:.4f}{validation}"
        f"  data {row['data_wait_share'] * 100:.0f} %  {row['elapsed_s']:.1f} s"
        f"{'  best' if is_best and validated else ''}"
    )
