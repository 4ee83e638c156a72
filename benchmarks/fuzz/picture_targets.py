"""Targets: PNG, JPEG and TIFF as scans, and pictures of every kind as masks."""

import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin

from benchmarks.common import REAL_DATA
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import Field, havoc, set_field, shuffle
from benchmarks.fuzz.target import Target, all_of
from segtool.case import Source
from segtool.formats.png import PALETTE, PictureFormat
from segtool.formats.png_write import palette_png

_FORM = PictureFormat()
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BOMB_BYTES = 2**25
_PIXELS = np.random.default_rng(1).integers(0, 256, (40, 36), dtype=np.uint8)


class _Pictures(Target):
    """What the targets of pictures share."""

    instrument: ClassVar[tuple[str, ...]] = ("segtool.formats",)

    def read(self, path: Path) -> object:
        """All that is asked of a picture."""
        source = Source("png", (path,), limits=self.limits)
        return all_of(
            lambda: _FORM.describe(source), lambda: _FORM.read_image(source), lambda: _FORM.read_labels(source)
        )


class Png(_Pictures):
    """Grey, 16 bit, colour, palette and interlaced PNG with texts and a profile."""

    suffix = ".png"
    instrument = (*_Pictures.instrument, "PIL.PngImagePlugin")

    def seeds(self) -> list[bytes]:
        """Ours, Pillow's, and a real mask."""
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", "a" * 300, zip=True)
        texts.add_itxt("Title", "b" * 300, zip=True)
        return [
            palette_png(_PIXELS % 4, PALETTE),
            _saved("PNG", _PIXELS, pnginfo=texts, icc_profile=bytes(300)),
            _saved("PNG", _PIXELS.astype(np.uint16) * 200),
            _saved("PNG", np.stack([_PIXELS, _PIXELS[::-1], _PIXELS], -1)),
            _saved("PNG", _PIXELS > 100),
            _saved("PNG", np.stack([_PIXELS] * 4, -1)),
            *_real("cheng/masks/*.png"),
        ]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A header, a chunk, or what a chunk unpacks to."""
        return _damage_png(data, choices)


class Jpeg(_Pictures):
    """Baseline and progressive, grey and colour."""

    suffix = ".jpg"
    instrument = (*_Pictures.instrument, "PIL.JpegImagePlugin", "PIL.MpoImagePlugin")

    def seeds(self) -> list[bytes]:
        """Pillow's, of a real slice."""
        grey = _real_pixels()
        colour = np.stack([grey, grey[::-1], grey], -1)
        exif = Pillow.Exif()
        exif[0x0112] = 6
        return [
            _saved("JPEG", grey, quality=60),
            _saved("JPEG", colour, quality=70, exif=exif),
            _saved("JPEG", colour, quality=50, progressive=True),
            _saved("JPEG", grey, quality=90, restart_marker_rows=1),
            _saved("JPEG", Pillow.fromarray(colour).convert("CMYK"), quality=50),
        ]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A segment, or a size in the frame header."""
        return _damage_jpeg(data, choices)


class Tiff(_Pictures):
    """8 and 16 bit, float, LZW, deflate, PackBits, one page and several."""

    suffix = ".tif"
    fixed = ("a strip that claims gigabytes was given memory: held against the size of the file first",)
    instrument = (*_Pictures.instrument, "PIL.TiffImagePlugin")

    def seeds(self) -> list[bytes]:
        """Pillow's, of a real slice, and one of the kaggle_3m set cut small."""
        grey = _real_pixels()
        wide = grey.astype(np.uint16) * 200
        rest = {"save_all": True, "append_images": [Pillow.fromarray(wide)] * 3}
        return [
            _saved("TIFF", grey),
            _saved("TIFF", grey, compression="tiff_lzw"),
            _saved("TIFF", wide, compression="tiff_adobe_deflate", **rest),
            _saved("TIFF", grey > 60, compression="group4"),
            _saved("TIFF", grey, compression="packbits"),
            _saved("TIFF", grey.astype(np.float32)),
            _saved("TIFF", np.stack([grey] * 3, -1), compression="jpeg"),
            _saved("TIFF", np.stack([grey] * 3, -1)),
            _palette_tiff(grey % 5),
        ]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """An entry of a directory, or where the next one lies."""
        return _damage_tiff(data, choices)


class Masks(_Pictures):
    """Masks: palettes, colours, 1 bit, and those compressed with losses, in every kind of picture."""

    suffix = ".png"
    fixed = (
        "a header of BMP or WebP that claims 200 megapixels took 640 MB: held against the limit first",
        "Pillow was let try forty kinds of files, one of which starts a program: six kinds now",
    )
    instrument = (*_Pictures.instrument, "PIL.PngImagePlugin", "PIL.BmpImagePlugin", "PIL.WebPImagePlugin")

    def seeds(self) -> list[bytes]:
        """Small masks by every writer."""
        disc = np.hypot(*np.mgrid[-20:20, -18:18]) < 9
        white, red = disc * np.uint8(255), np.stack([disc * np.uint8(255), disc * 0, disc * 0], -1).astype(np.uint8)
        palette = Pillow.fromarray(disc.astype(np.uint8))
        palette.putpalette(PALETTE)
        return [
            palette_png(disc * np.uint8(3), PALETTE),
            _saved("PNG", red),
            _saved("PNG", disc),
            _saved("JPEG", white),
            _saved("WEBP", red, lossless=True),
            _saved("WEBP", white, quality=50),
            _saved("BMP", palette),
            _saved("BMP", white),
            _saved("TIFF", palette, compression="tiff_lzw"),
            _saved("GIF", palette, save_all=True, append_images=[palette]),
        ]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """As the kind of picture asks."""
        if data.startswith(_SIGNATURE):
            return _damage_png(data, choices)
        if data.startswith(b"\xff\xd8"):
            return _damage_jpeg(data, choices)
        if data[:2] in (b"II", b"MM"):
            return _damage_tiff(data, choices)
        fields = {b"BM": [(2, "<I"), (10, "<I"), (14, "<I"), (18, "<i"), (22, "<i"), (28, "<H"), (30, "<I")],
                  b"RI": [(4, "<I"), (16, "<I"), (20, "<H"), (22, "<H"), (26, "<H"), (28, "<H")],
                  b"GI": [(6, "<H"), (8, "<H"), (10, "<B")]}.get(data[:2])  # fmt: skip
        return None if fields is None else set_field(data, Field(*choices.one(fields)), choices)


def _saved(kind: str, pixels: Any, **options: Any) -> bytes:  # noqa: ANN401 - an array or a picture
    picture = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels)
    out = io.BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()


def _palette_tiff(labels: Any) -> bytes:  # noqa: ANN401
    picture = Pillow.fromarray(labels)
    picture.putpalette(PALETTE)
    return _saved("TIFF", picture, compression="tiff_adobe_deflate")


@cache
def _real_pixels() -> Any:  # noqa: ANN401
    """A piece ``(48, 40)`` of a real slice; of noise where there is none."""
    found = sorted((REAL_DATA / "kaggle_3m").glob("*/*_17.tif"))
    if not found:
        return _PIXELS
    with Pillow.open(found[0]) as picture:
        return np.asarray(picture.convert("L"))[100:148, 100:140].copy()


def _real(pattern: str) -> list[bytes]:
    found = sorted(REAL_DATA.glob(pattern)) if REAL_DATA.is_dir() else []
    return [path.read_bytes() for path in found[:1]]


# PNG


def _damage_png(data: bytes, choices: Choices) -> bytes | None:
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
            return _SIGNATURE + b"".join(shuffle(raw, choices))
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
    return _SIGNATURE + b"".join(_png_chunk(*chunk) for chunk in chunks)


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
    chunks, at = [], len(_SIGNATURE)
    if not data.startswith(_SIGNATURE):
        return []
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


# JPEG


def _damage_jpeg(data: bytes, choices: Choices) -> bytes | None:
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


def _damage_tiff(data: bytes, choices: Choices) -> bytes | None:
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
