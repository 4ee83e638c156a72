"""read | preprocess | infer | postprocess | write, overlapped: the threads behind :mod:`segtool.pipeline`.

Reader threads load cases and make network inputs; the calling thread, and more where asked for, run the network,
filling batches across files and cases; writer threads turn logits into label maps, files, pictures and scores. The
engine and the codecs release Python's lock, so the stages truly overlap. Byte-bounded queues keep memory flat.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from segtool.backends.base import Backend
from segtool.case import CaseSource
from segtool.errors import GridError, UserError, VoxelError
from segtool.job import Finish, Job
from segtool.loading import load_case
from segtool.overlap import ByteBudget, ByteQueue, Stopped
from segtool.postprocess import SliceAssembler, Thresholds, VolumeAssembler, background_logits
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.resample import on_host
from segtool.sliding_window import Windows, window_extent
from segtool.spec import ModelSpec

AnyArray = npt.NDArray[Any]

BATCH = {"cpu": 2, "cuda": 8}
"""Slices a call by device: on a CPU two keep a thread's working set in its cache, a GPU wants more to do."""

_MIB = 2**20
_CASES_BYTES = 512 * _MIB  # cases in memory at once, whatever their number; a single larger case is let through
_READY_BYTES = 16 * _MIB
_LOGITS_BYTES = 16 * _MIB
_SWITCH_S = 0.0005
_PATIENCE_S = 0.02  # how long a part-filled batch waits for more slices before it runs as it is


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
    """

    threshold: Thresholds
    readers: int = 1
    writers: int = 1
    strict: bool = False
    keep_probabilities: bool = False
    keep_logits: bool = False


@dataclass(frozen=True)
class Engine:
    """A loaded model, and how it is called.

    Args:
        backend: The model.
        spec: As the backend runs it, see :meth:`segtool.spec.ModelSpec.in_windows`.
        batch: Slices or windows a call.
        calls: Threads that call it at the same time, the caller's among them.
    """

    backend: Backend
    spec: ModelSpec
    batch: int
    calls: int = 1


@dataclass(frozen=True)
class _Input:
    """A slice ``(C, h, w)``, or a whole volume where ``index`` is None."""

    job: Job
    index: int | None
    tensor: AnyArray


@dataclass(frozen=True)
class _Output:
    """Logits ``(K, h, w)`` of a slice, or of the next planes of a volume where ``index`` is None."""

    job: Job
    index: int | None
    logits: AnyArray


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
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: StageOptions,
        finish: Finish,
        on_units: Callable[[int], None] | None = None,
    ) -> None:
        self._spec, self._options, self._finish = spec, options, finish
        self._engine: Engine | None = None
        self._started = threading.Event()
        self._on_units = on_units or (lambda _count: None)
        self._ready: ByteQueue[_Input] = ByteQueue(_READY_BYTES)
        self._answers: ByteQueue[_Output] = ByteQueue(_LOGITS_BYTES)
        self._memory = ByteBudget(_CASES_BYTES)
        self._sources_lock = threading.Lock()
        self._bug: BaseException | None = None

    def run(self, sources: Iterable[CaseSource], start: Callable[[], Engine]) -> None:
        """Run all cases; returns when each has been finished.

        Args:
            sources: The cases. Pulled one by one, in reader threads, never by two at once; each is begun as soon as
                it is pulled. Pulling may take its time and raises nothing.
            start: Loads the engine, while the first cases are read; none is finished before.

        Raises:
            KeyboardInterrupt: As it came; cases that were not finished are left out.
            UserError: As ``start`` raises it.
        """
        self._sources = iter(sources)
        readers = [self._thread(self._read) for _ in range(self._options.readers)]
        # The slabs of a volume come in order, and one thread takes them in order.
        count = self._options.writers if self._spec.input.rank == 2 else 1
        writers = [self._thread(self._write) for _ in range(count)]
        closer = self._thread(lambda: self._close_after(readers))
        engines: list[threading.Thread] = []
        try:
            self._engine = start()
            self._started.set()
            engines += [self._thread(self._infer) for _ in range(self._loaded.calls - 1)]
            # The engine keeps every core busy. A matrix product of a few milliseconds that starts BLAS threads
            # of its own then waits for cores that it cannot have, ten times longer than it computes.
            with threadpool_limits(1, user_api="blas"), _quick_switches():
                self._infer()
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
            for thread in (*readers, closer, *engines, *writers):
                thread.join()
        if self._bug is not None:
            raise self._bug

    @property
    def _loaded(self) -> Engine:
        assert self._engine is not None
        return self._engine

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
        self._started.set()  # for whoever waits; the queues stop them next

    def _close_after(self, readers: Sequence[threading.Thread]) -> None:
        for reader in readers:
            reader.join()
        self._ready.close()

    # Reading

    def _read(self) -> None:
        while True:
            with self._sources_lock:
                source = next(self._sources, None)
            if source is None:
                return
            job = Job(source)
            try:
                self._load(job)
                self._feed(job)
            except UserError as error:
                job.error = error
            self._answered(job)

    def _load(self, job: Job) -> None:
        with job.timed("read"):
            case = load_case(job.source, self._spec, strict=self._options.strict)
        volume_model = self._spec.input.rank == 3
        if volume_model and case.geometry.kind != "volume":
            raise GridError(
                f"case {job.source.name!r} is a {case.geometry.kind} of {case.geometry.describe()}, "
                "the model wants volumes",
                "Use a 2D model for pictures, see `segtool models`.",
            )
        # A 3D network's input is a float32 copy of the case; a 2D network's inputs are made slice by slice.
        voxels = case.data.size
        held = case.data.nbytes + (voxels * 4 if volume_model else voxels // case.data.shape[0])
        self._memory.acquire(held)
        job.held_bytes, job.case = held, case

    def _feed(self, job: Job) -> None:
        assert job.case is not None
        if self._spec.input.rank == 3:
            with job.timed("preprocess"):
                windowed = WindowedCase(job.case, self._spec)
            job.assembler = VolumeAssembler(
                windowed, self._spec, self._options.threshold, self._options.keep_probabilities
            )
            self._put(_Input(job, None, windowed.tensor))
            return
        sliced = SlicedCase(job.case, self._spec)
        slices = SliceAssembler(sliced, self._spec, self._options.threshold, self._options.keep_probabilities)
        job.assembler = slices
        for index in range(sliced.count):
            with job.timed("preprocess"):
                tensor = None if sliced.is_blank(index) else sliced.tensor(index)
            if tensor is not None:
                self._put(_Input(job, index, tensor))

    def _put(self, item: _Input) -> None:
        with item.job.lock:
            item.job.waiting_for += 1
        self._ready.put(item, item.tensor.nbytes)

    # Inference

    def _infer(self) -> None:
        batch: list[_Input] = []
        while True:
            try:
                item = self._ready.get(_PATIENCE_S if batch else None)
            except TimeoutError:
                self._run_slices(batch)
                batch = []
                continue
            if item is None:
                break
            if item.index is None:
                self._run_volume(item)
                continue
            batch.append(item)
            if len(batch) == self._loaded.batch:
                self._run_slices(batch)
                batch = []
        if batch:
            self._run_slices(batch)

    def _run_slices(self, batch: list[_Input]) -> None:
        xp = self._loaded.backend.xp
        start = time.perf_counter()
        logits = self._loaded.backend.run(xp.asarray(np.stack([item.tensor for item in batch])))
        logits = on_host(logits)
        share = (time.perf_counter() - start) / len(batch)
        for item, answer in zip(batch, logits, strict=True):
            with item.job.lock:
                item.job.seconds["infer"] = item.job.seconds.get("infer", 0.0) + share
            self._answers.put(_Output(item.job, item.index, answer), answer.nbytes)
        self._on_units(len(batch))

    def _run_volume(self, item: _Input) -> None:
        assert self._spec.input.rank == 3
        before = 0

        def report(done: int, _total: int) -> None:
            nonlocal before
            self._on_units(done - before)
            before = done

        extent = window_extent(item.tensor.shape[1:], self._loaded.spec)
        windows = Windows(item.tensor, extent, self._spec.input.overlap)
        # One answer was announced when the input was put.
        with item.job.lock:
            item.job.waiting_for += windows.slab_count - 1
        backend = self._loaded.backend
        slabs = windows.slabs(
            backend.run, self._loaded.batch, backend.xp, on_window=report, background=background_logits(self._spec)
        )
        for _ in range(windows.slab_count):
            with item.job.timed("infer"):
                logits = next(slabs).logits
            self._answers.put(_Output(item.job, None, logits), logits.nbytes)

    # Writing

    def _write(self) -> None:
        while (output := self._answers.get()) is not None:
            job = output.job
            if job.error is None:
                try:
                    self._take(job, output.index, output.logits)
                except UserError as error:
                    job.error = error
            self._answered(job)

    def _take(self, job: Job, index: int | None, logits: AnyArray) -> None:
        if not np.isfinite(logits).all():
            raise VoxelError(
                f"case {job.source.name!r}: the network answered NaN or infinity",
                "Check the scan's intensities with `segtool inspect`, or use an FP32 model.",
            )
        with job.timed("postprocess"):
            if isinstance(job.assembler, SliceAssembler):
                assert index is not None
                job.assembler.add(index, logits)
            else:
                assert job.assembler is not None
                job.assembler.add(logits)

    def _answered(self, job: Job) -> None:
        """Count one answer; the last one finishes the case, in whichever thread it arrives."""
        with job.lock:
            job.waiting_for -= 1
            if job.waiting_for:
                return
        self._complete(job)

    def _complete(self, job: Job) -> None:
        self._started.wait()
        if self._engine is None:
            raise Stopped
        try:
            if job.error is None and job.assembler is not None:
                with job.timed("postprocess"):
                    job.label_map, job.probabilities = job.assembler.finish()
            self._finish(job)
        finally:
            job.case = job.label_map = job.probabilities = job.assembler = None
            if job.held_bytes:
                self._memory.release(job.held_bytes)
