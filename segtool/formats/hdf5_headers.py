"""Looks into the header of an HDF5 object before the library opens it.

Opening a virtual dataset is not safe: libhdf5 2.0 believes the selections in it, whose number of axes alone may write
over its stack, and goes round a broken heap for ever; asked for its shape it opens the files that it names. So where
values lie is read from the header's own messages, and such a dataset is never opened.

Source: HDF5 File Format Specification 3.0, IV.A (object headers) and IV.A.2.i (data layout).
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import h5py

_EXTERNAL_FILES, _LAYOUT, _CONTINUATION = 0x07, 0x08, 0x10
_CHUNKED, _VIRTUAL = 2, 3
_INDEXED = 4
"""The version of the layout message from which it says what kind of index chunks have."""
_PARAMETERS = {3: 1, 4: 5, 5: 6}
"""Bytes between the kind of an index (fixed array, extensible array, B-tree) and its address."""
_DEEPEST_TREE = 8
_CLASS_AT_1 = 3  # the version of the layout message from which the class is its second byte
_SHARED = 0x02
_MOST_BLOCKS = 4096

_Message = tuple[int, int, bytes]
"""Type, flags and content."""


class BrokenHeaderError(ValueError):
    """A header that is not laid out as one."""


class Headers:
    """The headers of the objects of one open file, as a context.

    Args:
        path: The file.
        file: The same, opened by the library.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        properties = file.id.get_create_plist()
        self._base = int(properties.get_userblock())
        self._offset_bytes, self._length_bytes = map(int, properties.get_sizes())
        with path.open("rb") as raw:
            self._data = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> "Headers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    def is_elsewhere(self, address: int) -> bool:
        """True for the header of a dataset whose values lie in other files.

        Args:
            address: Of the header, as hard links have it.

        Raises:
            BrokenHeaderError: There is no header.
        """
        for kind, flags, content in self._messages(address):
            if kind == _EXTERNAL_FILES:
                return True
            if kind == _LAYOUT:
                if flags & _SHARED or len(content) < 3:
                    raise BrokenHeaderError("a layout that is none")
                if content[1 if content[0] >= _CLASS_AT_1 else 2] == _VIRTUAL:
                    return True
        return False

    def claimed_chunks(self, address: int) -> int:
        """How many chunks the index of a dataset makes the library look at, one after another, be they there or not.

        Indices of old files (version 1 B-trees) claim nothing: 0.

        Args:
            address: Of the dataset's header.

        Raises:
            BrokenHeaderError: The index is deeper than any.
        """
        layout = next((content for kind, _, content in self._messages(address) if kind == _LAYOUT), b"")
        if len(layout) < 5 or layout[0] < _INDEXED or layout[1] != _CHUNKED:
            return 0
        place = 5 + layout[3] * layout[4]
        skipped = _PARAMETERS.get(layout[place] if place < len(layout) else 0)
        if skipped is None:
            return 0
        start = int.from_bytes(layout[place + 1 + skipped :][: self._offset_bytes], "little")
        if start >= 2 ** (8 * self._offset_bytes) - 1:
            return 0
        table = self._bytes(self._base + start, 12 + 5 * self._length_bytes)
        if table[:4] == b"BTHD" and struct.unpack_from("<H", table, 12)[0] > _DEEPEST_TREE:
            raise BrokenHeaderError("a tree too deep")
        at = {b"FAHD": 8, b"EAHD": 12 + 4 * self._length_bytes}.get(table[:4])
        return 0 if at is None else int.from_bytes(table[at : at + self._length_bytes], "little")

    def _messages(self, address: int) -> Iterator[_Message]:
        start = self._base + address
        is_new = self._bytes(start, 4) == b"OHDR"
        first, tracks_order = self._new_block(start) if is_new else (self._old_block(start), False)
        pending, met = [first], {first}
        while pending:
            place, end = pending.pop()
            for message in self._block(place, end, is_new, tracks_order):
                if message[0] == _CONTINUATION:
                    block = self._continued(message[2], is_new)
                    if block in met or len(met) == _MOST_BLOCKS:
                        raise BrokenHeaderError("a header without end")
                    met.add(block)
                    pending.append(block)
                yield message

    def _bytes(self, start: int, count: int) -> bytes:
        if start < 0 or start + count > len(self._data):
            raise BrokenHeaderError("a header beyond the end")
        return self._data[start : start + count]

    def _old_block(self, start: int) -> tuple[int, int]:
        version, size = struct.unpack("<BxHII4x", self._bytes(start, 16))[0::3]
        if version != 1:
            raise BrokenHeaderError("no header")
        return start + 16, start + 16 + size

    def _new_block(self, start: int) -> tuple[tuple[int, int], bool]:
        version, flags = self._bytes(start + 4, 2)
        if version != 2:
            raise BrokenHeaderError("a header of another version")
        place = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(self._bytes(place, width), "little")
        return (place + width, place + width + size), bool(flags & 0x04)

    def _continued(self, content: bytes, is_new: bool) -> tuple[int, int]:
        if len(content) < self._offset_bytes + self._length_bytes:
            raise BrokenHeaderError("a continuation that is none")
        start = self._base + int.from_bytes(content[: self._offset_bytes], "little")
        size = int.from_bytes(content[self._offset_bytes :][: self._length_bytes], "little")
        # A signature before, a checksum behind.
        return (start + 4, start + size - 4) if is_new else (start, start + size)

    def _block(self, place: int, end: int, is_new: bool, tracks_order: bool) -> Iterator[_Message]:
        if end > len(self._data):
            raise BrokenHeaderError("a header beyond the end")
        head = (6 if tracks_order else 4) if is_new else 8
        while place + head <= end:
            kind, size, flags = struct.unpack("<BHB" if is_new else "<HHB", self._bytes(place, 4 if is_new else 5))
            place += head
            if place + size > end:
                raise BrokenHeaderError("a message beyond its header")
            yield kind, flags, self._bytes(place, size)
            place += size
