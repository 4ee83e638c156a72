"""Private tags of scanners, where the standard's own are missing."""

import struct
from pathlib import Path

from segtool.errors import UnreadableFileError
from segtool.formats.dicom.odd import odd_private
from segtool.limits import DEFAULT_LIMITS, Limits

_B_VALUES = (
    (0x0019_0010, b"SIEMENS MR HEADER", 0x0019_100C),
    (0x0043_0010, b"GEMS_PARM_01", 0x0043_1039),
    (0x2001_0010, b"Philips Imaging DD 001", 0x2001_1003),
)
"""Who owns a block, the name it bears, and where it says the diffusion weighting."""

_GE_OFFSET = 1e9
"""GE adds it to b-values of some series."""
_HIGHEST = 1e6


def private_b_value(path: Path, limits: Limits = DEFAULT_LIMITS) -> float | None:
    """In s/mm2, as Siemens, GE and Philips write it; None where none of them does."""
    try:
        found, endian = odd_private(path, [tag for creator, _, tag in _B_VALUES for tag in (creator, tag)], limits)
    except UnreadableFileError:
        return None
    for creator, name, tag in _B_VALUES:
        if found.get(creator, b"").startswith(name) and tag in found:
            number = _number(found[tag], endian)
            if number is not None:
                return number
    return None


def _number(value: bytes, endian: str) -> float | None:
    """Of four bytes where it is one, else the first of several that are written as text."""
    try:
        number = float(value.split(b"\\")[0].strip(b"\0 "))
    except ValueError:
        if len(value) != struct.calcsize("f"):
            return None
        (number,) = struct.unpack(f"{endian}f", value)
    number = number % _GE_OFFSET if number >= _GE_OFFSET else number
    return number if 0 <= number < _HIGHEST else None
