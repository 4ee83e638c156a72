"""Arrays in a GPU's memory, where cupy is installed."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def gpu_arrays() -> ModuleType | None:
    """Cupy, or None where it is not installed or finds no GPU.

    Its ``asarray`` already sends an array of main memory through a pinned buffer, without waiting for the copy, so
    that no code of ours does.
    """
    if find_spec("cupy") is None:
        return None
    try:
        cupy = import_module("cupy")
        cupy.cuda.runtime.getDeviceCount()
    except (ImportError, RuntimeError):  # libraries of another CUDA, or a driver that is too old
        return None
    return cupy
