"""Holds what an HDF5 dataset claims against what its file has, before any value is read.

The library takes memory for the claimed shape and for whole chunks, and hands chunks to its filters with whatever
size and parameters the file states. So those are looked at first: what passes can be read.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5o, h5t, h5z

from segtool.errors import UnreadableFileError
from segtool.formats.hdf5_headers import Headers
from segtool.limits import Limits

SPARE_BYTES = 2**27
"""Chunks that were never written are zeros and take no place in the file: so much of them is nothing odd."""
_FEW_CHUNKS = 2**20
"""That may be looked for in any file; in a larger one as many as have place for an address each."""
MOST_TIMES = 1100
"""Deflate makes one byte of at most 1,032; nothing here packs tighter."""
FLETCHER_BYTES = 4
_NAMES = {
    h5z.FILTER_DEFLATE: "gzip",
    h5z.FILTER_SHUFFLE: "shuffle",
    h5z.FILTER_FLETCHER32: "fletcher32",
    h5z.FILTER_SZIP: "szip",
    h5z.FILTER_SCALEOFFSET: "scaleoffset",
    h5z.FILTER_LZF: "lzf",
}
PACKERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SZIP, h5z.FILTER_SCALEOFFSET, h5z.FILTER_LZF})
_REPACK = "Write it again without that filter (h5repack -f GZIP=4)."

Filter = tuple[int, Sequence[int]]
"""Number and parameters."""


@dataclass(frozen=True)
class StoredChunk:
    """Where one chunk lies.

    Args:
        place: Its first index on each axis.
        offset: Of its bytes in the file.
        size: Their number.
        mask: A bit for each filter that was left out.
    """

    place: tuple[int, ...]
    offset: int
    size: int
    mask: int


@dataclass(frozen=True)
class Storage:
    """How a chunked dataset lies in its file, found sound.

    Args:
        chunk: Shape of a chunk.
        filters: In the order in which they were applied.
        chunks: Those that are there, by their first index on the first axis.
        is_plain_type: True where the stored bytes are the numbers as numpy has them.
    """

    chunk: tuple[int, ...]
    filters: tuple[Filter, ...]
    chunks: Mapping[int, Sequence[StoredChunk]]
    is_plain_type: bool


def check_dataset(dataset: h5py.Dataset, shape: tuple[int, ...], path: Path, limits: Limits) -> Storage | None:
    """Refuse what cannot be read in the memory and the time that the file's own bytes earn.

    Args:
        dataset: Its values lie in the file itself.
        shape: What is to be read of it: its own, or of one slice.
        path: The file, for messages.
        limits: Of the source.

    Returns:
        How it is stored where that is in chunks.

    Raises:
        LimitError: More voxels or bytes than the limits allow.
        UnreadableFileError: It claims what the file cannot hold, or a filter that is not known.
    """
    where = f"{path}: {dataset.name}"
    claim = "x".join(map(str, shape))
    limits.check("voxels", math.prod(shape), where, f"{claim} voxels")
    size = math.prod(shape) * dataset.dtype.itemsize
    limits.check("unpacked_bytes", size, where, f"{claim} voxels of {dataset.dtype.itemsize} bytes each")
    found = _KNOWN_STORAGE.storage(dataset, path, limits)
    stored = _stored_bytes(dataset)
    if size > MOST_TIMES * stored + SPARE_BYTES:
        raise UnreadableFileError(
            f"{where} claims {size / 1e6:.0f} MB of voxels, and the file holds {stored} bytes of them",
            "It is truncated or was never filled: copy or export it again.",
        )
    return found


def _stored_bytes(dataset: h5py.Dataset) -> int:
    # Of contiguous storage the library repeats the claim; nothing is there that is not in the file.
    return min(int(dataset.id.get_storage_size()), Path(dataset.file.filename).stat().st_size)


class _Known:
    """Storage that was found sound, so that one slice after another of a stack does not look at all chunks again."""

    def __init__(self, most: int = 64) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, ...], Storage | None] = OrderedDict()
        self._most = most

    def storage(self, dataset: h5py.Dataset, path: Path, limits: Limits) -> Storage | None:
        state = Path(dataset.file.filename).stat()
        key = (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size, dataset.name, limits)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = _storage(dataset, path, limits, state.st_size)
        with self._lock:
            self._known[key] = found
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return found


_KNOWN_STORAGE = _Known()


def _storage(dataset: h5py.Dataset, path: Path, limits: Limits, file_bytes: int) -> Storage | None:
    """None for what is not in chunks.

    Raises:
        LimitError: Chunks larger than allowed.
        UnreadableFileError: Chunks or filters that cannot be what they claim.
    """
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5d.CHUNKED:
        return None
    where = f"{path}: {dataset.name}"
    chunk = tuple(map(int, properties.get_chunk()))
    items = math.prod(chunk)
    plain = items * dataset.dtype.itemsize
    limits.check("unpacked_bytes", plain, where, f"chunks of {plain} bytes")
    if plain > max(SPARE_BYTES, 4 * dataset.size * dataset.dtype.itemsize):
        raise UnreadableFileError(
            f"{where} lies in chunks of {plain / 1e6:.0f} MB, of which it fills little",
            "Write it again with smaller chunks (h5repack).",
        )
    every = (properties.get_filter(number) for number in range(properties.get_nfilters()))
    filters = tuple((number, tuple(values)) for number, _, values, _ in every)
    _check_filters(filters, items, dataset.dtype, where)
    with Headers(path, dataset.file) as headers:
        if headers.claimed_chunks(h5o.get_info(dataset.id).addr) > max(_FEW_CHUNKS, file_bytes // 8):
            raise broken_chunk(where)
    chunks: dict[int, list[StoredChunk]] = {}
    for one in _chunks(dataset, chunk, filters, file_bytes, where):
        chunks.setdefault(one.place[0], []).append(one)
    is_same = dataset.id.get_type().equal(h5t.py_create(dataset.dtype, logical=True))
    return Storage(chunk, filters, chunks, bool(is_same and dataset.dtype.kind != "b"))


def _check_filters(filters: Sequence[Filter], items: int, dtype: np.dtype[Any], where: str) -> None:
    for number, values in filters:
        if number not in _NAMES:
            raise UnreadableFileError(f"{where} is packed by filter {number}, which is not known", _REPACK)
        # Parameters that lie lead the filter beyond its memory.
        is_sound = {
            h5z.FILTER_SHUFFLE: not values or values[0] == dtype.itemsize,
            h5z.FILTER_SCALEOFFSET: len(values) == 20 and values[2] == items and values[4] == dtype.itemsize,
            h5z.FILTER_LZF: len(values) < 3 or values[2] <= max(4 * items * dtype.itemsize, SPARE_BYTES),
            h5z.FILTER_SZIP: _is_sound_szip(values, dtype),
        }
        if not is_sound.get(number, True):
            raise UnreadableFileError(f"{where}: its filter {_NAMES[number]} has parameters of other data", _REPACK)
    if len({number for number, _ in filters}) < len(filters) or sum(n in PACKERS for n, _ in filters) > 1:
        names = ", ".join(_NAMES[number] for number, _ in filters)
        raise UnreadableFileError(f"{where} is packed twice ({names})", _REPACK)


def _is_sound_szip(values: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Mask, pixels of a block, bits of a pixel, pixels of a line, in the ranges that the standard gives them."""
    if len(values) != 4:
        return False
    _, block, bits, line = values
    return 2 <= block <= 32 and block % 2 == 0 and 0 < bits <= 8 * dtype.itemsize and 0 < line <= 4096


def _chunks(
    dataset: h5py.Dataset, chunk: tuple[int, ...], filters: Sequence[Filter], file_bytes: int, where: str
) -> list[StoredChunk]:
    """The chunks of a dataset, each at a place of its own and of a size that may become a whole one."""
    plain = math.prod(chunk) * dataset.dtype.itemsize
    found: dict[tuple[int, ...], StoredChunk] = {}
    wrong: list[bool] = []

    def look(one: h5d.StoreInfo) -> bool | None:
        used = [number for bit, (number, _) in enumerate(filters) if not one.filter_mask >> bit & 1]
        spare = FLETCHER_BYTES if h5z.FILTER_FLETCHER32 in used else 0
        # What packing would make larger is stored plain, or a little larger; so may chunks at an edge be.
        is_packed = any(number in PACKERS for number in used)
        most = plain + plain // 8 + 1024
        fits = spare < one.size <= most if is_packed else one.size in (plain, plain + spare)
        place = tuple(map(int, one.chunk_offset))
        # A dataset that was made smaller may still have chunks beyond its ends.
        inside = all(at < end for at, end in zip(place, dataset.shape, strict=True))
        on_grid = not any(at % n for at, n in zip(place, chunk, strict=True))
        in_file = one.byte_offset is not None and one.byte_offset + one.size <= file_bytes
        if not (fits and on_grid and in_file) or place in found:
            wrong.append(True)
            return True
        if inside:
            found[place] = StoredChunk(place, int(one.byte_offset), int(one.size), int(one.filter_mask))
        return None

    dataset.id.chunk_iter(look)
    if wrong:
        raise broken_chunk(where)
    return list(found.values())


def broken_chunk(where: str) -> UnreadableFileError:
    """The error of a chunk whose bytes do not make a chunk."""
    return UnreadableFileError(
        f"{where}: a chunk lies outside the file or does not unpack to its size",
        "It is truncated or corrupt: copy or export it again.",
    )
