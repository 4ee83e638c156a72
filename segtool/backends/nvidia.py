"""NVIDIA GPUs as the driver itself lists them: nothing else need be installed."""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
DRIVER_REMEDY = "Install NVIDIA's driver (https://www.nvidia.com/drivers)"


@dataclass(frozen=True)
class Gpu:
    """One GPU; ``capability`` such as ``9.0``."""

    name: str
    memory_bytes: int
    capability: str

    def __str__(self) -> str:
        return f"{self.name} {self.memory_bytes / 2**30:.0f} GiB"


@dataclass(frozen=True)
class Driver:
    """The GPUs, and the newest CUDA version that the driver supports, such as ``12.8``."""

    gpus: tuple[Gpu, ...]
    cuda: str


@lru_cache(maxsize=1)
def driver() -> Driver:
    """Ask the driver.

    Raises:
        OSError: No driver, no GPU, or the driver refuses; the message says which.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise OSError("no NVIDIA driver") from error
    _ask(library.cuInit, 0)
    count, version = ctypes.c_int(), ctypes.c_int()
    _ask(library.cuDeviceGetCount, ctypes.byref(count))
    _ask(library.cuDriverGetVersion, ctypes.byref(version))
    found = tuple(_gpu(library, index) for index in range(count.value))
    if not found:
        raise OSError("the driver lists no GPU")
    # 12080 is 12.8.
    return Driver(found, f"{version.value // 1000}.{version.value % 1000 // 10}")


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
    major, minor = ctypes.c_int(), ctypes.c_int()
    _ask(library.cuDeviceGet, ctypes.byref(device), index)
    _ask(library.cuDeviceGetName, name, len(name), device)
    _ask(library.cuDeviceTotalMem_v2, ctypes.byref(memory), device)
    _ask(library.cuDeviceGetAttribute, ctypes.byref(major), _CAPABILITY_MAJOR, device)
    _ask(library.cuDeviceGetAttribute, ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(errors="replace"), memory.value, f"{major.value}.{minor.value}")


def _ask(function: Callable[..., int], *arguments: object) -> None:
    code = function(*arguments)
    if code:
        raise OSError(f"the driver answers with error {code}")
