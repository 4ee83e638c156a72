"""One case on its way through the stages of :mod:`segtool.stages`."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segtool.case import Case, CaseSource, LabelMap
from segtool.errors import UserError
from segtool.postprocess import SliceAssembler, VolumeAssembler


@dataclass(eq=False)
class Job:
    """One case on its way through the stages."""

    source: CaseSource
    case: Case | None = None
    label_map: LabelMap | None = None
    probabilities: npt.NDArray[np.float16] | None = None
    logits: npt.NDArray[np.float16] | None = None
    error: UserError | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    assembler: SliceAssembler | VolumeAssembler | None = None
    waiting_for: int = 1  # answers of the network, and one more until all its inputs are made
    held_bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    confidence: dict[str, float] = field(default_factory=dict)
    slice_confidence: dict[int, dict[str, float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's wall-clock time to ``seconds[stage]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self.lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed


class Finish(Protocol):
    """What the caller does with a finished or failed job; called in a writer thread."""

    def __call__(self, job: Job) -> None:
        """Write, score and report ``job``; raise nothing that concerns this case alone."""
        ...
