"""Protocol buffers, as far as an ONNX file needs them to be read without the onnx package.

A message is a sequence of fields: a tag, which is the field's number and how it is written, and a value. Values are
views of the file, so that weights are stepped over and a large file is read in milliseconds.

A file may be anybody's: whatever engines would read otherwise than this module does is refused, since what is not
seen here is not checked; and so is what takes more time or memory than a model's own description needs.

Source: the protocol buffer wire format, https://protobuf.dev/programming-guides/encoding/.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LARGEST_TAG = 2**32 - 1
"""Readers in C++ keep 32 bits of a tag: a longer one would be another field to them than it is here."""
LARGEST_FILE = 2**31
"""Bytes: no protocol buffer is larger."""
LARGEST_TEXT = 2**16
"""Bytes of a name."""
LARGEST_ENTRIES = 16 * 2**20
"""Bytes of all metadata of a file together."""
MOST_FIELDS = 1_000_000
"""That are looked at in one file, which takes a second or two; a network of 15 MB has 5,000, weights stepped over."""

Value = int | memoryview


class MalformedError(ValueError):
    """The bytes are not a protocol buffer, or none that a model needs; the text says what they are instead."""

    def __init__(self, what: str = "truncated or not an ONNX file") -> None:
        super().__init__(what)


class Field(NamedTuple):
    """A field of a message: its number, its value, and where it begins and ends there, tag included."""

    number: int
    value: Value
    start: int
    stop: int


def mapped(path: Path) -> memoryview:
    """The bytes of a file, read as they are looked at.

    It is closed when the last view of it goes, which an error's traceback may hold for a while.

    Raises:
        OSError: It cannot be read.
        MalformedError: It is larger than any protocol buffer.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:  # nothing is there to be mapped
            return memoryview(b"")
        if size > LARGEST_FILE:
            raise MalformedError(f"{size} bytes, where an ONNX file ends at {LARGEST_FILE}")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """One base-128 number and the offset behind it.

    Raises:
        MalformedError: It does not end, or is longer than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise MalformedError
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message, in their order.

    Raises:
        MalformedError: Cut short, or no message.
    """
    at = 0
    while at < len(data):
        start = at
        tag, at = varint(data, at)
        if tag > _LARGEST_TAG:
            raise MalformedError
        wire = tag & 7
        if wire == _VARINT:
            number, at = varint(data, at)
            yield Field(tag >> 3, number, start, at)
            continue
        if wire == _LENGTH:
            length, at = varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise MalformedError
        if at + length > len(data) or not tag >> 3:
            raise MalformedError
        yield Field(tag >> 3, data[at : at + length], start, at + length)
        at += length


class Reader:
    """Reads the messages of one file, and no more of them than a sound file has.

    Args:
        most: Fields that it looks at, of all messages together.
    """

    def __init__(self, most: int = MOST_FIELDS) -> None:
        self._most = self._left = most
        self._entries = 0

    def fields(self, data: memoryview) -> Iterator[Field]:
        """As :func:`fields`.

        Raises:
            MalformedError: Cut short, no message, or more fields than the file may have.
        """
        for field in fields(data):
            self._left -= 1
            if self._left < 0:
                raise MalformedError(f"more than {self._most} fields, which no model needs")
            yield field

    def messages(self, data: Value, *numbers: int) -> Iterator[tuple[int, memoryview]]:
        """The fields of those numbers that hold bytes."""
        if isinstance(data, memoryview):
            for number, value, _, _ in self.fields(data):
                if number in numbers and isinstance(value, memoryview):
                    yield number, value

    def add_entry(self, entries: dict[str, bytes], data: memoryview) -> None:
        """Put a ``StringStringEntryProto`` to the other metadata of its file.

        Raises:
            MalformedError: It is too large, or its key has another value already: readers differ in which they take.
        """
        self._entries += len(data)
        if self._entries > LARGEST_ENTRIES:
            raise MalformedError(f"metadata of more than {LARGEST_ENTRIES} bytes")
        key, content = entry(data)
        value = bytes(content)
        if entries.setdefault(key, value) != value:
            raise MalformedError("metadata that say two things under one key")


def messages(data: Value, *numbers: int) -> Iterator[tuple[int, memoryview]]:
    """As :meth:`Reader.messages`, of a message alone."""
    return Reader().messages(data, *numbers)


def text(data: memoryview) -> str:
    """Bytes as UTF-8.

    Raises:
        MalformedError: They are too many for a name.
    """
    if len(data) > LARGEST_TEXT:
        raise MalformedError(f"a name of {len(data)} bytes")
    return bytes(data).decode(errors="replace")


def signed(value: int) -> int:
    """A number as an ``int64`` field means it."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def entry(data: memoryview) -> tuple[str, memoryview]:
    """Key and value of a ``StringStringEntryProto``."""
    parts = dict(messages(data, 1, 2))
    nothing = memoryview(b"")
    return text(parts.get(1, nothing)), parts.get(2, nothing)


def encode(number: int, payload: bytes) -> bytes:
    """A field that holds bytes."""
    return _encode_varint(number << 3 | _LENGTH) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
