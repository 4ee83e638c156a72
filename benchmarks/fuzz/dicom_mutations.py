"""Changes of a DICOM file that know its elements."""

import struct
from typing import NamedTuple

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import havoc, odd_number

_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_TYPES = (
    b"AE",
    b"AS",
    b"AT",
    b"CS",
    b"DA",
    b"DS",
    b"DT",
    b"FD",
    b"FL",
    b"IS",
    b"LO",
    b"LT",
    b"OB",
    b"OD",
    b"OF",
    b"OL",
    b"OV",
    b"OW",
    b"PN",
    b"SH",
    b"SL",
    b"SQ",
    b"SS",
    b"ST",
    b"SV",
    b"TM",
    b"UC",
    b"UI",
    b"UL",
    b"UN",
    b"UR",
    b"US",
    b"UT",
    b"UV",
    b"ZZ",
    b"\0\0",
    b"us",
)
_TEXTS = (
    b"",
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e300",
    b"-1e308",
    b"1e999",
    b"1e-300",
    b"999999999",
    b"99999999999999999999",
    b"0.1.2",
    b"1\\2",
    b"\\" * 20,
    b"1\\0\\0\\0\\1\\0",
    b"1\\0\\0\\1\\0\\0",
    b"0\\0\\0",
    b"0\\0",
    b"1e-9\\1e9",
    b"CLOSED_PLANAR",
    b"x" * 300,
    b"\0\0",
    b"   ",
    b"../../etc",
    b"\x1b$B0!",
    b"\xff\xfe",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.5.1.4.1.1.66.4",
    b"1.2.840.10008.5.1.4.1.1.4",
    b"SEG",
    b"RTSTRUCT",
    b"FRACTIONAL",
    b"LABELMAP",
    b"BINARY",
    b"RGB",
    b"MONOCHROME1",
    b"ISO 2022 IR 87\\ISO_IR 13",
    b"GB18030",
    b"nonsense",
    b"label value 99999",
    b"label value 7",
)
_TAGS = (
    0x0008_0005,
    0x0008_0016,
    0x0008_0060,
    0x0018_0050,
    0x0018_0088,
    0x0018_9087,
    0x0020_0032,
    0x0020_0037,
    0x0028_0002,
    0x0028_0004,
    0x0028_0006,
    0x0028_0008,
    0x0028_0010,
    0x0028_0011,
    0x0028_0030,
    0x0028_0100,
    0x0028_0101,
    0x0028_0103,
    0x0028_0120,
    0x0028_0121,
    0x0028_1052,
    0x0028_1053,
    0x0028_3000,
    0x0019_0010,
    0x0019_100A,
    0x0043_0010,
    0x0043_1039,
    0x3006_0050,
    0x5200_9229,
    0x5200_9230,
    0x7FE0_0001,
    0x7FE0_0008,
    0x7FE0_0010,
    0xFFFC_FFFC,
    0xFFFE_E000,
    0xFFFE_E00D,
    0xFFFE_E0DD,
    0,
)
_EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
_UNDEFINED = 0xFFFF_FFFF


class Element(NamedTuple):
    """Where an element lies, or the head of an item."""

    start: int
    value: int
    end: int
    kind: bytes
    tag: int


def elements_of(data: bytes) -> list[Element]:
    """The elements of a file as far as they can be told, nested ones and the fragments of pixels too."""
    place, implicit, endian = (132, False, "<") if data[128:132] == b"DICM" else (0, not data[4:6].isalpha(), "<")
    found: list[Element] = []
    syntax = ""
    while place + 8 <= len(data):
        group, number, kind, short = struct.unpack_from(f"{endian}HH2sH", data, place)
        if syntax and data[place : place + 2] != b"\2\0":
            implicit = syntax == "1.2.840.10008.1.2"
            endian = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
            syntax = ""
            continue
        tag, value = group << 16 | number, place + 8
        if implicit or tag >> 16 == 0xFFFE:
            kind, (length,) = b"", struct.unpack_from(f"{endian}I", data, place + 4)
        elif kind in _LONG and place + 12 <= len(data):
            (length,), value = struct.unpack_from(f"{endian}I", data, place + 8), place + 12
        else:
            length = short
        is_open = kind == b"SQ" or tag == 0xFFFE_E000 or length == _UNDEFINED
        is_fragment = tag == 0xFFFE_E000 and any(one.tag == 0x7FE0_0010 for one in found[-40:])
        end = value if length == _UNDEFINED else min(value + length, len(data))
        found.append(Element(place, value, end, kind, tag))
        if tag == 0x0002_0010:
            syntax = data[value:end].rstrip(b"\0 ").decode("ascii", "replace")
        place = value if is_open and not is_fragment else end
    return found


def changed(data: bytes, choices: Choices) -> bytes | None:
    """``data`` with one element changed; None where none is found."""
    found = elements_of(data)
    if not found:
        return None
    one, other = choices.one(found), choices.one(found)
    if choices.whole(0, 1):
        return _inside(data, one, other, choices)
    whole, before, after = data[one.start : one.end], data[: one.start], data[one.end :]
    match choices.whole(0, 5):
        case 0:
            return before + after
        case 1:
            return data[: other.start] + whole + data[other.start :]
        case 2:
            return before + whole * choices.one((2, 10, 100)) + after
        case 3:
            opening = struct.pack("<HH2sHIHHI", 0x0040, 0xA730, b"SQ", 0, _UNDEFINED, 0xFFFE, 0xE000, _UNDEFINED)
            return before + opening * choices.one((1, 10, 200)) + data[one.start :]
        case 4:
            items = _EMPTY_ITEM * choices.one((1, 10, 200))
            tag = choices.one((0x5200_9230, 0x3006_0039, 0x0062_0002, one.tag))
            head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(items))
            return before + head + items + data[one.start :]
        case _:
            return before + data[other.start : other.end] + after


def _inside(data: bytes, one: Element, other: Element, choices: Choices) -> bytes | None:
    """``data`` with another tag, type, length or value of an element."""
    match choices.whole(0, 7):
        case 0:
            tag = choices.one((*_TAGS, other.tag, one.tag + 1, one.tag ^ 1))
            return data[: one.start] + struct.pack("<HH", tag >> 16 & 0xFFFF, tag & 0xFFFF) + data[one.start + 4 :]
        case 1:
            return data[: one.start + 4] + choices.one(_TYPES) + data[one.start + 6 :]
        case 2:
            return _with_length(data, one, choices)
        case 3:
            return data[: one.value] + havoc(data[one.value : one.end], choices) + data[one.end :]
        case 4:
            return _with_number(data, one, choices)
        case _:
            return _with_value(data, one, choices.one(_TEXTS))


def _with_length(data: bytes, one: Element, choices: Choices) -> bytes:
    """Another length in the head."""
    is_long = one.value - one.start == 12 or not one.kind
    start, code = (one.value - 4, "<I") if is_long else (one.value - 2, "<H")
    new = int(odd_number(choices, code, one.end - one.value))
    new = choices.one((new, _UNDEFINED)) if is_long else new
    return data[:start] + struct.pack(code, new) + data[one.value :]


def _with_value(data: bytes, one: Element, value: bytes) -> bytes:
    """Another value with the length that fits."""
    value += b" " * (len(value) % 2)
    is_long = one.value - one.start == 12 or not one.kind
    start, code = (one.value - 4, "<I") if is_long else (one.value - 2, "<H")
    return data[:start] + struct.pack(code, len(value)) + value + data[one.end :]


def _with_number(data: bytes, one: Element, choices: Choices) -> bytes | None:
    """Another number in a value of fixed size."""
    codes = {b"US": "<H", b"SS": "<h", b"UL": "<I", b"SL": "<i", b"FL": "<f", b"FD": "<d", b"AT": "<I"}
    code = codes.get(one.kind, "<H")
    if one.end - one.value < struct.calcsize(code):
        return None
    old = struct.unpack_from(code, data, one.value)[0]
    packed = (
        struct.pack(code, odd_number(choices, code, old))
        if code not in ("<f", "<d")
        else struct.pack(code, choices.one((0.0, float("nan"), float("inf"), -1.0, 1e38)))
    )
    return data[: one.value] + packed + data[one.value + len(packed) :]
