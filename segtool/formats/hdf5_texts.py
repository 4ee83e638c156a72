"""Texts beside an HDF5 dataset, read once the heap that holds them is known to be sound."""

import math
import mmap
import struct
from pathlib import Path

import h5py
import numpy as np

from segtool.errors import UnreadableFileError

MOST_CHANNEL_NAMES, LONGEST_NAMES = 64, 2**16


def channel_texts(attributes: h5py.AttributeManager, path: Path) -> tuple[str, ...]:
    """The attribute ``channels`` as texts; empty without one, and where it holds something else.

    Raises:
        UnreadableFileError: The heap in which the file keeps texts is broken, so that reading them might never end.
    """
    if "channels" not in attributes:
        return ()
    attribute = attributes.get_id("channels")
    texts = h5py.check_string_dtype(attribute.dtype)
    if texts is None or attribute.shape is None or math.prod(attribute.shape) > MOST_CHANNEL_NAMES:
        return ()
    if texts.length is None:
        _check_heaps(path)
    elif texts.length > LONGEST_NAMES:
        return ()
    names = np.atleast_1d(np.asarray(attributes["channels"], object)).tolist()
    return tuple(name.decode() if isinstance(name, bytes) else name for name in names)


_HEAP = struct.Struct("<4sB3xQ")
_HEAP_OBJECT = struct.Struct("<HH4xQ")


def _check_heaps(path: Path) -> None:
    """Walk the objects of all global heaps as the library does, which trusts their sizes and may go round for ever."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(b"GCOL")
        while start >= 0:
            if not _is_sound_heap(data, start):
                raise UnreadableFileError(
                    f"{path}: the heap of its texts is broken", "It is truncated or corrupt: copy or export it again."
                )
            start = data.find(b"GCOL", start + 4)


def _is_sound_heap(data: mmap.mmap, start: int) -> bool:
    if start + _HEAP.size > len(data):
        return True
    _, version, size = _HEAP.unpack_from(data, start)
    if version != 1:
        return True  # Voxels that happen to look so; the library refuses them as a heap.
    end, place = start + size, start + _HEAP.size
    if end > len(data):
        return False
    while end - place >= _HEAP_OBJECT.size:
        number, _, length = _HEAP_OBJECT.unpack_from(data, place)
        if number == 0:
            # What is free comes last and counts its own header.
            return bool(length == end - place)
        place += _HEAP_OBJECT.size + -(-length // 8) * 8
    return bool(place <= end)
