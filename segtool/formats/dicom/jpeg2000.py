"""The size that a JPEG 2000 codestream claims, and whether decoding it takes no more memory than its pixels.

Decoders make an object of each tile, precinct and code block and a flag of each packet, however few bytes describe
them. Source: ITU-T T.800, annex A.
"""

import struct
from collections.abc import Iterator

Size = tuple[int, int, int]
"""Rows, columns, samples."""

_CODESTREAM = b"\xff\x4f\xff\x51"
_BOX, _CODESTREAM_BOX = b"\0\0\0\x0cjP  ", b"jp2c"
_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MOST_TILES = 4096
_MOST_PARTS, _MOST_PACKETS = 2**17, 2**22
"""Precincts, and code blocks: 8192x8192 pixels have 65536 of 32x32. Packets: precincts times layers."""
_WHOLE = 15
"""A precinct of 2**15 pixels each way is what there is where a codestream says nothing of them."""


def jpeg_2000_size(frame: bytes) -> Size | None:
    """The size in the main header of a codestream, which may lie in boxes.

    Returns:
        None where there is none, or where decoding would take memory beyond that of the pixels.

    Raises:
        struct.error: The codestream ends in its header.
    """
    start = _codestream(frame)
    if start is None:
        return None
    x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, samples = struct.unpack_from(">8IH", frame, start + 8)
    if not (x > x0 >= tile_x0 and y > y0 >= tile_y0 and tile_x and tile_y):
        return None
    size = y - y0, x - x0, samples
    tiles = -(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y)
    apart = frame[start + 42 : start + 42 + 3 * samples]
    is_whole = len(apart) == 3 * samples and set(apart[1::3] + apart[2::3]) == {1}
    if tiles > _MOST_TILES or not is_whole:
        return None
    pixels = size[0] * size[1]
    return size if all(_is_coarse(coding, pixels, tiles) for coding in _codings(frame, start)) else None


def _codestream(frame: bytes) -> int | None:
    if not frame.startswith(_BOX):
        return 0 if frame.startswith(_CODESTREAM) else None
    place = 0
    while place + 8 <= len(frame):
        length, kind = struct.unpack_from(">I4s", frame, place)
        if kind == _CODESTREAM_BOX:
            return place + 8 if frame.startswith(_CODESTREAM, place + 8) else None
        if length < 8:
            return None
        place += length
    return None


def _codings(frame: bytes, start: int) -> Iterator[bytes]:
    """How tiles are parted, from the layers on, of the main header and of those of tiles: layers, levels, sizes."""
    place, tile_end = start + 2, len(frame)
    while place + 4 <= len(frame):
        marker, length = struct.unpack_from(">HH", frame, place)
        if marker == _EOC:
            return
        if marker == _SOT:
            (tile,) = struct.unpack_from(">I", frame, place + 6)
            tile_end = place + tile if tile else len(frame)
        if marker == _SOD:
            if tile_end <= place:
                return
            place = tile_end
            continue
        body = frame[place + 4 : place + 2 + length]
        if marker == _COD:
            yield body[:1] + body[2:4] + body[5:]
        elif marker == _COC:
            # Of samples up to 256, as DICOM has them. The layers are those of the COD.
            yield body[1:2] + b"\0\1" + body[2:]
        place += 2 + max(length, 2)


def _is_coarse(coding: bytes, pixels: int, tiles: int) -> bool:
    """True where there are no more precincts, code blocks and packets than large pictures have.

    Args:
        coding: Style, layers (two bytes), levels, code block width and height, two bytes, precincts.
        pixels: Of the picture.
        tiles: Likewise.
    """
    style, layers, levels, width, height = struct.unpack_from(">BHBBB", coding)
    precincts = coding[8 : 8 + levels + 1] if style & 1 else b""
    sizes = [(one & 15) + (one >> 4) for one in precincts] or [2 * _WHOLE] * (levels + 1)
    # From the lowest resolution to that of the picture.
    parts = sum((pixels >> 2 * (len(sizes) - 1 - level) >> size) + tiles for level, size in enumerate(sizes))
    blocks = pixels >> (width + height + 4)
    return bool(max(parts, blocks) <= _MOST_PARTS and parts * layers <= _MOST_PACKETS)
