"""Walks over the elements of a DICOM file as far as its pixels and interprets none. Source: PS3.5, chapter 7.

Files that scanners and archives write are plain: a preamble, tags that ascend, types of two letters. For them this
walk takes a tenth of what a full parser takes. Whatever else occurs is odd, and left to pydicom.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from segtool.formats.dicom.walk import LONG, OddError, Places, ShortError, Walk, Wanted, Way

__all__ = ["Elements", "OddError", "ShortError", "Wanted", "Way", "find", "find_in_file", "values_in_file"]

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

_META = {0x0002_0010: ("TransferSyntaxUID", b"UI")}
_AFTER_META, _DATASET = 0x0003_0000, 0x0004_0000
_FIRST_PIXELS = 0x7FE0_0008

_HEADS = (2**14, 2**18, 2**22)
"""Bytes of a file in which its pixels are looked for, until they are found. Most headers fit into the first."""


class Elements(NamedTuple):
    """What precedes the pixels.

    Attributes:
        values: By keyword, as they lie in the file; of the wanted tags those that occur.
        syntax: UID of the transfer syntax.
        endian: ``<`` or ``>``.
        start: Offset of the pixels in the file.
        length: Of the pixels in bytes, or :data:`~segtool.formats.dicom.walk.UNDEFINED`.
    """

    values: Mapping[str, bytes]
    syntax: str
    endian: str
    start: int
    length: int


Read = Callable[[int], bytes]
"""Some bytes more of a file, as many as asked for or all that there are."""
T = TypeVar("T")


def find(content: bytes, wanted: Wanted) -> Elements:
    """The wanted elements of a file, or of its beginning as far as the pixels.

    Raises:
        ShortError: ``content`` ends before the pixels begin.
        OddError: Not plain.
    """
    return walk_to_pixels(content, wanted)[0]


def walk_to_pixels(content: bytes, wanted: Wanted) -> tuple[Elements, Way]:
    """As :func:`find`, and the way there."""
    if content[128:132] != b"DICM":
        raise OddError
    way = Way()
    try:
        syntax, place = _syntax(content, 132, way)
        walk = Walk(content, ">" if syntax == BIG_ENDIAN else "<", way, is_implicit=syntax == IMPLICIT)
        place = walk.until(_FIRST_PIXELS, place, wanted, way.values, after=_DATASET - 1)
        start, length = walk.pixels(place)
    except struct.error as error:
        raise ShortError from error
    except RecursionError as error:
        raise OddError from error
    return Elements(_between(content, way.values), syntax, walk.endian, start, length), way


def walk_to_tag(content: bytes, wanted: Wanted, end: int) -> tuple[Elements, Way]:
    """The wanted elements that precede the tag ``end``, which begins at ``start``, and the way there.

    A file may lack the preamble, and the meta header too.

    Raises:
        ShortError: ``content`` ends before ``end``.
        OddError: Not plain as far as ``end``.
    """
    place, way = 132, Way()
    if content[128:132] != b"DICM":
        if not begins_like_dicom(content[:132]):
            raise OddError
        place = 0
    syntax = EXPLICIT if content[4:6].isalpha() else IMPLICIT
    try:
        if place or content[0] == 2:
            syntax, place = _syntax(content, place, way)
        walk = Walk(content, ">" if syntax == BIG_ENDIAN else "<", way, is_implicit=syntax == IMPLICIT)
        place = walk.until(end, place, wanted, way.values, after=_DATASET - 1)
    except struct.error as error:
        raise ShortError from error
    except RecursionError as error:
        raise OddError from error
    return Elements(_between(content, way.values), syntax, walk.endian, place, 0), way


def deflated_from(content: bytes) -> int | None:
    """Where the packed part of a deflated file begins; None for all others.

    What is packed may begin with any bytes, so that only those of the meta header are looked at.

    Args:
        content: Of the file, or its beginning with all of the meta header.
    """
    place, syntax = 132 if content[128:132] == b"DICM" else 0, b""
    while content.startswith(b"\2\0", place) and place + 12 <= len(content):
        kind = content[place + 4 : place + 6]
        start, size, code = place + 8, place + 6, "<H"
        if kind in LONG:
            start, size, code = place + 12, place + 8, "<I"
        elif not b"AA" <= kind <= b"ZZ":
            size, code = place + 4, "<I"
        end = start + struct.unpack_from(code, content, size)[0]
        if content[place + 2 : place + 4] == b"\x10\0":
            syntax = content[start:end]
        place = end
    return place if syntax.strip(b"\0 ") == DEFLATED.encode() else None


def syntax_of(content: bytes) -> str:
    """UID of the transfer syntax of a file with a preamble; empty where its meta header names none."""
    way = Way()
    try:
        Walk(content, "<", way, is_implicit=False).until(_AFTER_META, 132, _META, way.syntax, after=0x0001_FFFF)
    except (struct.error, OddError, RecursionError):
        return ""
    return _uid(content, way)


def _uid(content: bytes, way: Way) -> str:
    return b"".join(_between(content, way.syntax).values()).rstrip(b"\0 ").decode("ascii", "replace")


def _syntax(content: bytes, place: int, way: Way) -> tuple[str, int]:
    """The transfer syntax, and where the meta header that begins at ``place`` ends."""
    place = Walk(content, "<", way, is_implicit=False).until(_AFTER_META, place, _META, way.syntax, after=0x0001_FFFF)
    syntax = _uid(content, way)
    if syntax in ("", DEFLATED):
        raise OddError
    return syntax, place


def _between(content: bytes, places: Places) -> dict[str, bytes]:
    return {keyword: content[start:end] for keyword, (start, end) in places.items()}


def find_in_file(path: Path, wanted: Wanted) -> Elements:
    """As :func:`find`; reads little more than the header.

    Many files are read faster by :class:`~segtool.formats.dicom.alike.AlikeHeaders`.

    Raises:
        OddError: Not plain.
        OSError: The file cannot be read.
    """
    return of_file(path, lambda read: beginning(read, lambda content: find(content, wanted)))


def values_in_file(path: Path, wanted: Wanted, end: int) -> tuple[Mapping[str, bytes], str]:
    """The wanted elements that precede the tag ``end``, and their byte order; nothing behind it is looked at.

    A file may lack the preamble, and the meta header too.

    Raises:
        OddError: Not plain as far as ``end``.
        OSError: The file cannot be read.
    """
    found = of_file(path, lambda read: beginning(read, lambda content: walk_to_tag(content, wanted, end)[0]))
    return found.values, found.endian


def of_file(path: Path, act: Callable[[Read], T]) -> T:
    """What ``act`` makes of the bytes of a file.

    Raises:
        OSError: The file cannot be read.
    """
    # Path.open takes half as long again, much where all that is read is a header.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return act(lambda size: os.read(file, size))
    finally:
        os.close(file)


def beginning(read: Read, walk: Callable[[bytes], T], content: bytes = b"") -> T:
    """What ``walk`` makes of as much of a file's beginning as it needs.

    Args:
        read: The next bytes of the file, which follow ``content``.
        walk: Raises :class:`ShortError` where it needs more.
        content: What was read before.

    Raises:
        OddError: Not plain.
        OSError: The file cannot be read.
    """
    for size in (len(content), *_HEADS) if content else _HEADS:
        if size > len(content):
            content += read(size - len(content))
        try:
            return walk(content)
        except ShortError:
            if len(content) < size:
                raise
    raise OddError


def digest(uid: str) -> str:
    """SHA-256 of a UID, hexadecimal, as which it may show and be compared; empty for none."""
    return hashlib.sha256(uid.encode()).hexdigest() if uid else ""


def looks_like_dicom(path: Path) -> bool:
    """True where the file begins like DICOM.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        return begins_like_dicom(file.read(132))


def begins_like_dicom(head: bytes) -> bool:
    """True for ``DICM`` at byte 128, or an element of group 2 or 8 at once.

    Args:
        head: The first 132 bytes, or all there are.
    """
    if head[128:] == b"DICM":
        return True
    if len(head) < 16 or head[1] or head[0] not in (2, 8):
        return False
    # Explicit: two capital letters name the type. Implicit: a length that fits a text or a number.
    _, element, length = struct.unpack_from("<HHI", head)
    is_type = head[4:6].isalpha() and head[4:6].isupper()
    return element % 2 == 0 and element < 0x2000 and (is_type or length <= 1024)
