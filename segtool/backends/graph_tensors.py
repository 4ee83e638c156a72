"""One tensor of an ONNX graph: its size, where its numbers lie, and the numbers where they are few.

Source: onnx.proto3, messages TensorProto, SparseTensorProto and AttributeProto.
"""

import math
import struct
from dataclasses import dataclass

from segtool.protobuf import MalformedError, Reader, Value, entry, signed, text, varint

_FLOAT, _INT64 = 1, 7
_MOST_AXES = 64
_MOST_NUMBERS = 64
"""Of a tensor that may be a shape, a number of passes or the like."""
_BITS = {
    **dict.fromkeys((15,), 128),
    **dict.fromkeys((_INT64, 11, 13, 14), 64),
    **dict.fromkeys((_FLOAT, 6, 12), 32),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((21, 22, 23), 4),
}
"""Of one number, by its type in ONNX."""


@dataclass(frozen=True)
class Tensor:
    """What a tensor claims.

    Args:
        name: Of a weight; empty for an attribute's.
        kind: Type in ONNX.
        count: Numbers, as its shape has it; negative where an axis is.
        held_bytes: That stand for them in the file itself.
        locations: Files that hold them; usually none or one.
        places: ``offset`` and ``length`` in those, as written.
        numbers: Themselves, where they are few and of a kind that shapes have.
    """

    name: str
    kind: int
    count: int
    held_bytes: int
    locations: tuple[str, ...]
    places: tuple[str, str]
    numbers: tuple[float, ...]

    @property
    def needed_bytes(self) -> int:
        """For all numbers; of a type not known here the least that any takes."""
        return -(-self.count * _BITS.get(self.kind, 1) // 8)


def read_tensor(read: Reader, data: memoryview) -> Tensor:
    """The facts of a ``TensorProto``.

    Raises:
        MalformedError: It is none.
    """
    dims: list[int] = []
    kind, name, held = 0, "", 0
    raw: memoryview | None = None
    written: list[float] = []
    outside: list[tuple[str, str]] = []
    for number, value, _, _ in read.fields(data):
        if number == 1:
            dims += _integers(value, _MOST_AXES)
            if len(dims) > _MOST_AXES:
                raise MalformedError(f"a tensor of more than {_MOST_AXES} axes")
        elif number == 2 and isinstance(value, int):
            kind = value & 0xFFFFFFFF
        elif number == 8 and isinstance(value, memoryview):
            name = text(value)
        elif number == 13 and isinstance(value, memoryview):
            key, where = entry(value)
            outside.append((key, text(where)))
        elif number in (4, 5, 6, 7, 9, 10, 11):
            held += 1 + (len(value) if isinstance(value, memoryview) else 0)
            raw = value if number == 9 and isinstance(value, memoryview) else raw
            if number == 7 and held <= 10 * _MOST_NUMBERS:
                written += _integers(value, _MOST_NUMBERS)
    count = math.prod(dims)
    if any(extent < 0 for extent in dims):
        count = -abs(count) or -1
    numbers = () if count > _MOST_NUMBERS else tuple(_unpacked(kind, raw) or written)
    given = {key: value for key, value in outside if key in ("offset", "length")}
    locations = tuple(value for key, value in outside if key == "location")
    return Tensor(name, kind, count, held, locations, (given.get("offset", ""), given.get("length", "")), numbers)


def read_sparse_dims(read: Reader, data: memoryview) -> int:
    """Numbers of a ``SparseTensorProto`` once it is dense, as engines make it."""
    dims: list[int] = []
    for number, value, _, _ in read.fields(data):
        if number == 3:
            dims += _integers(value, _MOST_AXES)
    return math.prod(dims[: _MOST_AXES + 1])


def read_attribute_numbers(read: Reader, data: memoryview) -> tuple[float, ...]:
    """The integers of an ``AttributeProto``, where they are few."""
    found: list[int] = []
    for number, value, _, _ in read.fields(data):
        if number in (3, 8) and len(found) <= _MOST_NUMBERS:
            found += _integers(value, _MOST_NUMBERS, strict=False)
    return tuple(found[:_MOST_NUMBERS])


def _integers(value: Value, most: int, strict: bool = True) -> list[int]:
    """One number or a packed list of them."""
    if isinstance(value, int):
        return [signed(value)]
    at = 0
    found: list[int] = []
    while at < len(value):
        if len(found) == most:
            if strict:
                raise MalformedError(f"a list of more than {most} numbers where a shape is due")
            break
        number, at = varint(value, at)
        found.append(signed(number))
    return found


def _unpacked(kind: int, raw: memoryview | None) -> tuple[float, ...]:
    """Numbers from ``raw_data``."""
    letter = {_FLOAT: "f", _INT64: "q"}.get(kind)
    if raw is None or letter is None or len(raw) > _MOST_NUMBERS * 8:
        return ()
    size = struct.calcsize(letter)
    return struct.unpack(f"<{len(raw) // size}{letter}", raw[: len(raw) // size * size])
