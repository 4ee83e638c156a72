"""One slice of an HDF5 stack as if it were a dataset of its own."""

import re
from typing import Any

import h5py
import numpy as np

from segtool.formats.arrays import AnyArray

_NUMBERED = re.compile(r"(?P<name>.+)\[(?P<number>\d+)\]", re.DOTALL)


class StackSlice:
    """What :class:`h5py.Dataset` says of itself, for ``dataset[number]``; only this slice is ever read.

    Args:
        dataset: ``(N, H, W)``, or with an axis of channels. A lone channel has no axis here: beside a mask
            ``(1, H, W)`` an image ``(1, H, W)`` would pass for a stack.
        number: From 0 to N - 1.
    """

    def __init__(self, dataset: h5py.Dataset, number: int) -> None:
        self._dataset, self._number = dataset, number
        self.name = f"{dataset.name}[{number}]"
        shape = tuple(dataset.shape[1:])
        self.shape = tuple(n for n in shape if n > 1) if len(shape) == 3 and 1 in (shape[0], shape[2]) else shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self.attrs = dataset.attrs

    def __getitem__(self, key: tuple[()]) -> AnyArray:
        return np.asarray(self._dataset[(self._number, *key)]).reshape(self.shape)


def slice_name(dataset: str, number: int) -> str:
    """``x[3]``: how ``Source.dataset`` names slice 3, counted from 0, of the stack ``x``."""
    return f"{dataset}[{number}]"


def parse_slice_name(name: str) -> tuple[str, int | None]:
    """``("x", 3)`` for ``x[3]``, ``("x", None)`` for ``x``."""
    match = _NUMBERED.fullmatch(name)
    return (match["name"], int(match["number"])) if match else (name, None)
