"""read | preprocess | infer | postprocess | write, overlapped: the threads behind :mod:`segtool.pipeline`.

Reader threads load cases and make network inputs; the calling thread, and more where asked for, run the network,
filling batches across files and cases; writer threads turn logits into label maps, files, pictures and scores. The
engine and the codecs release Python's lock, so the stages truly overlap. Byte-bounded queues keep memory flat.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from segtool.case import Case, CaseSource
from segtool.case_result import CaseResult
from segtool.engine_calls import Engine, EngineCalls
from segtool.errors import GridError, VoxelError
from segtool.faults import Faults
from segtool.inference import Inference, Input, Output
from segtool.job import Finish, Job
from segtool.loading import load_case
from segtool.overlap import ByteBudget, ByteQueue, Stopped
from segtool.postprocess import SliceAssembler, Thresholds, VolumeAssembler
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.quality import Quality
from segtool.reading import Read, Readers
from segtool.spec import ModelSpec

__all__ = ["BATCH", "Engine", "StageOptions", "Stages"]

AnyArray = npt.NDArray[Any]

BATCH = {"cpu": 2, "cuda": 8}
"""Slices a call by device: on a CPU two keep a thread's working set in its cache, a GPU wants more to do."""

_MIB = 2**20
_CASES_BYTES = 512 * _MIB  # cases in memory at once, whatever their number; a single larger case is let through
_READY_BYTES = 16 * _MIB
_LOGITS_BYTES = 16 * _MIB
_SWITCH_S = 0.0005
_READING_S = 5.0  # how long a run that is given up waits for its readers, which write nothing


@dataclass(frozen=True)
class StageOptions:
    """How the stages run; what they do with a result is the caller's.

    Args:
        threshold: Probability above which a voxel belongs to a label; one for all, or one a label.
        readers: Threads that read and preprocess.
        writers: Threads that postprocess and write.
        strict: Refuse cases that need resampling onto one grid.
        keep_probabilities: Keep probability maps for the caller.
        keep_logits: Keep logits for the caller.
        case_timeout_s: How long the reading of one case may take before it fails; None for no end.
    """

    threshold: Thresholds
    readers: int = 1
    writers: int = 1
    strict: bool = False
    keep_probabilities: bool = False
    keep_logits: bool = False
    case_timeout_s: float | None = None


@contextmanager
def _quick_switches() -> Iterator[None]:
    """Let a thread that comes back from the engine or a codec have Python's lock soon.

    By default it waits up to 5 ms, a good part of a slice's time in the network.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Stages:
    """Runs cases through the stages.

    Args:
        spec: Of the model.
        options: Sizes and switches.
        finish: Called once for every case, done or failed, in a writer thread.
        on_units: Told how many slices or windows the network has just done.
        kept: The result of an earlier run that stands, if there is one; it is read as a case is, within its time.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: StageOptions,
        finish: Finish,
        on_units: Callable[[int], None] | None = None,
        kept: Callable[[CaseSource], CaseResult | None] = lambda _source: None,
    ) -> None:
        self._spec, self._options, self._finish, self._kept_result = spec, options, finish, kept
        self._quality = Quality(spec)
        self._engine: Engine | None = None
        self._started = threading.Event()
        self._on_units = on_units or (lambda _count: None)
        self._ready: ByteQueue[Input] = ByteQueue(_READY_BYTES)
        self._answers: ByteQueue[Output] = ByteQueue(_LOGITS_BYTES)
        self._memory = ByteBudget(_CASES_BYTES)
        self._faults = Faults()
        self._readers: Readers | None = None
        self._calls: EngineCalls | None = None
        self._counting = threading.Lock()
        self._completed = 0
        self._bug: BaseException | None = None

    def run(self, sources: Iterable[CaseSource], start: Callable[[], Engine]) -> None:
        """Run all cases; returns when each has been finished.

        Args:
            sources: The cases. Pulled one by one, in reader threads, never by two at once; each is begun as soon as
                it is pulled. Pulling may take its time; what it raises ends the run.
            start: Loads the engine, while the first cases are read; none is finished before, but for kept ones.

        Raises:
            KeyboardInterrupt: As it came; cases that were not finished are left out.
            UserError: As ``start`` raises it.
        """
        readers = Readers(sources, self._load, self._feed, self._faults, self._options.case_timeout_s)
        self._readers = readers
        readers.start(self._options.readers, self._thread)
        # The slabs of a volume come in order, and one thread takes them in order.
        count = self._options.writers if self._spec.input.rank == 2 else 1
        writers = [self._thread(self._write) for _ in range(count)]
        closer = self._thread(lambda: self._close_after(readers))
        engines: list[threading.Thread] = []
        try:
            self._engine = start()
            self._calls = EngineCalls(self._engine)
            network = Inference(self._spec, self._calls, self._ready, self._answers, self._answered, self._on_units)
            self._started.set()
            engines += [self._thread(network.run) for _ in range(self._engine.calls - 1)]
            # The engine keeps every core busy. A matrix product of a few milliseconds that starts BLAS threads
            # of its own then waits for cores that it cannot have, ten times longer than it computes.
            with threadpool_limits(1, user_api="blas"), _quick_switches():
                network.run()
                for thread in (closer, *engines):
                    thread.join()
                self._answers.close()
                for thread in writers:
                    thread.join()
        except Stopped:
            pass
        except BaseException:
            self._stop()
            raise
        finally:
            if self._bug is not None:
                self._stop()
            for thread in (*engines, *writers, closer):
                thread.join()
            readers.join(_READING_S)
        if self._bug is not None:
            raise self._bug

    def finish_up(self) -> int:
        """Begin no more cases; those in hand, of which this gives the number, are finished.

        Takes no lock, so that a handler of signals may call it.
        """
        if self._readers is None:
            return 0
        self._readers.end()
        return self._readers.begun - self._completed

    @property
    def is_ending(self) -> bool:
        """True when no further case is to be begun."""
        return self._readers is not None and self._readers.is_ending

    @property
    def notes(self) -> tuple[str, ...]:
        """What the report must say of the run as a whole."""
        return () if self._calls is None else tuple(self._calls.notes)

    @property
    def _kept(self) -> tuple[bool, bool]:
        """Whether assemblers keep probabilities, and logits."""
        return self._options.keep_probabilities, self._options.keep_logits

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - handed to the calling thread, which raises it
                self._bug = error
                self._stop()

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def _stop(self) -> None:
        self._ready.stop()
        self._answers.stop()
        self._memory.stop()
        if self._readers is not None:
            self._readers.stop()
        self._started.set()  # for whoever waits; the queues stop them next

    def _close_after(self, readers: Readers) -> None:
        readers.watch()
        self._ready.close()

    # Reading

    def _load(self, source: CaseSource) -> Read:
        if (kept := self._kept_result(source)) is not None:
            return kept
        case = load_case(source, self._spec, strict=self._options.strict)
        if self._spec.input.rank == 3 and case.geometry.kind != "volume":
            raise GridError(
                f"case {source.name!r} is a {case.geometry.kind} of {case.geometry.describe()}, "
                "the model wants volumes",
                "Use a 2D model for pictures, see `segtool models`.",
            )
        return case

    def _feed(self, job: Job, read: Read | None) -> None:
        if isinstance(read, CaseResult):
            job.kept = read
        elif read is not None:
            try:
                self._hold(job, read)
                self._prepare(job, read)
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - one bad case never stops a batch; a bug shows its traceback
                job.fail(self._faults.error_of(error, job.source.name, "preprocessing"))
        self._answered(job)

    def _hold(self, job: Job, case: Case) -> None:
        """Wait until there is room for one more case."""
        # A 3D network's input is a float32 copy of the case; a 2D network's inputs are made slice by slice.
        voxels = case.data.size
        held = case.data.nbytes + (voxels * 4 if self._spec.input.rank == 3 else voxels // case.data.shape[0])
        self._memory.acquire(held)
        job.held_bytes, job.case = held, case

    def _prepare(self, job: Job, case: Case) -> None:
        """Make the network's inputs and queue them."""
        with job.timed("check"):
            job.seen = self._quality.of_scan(case)
            job.warnings += job.seen.lines
        spec, threshold = self._spec, self._options.threshold
        if spec.input.rank == 3:
            with job.timed("preprocess"):
                windowed = WindowedCase(case, spec)
            job.make_assembler = lambda: VolumeAssembler(windowed, spec, threshold, *self._kept)
            job.assembler = job.make_assembler()
            self._put(Input(job, None, windowed.tensor))
            return
        sliced = SlicedCase(case, spec)
        job.assembler = SliceAssembler(sliced, spec, threshold, *self._kept)
        for index in range(sliced.count):
            with job.timed("preprocess"):
                tensor = None if sliced.is_blank(index) else sliced.tensor(index)
            if tensor is not None:
                self._put(Input(job, index, tensor))

    def _put(self, item: Input) -> None:
        item.job.expect()
        self._ready.put(item, item.tensor.nbytes)

    # Writing

    def _write(self) -> None:
        while (output := self._answers.get()) is not None:
            job = output.job
            if job.error is None and output.assembler is job.assembler:
                try:
                    self._take(output)
                except Exception as error:  # noqa: BLE001 - one bad case never stops a batch
                    job.fail(self._faults.error_of(error, job.source.name, "postprocessing"))
            self._answered(job)

    def _take(self, output: Output) -> None:
        # Of the output, not of the job: that may get another one now, as its volume is begun once more.
        job, logits, assembler = output.job, output.logits, output.assembler
        if not np.isfinite(logits).all():
            raise VoxelError(
                f"case {job.source.name!r}: the network answered NaN or infinity",
                "Check the scan's intensities with `segtool inspect`, or use an FP32 model.",
            )
        with job.timed("postprocess"):
            if isinstance(assembler, SliceAssembler):
                assert output.index is not None
                assembler.add(output.index, logits)
            else:
                assert assembler is not None
                assembler.add(logits)

    def _answered(self, job: Job) -> None:
        """Count one answer; the last one finishes the case, in whichever thread it arrives."""
        with job.lock:
            job.waiting_for -= 1
            if job.waiting_for:
                return
        self._complete(job)

    def _complete(self, job: Job) -> None:
        if job.kept is None:
            self._started.wait()
            if self._engine is None:
                raise Stopped
        try:
            self._make_result(job)
            try:
                self._finish(job)
            except Exception as error:
                if job.error is not None:
                    raise
                job.fail(self._faults.error_of(error, job.source.name, "writing"))
                self._finish(job)
        finally:
            job.case = job.label_map = job.probabilities = job.logits = job.assembler = job.make_assembler = None
            if job.held_bytes:
                self._memory.release(job.held_bytes)
            with self._counting:
                self._completed += 1

    def _make_result(self, job: Job) -> None:
        if job.error is not None or job.assembler is None:
            return
        assert job.case is not None
        assert job.seen is not None
        try:
            with job.timed("postprocess"):
                job.label_map, job.probabilities = job.assembler.finish()
                job.logits = job.assembler.logits
                job.confidence, job.slice_confidence = job.assembler.confidence()
            with job.timed("check"):
                job.warnings += self._quality.of_result(job.case, job.seen, job.label_map)
        except Exception as error:  # noqa: BLE001 - one bad case never stops a batch; a bug shows its traceback
            job.fail(self._faults.error_of(error, job.source.name, "postprocessing"))
