"""Where an epoch's time and memory go."""

import sys
import time
from typing import Any

import torch

from segtool_train.frameworks import pl


class Meter(pl.Callback):
    """Measures an epoch, and the share of its training time in which the loop waited for the next batch.

    On a GPU the loop runs ahead of the device, so that waiting of the loop is an upper bound of the device's.
    """

    def __init__(self) -> None:
        self._started = self._mark = time.perf_counter()
        self._waited = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._started = self._mark = time.perf_counter()
        self._waited = 0.0

    def on_train_batch_start(self, *_arguments: Any) -> None:  # noqa: ANN401 - Lightning's
        """The batch is there."""
        now = time.perf_counter()
        self._waited += now - self._mark
        self._mark = now

    def on_train_batch_end(self, *_arguments: Any) -> None:  # noqa: ANN401 - Lightning's
        """Wait for the next."""
        self._mark = time.perf_counter()

    def read(self, device: torch.device) -> dict[str, float]:
        """Columns of the epoch: its seconds, the share waited, and the most memory in use so far, in MiB."""
        trained = self._mark - self._started
        columns = {
            "elapsed_s": time.perf_counter() - self._started,
            "data_wait_share": self._waited / trained if trained > 0 else 0.0,
        }
        memory = _peak_memory(device)
        return columns if memory is None else {**columns, "peak_memory_mib": memory}


def _peak_memory(device: torch.device) -> float | None:
    """Of torch on a GPU, else of the whole process; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere
