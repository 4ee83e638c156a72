"""What compressed frames say of their own size, held against the header before a decoder takes memory for them.

A decoder believes its codestream: a few bytes of JPEG 2000 claim 60000 x 60000 pixels where the header says 2 x 2.
Sources: ITU-T T.81 B.2.2 (JPEG), T.87 C.2 (JPEG-LS), PS3.5 annex G (RLE); JPEG 2000 has a module of its own.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from segtool.errors import UnreadableFileError
from segtool.formats.dicom.jpeg2000 import Size, jpeg_2000_size

_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7))
"""Markers of frames: of JPEG but for 0xC4, 0xC8 and 0xCC, which are tables, and of JPEG-LS."""
_SCAN, _END = 0xDA, 0xD9
_SEVERAL = (0xDE, 0xEB)
"""Hierarchical JPEG and the boxes of JPEG XT: both have frames in frames, and DICOM has neither."""
_JPEG_LS_MORE, _OVERSIZE = 0xF8, 4
_RLE_HEADER, _RLE_SEGMENTS, _NOTHING = 64, 15, 128


def check_frames(dataset: Dataset, size: Size, bits: int, path: Path) -> None:
    """Refuse compressed frames that claim another size than the header.

    Args:
        dataset: With pixels and a transfer syntax; those that are not compressed pass.
        size: Rows, columns and samples as the header has them.
        bits: Allocated, of a sample.
        path: The file.

    Raises:
        UnreadableFileError: They do, or say nothing of their size.
        ValueError: There are no frames where the header says that some are.
        struct.error: A frame ends before it says anything.
    """
    size_of = _SIZES.get(dataset.file_meta.TransferSyntaxUID)
    if size_of is None:
        return
    offsets, lengths = (dataset.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"))
    frames = generate_frames(
        dataset.PixelData,
        number_of_frames=int(dataset.get("NumberOfFrames") or 1),
        extended_offsets=(offsets, lengths) if offsets and lengths else None,
    )
    for frame in frames:
        found = size_of(frame)
        if found is None or (found != size if found != _ANY else not _is_rle(frame, size, bits)):
            said = "x".join(map(str, found)) if found not in (None, _ANY) else "nothing that fits"
            raise UnreadableFileError(
                f"{path}: its compressed pixels say {said} (rows, columns, samples), and its header "
                f"{'x'.join(map(str, size))}",
                "It is damaged: export or copy it again.",
            )


def _jpeg_size(frame: bytes) -> Size | None:
    """The size in the header of a JPEG or JPEG-LS frame; None where there is none, or several."""
    place, found = 2, None
    while frame[:2] == b"\xff\xd8" and place + 4 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _NO_LENGTH:
            place += 2
            continue
        if marker in (_SCAN, _END):
            return found
        is_oversize = marker == _JPEG_LS_MORE and frame[place + 4 : place + 5] == bytes([_OVERSIZE])
        if marker in _SEVERAL or is_oversize or (marker in _FRAMES and found):
            return None
        if marker in _FRAMES:
            _, rows, columns, samples = struct.unpack_from(">BHHB", frame, place + 4)
            found = rows, columns, samples
        (length,) = struct.unpack_from(">H", frame, place + 2)
        place += 2 + max(length, 2)
    return None


def _is_rle(frame: bytes, size: Size, bits: int) -> bool:
    """True where the frame has a segment for each byte of a pixel that unpacks to a byte of each, and no more.

    Of one that unpacks to more the decoder panics, which no handler of errors catches.
    """
    count, *offsets = struct.unpack_from("<16I", frame)
    rows, columns, samples = size
    if count != samples * bits // 8 or not 0 < count <= _RLE_SEGMENTS or offsets[0] < _RLE_HEADER:
        return False
    ends = [*offsets[1:count], len(frame)]
    between = list(zip(offsets[:count], ends, strict=True))
    return all(start < end and _unpacked(frame[start:end]) == rows * columns for start, end in between)


def _unpacked(segment: bytes) -> int:
    """Bytes that a segment unpacks to."""
    place, length, last = 0, 0, len(segment) - 1
    # A last byte alone fills up to an even number.
    while place < last:
        head = segment[place]
        if head < _NOTHING:
            length += head + 1
            place += head + 2
        elif head > _NOTHING:
            length += 257 - head
            place += 2
        else:
            place += 1
    return length


_ANY: Size = (-1, -1, -1)
"""Of RLE, which says nothing of rows and columns; what it unpacks to is 64 times its bytes at most."""

_SIZES: Mapping[str, Callable[[bytes], Size | None]] = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), _jpeg_size),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), _jpeg_size),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), jpeg_2000_size),
    RLELossless: lambda _: _ANY,
}
