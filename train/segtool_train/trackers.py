"""Other places that take a run's rows: TensorBoard, MLflow."""

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from segtool.errors import MissingDependencyError, UsageError
from segtool_train.history import Row
from segtool_train.recipe import Recipe

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it reports to its makers otherwise
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # --json has stdout to itself
}
_FIRST_CONTACT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A wrong address is told at once and not after minutes; later, a server may be away for as long as MLflow bears."""
_LONGEST_SAYING = 160


class Tracker(Protocol):
    """Takes one row an epoch."""

    def add(self, row: Row) -> None:
        """Store a row; its numbers that are NaN are left out."""
        ...

    def close(self) -> None:
        """Nothing comes any more."""
        ...


def _numbers(row: Row) -> dict[str, float]:
    return {key: value for key, value in row.items() if key != "epoch" and math.isfinite(value)}


class TensorBoard:
    """Event files.

    Args:
        folder: For `tensorboard --logdir`.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"{error.name} is not installed, which the TensorBoard log needs",
                "Install it with: pip install 'segtool[train]', or pass --no-tensorboard.",
            ) from error
        self._open: Callable[..., Any] = partial(SummaryWriter, str(folder))
        self._writer: Any = None

    def add(self, row: Row) -> None:
        """One scalar a column."""
        if self._writer is None:
            # A run that was killed may have written epochs that are trained again.
            self._writer = self._open(purge_step=int(row["epoch"]))
        for key, value in _numbers(row).items():
            self._writer.add_scalar(key, value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """A run of an MLflow server or database, in the experiment ``segtool``.

    Args:
        uri: Of the server, or of a database such as ``sqlite:///runs.db``.
        recipe: Its training part becomes the run's parameters.
        name: Of the run.

    Raises:
        MissingDependencyError: mlflow is not installed.
        UsageError: The server does not answer.

    Nothing is written before the first row, so that what goes wrong earlier leaves no empty run there.
    """

    def __init__(self, uri: str, recipe: Recipe, name: str) -> None:
        for key, value in _QUIET.items():
            os.environ.setdefault(key, value)
        try:
            mlflow: Any = import_module("mlflow")
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"{error.name} is not installed, which --mlflow needs",
                "Install it with: pip install 'segtool[mlflow]', or leave --mlflow out.",
            ) from error
        self._mlflow = mlflow
        # Each line of a database's making is news to MLflow.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        # Optuna, which sweeps need, brings SQLAlchemy.
        database: type[Exception] = import_module("sqlalchemy.exc").SQLAlchemyError
        self._failures: tuple[type[Exception], ...] = (mlflow.exceptions.MlflowException, database)
        try:
            with _environment(_FIRST_CONTACT):
                mlflow.set_tracking_uri(uri)
                mlflow.set_experiment("segtool")
        except self._failures as error:
            raise UsageError(
                f"--mlflow {uri}: no run can be started ({_said(error)})",
                "Give the address of a server that runs, or a file of a database, as in sqlite:///runs.db.",
            ) from error
        self._name, self._started = name, False
        self._parameters = {"recipe": recipe.name, **recipe.training.model_dump(mode="json")}

    def add(self, row: Row) -> None:
        """One metric a column.

        Raises:
            UsageError: The server does not answer any more.
        """
        try:
            if not self._started:
                self._mlflow.start_run(run_name=self._name)
                self._started = True
                self._mlflow.log_params(self._parameters)
            self._mlflow.log_metrics(_numbers(row), step=int(row["epoch"]))
        except self._failures as error:
            raise UsageError(
                f"--mlflow: epoch {int(row['epoch'])} was not taken ({_said(error)})",
                "The checkpoint is safe: go on with --resume, without --mlflow where it stays away.",
            ) from error

    def close(self) -> None:
        """End the run."""
        if self._started:
            self._mlflow.end_run()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables that nobody has set, for a while."""
    own = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


def _said(error: Exception) -> str:
    """The first sentence; MLflow adds links, and SQLAlchemy the statement."""
    sentence = str(error).strip().partition("\n")[0].partition(". ")[0]
    return sentence if len(sentence) <= _LONGEST_SAYING else f"{sentence[:_LONGEST_SAYING]} ..."
