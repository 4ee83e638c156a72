"""Steps over the elements of a DICOM file in one encoding and interprets none. Source: PS3.5, chapter 7."""

import struct
from collections.abc import Mapping

UNDEFINED = 0xFFFFFFFF
"""Length of a value that ends with a delimiter; of pixels where they are compressed."""

_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Types whose length has two bytes, and four."""

_PIXELS = 0x7FE0_0010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD

Wanted = Mapping[int, tuple[str, bytes]]
"""Tag to keyword and type, or both of the types that it may have."""
Places = dict[str, tuple[int, int]]


class OddError(Exception):
    """Not a plain file, or none at all: pydicom reads it or says what is wrong."""


class ShortError(OddError):
    """The bytes at hand end before the pixels begin."""


class Way:
    """Where a walk has looked: on these bytes, and on the transfer syntax, depends where it went.

    Attributes:
        eights: Places of 8 bytes: the heads of elements.
        fours: Places of 4 bytes: the rest of longer heads.
        syntax: Start and end of the transfer syntax, by its keyword.
        values: Start and end of the wanted values, by keyword.
    """

    __slots__ = ("eights", "fours", "syntax", "values")

    def __init__(self) -> None:
        self.eights: list[int] = []
        self.fours: list[int] = [128]
        self.syntax: Places = {}
        self.values: Places = {}


_UNPACK = {
    endian: tuple(struct.Struct(endian + fields).unpack_from for fields in ("HH2sH", "HHI", "I")) for endian in "<>"
}
"""How an element begins with a type and without one, and a length of four bytes."""


class Walk:
    """Steps over elements in one encoding. Beyond the end of ``content`` it raises ``struct.error``."""

    def __init__(self, content: bytes, endian: str, way: Way, *, is_implicit: bool) -> None:
        self.endian, self._way = endian, way
        self._content, self._is_implicit = content, is_implicit
        self._typed, self._untyped, self._long = _UNPACK[endian]

    def until(self, end: int, place: int, wanted: Wanted, found: Places, after: int = -1) -> int:
        """The place where the tag ``end`` or more begins; ``found`` is filled with wanted ones behind ``after``.

        Tags must ascend, so that none comes twice and none after the pixels.
        """
        content, typed, looked_at = self._content, self._typed, self._way.eights.append
        if self._is_implicit and content[place + 4 : place + 6].isupper():
            # Two capitals where a length should be: the syntax says implicit, the elements are explicit.
            raise OddError
        while True:
            looked_at(place)
            # Not in a function of its own: this is what reading a header takes.
            if self._is_implicit:
                group, element, length = self._untyped(content, place)
                kind = b""
            else:
                group, element, kind, length = typed(content, place)
            value, tag = place + 8, group << 16 | element
            if tag >= end:
                return place
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
                found[keyword] = value, place

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
        if kind not in LONG:
            raise OddError
        self._way.fours.append(place + 8)
        return self._long(self._content, place + 8)[0], place + 12

    def _delimiter(self, place: int) -> tuple[int, int, int]:
        """Tag, length and end of what has no type, as delimiters in every encoding."""
        self._way.eights.append(place)
        group, element, length = self._untyped(self._content, place)
        return group << 16 | element, length, place + 8

    def _after_sequence(self, tag: int, kind: bytes, place: int, wanted: Wanted) -> int:
        """The place after a value of undefined length, which must be a sequence that nobody wants."""
        if tag in wanted or not (is_sequence(tag) if self._is_implicit else kind == b"SQ"):
            raise OddError
        while True:
            tag, length, place = self._delimiter(place)
            if tag == _SEQUENCE_END:
                return place
            if tag != _ITEM:
                raise OddError
            place = self._after_item(place) if length == UNDEFINED else place + length

    def _after_item(self, place: int) -> int:
        place = self.until(_ITEM_END, place, {}, {})
        tag, length, place = self._delimiter(place)
        if tag != _ITEM_END or length:
            raise OddError
        return place


def is_sequence(tag: int) -> bool:
    """What only a dictionary tells where elements carry no type."""
    # Most files do without.
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
