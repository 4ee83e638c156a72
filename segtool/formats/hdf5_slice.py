"""One slice of an HDF5 stack as if it were a dataset of its own."""

import math
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from segtool.formats.arrays import AnyArray
from segtool.formats.hdf5_chunks import read_range
from segtool.formats.hdf5_guard import Storage

BLOCKS_LIMIT = 2**28
"""Bytes of unpacked chunks that are kept for their other slices, over all files."""

_NUMBERED = re.compile(r"(?P<name>.+)\[(?P<number>\d+)\]", re.DOTALL)


class StackSlice:
    """What :class:`h5py.Dataset` says of itself, for ``dataset[number]``; only this slice is ever read.

    Args:
        dataset: ``(N, H, W)``, or with an axis of channels. A lone channel has no axis here: beside a mask
            ``(1, H, W)`` an image ``(1, H, W)`` would pass for a stack.
        number: From 0 to N - 1.

    Attributes:
        whole: The stack.
    """

    def __init__(self, dataset: h5py.Dataset, number: int) -> None:
        self.whole, self._number = dataset, number
        self.name = f"{dataset.name}[{number}]"
        shape = tuple(dataset.shape[1:])
        self.shape = tuple(n for n in shape if n > 1) if len(shape) == 3 and 1 in (shape[0], shape[2]) else shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self.attrs = dataset.attrs

    def read(self, storage: Storage | None, where: str) -> AnyArray:
        """The slice; arguments as of :func:`~segtool.formats.hdf5_chunks.read_range`."""
        return _BLOCKS.slice(self.whole, self._number, storage, where).reshape(self.shape)


class _Blocks:
    """Slices beside the one that was asked for, where HDF5 packs them together.

    Otherwise a chunk of 20 slices would be unpacked 20 times, once for each. A block is dropped when as many slices
    were taken from it as it has, or for newer ones.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[object, ...], AnyArray] = OrderedDict()
        self._left: dict[tuple[object, ...], int] = {}

    def slice(self, dataset: h5py.Dataset, number: int, storage: Storage | None, where: str) -> AnyArray:
        """``dataset[number]``, an array of its own."""
        depth = dataset.chunks[0] if dataset.chunks else 1
        size = dataset.dtype.itemsize * depth * math.prod(dataset.shape[1:])
        if depth == 1 or size > BLOCKS_LIMIT:
            alone: AnyArray = read_range(dataset, storage, number, number + 1, where)[0]
            return alone
        state = Path(dataset.file.filename).stat()
        file = state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
        key = (*file, dataset.name, number // depth)
        # HDF5 reads for one thread at a time anyway, and the next most likely wants the same block.
        with self._lock:
            if key not in self._held:
                while self._held and sum(block.nbytes for block in self._held.values()) + size > BLOCKS_LIMIT:
                    oldest, _ = self._held.popitem(last=False)
                    del self._left[oldest]
                first = number - number % depth
                self._held[key] = read_range(dataset, storage, first, min(first + depth, len(dataset)), where)
                self._left[key] = len(self._held[key])
            values: AnyArray = self._held[key][number % depth].copy()
            self._left[key] -= 1
            if not self._left[key]:
                del self._held[key], self._left[key]
        return values


_BLOCKS = _Blocks()


def slice_name(dataset: str, number: int) -> str:
    """``x[3]``: how ``Source.dataset`` names slice 3, counted from 0, of the stack ``x``."""
    return f"{dataset}[{number}]"


def parse_slice_name(name: str) -> tuple[str, int | None]:
    """``("x", 3)`` for ``x[3]``, ``("x", None)`` for ``x``."""
    match = _NUMBERED.fullmatch(name)
    return (match["name"], int(match["number"])) if match else (name, None)
