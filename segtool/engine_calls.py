"""Calls of a loaded model that go on where one fails: the poisonous slice alone fails, and scarce memory is shared out.

Engines raise types of their own, mostly bare ``Exception`` or ``RuntimeError`` of a compiled library, so this is where
every exception of theirs is caught and becomes the error of the cases that it concerns.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from segtool.backends.averaging import answers_of
from segtool.backends.base import Backend
from segtool.errors import CaseError, UserError
from segtool.faults import first_words, lacks_memory
from segtool.overlap import Stopped
from segtool.resample import on_host
from segtool.sliding_window import window_extent
from segtool.spec import ModelSpec

AnyArray = npt.NDArray[Any]


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

    @property
    def run(self) -> Callable[[AnyArray], AnyArray]:
        """Logits, and behind them votes where the backend averages, see :data:`segtool.backends.averaging.VOTES`."""
        return answers_of(self.backend)[0]

    @property
    def votes(self) -> int:
        """Channels behind the logits."""
        return answers_of(self.backend)[1]


@dataclass(frozen=True)
class _Pace:
    """How much is asked of the engine at once: inputs a call, and whether only one call is made at a time."""

    batch: int
    alone: bool


class EngineCalls:
    """Calls one engine, from several threads; once memory has not sufficed, in smaller pieces for the rest of the run.

    Args:
        engine: The engine.

    Attributes:
        engine: The engine.
        notes: What was made smaller, for the report.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._pace = _Pace(engine.batch, engine.calls == 1)
        self._too_many_voxels = math.inf  # of a window that memory did not hold
        self._takes_smaller: bool | None = None  # windows than wanted; None as long as nobody knows
        self._changed = threading.Condition()
        self._under_way = 0
        self.notes: list[str] = []

    @property
    def batch(self) -> int:
        """Inputs a call, as long as memory suffices."""
        return self._pace.batch

    def answers(self, tensors: Sequence[AnyArray], names: Sequence[str]) -> list[AnyArray | CaseError]:
        """Logits ``(K, *S)`` in main memory of each tensor ``(C, *S)``; where the engine fails on it, the error.

        Args:
            tensors: Of one shape.
            names: What each is called in its error, such as ``case 'a'``.
        """
        try:
            return list(on_host(self.run(np.stack(tensors))))
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            if len(tensors) == 1:
                return [engine_error(error, names[0])]
        # Only what spoils the batch fails.
        return [self.answers([tensor], [name])[0] for tensor, name in zip(tensors, names, strict=True)]

    def run(self, batch: AnyArray) -> AnyArray:
        """As :meth:`segtool.backends.base.Backend.run`, in smaller batches where memory does not suffice.

        Raises:
            Exception: Whatever the engine raises.
        """
        while True:
            pace = self._pace
            try:
                parts = [self._call(batch[start : start + pace.batch]) for start in range(0, len(batch), pace.batch)]
                xp = self.engine.backend.xp
                return parts[0] if len(parts) == 1 else cast("AnyArray", xp.concatenate(parts))
            except Exception as error:
                if not (lacks_memory(error) and self._slow_down(pace)):
                    raise

    def _call(self, batch: AnyArray) -> AnyArray:
        with self._turn():
            answer = self.engine.run(self.engine.backend.xp.asarray(batch))
        if len(answer) != len(batch):
            raise ValueError(f"{len(answer)} answers to {len(batch)} inputs")
        return answer

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not (self._pace.alone and self._under_way))
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                if self._pace.alone:
                    self._changed.notify_all()

    def _slow_down(self, tried: _Pace) -> bool:
        """Ask less of the engine than ``tried``, for good; False where it cannot be less."""
        with self._changed:
            if self._pace != tried:
                return True  # another thread has just done it
            if tried.batch > 1:
                self._pace = _Pace(tried.batch // 2, tried.alone)
                what = f"{self._pace.batch} at a time from then on, not {tried.batch}"
            elif not tried.alone:
                self._pace = _Pace(1, alone=True)
                what = f"one call at a time from then on, not {self.engine.calls}"
            else:
                return False
            self.notes.append(f"memory did not suffice for the network's batch: {what}")
            return True

    def over_windows(
        self, shape: Sequence[int], attempt: Callable[[tuple[int, ...]], None], again: Callable[[str], None]
    ) -> None:
        """Do ``attempt`` with the window's extent for a volume, and with smaller ones where memory does not suffice.

        Args:
            shape: Of the tensor, ``(D, H, W)``.
            attempt: Does the whole volume in windows of an extent, by :meth:`run`.
            again: Called before every further attempt, with what has changed.

        Raises:
            Exception: Whatever ``attempt`` raises; of several attempts the first.
        """
        extents = window_extents(shape, self.engine.spec)
        able = [extent for extent in extents if math.prod(extent) < self._too_many_voxels] or extents[-1:]
        if self._takes_smaller is False:
            able = extents[:1]
        first: Exception | None = None
        for extent in able:
            if extent != extents[0]:
                note = f"memory did not suffice for windows of {_by(extents[0])}: done in windows of {_by(extent)}"
                again(note)
                if note not in self.notes:
                    self.notes.append(note)
            try:
                attempt(extent)
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - see the module's docstring
                first = first or error
                if not lacks_memory(error):
                    if extent != extents[0] and self._takes_smaller is None:
                        self._takes_smaller = False  # as engines whose graph fixes its extent
                    raise first from None
                with self._changed:
                    self._too_many_voxels = min(self._too_many_voxels, math.prod(extent))
            else:
                self._takes_smaller = self._takes_smaller or extent != extents[0] or None
                return
        assert first is not None
        raise first


def window_extents(shape: Sequence[int], spec: ModelSpec) -> list[tuple[int, ...]]:
    """Extents of windows over a tensor ``(C, *shape)``, the wanted one first, then ever smaller ones.

    After a whole case comes the spec's patch, then the patch with one axis after the other halved, the longest first.
    Smaller windows than that see too little around each voxel.
    """
    extents = [window_extent(shape, spec)]
    patch = tuple(spec.extent)
    if math.prod(patch) < math.prod(extents[0]):
        extents.append(patch)
    for axis in sorted(range(len(patch)), key=lambda axis: -patch[axis]):
        half = math.ceil(patch[axis] / 2 / spec.divisor) * spec.divisor
        patch = (*patch[:axis], half, *patch[axis + 1 :])
        if math.prod(patch) < math.prod(extents[-1]):
            extents.append(patch)
    return extents


def engine_error(error: Exception, what: str) -> CaseError:
    """What the row of a case says where the engine failed on ``what``, such as ``case 'a'``."""
    if isinstance(error, UserError):
        return CaseError(f"{what}: {error.problem}", error.remedy)
    if lacks_memory(error):
        return CaseError(
            f"{what}: the network takes more memory than there is ({first_words(error)})",
            "Close other programs, or do it on a larger machine.",
        )
    return CaseError(
        f"{what}: the network failed ({first_words(error)})",
        "Look at the scan with `segtool inspect`; where many cases fail so, try another --device.",
    )


def _by(extent: Sequence[int]) -> str:
    return "x".join(map(str, extent))
