"""Holds what an HDF5 dataset claims against what its file has, before any value is read.

The library takes memory for the claimed shape and for whole chunks, and hands chunks to its filters with whatever
size and parameters the file states. So those are looked at first: what passes can be read.
"""

import math
import mmap
import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from h5py import h5d, h5p, h5z
from isal import isal_zlib

from segtool.errors import UnreadableFileError
from segtool.limits import Limits

SPARE_BYTES = 2**27
"""Chunks that were never written are zeros and take no place in the file: so much of them is nothing odd."""
MOST_TIMES = 1100
"""Deflate makes one byte of at most 1,032; nothing here packs tighter."""
INFLATED_UNSEEN = 2**20
"""Chunks packed into more bytes than this are unpacked once to count what they become."""
MOST_CHANNEL_NAMES, LONGEST_NAMES = 64, 2**16

_FLETCHER_BYTES = 4
_KNOWN = {
    h5z.FILTER_DEFLATE: "gzip",
    h5z.FILTER_SHUFFLE: "shuffle",
    h5z.FILTER_FLETCHER32: "fletcher32",
    h5z.FILTER_SZIP: "szip",
    h5z.FILTER_SCALEOFFSET: "scaleoffset",
    h5z.FILTER_LZF: "lzf",
}
_PACKERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SZIP, h5z.FILTER_SCALEOFFSET, h5z.FILTER_LZF})
_REPACK = "Write it again without that filter (h5repack -f GZIP=4)."

Filter = tuple[int, Sequence[int]]
"""Number and parameters."""


def is_elsewhere(dataset: h5py.Dataset) -> bool:
    """True where the values lie in other files. Asking such a dataset for its shape alone would open them."""
    properties = dataset.id.get_create_plist()
    return properties.get_layout() == h5d.VIRTUAL or properties.get_external_count() > 0


def check_dataset(dataset: h5py.Dataset, shape: tuple[int, ...], path: Path, limits: Limits) -> None:
    """Refuse what cannot be read in the memory and the time that the file's own bytes earn.

    Args:
        dataset: Its values lie in the file itself.
        shape: What is to be read of it: its own, or of one slice.
        path: The file, for messages.
        limits: Of the source.

    Raises:
        LimitError: More voxels or bytes than the limits allow.
        UnreadableFileError: It claims what the file cannot hold, or a filter that is not known.
    """
    where = f"{path}: {dataset.name}"
    claim = "x".join(map(str, shape))
    limits.check("voxels", math.prod(shape), where, f"{claim} voxels")
    size = math.prod(shape) * dataset.dtype.itemsize
    limits.check("unpacked_bytes", size, where, f"{claim} voxels of {dataset.dtype.itemsize} bytes each")
    _CHECKED.check(dataset, path, limits)
    stored = _stored_bytes(dataset)
    if size > MOST_TIMES * stored + SPARE_BYTES:
        raise UnreadableFileError(
            f"{where} claims {size / 1e6:.0f} MB of voxels, and the file holds {stored} bytes of them",
            "It is truncated or was never filled: copy or export it again.",
        )


def _stored_bytes(dataset: h5py.Dataset) -> int:
    # Of contiguous storage the library repeats the claim; nothing is there that is not in the file.
    return min(dataset.id.get_storage_size(), Path(dataset.file.filename).stat().st_size)


class _Checked:
    """Chunks that were found sound, so that one slice after another of a stack does not look at all of them again."""

    def __init__(self, most: int = 256) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._most = most

    def check(self, dataset: h5py.Dataset, path: Path, limits: Limits) -> None:
        state = Path(dataset.file.filename).stat()
        key = (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size, dataset.name, limits)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return
        _check_storage(dataset, path, limits, state.st_size)
        with self._lock:
            self._known[key] = None
            if len(self._known) > self._most:
                self._known.popitem(last=False)


_CHECKED = _Checked()


def _check_storage(dataset: h5py.Dataset, path: Path, limits: Limits, file_bytes: int) -> None:
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5d.CHUNKED:
        return
    where = f"{path}: {dataset.name}"
    chunk = properties.get_chunk()
    items = math.prod(chunk)
    plain = items * dataset.dtype.itemsize
    limits.check("unpacked_bytes", plain, where, f"chunks of {plain} bytes")
    if plain > max(SPARE_BYTES, 4 * dataset.size * dataset.dtype.itemsize):
        raise UnreadableFileError(
            f"{where} lies in chunks of {plain / 1e6:.0f} MB, of which it fills little",
            "Write it again with smaller chunks (h5repack).",
        )
    filters = _filters(properties)
    _check_filters(filters, items, dataset.dtype, where)
    _check_chunks(dataset.id, filters, plain, file_bytes, where, limits)


def _filters(properties: h5p.PropDCID) -> list[Filter]:
    every = (properties.get_filter(number) for number in range(properties.get_nfilters()))
    return [(number, values) for number, _, values, _ in every]


def _check_filters(filters: Sequence[Filter], items: int, dtype: np.dtype, where: str) -> None:
    for number, values in filters:
        if number not in _KNOWN:
            raise UnreadableFileError(f"{where} is packed by filter {number}, which is not known", _REPACK)
        # Parameters that lie lead the filter beyond its memory.
        is_sound = {
            h5z.FILTER_SHUFFLE: not values or values[0] == dtype.itemsize,
            h5z.FILTER_SCALEOFFSET: len(values) == 20 and values[2] == items and values[4] == dtype.itemsize,
            h5z.FILTER_LZF: len(values) < 3 or values[2] <= max(4 * items * dtype.itemsize, SPARE_BYTES),
            h5z.FILTER_SZIP: len(values) == 4 and values[1] <= 32 and 0 < values[3] <= 8 * dtype.itemsize,
        }
        if not is_sound.get(number, True):
            raise UnreadableFileError(f"{where}: its filter {_KNOWN[number]} has parameters of other data", _REPACK)
    if len({number for number, _ in filters}) < len(filters) or sum(n in _PACKERS for n, _ in filters) > 1:
        names = ", ".join(_KNOWN[number] for number, _ in filters)
        raise UnreadableFileError(f"{where} is packed twice ({names})", _REPACK)


def _check_chunks(
    dataset: h5d.DatasetID, filters: Sequence[Filter], plain: int, file_bytes: int, where: str, limits: Limits
) -> None:
    """Hold each chunk's bytes in the file against what it should become."""
    broken = UnreadableFileError(
        f"{where}: a chunk lies outside the file or has bytes of another size",
        "It is truncated or corrupt: copy or export it again.",
    )
    large: list[tuple[int, ...]] = []
    wrong: list[bool] = []

    def look(chunk: h5d.StoreInfo) -> bool | None:
        used = [number for bit, (number, _) in enumerate(filters) if not chunk.filter_mask >> bit & 1]
        spare = _FLETCHER_BYTES if h5z.FILTER_FLETCHER32 in used else 0
        packed = any(number in _PACKERS for number in used)
        # What packing would make larger is stored plain, or a little larger; so may chunks at an edge be.
        most = plain + plain // 8 + 1024
        fits = spare < chunk.size <= most if packed else chunk.size in (plain, plain + spare)
        if not fits or chunk.byte_offset is None or chunk.byte_offset + chunk.size > file_bytes:
            wrong.append(True)
            return True
        if packed and chunk.size > INFLATED_UNSEEN:
            large.append(tuple(chunk.chunk_offset))
        return None

    dataset.chunk_iter(look)
    if wrong:
        raise broken
    if any(number == h5z.FILTER_DEFLATE for number, _ in filters):
        for place in large:
            mask, packed = dataset.read_direct_chunk(place)
            if not mask and not _inflates_to(packed, plain + _FLETCHER_BYTES):
                raise broken


def _inflates_to(packed: bytes, most: int) -> bool:
    """True where bytes unpack to no more than ``most``. The library would take memory for whatever comes."""
    stream: Any = isal_zlib.decompressobj()
    count = 0
    try:
        while not stream.eof:
            piece = stream.decompress(packed, 2**20)
            packed = stream.unconsumed_tail
            count += len(piece)
            if count > most or not (piece or packed):
                return False
    except cast("type[Exception]", isal_zlib.error):
        return False
    return True


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
    return place <= end
