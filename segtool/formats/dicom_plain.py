"""Headers and pixels of plain, uncompressed DICOM files, without a parser of everything that DICOM allows."""

import re
from typing import Any, Literal

import numpy as np

from segtool.formats.arrays import AnyArray
from segtool.formats.dicom_elements import BIG_ENDIAN, EXPLICIT, IMPLICIT, Elements, OddError

HIGHEST = 1e9
"""Larger numbers, infinite ones and NaN are damage, whatever the tag."""

_SYNTAXES = {
    IMPLICIT: "Implicit VR Little Endian",
    EXPLICIT: "Explicit VR Little Endian",
    BIG_ENDIAN: "Explicit VR Big Endian",
}
_TEXT = re.compile(rb"[A-Z0-9_.]+")
_WORDS = re.compile(rb"[-+A-Za-z0-9_. \\\\]*")
_NUMBERS = re.compile(rb"[-+.0-9eE\\ ]+")
_SIGNED = (0, 1)
_INTEGERS = ("SamplesPerPixel", "PixelPaddingValue", "PixelPaddingRangeLimit")


class PlainTags:
    """The values of a plain header, as :class:`~segtool.formats.dicom_slice.Tags`.

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


def stored_values(content: bytes, elements: Elements) -> AnyArray:
    """``(rows, columns)`` as they lie in the file, a view of ``content`` where all bits count.

    Raises:
        OddError: Compressed, too short or too long, of one bit or of more than 32.
    """
    tags = PlainTags(elements)
    rows, columns, bits, stored, signed = map(
        tags.integer, ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    )
    size = rows * columns * (bits // 8)
    is_plain = (
        elements.syntax in _SYNTAXES
        # 8 bits that are written as words of big endian have changed places.
        and bits in ((16, 32) if elements.endian == ">" else (8, 16, 32))
        and 1 <= stored <= bits
        and signed in _SIGNED
        and tags.integer("SamplesPerPixel") == 1
        and tags.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
        and 0 < size <= elements.length <= size + size % 2
        # What follows the pixels may be broken.
        and elements.start + elements.length == len(content)
    )
    if not is_plain:
        raise OddError
    dtype = np.dtype(f"{elements.endian}{'ui'[signed]}{bits // 8}")
    values = np.frombuffer(content, dtype, rows * columns, elements.start).reshape(rows, columns)
    if stored < bits:
        # The bits above those stored may hold anything; a shift to the right repeats the sign.
        values = np.left_shift(values, bits - stored, dtype=dtype.newbyteorder("="))
        np.right_shift(values, bits - stored, out=values)
    return values
