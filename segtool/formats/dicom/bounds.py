"""What a DICOM file may claim. Checked before anybody takes memory or time for it."""

import struct
import zlib
from pathlib import Path

from segtool.errors import LimitError
from segtool.formats.dicom.elements import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, deflated_from, syntax_of
from segtool.formats.dicom.walk import LONG, UNDEFINED, is_sequence
from segtool.limits import Limits

HEAD_BYTES = 2**24
"""Of a file in which a header is looked for that is no plain one. Those of slices have some 10 kB."""

_INFLATED_VOXELS, _INFLATED_HEADER = 4, 2**24
"""A deflated file may become a byte for every fourth voxel of the limit, and a header."""

_PIECE = 2**20

_ITEM_WEIGHT = 8
"""A parser takes so much more memory for an item than for an element (0.7 kB, 0.1 to 0.3 kB)."""
_ELEMENTS_PER_LABEL = 128
"""A frame of a segmentation has some 60 elements in 8 items, a contour 8 in 2."""
_BYTES_PER_ITEM = 32
"""An item has an element in it, and is an element's: only damage and malice have millions of empty ones."""

_UNTYPED = _ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_SAME_LENGTH = EXPLICIT.encode() + b"\0\0\0"
"""In place of the UID of the deflated syntax."""


def check_elements(content: bytes, path: Path, limits: Limits) -> None:
    """Refuse a file of millions of elements or items, of which parsers make an object each.

    Raises:
        LimitError: There are more than 128 elements for each label of the limit, where an item counts as 8; or more
            items than labels and one for every 32 bytes.
    """
    most = _ELEMENTS_PER_LABEL * limits.labels
    if len(content) // 8 <= limits.labels:
        return
    weight, items = _weight(content, most)
    if weight > most:
        raise LimitError(
            f"{path}: a header of more than {most} elements, above {_ELEMENTS_PER_LABEL} for each of "
            f"{limits.labels} labels",
            f"If the file is sound, raise the limit: --limit labels={2 * limits.labels}.",
        )
    unearned = items - len(content) // _BYTES_PER_ITEM
    limits.check("labels", unearned, str(path), f"{items} items in {len(content)} bytes")


def _weight(content: bytes, most: int) -> tuple[int, int]:
    """Of the elements and items, nested ones too, and how many items; counting ends above ``most``."""
    place, weight, items, ends = 0, 0, 0, [len(content)]
    is_implicit, endian, is_meta = not content[4:6].isalpha(), "<", False
    if content[128:132] == b"DICM":
        place, is_implicit, is_meta = 132, False, True
    syntax = syntax_of(content) if is_meta else ""
    while weight + items * (_ITEM_WEIGHT - 1) <= most:
        while len(ends) > 1 and place >= ends[-1]:
            place = ends.pop()
        # An empty item has no more than 8 bytes.
        if place + 8 > len(content):
            break
        if is_meta and content[place : place + 2] != b"\2\0":
            # The meta header is explicit and little endian whatever follows.
            is_implicit, endian, is_meta = syntax == IMPLICIT, ">" if syntax == BIG_ENDIAN else "<", False
        group, element, kind, length = struct.unpack_from(f"{endian}HH2sH", content, place)
        tag, value, weight = group << 16 | element, place + 8, weight + 1
        is_typed = tag not in _UNTYPED and not is_implicit and b"AA" <= kind <= b"ZZ"
        if not is_typed:
            kind = b""
            (length,) = struct.unpack_from(f"{endian}I", content, place + 4)
        elif kind in LONG:
            (length,), value = struct.unpack(f"{endian}I", content[value : value + 4].ljust(4, b"\0")), place + 12
        if tag in (_ITEM_END, _SEQUENCE_END):
            place = value
        elif tag == _ITEM or _holds_items(tag, kind, content[value : value + 4]):
            items += tag == _ITEM
            place = value
            if length != UNDEFINED:
                ends.append(min(value + length, ends[-1]))
        elif length == UNDEFINED:
            end = content.find(struct.pack(f"{endian}HH", 0xFFFE, 0xE0DD), value)
            place = len(content) if end < 0 else end
        else:
            place = value + length
    return weight + items * (_ITEM_WEIGHT - 1), items


def _holds_items(tag: int, kind: bytes, begins: bytes) -> bool:
    if kind in (b"", b"UN"):
        return begins in (b"\xfe\xff\0\xe0", b"\xff\xfe\xe0\0") or is_sequence(tag)
    return kind == b"SQ"


def inflated(content: bytes, path: Path, limits: Limits, most: int | None = None) -> bytes:
    """A deflated file as the plain one it was.

    Args:
        content: Of the file.
        path: The file.
        limits: Of which it may take a part.
        most: Where unpacking may stop, as no more is wanted.

    Raises:
        LimitError: It would become larger than a scan can be.
        zlib.error: It is damaged.
    """
    start = deflated_from(content)
    assert start is not None
    wanted = limits.voxels // _INFLATED_VOXELS + _INFLATED_HEADER
    name, allowed = min((wanted, "voxels"), (limits.unpacked_bytes, "unpacked_bytes"))[::-1]
    packed = memoryview(content)[start:]
    if not most:
        _check_inflation(packed, path, limits, allowed, name)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflate.decompress(packed, most or allowed + 1)
    if not most and len(plain) > allowed:  # the last bytes come once all input is read
        raise _too_large(path, limits, allowed, name)
    if not inflate.eof and len(plain) < (most or allowed):
        raise EOFError
    return content[:start].replace(DEFLATED.encode(), _SAME_LENGTH, 1) + plain


def _check_inflation(packed: memoryview, path: Path, limits: Limits, allowed: int, name: str) -> None:
    """Unpack and throw away, which takes time and no memory."""
    inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    rest: bytes | memoryview = packed
    while rest and not inflate.eof:
        size += len(inflate.decompress(rest[:_PIECE], _PIECE))
        rest = rest[_PIECE:] if not inflate.unconsumed_tail else _again(inflate.unconsumed_tail, rest)
        if size > allowed:
            raise _too_large(path, limits, allowed, name)


def _too_large(path: Path, limits: Limits, allowed: int, name: str) -> LimitError:
    return LimitError(
        f"{path}: unpacks to more than {allowed // 10**6} MB, which {getattr(limits, name)} {name} allow",
        f"If the file is sound, raise the limit: --limit {name}={2 * getattr(limits, name)}.",
    )


def _again(tail: bytes, rest: bytes | memoryview) -> bytes | memoryview:
    """What is left, of which ``tail`` is the end of the piece that was given last."""
    return rest[min(_PIECE, len(rest)) - len(tail) :]
