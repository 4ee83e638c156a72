"""Headers and pixels of plain, uncompressed DICOM files, without a parser of everything that DICOM allows."""

import re
from typing import Any, Literal, NamedTuple

import numpy as np

from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.elements import BIG_ENDIAN, EXPLICIT, IMPLICIT, Elements, OddError

HIGHEST = 1e9
"""Larger numbers, infinite ones and NaN are damage, whatever the tag."""

_SYNTAXES = {
    IMPLICIT: "Implicit VR Little Endian",
    EXPLICIT: "Explicit VR Little Endian",
    BIG_ENDIAN: "Explicit VR Big Endian",
}
_TEXT = re.compile(rb"[A-Z0-9_.]+")
_WORDS = re.compile(rb"[-+A-Za-z0-9_. \\]*")
_NUMBERS = re.compile(rb"[-+.0-9eE\\ ]+")
_SIGNED = (0, 1)
_OF_PIXELS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
_INTEGERS = ("SamplesPerPixel", "PixelPaddingValue", "PixelPaddingRangeLimit")


class PlainTags:
    """The values of a plain header, as :class:`~segtool.formats.dicom.slice.Tags`.

    Each method raises :class:`OddError` for a value that is not as the standard wants it.
    """

    kind = "DICOM"

    def __init__(self, elements: Elements) -> None:
        self._elements, self._values = elements, elements.values
        self._order: Literal["little", "big"] = "big" if elements.endian == ">" else "little"
        if b"\0" in self._values.get("SpecificCharacterSet", b"").rstrip(b"\0 "):
            # No text is read here that needs it, but damage is damage.
            raise OddError

    @property
    def syntax(self) -> str:
        """Name of the transfer syntax."""
        name = _SYNTAXES.get(self._elements.syntax)
        if name is None:
            raise OddError
        return name

    def __contains__(self, keyword: str) -> bool:
        """True where the tag is there, be it empty."""
        return keyword in self._values

    def get(self, keyword: str, absent: Any = None) -> Any:  # noqa: ANN401 - as of Tags
        """A text, or the number where it has two bytes."""
        value = self._values.get(keyword)
        if value is None:
            return absent
        if keyword in _INTEGERS:
            return self.integer(keyword)
        text = value.rstrip(b"\0 ")
        if not _TEXT.fullmatch(text):
            raise OddError
        return text.decode("ascii")

    def words(self, keyword: str) -> tuple[str, ...]:
        """Texts without blanks around them."""
        value = self._values.get(keyword, b"").rstrip(b"\0 ")
        if not _WORDS.fullmatch(value):
            raise OddError
        return tuple(word.strip() for word in value.decode("ascii").split("\\")) if value else ()

    def integer(self, keyword: str) -> int:
        """A number of two bytes."""
        value = self._values.get(keyword, b"")
        if len(value) != 2:
            raise OddError
        return int.from_bytes(value, self._order)

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Numbers written as text."""
        value = self._values.get(keyword)
        if not value:
            return None
        if not _NUMBERS.fullmatch(value):
            raise OddError
        try:
            numbers = tuple(map(float, value.split(b"\\")))
        except ValueError as error:
            raise OddError from error
        if len(numbers) != count or max(map(abs, numbers)) >= HIGHEST:
            raise OddError
        return numbers


class PlainPixels(NamedTuple):
    """How uncompressed pixels lie in a file.

    Attributes:
        shape: Rows, columns.
        dtype: In the file's byte order.
        unused: Bits above those stored, which may hold anything.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    unused: int

    def settled(self, values: AnyArray) -> AnyArray:
        """Pixels without their unused bits; the same array, changed in its place, where it is in native order."""
        if not self.unused:
            return values
        values = np.left_shift(values, self.unused, out=values if values.dtype.isnative else None)
        # Repeats the sign.
        return np.right_shift(values, self.unused, out=values)


def plain_pixels(elements: Elements) -> PlainPixels | None:
    """None where they are compressed, of one bit or of more than 32, or not as many as the header says."""
    tags = PlainTags(elements)
    try:
        rows, columns, bits, stored, signed, samples = map(tags.integer, _OF_PIXELS)
        photometric = tags.get("PhotometricInterpretation")
    except OddError:
        return None
    size = rows * columns * (bits // 8)
    is_plain = (
        elements.syntax in _SYNTAXES
        # 8 bits that are written as words of big endian have changed places.
        and bits in ((16, 32) if elements.endian == ">" else (8, 16, 32))
        and 1 <= stored <= bits
        and signed in _SIGNED
        and samples == 1
        and photometric in ("MONOCHROME1", "MONOCHROME2")
        and 0 < size <= elements.length <= size + size % 2
    )
    if not is_plain:
        return None
    return PlainPixels((rows, columns), np.dtype(f"{elements.endian}{'ui'[signed]}{bits // 8}"), bits - stored)
