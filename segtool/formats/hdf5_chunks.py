"""Unpacks the chunks of an HDF5 dataset, and knows that each became a whole one.

libhdf5 2.0 does not: a chunk that unpacks to fewer bytes leaves whatever the process had in that memory among the
voxels. So gzip, by far the most frequent packing, is unpacked here, which is also three times as quick; chunks of
other filters are followed by their lengths before the library unpacks them.
"""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import h5py
import numpy as np
from h5py import h5z
from isal import isal_zlib

from segtool.formats.arrays import AnyArray
from segtool.formats.hdf5_guard import FLETCHER_BYTES, PACKERS, Storage, broken_chunk

_OURS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE})
_SCALEOFFSET_HEADER = 21
_LITERAL_RUNS = 32
_LONG = 7


def read_range(dataset: h5py.Dataset, storage: Storage | None, start: int, stop: int, where: str) -> AnyArray:
    """``dataset[start:stop]`` on the first axis, in the stored type.

    Args:
        dataset: At least one axis.
        storage: As the guard found it; None where it is not in chunks.
        start: First index.
        stop: After the last one.
        where: File and dataset, for messages.

    Raises:
        UnreadableFileError: A chunk does not unpack to its size.
    """
    if storage is None or not storage.filters:
        return np.asarray(dataset[start:stop])
    places = list(_places(storage, start, stop))
    if storage.is_plain_type and {number for number, _ in storage.filters} <= _OURS:
        return _unpacked(dataset, storage, places, start, stop, where)
    for place in places:
        mask, stored = dataset.id.read_direct_chunk(place)
        packer = next((n for n, _ in storage.filters if n in PACKERS), None)
        numbers = [number for number, _ in storage.filters]
        if packer is None or mask >> numbers.index(packer) & 1:
            continue
        if numbers[-1] == h5z.FILTER_FLETCHER32 and not mask >> (len(numbers) - 1) & 1:
            stored = stored[:-FLETCHER_BYTES]
        plain = math.prod(storage.chunk) * dataset.dtype.itemsize
        if not _FITS[packer](stored, plain, dataset.dtype.itemsize):
            raise broken_chunk(where)
    return np.asarray(dataset[start:stop])


def _places(storage: Storage, start: int, stop: int) -> Iterator[tuple[int, ...]]:
    depth = storage.chunk[0]
    for first in range(start - start % depth, stop, depth):
        yield from storage.places.get(first, ())


def _unpacked(
    dataset: h5py.Dataset, storage: Storage, places: Sequence[tuple[int, ...]], start: int, stop: int, where: str
) -> AnyArray:
    shape = (stop - start, *dataset.shape[1:])
    first = start - start % storage.chunk[0]
    grid = [-(-(end - begin) // n) for begin, end, n in zip(
        (first, *(0 for _ in shape[1:])), (stop, *shape[1:]), storage.chunk, strict=True
    )]  # fmt: skip
    # Chunks that were never written have the dataset's fill value.
    whole = len(places) == math.prod(grid)
    values: AnyArray = np.empty(shape, dataset.dtype) if whole else np.full(shape, dataset.fillvalue, dataset.dtype)
    for place in places:
        mask, stored = dataset.id.read_direct_chunk(place)
        chunk = _chunk(stored, mask, storage, dataset.dtype)
        if chunk is None:
            raise broken_chunk(where)
        begin = (place[0] - start, *place[1:])
        theirs = tuple(slice(max(0, b), min(b + n, end)) for b, n, end in zip(begin, storage.chunk, shape, strict=True))
        mine = tuple(slice(one.start - b, one.stop - b) for one, b in zip(theirs, begin, strict=True))
        values[theirs] = chunk[mine]
    return values


def _chunk(stored: bytes, mask: int, storage: Storage, dtype: np.dtype[Any]) -> AnyArray | None:
    """A chunk from its bytes in the file; None where they do not make a whole one."""
    plain = math.prod(storage.chunk) * dtype.itemsize
    data = stored
    used = [number for bit, (number, _) in enumerate(storage.filters) if not mask >> bit & 1]
    if h5z.FILTER_DEFLATE in used:
        inflated = _inflated(stored, plain)
        if inflated is None and len(stored) == plain:
            # Chunks over an edge may lie there unfiltered, which only the file's own flags tell.
            used, inflated = [], stored
        if inflated is None:
            return None
        data = inflated
    if len(data) != plain:
        return None
    if h5z.FILTER_SHUFFLE in used and dtype.itemsize > 1:
        planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
        return np.ascontiguousarray(planes.T).view(dtype).reshape(storage.chunk)
    return np.frombuffer(data, dtype).reshape(storage.chunk)


def _inflated(stored: bytes, plain: int) -> bytes | None:
    """The ``plain`` bytes that gzip made ``stored`` of; None where it is another number. Takes no more memory."""
    stream: Any = isal_zlib.decompressobj()
    try:
        data = bytes(stream.decompress(stored, plain + 1))
    except cast("type[Exception]", isal_zlib.error):
        return None
    return data if len(data) == plain and stream.eof else None


def _lzf_fits(stored: bytes, plain: int, _itemsize: int) -> bool:
    place = count = 0
    while place < len(stored):
        control = stored[place]
        if control < _LITERAL_RUNS:
            place, count = place + control + 2, count + control + 1
            continue
        length = control >> 5
        if length == _LONG:
            place += 1
            if place >= len(stored):
                return False
            length += stored[place]
        place, count = place + 2, count + length + 2
    return place == len(stored) and count == plain


def _scaleoffset_fits(stored: bytes, plain: int, itemsize: int) -> bool:
    if len(stored) < _SCALEOFFSET_HEADER:
        return False
    (bits,) = struct.unpack_from("<I", stored)
    needed = -(-plain // itemsize * bits // 8)
    return bool(bits <= 8 * itemsize and len(stored) >= _SCALEOFFSET_HEADER + needed)


def _szip_fits(stored: bytes, plain: int, _itemsize: int) -> bool:
    return len(stored) > 4 and struct.unpack_from("<I", stored)[0] == plain


_FITS: dict[int, Callable[[bytes, int, int], bool]] = {
    h5z.FILTER_DEFLATE: lambda stored, plain, _itemsize: _inflated(stored, plain) is not None,
    h5z.FILTER_LZF: _lzf_fits,
    h5z.FILTER_SCALEOFFSET: _scaleoffset_fits,
    h5z.FILTER_SZIP: _szip_fits,
}
