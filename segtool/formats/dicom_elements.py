"""Walks over the elements of a DICOM file as far as its pixels and interprets none. Source: PS3.5, chapter 7.

Files that scanners and archives write are plain: a preamble, tags that ascend, types of two letters. For them this
walk takes a tenth of what a full parser takes. Whatever else occurs is odd, and left to pydicom.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

UNDEFINED = 0xFFFFFFFF
"""Length of a value that ends with a delimiter; of pixels where they are compressed."""

_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Types whose length has two bytes, and four."""

_SYNTAX = 0x0002_0010
_AFTER_META, _DATASET = 0x0003_0000, 0x0004_0000
_FIRST_PIXELS, _PIXELS = 0x7FE0_0008, 0x7FE0_0010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD

_HEADS = (2**14, 2**18, 2**22)
"""Bytes of a file in which its pixels are looked for, until they are found. Most headers fit into the first."""


class OddError(Exception):
    """Not a plain file, or none at all: pydicom reads it or says what is wrong."""


class ShortError(OddError):
    """The bytes at hand end before the pixels begin."""


@dataclass(frozen=True)
class Elements:
    """What precedes the pixels.

    Args:
        values: By keyword, as they lie in the file; of the wanted tags those that occur.
        syntax: UID of the transfer syntax.
        endian: ``<`` or ``>``.
        start: Offset of the pixels in the file.
        length: Of the pixels in bytes, or :data:`UNDEFINED`.
    """

    values: Mapping[str, bytes]
    syntax: str
    endian: str
    start: int
    length: int


Wanted = Mapping[int, tuple[str, bytes]]
"""Tag to keyword and type, or both of the types that it may have."""


def find(content: bytes, wanted: Wanted) -> Elements:
    """The wanted elements of a file, or of its beginning as far as the pixels.

    Raises:
        ShortError: ``content`` ends before the pixels begin.
        OddError: Not plain.
    """
    if content[128:132] != b"DICM":
        raise OddError
    try:
        meta, place = _Walk(content, "<", is_implicit=False).until(
            _AFTER_META, 132, {_SYNTAX: ("TransferSyntaxUID", b"UI")}, after=0x0001_FFFF
        )
        syntax = meta.get("TransferSyntaxUID", b"").rstrip(b"\0 ").decode("ascii", "replace")
        if syntax in ("", DEFLATED):
            raise OddError
        walk = _Walk(content, ">" if syntax == BIG_ENDIAN else "<", is_implicit=syntax == IMPLICIT)
        values, place = walk.until(_FIRST_PIXELS, place, wanted, after=_DATASET - 1)
        start, length = walk.pixels(place)
    except struct.error as error:
        raise ShortError from error
    except RecursionError as error:
        raise OddError from error
    return Elements(values, syntax, walk.endian, start, length)


def find_in_file(path: Path, wanted: Wanted) -> Elements:
    """As :func:`find`; reads little more than the header.

    Raises:
        OddError: Not plain.
        OSError: The file cannot be read.
    """
    content = b""
    with path.open("rb", buffering=0) as file:
        for size in _HEADS:
            content += file.read(size - len(content))
            try:
                return find(content, wanted)
            except ShortError:
                if len(content) < size:
                    raise
    raise OddError


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


_UNPACK = {
    endian: tuple(struct.Struct(endian + fields).unpack_from for fields in ("HH2sH", "HHI", "I")) for endian in "<>"
}
"""How an element begins with a type and without one, and a length of four bytes."""


class _Walk:
    """Steps over elements in one encoding. Beyond the end of ``content`` it raises ``struct.error``."""

    def __init__(self, content: bytes, endian: str, *, is_implicit: bool) -> None:
        self.endian = endian
        self._content, self._is_implicit = content, is_implicit
        self._typed, self._untyped, self._long = _UNPACK[endian]

    def until(self, end: int, place: int, wanted: Wanted, after: int = -1) -> tuple[dict[str, bytes], int]:
        """The wanted values between the tags ``after`` and ``end``, and the place where ``end`` or more begins.

        Tags must ascend, so that none comes twice and none after the pixels.
        """
        content, typed = self._content, self._typed
        values: dict[str, bytes] = {}
        if self._is_implicit and content[place + 4 : place + 6].isupper():
            # Two capitals where a length should be: the syntax says implicit, the elements are explicit.
            raise OddError
        while True:
            # Not in a function of its own: this is what reading a header takes.
            if self._is_implicit:
                group, element, length = self._untyped(content, place)
                kind = b""
            else:
                group, element, kind, length = typed(content, place)
            value, tag = place + 8, group << 16 | element
            if tag >= end:
                return values, place
            if tag <= after:
                raise OddError
            after = tag
            if kind not in _SHORT:
                length, value = self._long_length(kind, length, place)
                if length == UNDEFINED:
                    place = self._after_sequence(tag, kind, value, wanted)
                    continue
            place = value + length
            if tag in wanted:
                keyword, usual = wanted[tag]
                if kind not in usual:
                    raise OddError
                values[keyword] = content[value:place]

    def pixels(self, place: int) -> tuple[int, int]:
        """Start and length of the pixels, whose element lies at ``place``."""
        tag, length, value = self._delimiter(place)
        kind = b"" if self._is_implicit else self._content[place + 4 : place + 6]
        if tag != _PIXELS or kind not in (b"OW", b"OB", b""):
            raise OddError
        length, value = self._long_length(kind, length, place)
        return value, length

    def _long_length(self, kind: bytes, length: int, place: int) -> tuple[int, int]:
        """Length and start of a value without a type, or with a type of the long ones."""
        if not kind:
            return length, place + 8
        if kind not in _LONG:
            raise OddError
        return self._long(self._content, place + 8)[0], place + 12

    def _delimiter(self, place: int) -> tuple[int, int, int]:
        """Tag, length and end of what has no type, as delimiters in every encoding."""
        group, element, length = self._untyped(self._content, place)
        return group << 16 | element, length, place + 8

    def _after_sequence(self, tag: int, kind: bytes, place: int, wanted: Wanted) -> int:
        """The place after a value of undefined length, which must be a sequence that nobody wants."""
        if tag in wanted or not (_is_sequence(tag) if self._is_implicit else kind == b"SQ"):
            raise OddError
        while True:
            tag, length, place = self._delimiter(place)
            if tag == _SEQUENCE_END:
                return place
            if tag != _ITEM:
                raise OddError
            place = self._after_item(place) if length == UNDEFINED else place + length

    def _after_item(self, place: int) -> int:
        _, place = self.until(_ITEM_END, place, {})
        tag, length, place = self._delimiter(place)
        if tag != _ITEM_END or length:
            raise OddError
        return place


def _is_sequence(tag: int) -> bool:
    """What only a dictionary tells where elements carry no type."""
    # Most files do without.
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
