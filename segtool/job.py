"""One case on its way through the stages of :mod:`segtool.stages`."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segtool.case import Case, CaseSource, LabelMap
from segtool.case_result import CaseResult
from segtool.errors import UserError
from segtool.postprocess import SliceAssembler, VolumeAssembler
from segtool.quality import Seen


@dataclass(eq=False)
class Job:
    """One case on its way through the stages."""

    source: CaseSource
    case: Case | None = None
    seen: Seen | None = None
    label_map: LabelMap | None = None
    probabilities: npt.NDArray[np.float16] | None = None
    logits: npt.NDArray[np.float16] | None = None
    error: UserError | None = None
    kept: CaseResult | None = None  # of an earlier run, which stands
    seconds: dict[str, float] = field(default_factory=dict)
    assembler: SliceAssembler | VolumeAssembler | None = None
    make_assembler: Callable[[], SliceAssembler | VolumeAssembler] | None = None
    waiting_for: int = 1  # answers of the network, and one more until all its inputs are made
    held_bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    confidence: dict[str, float] = field(default_factory=dict)
    slice_confidence: dict[int, dict[str, float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, error: UserError) -> None:
        """Make ``error`` the case's, unless it has one."""
        with self.lock:
            self.error = self.error or error

    def expect(self) -> None:
        """Announce one more answer of the network."""
        with self.lock:
            self.waiting_for += 1

    def note(self, text: str) -> None:
        """Add to the notes of the case."""
        with self.lock:
            if self.case is not None and text not in self.case.notes:
                self.case = replace(self.case, notes=(*self.case.notes, text))

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
        """Write, score and report ``job``.

        Whatever it raises of a job without an error becomes that job's error, and it is called once more to report
        that; of a job with one it ends the run.
        """
        ...
