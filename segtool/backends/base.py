"""What every inference engine can do. One file an engine; the table is in :mod:`segtool.backends`."""

from types import ModuleType
from typing import Any, Protocol

import numpy.typing as npt


class Backend(Protocol):
    """A loaded model on one device.

    ``xp`` is the array module (numpy, or cupy on a GPU) in which :meth:`run` takes and gives arrays.
    """

    @property
    def name(self) -> str:
        """Such as ``onnxruntime``."""
        ...

    version: str
    device: str
    """What is really used, read back from the engine: ``cpu`` or ``cuda``."""
    precision: str
    """Of the arithmetic: ``fp32``, ``fp16``, ``bf16`` or ``int8``; joined by ``+`` where models differ."""
    xp: ModuleType

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits ``(N, K, *S)`` float32 of ``batch``, C-contiguous float32 ``(N, C, *S)``. May be called by threads."""
        ...
