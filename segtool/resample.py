"""Linear resampling of any axes, as one small dense matrix an axis.

Along an axis resampling is a matrix product, and a whole image is one product an axis. BLAS does that at a
rate no interpolation loop reaches. Reducing widens the triangle to the output's spacing, which averages all
voxels instead of skipping some (antialiasing).
"""

import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


def array_module(array: npt.NDArray[Any]) -> ModuleType:
    """The module that made an array: numpy, or cupy where it lies on a GPU."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def on_host(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in main memory: itself, or a copy of one on a GPU."""
    module = array_module(array)
    return array if module is np else cast("npt.NDArray[Any]", module.asnumpy(array))


@lru_cache(maxsize=256)
def linear_matrix(size_in: int, size_out: int) -> Float32Array:
    """Weights ``(size_out, size_in)``; rows add up to 1.

    Both grids span the same extent, with voxel centres at half-integers (``align_corners=False``).
    """
    scale = size_in / size_out
    width = max(scale, 1.0)
    centres = (np.arange(size_out) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(size_in)[None, :] - centres[:, None]) / width
    weights = np.maximum(0.0, 1.0 - distance)
    matrix: Float32Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def resize(array: npt.NDArray[Any], shape: Sequence[int]) -> Float32Array:
    """Resample the last ``len(shape)`` axes of ``array`` to ``shape``; leading axes stay.

    Returns:
        A new float32 array where ``array`` lies, or ``array`` itself where it is float32 and has that shape already.
    """
    xp = array_module(array)
    result: Float32Array = array.astype(np.float32, copy=False)
    lead = array.ndim - len(shape)
    # Shrinking axes first leaves the least work for the others.
    for axis in sorted(range(len(shape)), key=lambda a: shape[a] / array.shape[lead + a]):
        size_in, size_out = result.shape[lead + axis], shape[axis]
        if size_in == size_out:
            continue
        if size_in == 2 * size_out:
            result = _halve(result, lead + axis)
            continue
        matrix = xp.asarray(linear_matrix(size_in, size_out))
        if lead + axis == result.ndim - 1:
            result = result @ matrix.T
        else:
            # (..., in, rest) -> (..., out, rest): one product over the flattened trailing axes.
            before, after = result.shape[: lead + axis], result.shape[lead + axis + 1 :]
            flat = result.reshape(*before, size_in, -1)
            result = xp.matmul(matrix, flat).reshape(*before, size_out, *after)
    return result


def _halve(array: Float32Array, axis: int) -> Float32Array:
    """Halve an even axis: what :func:`linear_matrix` does there, with its four weights written out.

    The common 512 to 256 then reads the image twice instead of multiplying with a matrix of mostly zeros.
    """
    moved = np.moveaxis(array, axis, 0)
    even, odd = moved[0::2], moved[1::2]
    # Output i lies between voxels 2i and 2i + 1; with 2i - 1 and 2i + 2 the weights are 1 3 3 1 over 8. At an
    # end the missing voxel's weight goes to the others.
    result = even + odd
    result *= np.float32(0.375)
    result[1:] += np.float32(0.125) * odd[:-1]
    result[:-1] += np.float32(0.125) * even[1:]
    if len(result) == 1:
        result *= np.float32(4 / 3)
    else:
        result[0] *= np.float32(8 / 7)
        result[-1] *= np.float32(8 / 7)
    return np.moveaxis(result, 0, axis)


class Interpolation:
    """:func:`resize` of one axis, a few planes at a time, as the planes that they are mixed from come in.

    Args:
        size_in: Planes that will come.
        size_out: Planes that are wanted.
    """

    def __init__(self, size_in: int, size_out: int) -> None:
        self._same = size_in == size_out
        self._size_in, self._size_out = size_in, size_out
        used = linear_matrix(size_in, size_out) > 0
        self._from = used.argmax(axis=1)
        self._to = size_in - used[:, ::-1].argmax(axis=1)

    def ready(self, known: int) -> int:
        """How many planes can be made from the first ``known``."""
        return int(np.searchsorted(self._to, known, side="right"))

    def first_needed(self, plane: int) -> int:
        """The first plane that ``plane`` or any later one is mixed from."""
        return int(self._from[plane]) if plane < self._size_out else self._size_in

    def take(self, pending: npt.NDArray[Any], first: int, start: int, stop: int) -> Float32Array:
        """Planes ``start`` to ``stop`` of ``(K, n, H, W)`` whose own first plane is ``first``."""
        below, above = int(self._from[start]), int(self._to[stop - 1])
        planes: Float32Array = pending[:, below - first : above - first]
        if self._same:
            return planes
        xp = array_module(pending)
        matrix = xp.asarray(linear_matrix(self._size_in, self._size_out)[start:stop, below:above])
        flat = planes.reshape(*planes.shape[:2], -1)
        mixed: Float32Array = xp.matmul(matrix, flat).reshape(len(planes), stop - start, *planes.shape[2:])
        return mixed
