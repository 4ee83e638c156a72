"""What compressed frames say of their own size, held against the header before a decoder takes memory for them.

A decoder believes its codestream: two kilobytes of JPEG 2000 may claim 60000 x 60000 pixels where the header says 2 x 2.
Sources: ITU-T T.81 B.2.2 (JPEG), T.87 C.2 (JPEG-LS), T.800 A.5.1 (JPEG 2000), PS3.5 annex G (RLE).
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from pydicom import Dataset
from pydicom.encaps import generate_frames, parse_basic_offsets
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
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

Size = tuple[int, int, int]
"""Rows, columns, samples."""

_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7))
"""Markers of frames: of JPEG but for 0xC4, 0xC8 and 0xCC, which are tables, and of JPEG-LS."""
_SCAN, _END, _JPEG_LS_MORE, _OVERSIZE = 0xDA, 0xD9, 0xF8, 4
_CODESTREAM = b"\xff\x4f\xff\x51"
_MOST_TILES = 65535
_RLE_SEGMENTS = 15


def check_frames(dataset: Dataset, size: Size, bits: int, path: Path) -> None:
    """Refuse compressed frames that claim another size than the header.

    Args:
        dataset: With pixels and a transfer syntax; those that are not compressed pass.
        size: Rows, columns and samples as the header has them.
        bits: Allocated, of a sample.
        path: The file.

    Raises:
        UnreadableFileError: They do, or say nothing of their size.
        ValueError: There are no frames where the header says that some are; also struct.error and the like.
    """
    size_of = _SIZES.get(UID(dataset.file_meta.TransferSyntaxUID))
    if size_of is None:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    frames = generate_frames(
        dataset.PixelData,
        number_of_frames=count,
        extended_offsets=(offsets[0], offsets[1]) if offsets[0] and offsets[1] else None,
    )
    for frame in frames:
        found = _rle_size(frame, size, bits) if size_of is _rle_size else size_of(frame)
        if found != size:
            said = "x".join(map(str, found)) if found else "nothing"
            raise UnreadableFileError(
                f"{path}: its compressed pixels say {said} (rows, columns, samples) and its header "
                f"{'x'.join(map(str, size))}",
                "It is damaged: export it again.",
            )


def _jpeg_size(frame: bytes) -> Size | None:
    """The size in the header of a JPEG or JPEG-LS frame; None where there is none, or several."""
    if frame[:2] != b"\xff\xd8":
        return None
    place, found = 2, None
    while place + 4 <= len(frame):
        if frame[place] != 0xFF:
            return None
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _NO_LENGTH:
            place += 2
            continue
        if marker in (_SCAN, _END):
            break
        (length,) = struct.unpack_from(">H", frame, place + 2)
        if marker in _FRAMES:
            _, rows, columns, samples = struct.unpack_from(">BHHB", frame, place + 4)
            if found is not None:
                return None
            found = rows, columns, samples
        elif marker == _JPEG_LS_MORE and frame[place + 4 : place + 5] == bytes([_OVERSIZE]):
            # Sizes beyond 16 bits, which DICOM has not.
            return None
        place += 2 + max(length, 2)
    return found


def _jpeg_2000_size(frame: bytes) -> Size | None:
    """The size in the main header of a codestream, which may lie in boxes."""
    place = frame.find(_CODESTREAM)
    if place < 0 or frame.find(_CODESTREAM, place + 4) >= 0:
        return None
    x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0 = struct.unpack_from(">8I", frame, place + 8)
    (samples,) = struct.unpack_from(">H", frame, place + 40)
    if not (x > x0 and y > y0 and tile_x and tile_y):
        return None
    tiles = -(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y)
    apart = frame[place + 42 : place + 42 + 3 * samples]
    if not 0 < tiles <= _MOST_TILES or len(apart) < 3 * samples or any(apart[1::3].lstrip(b"\1") + apart[2::3].lstrip(b"\1")):
        return None
    return y - y0, x - x0, samples


def _rle_size(frame: bytes, size: Size, bits: int) -> Size | None:
    """``size`` where the header of the frame has a segment for each byte of a pixel, and all lie in order."""
    count, *offsets = struct.unpack_from("<16I", frame)
    offsets = offsets[:count]
    wanted = size[2] * bits // 8
    is_sound = count == wanted <= _RLE_SEGMENTS and offsets[0] >= 64
    in_order = all(one < other for one, other in zip(offsets, [*offsets[1:], len(frame)], strict=True))
    return size if is_sound and in_order else None


_SIZES: Mapping[str, Callable[[bytes], Size | None]] = {}
