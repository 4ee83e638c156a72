"""A model whose graph fixes its batch, as one that takes any."""

from types import ModuleType
from typing import Any, cast

import numpy.typing as npt

from segtool.backends.base import Backend

AnyArray = npt.NDArray[Any]


class FixedBatchBackend:
    """Parts a batch into those that the graph takes; the last is filled up with copies, whose answers are left out.

    Args:
        backend: The loaded model.
        batch: What its graph takes.
    """

    def __init__(self, backend: Backend, batch: int) -> None:
        self._backend, self._batch = backend, batch
        self.name, self.version, self.device = backend.name, backend.version, backend.device
        self.precision, self.why, self.note = backend.precision, backend.why, backend.note
        self.xp: ModuleType = backend.xp

    def run(self, batch: AnyArray) -> AnyArray:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32."""
        starts = range(0, len(batch), self._batch)
        answers = [self._backend.run(self._filled(batch[start : start + self._batch])) for start in starts]
        return cast("AnyArray", self.xp.concatenate(answers)[: len(batch)])

    def _filled(self, part: AnyArray) -> AnyArray:
        missing = self._batch - len(part)
        if not missing:
            return part
        return cast("AnyArray", self.xp.concatenate([part, self.xp.repeat(part[-1:], missing, axis=0)]))

    def close(self) -> None:
        """Give back what the engine holds."""
        self._backend.close()
