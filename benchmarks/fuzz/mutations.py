"""Changes of a file: numbers in headers, order of chunks, bytes anywhere."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fuzz.choices import Choices

FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), float("-inf"), 1e-9, 1e9, 1e-45, 3e38, -3e38, 1e-300, 1e300,
)  # fmt: skip
"""Numbers that headers should not hold."""
_BLOCK = 64


@dataclass(frozen=True)
class Field:
    """A number in a file.

    Args:
        offset: Of its first byte; negative ones count from the end.
        code: Of :mod:`struct`, with the byte order, such as ``"<h"``.
    """

    offset: int
    code: str


def odd_number(choices: Choices, code: str, old: float = 0) -> float:
    """A number that a field of a :mod:`struct` code can hold and that few writers would put there."""
    if code[-1] in "efd":
        return choices.one((*FLOATS, old * 2, old / 2, -old, float(choices.whole(-1000, 1000))))
    bits = 8 * struct.calcsize(code)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if code[-1].islower() else (0, 2**bits - 1)
    old = int(old)
    power = 2 ** choices.whole(0, bits - 1)
    kinds = (0, 1, 2, low, high, high - 1, high // 2, -1, old - 1, old + 1, old * 2, old // 2, -old, power, power - 1)
    value = choices.one((*kinds, None))
    value = choices.whole(low, high) if value is None else value
    return value if low <= value <= high else value % (high + 1)


def set_field(data: bytes, field: Field, choices: Choices) -> bytes | None:
    """``data`` with another number in a field; None where it is too short to have it."""
    start = field.offset if field.offset >= 0 else len(data) + field.offset
    stop = start + struct.calcsize(field.code)
    if start < 0 or stop > len(data):
        return None
    (old,) = struct.unpack_from(field.code, data, start)
    new = odd_number(choices, field.code, 0 if math.isnan(old) else old)
    return data[:start] + _packed(field.code, new) + data[stop:]


def _packed(code: str, value: float) -> bytes:
    try:
        return struct.pack(code, value)
    except OverflowError:  # too large for a float of this size
        return struct.pack(code, float("inf"))


def shuffle(parts: Sequence[bytes], choices: Choices) -> list[bytes]:
    """Parts of a file with one of them dropped, doubled, swapped with another, cut short, changed or filled up."""
    changed = list(parts)
    if not changed:
        return changed
    place = choices.whole(0, len(changed) - 1)
    other = choices.whole(0, len(changed) - 1)
    match choices.whole(0, 6):
        case 0:
            del changed[place]
        case 1:
            changed.insert(other, changed[place])
        case 2:
            changed[place], changed[other] = changed[other], changed[place]
        case 3:
            changed[place] = changed[place][: choices.whole(0, len(changed[place]))]
        case 4:
            changed[place] = havoc(changed[place], choices)
        case 5:
            changed[place] += choices.content(_BLOCK)
        case _:
            changed[place:place] = [changed[place]] * choices.one((2, 10, 100, 1000))
    return changed


def havoc(data: bytes, choices: Choices) -> bytes:
    """``data`` with a change that knows nothing of its structure."""
    if not data:
        return choices.content(_BLOCK)
    place = choices.whole(0, len(data) - 1)
    stop = min(len(data), place + choices.one((1, 2, 4, 8, 16, 64, 256)))
    match choices.whole(0, 8):
        case 0:
            return data[:place] + bytes([data[place] ^ (1 << choices.whole(0, 7))]) + data[place + 1 :]
        case 1:
            return data[:place] + bytes([choices.whole(0, 255)]) + data[place + 1 :]
        case 2:
            return data[:place]
        case 3:
            return data[:place] + data[stop:]
        case 4:
            return data[:place] + choices.content(_BLOCK) + data[place:]
        case 5:
            return data[:place] + data[place:stop] * choices.one((2, 3, 50)) + data[stop:]
        case 6:
            code = choices.one(("<h", "<i", "<q", ">h", ">i", ">q", "<I", ">I", "<f", "<d"))
            return set_field(data, Field(place, code), choices) or data[:place]
        case 7:
            other = choices.whole(0, len(data) - 1)
            return data[:other] + data[place:stop] + data[other:]
        case _:
            return data[:place] + bytes(stop - place) + data[stop:]
