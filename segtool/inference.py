"""The network's part in the stages: batches filled across files and cases, volumes cut into windows."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from segtool.engine_calls import EngineCalls, engine_error
from segtool.errors import CaseError
from segtool.job import Job
from segtool.overlap import ByteQueue, Stopped
from segtool.postprocess import SliceAssembler, VolumeAssembler, background_logits
from segtool.sliding_window import Windows
from segtool.spec import ModelSpec

AnyArray = npt.NDArray[Any]

_PATIENCE_S = 0.02  # how long a part-filled batch waits for more slices before it runs as it is


@dataclass(frozen=True)
class Input:
    """A slice ``(C, h, w)``, or a whole volume where ``index`` is None."""

    job: Job
    index: int | None
    tensor: AnyArray


@dataclass(frozen=True)
class Output:
    """Logits ``(K, h, w)`` of a slice, or of the next planes of a volume where ``index`` is None.

    They are for ``assembler``; a volume that is begun once more has another one.
    """

    job: Job
    index: int | None
    logits: AnyArray
    assembler: SliceAssembler | VolumeAssembler | None


class Inference:
    """Takes inputs, asks the network and hands its answers on; where it fails, the case has failed.

    Args:
        spec: Of the model.
        calls: Calls the engine.
        ready: Inputs, each of which its job expects an answer to.
        answers: Where answers go.
        answered: Told of an input that gets no answer, or none any more.
        on_units: Told how many slices or windows the network has just done.

    Attributes:
        calls: As given.
    """

    def __init__(
        self,
        spec: ModelSpec,
        calls: EngineCalls,
        ready: ByteQueue[Input],
        answers: ByteQueue[Output],
        answered: Callable[[Job], None],
        on_units: Callable[[int], None],
    ) -> None:
        self._spec, self.calls = spec, calls
        self._ready, self._answers = ready, answers
        self._answered, self._on_units = answered, on_units

    def run(self) -> None:
        """Until nothing is to come; several threads may do it at once."""
        batch: list[Input] = []
        while True:
            try:
                item = self._ready.get(_PATIENCE_S if batch else None)
            except TimeoutError:
                self._run_slices(batch)
                batch = []
                continue
            if item is None:
                break
            if item.job.error is not None:
                self._answered(item.job)  # nobody wants to know any more
            elif item.index is None:
                self._run_volume(item)
            else:
                batch.append(item)
            if len(batch) >= self.calls.batch:
                self._run_slices(batch)
                batch = []
        if batch:
            self._run_slices(batch)

    def _run_slices(self, batch: list[Input]) -> None:
        start = time.perf_counter()
        jobs = [item.job for item in batch]
        names = [f"case {job.source.name!r}" for job in jobs]
        with self._noted(jobs):
            answers = self.calls.answers([item.tensor for item in batch], names)
        share = (time.perf_counter() - start) / len(batch)
        for item, answer in zip(batch, answers, strict=True):
            job = item.job
            with job.lock:
                job.seconds["infer"] = job.seconds.get("infer", 0.0) + share
            if isinstance(answer, CaseError):
                job.fail(answer)
                self._answered(job)
            else:
                self._answers.put(Output(job, item.index, answer, job.assembler), answer.nbytes)
        self._on_units(len(batch))

    def _run_volume(self, item: Input) -> None:
        job, calls = item.job, self.calls

        def again(why: str) -> None:
            assert job.make_assembler is not None
            job.note(why)
            job.assembler = job.make_assembler()

        try:
            with self._noted([job]):
                calls.over_windows(item.tensor.shape[1:], lambda extent: self._run_windows(item, extent), again)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - engines raise types of their own
            job.fail(engine_error(error, f"case {job.source.name!r}"))
        self._answered(job)

    def _run_windows(self, item: Input, extent: tuple[int, ...]) -> None:
        assert self._spec.input.rank == 3
        job, calls = item.job, self.calls
        before = 0

        def report(done: int, _total: int) -> None:
            nonlocal before
            self._on_units(done - before)
            before = done

        slabs = Windows(item.tensor, extent, self._spec.input.overlap).slabs(
            calls.run,
            calls.batch,
            calls.engine.backend.xp,
            on_window=report,
            background=background_logits(self._spec, calls.engine.votes),
        )
        while job.error is None:
            with job.timed("infer"):
                slab = next(slabs, None)
            if slab is None:
                return
            job.expect()
            self._answers.put(Output(job, None, slab.logits, job.assembler), slab.logits.nbytes)

    @contextmanager
    def _noted(self, jobs: Iterable[Job]) -> Iterator[None]:
        """What the engine's calls had to change inside the block stands in the notes of ``jobs``."""
        before = len(self.calls.notes)
        yield
        for note in self.calls.notes[before:]:
            for job in jobs:
                job.note(note)
