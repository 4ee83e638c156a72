"""A bar inside the epoch, on stderr and only on a terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from segtool_train.frameworks import pl


class EpochBar(pl.Callback):
    """Shows the batches of training, then of validation, and is gone before the epoch's line is written."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)

    @staticmethod
    def wanted() -> bool:
        """True where somebody looks."""
        return sys.stderr.isatty()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Show a new bar."""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            # The epoch's lines go to stdout, which may be a file.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar.start()
        self._begin(f"epoch {trainer.current_epoch + 1}", trainer.num_training_batches)

    def on_train_batch_end(self, *_arguments: Any) -> None:  # noqa: ANN401 - Lightning's
        """One more."""
        self._advance()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Begin again, for validation."""
        self._begin("validate", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *_arguments: Any) -> None:  # noqa: ANN401 - Lightning's
        """One more."""
        self._advance()

    def on_train_epoch_end(self, *_arguments: Any) -> None:  # noqa: ANN401 - Lightning's
        """Make room for the line."""
        self._stop()

    def on_exception(self, *_arguments: Any) -> None:  # noqa: ANN401 - Lightning's
        """Leave the terminal as it was."""
        self._stop()

    def _begin(self, what: str, batches: float) -> None:
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._task = self._bar.add_task(what, total=batches)

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
