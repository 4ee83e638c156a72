"""Inference engines, by name, each imported when it is first asked for."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from segtool.backends.base import Backend

BACKENDS: dict[str, str] = {"onnxruntime": "segtool.backends.onnx_runtime:OnnxRuntimeBackend"}

Device = Literal["auto", "cpu", "cuda"]


def load_backend(model: Path, device: Device = "auto", threads: int | None = None) -> Backend:
    """Load ``model`` on ``device``.

    ``auto`` takes CUDA where the engine and the machine have it, else the CPU. Any other device is used or refused.

    Args:
        model: An ``.onnx`` file.
        device: Where to run.
        threads: CPU threads of the engine; None for one a core.

    Raises:
        DeviceError: The device is not there; the line says why and what to install.
        MissingDependencyError: No engine is installed.
        ModelError: The engine cannot load the file.
    """
    module, _, attribute = BACKENDS["onnxruntime"].partition(":")
    backend: Backend = getattr(import_module(module), attribute)(model, device, threads)
    return backend
