"""Changes of PNG, JPEG and TIFF files that know chunks, segments and directories."""

import struct
import zlib
from collections.abc import Sequence
from functools import cache

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import Field, havoc, set_field, shuffle

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BOMB_BYTES = 2**25


# PNG


def damage_png(data: bytes, choices: Choices) -> bytes | None:
    """A PNG with a header, a chunk, or what a chunk unpacks to changed; None where it is none."""
    chunks = _png_chunks(data)
    if not chunks:
        return None
    match choices.whole(0, 6):
        case 0 | 1:
            kind, content = chunks[0]
            field = Field(
                *choices.one([(0, ">I"), (4, ">I"), (8, ">B"), (9, ">B"), (10, ">B"), (11, ">B"), (12, ">B")])
            )
            chunks[0] = kind, set_field(content, field, choices) or content
        case 2:
            raw = [_png_chunk(*chunk) for chunk in chunks]
            return SIGNATURE + b"".join(shuffle(raw, choices))
        case 3:
            place = choices.whole(0, len(chunks) - 1)
            chunks[place] = chunks[place][0], havoc(chunks[place][1], choices)
        case 4:
            place = choices.whole(0, len(chunks) - 1)
            chunks[place] = choices.one(_PNG_KINDS), chunks[place][1]
        case 5:
            places = [n for n, chunk in enumerate(chunks) if chunk[0] == b"IDAT"]
            if places:
                place = choices.one(places)
                chunks[place] = b"IDAT", _repacked(chunks[place][1], choices)
        case _:
            kind, head = choices.one(_PNG_BOMBS)
            chunks.insert(choices.whole(0, len(chunks)), (kind, head + _bomb()))
    return SIGNATURE + b"".join(_png_chunk(*chunk) for chunk in chunks)


_PNG_KINDS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"pHYs", b"gAMA",
              b"cHRM", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"sRGB", b"cICP")  # fmt: skip
_PNG_BOMBS = ((b"zTXt", b"Comment\0\0"), (b"iCCP", b"icc\0\0"), (b"iTXt", b"Title\0\1\0\0\0"), (b"IDAT", b""))


@cache
def _bomb() -> bytes:
    """Zeros packed a thousand times."""
    return zlib.compress(bytes(_BOMB_BYTES), 9)


def _repacked(content: bytes, choices: Choices) -> bytes:
    """Compressed content, changed inside."""
    try:
        return zlib.compress(havoc(zlib.decompressobj().decompress(content, 2**20), choices), 1)
    except zlib.error:
        return content


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and contents, as far as they can be followed."""
    chunks, at = [], len(SIGNATURE)
    if not data.startswith(SIGNATURE):
        return []
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


# JPEG


def damage_jpeg(data: bytes, choices: Choices) -> bytes | None:
    """A JPEG with a segment or a size in its frame header changed; None where it is none."""
    parts = _jpeg_segments(data)
    if len(parts) < 3:
        return None
    if choices.whole(0, 1):
        return b"".join(shuffle(parts, choices))
    place = choices.whole(1, len(parts) - 1)
    part = parts[place]
    is_frame = len(part) > 1 and part[1] in range(0xC0, 0xD0)
    fields = (
        [(5, ">H"), (7, ">H"), (4, ">B"), (9, ">B"), (10, ">B"), (11, ">B")] if is_frame else [(4, ">B"), (5, ">B")]
    )
    fields += [(1, ">B"), (2, ">H")]
    parts[place] = set_field(part, Field(*choices.one(fields)), choices) or havoc(part, choices)
    return b"".join(parts)


def _jpeg_segments(data: bytes) -> list[bytes]:
    """SOI, then segments by their lengths; the last one is all from the first scan on."""
    if not data.startswith(b"\xff\xd8"):
        return []
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        parts.append(data[at : at + 2 + length])
        at += 2 + length
    return [*parts, data[at:]]


# TIFF

_TIFF_TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 297, 317, 320, 322, 323, 324, 325, 330, 338,
              339, 347, 532, 34675, 34665, 700, 33723)  # fmt: skip


def damage_tiff(data: bytes, choices: Choices) -> bytes | None:
    """A TIFF with an entry of a directory, or the place of the next one, changed; None where it is none."""
    directories = _tiff_directories(data)
    if not directories:
        return None
    order = "<" if data.startswith(b"II") else ">"
    start, count = choices.one(directories)
    entry = start + 2 + 12 * choices.whole(0, count - 1)
    match choices.whole(0, 6):
        case 0:
            return _put(data, entry, order + "H", choices.one(_TIFF_TAGS))
        case 1:
            return set_field(data, Field(entry + 2, order + "H"), choices)
        case 2:
            return set_field(data, Field(entry + 4, order + "I"), choices)
        case 3 | 4:
            code = order + choices.one("HI")
            return set_field(data, Field(entry + 8, code), choices)
        case 5:
            # A loop, or a directory anywhere.
            aims = [0, 4, 8, len(data), start, choices.whole(0, len(data)), *(one for one, _ in directories)]
            return _put(data, start + 2 + 12 * count, order + "I", choices.one(aims))
        case _:
            return set_field(data, Field(start, order + "H"), choices)


def _tiff_directories(data: bytes) -> Sequence[tuple[int, int]]:
    """Offset and number of entries of each directory that can be followed."""
    found: list[tuple[int, int]] = []
    if data[:4] not in (b"II*\0", b"MM\0*") or len(data) < 8:
        return found
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    while at and at + 6 <= len(data) and len(found) < 10:
        (count,) = struct.unpack_from(order + "H", data, at)
        end = at + 2 + 12 * count
        if not count or end + 4 > len(data) or at in (one for one, _ in found):
            break
        found.append((at, count))
        (at,) = struct.unpack_from(order + "I", data, end)
    return found


def _put(data: bytes, offset: int, code: str, value: int) -> bytes | None:
    if offset + struct.calcsize(code) > len(data):
        return None
    return data[:offset] + struct.pack(code, value) + data[offset + struct.calcsize(code) :]
