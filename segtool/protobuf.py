"""Protocol buffers, as far as an ONNX file needs them to be read without the onnx package.

A message is a sequence of fields: a tag, which is the field's number and how it is written, and a value. Values are
views of the file, so that weights are stepped over and a large file is read in milliseconds.

Source: the protocol buffer wire format, https://protobuf.dev/programming-guides/encoding/.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Value = int | memoryview


class MalformedError(ValueError):
    """The bytes are not a protocol buffer."""


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
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):  # nothing is there to be mapped
            return memoryview(b"")
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


def messages(data: Value, *numbers: int) -> Iterator[tuple[int, memoryview]]:
    """The fields of those numbers that hold bytes."""
    if isinstance(data, memoryview):
        for number, value, _, _ in fields(data):
            if number in numbers and isinstance(value, memoryview):
                yield number, value


def text(data: memoryview) -> str:
    """Bytes as UTF-8."""
    return bytes(data).decode(errors="replace")


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
