"""Unpacks the chunks of an HDF5 dataset, and knows that each became a whole one.

libhdf5 2.0 does not: a chunk that unpacks to fewer bytes leaves whatever the process had in that memory among the
voxels, and a chunk is looked for by indices that reach beyond the table in the file. So chunks are fetched and gzip, by
far the most frequent packing, is unpacked here, which is also three times as quick. Chunks of other filters are
followed by their lengths, and then handed to the library one by one in a file of our own.
"""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from h5py import h5d, h5s, h5z
from isal import isal_zlib

from segtool.formats.arrays import AnyArray
from segtool.formats.hdf5_guard import FLETCHER_BYTES, PACKERS, Storage, StoredChunk, broken_chunk

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
    if storage is None:
        return np.asarray(dataset[start:stop])
    chunks = list(_within(storage, start, stop))
    shape = (stop - start, *dataset.shape[1:])
    first = (start - start % storage.chunk[0], *(0 for _ in shape[1:]))
    ends = (stop, *shape[1:])
    count = math.prod(-(-(end - at) // n) for at, end, n in zip(first, ends, storage.chunk, strict=True))
    # Chunks that were never written have the dataset's fill value.
    whole = len(chunks) == count
    values: AnyArray = np.empty(shape, dataset.dtype) if whole else np.full(shape, dataset.fillvalue, dataset.dtype)
    is_ours = storage.is_plain_type and {number for number, _ in storage.filters} <= _OURS
    with ExitStack() as stack:
        file = stack.enter_context(Path(dataset.file.filename).open("rb"))
        unpack = _chunk if is_ours else stack.enter_context(_library(dataset, storage, len(chunks)))
        for one in chunks:
            file.seek(one.offset)
            chunk = unpack(file.read(one.size), one.mask, storage, dataset.dtype)
            if chunk is None:
                raise broken_chunk(where)
            begin = (one.place[0] - start, *one.place[1:])
            sides = zip(begin, storage.chunk, shape, strict=True)
            theirs = tuple(slice(max(0, at), min(at + n, end)) for at, n, end in sides)
            mine = tuple(slice(side.start - at, side.stop - at) for side, at in zip(theirs, begin, strict=True))
            values[theirs] = chunk[mine]
    return values


def _within(storage: Storage, start: int, stop: int) -> Iterator[StoredChunk]:
    depth = storage.chunk[0]
    for first in range(start - start % depth, stop, depth):
        yield from storage.chunks.get(first, ())


_Unpack = Callable[[bytes, int, Storage, np.dtype[Any]], AnyArray | None]


@contextmanager
def _library(dataset: h5py.Dataset, storage: Storage, count: int) -> Iterator[_Unpack]:
    """Lets the library unpack chunks, one after another, in a file in memory of which every other byte is ours."""
    numbers = [number for number, _ in storage.filters]
    packer = next((number for number in numbers if number in PACKERS), None)

    def unpack(stored: bytes, mask: int, storage: Storage, dtype: np.dtype[Any]) -> AnyArray | None:
        packed = stored
        if h5z.FILTER_FLETCHER32 in numbers and not mask >> numbers.index(h5z.FILTER_FLETCHER32) & 1:
            packed = stored[:-FLETCHER_BYTES]
        is_packed = packer is not None and not mask >> numbers.index(packer) & 1
        plain = math.prod(storage.chunk) * dtype.itemsize
        if not (_FITS[packer](packed, plain, dtype.itemsize) if is_packed and packer else len(packed) == plain):
            return None
        at = next(places)
        write = h5d.open(file.id, b"chunks")
        write.write_direct_chunk((at, *(0 for _ in storage.chunk[1:])), stored, mask)
        # Opened again, because the library remembers the last chunk and takes its mask for 0.
        write.close()
        return np.asarray(h5py.Dataset(h5d.open(file.id, b"chunks"))[at : at + storage.chunk[0]])

    with h5py.File("chunks", "w", driver="core", backing_store=False) as file:
        depth, *rest = storage.chunk
        space = h5s.create_simple((max(1, count) * depth, *rest))
        h5d.create(file.id, b"chunks", dataset.id.get_type(), space, dataset.id.get_create_plist()).close()
        places = iter(range(0, count * depth, depth))
        yield unpack


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
