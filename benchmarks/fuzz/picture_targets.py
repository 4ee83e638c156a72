"""Targets: PNG, JPEG and TIFF as scans, and pictures of every kind as masks."""

import io
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin

from benchmarks.common import REAL_DATA
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import Field, set_field
from benchmarks.fuzz.picture_mutations import SIGNATURE, damage_jpeg, damage_png, damage_tiff
from benchmarks.fuzz.target import Target, all_of
from segtool.case import Source
from segtool.formats.png import PALETTE, PictureFormat
from segtool.formats.png_write import palette_png

_FORM = PictureFormat()
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
        return damage_png(data, choices)


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
        return damage_jpeg(data, choices)


class Tiff(_Pictures):
    """8 and 16 bit, float, LZW, deflate, PackBits, one page and several."""

    suffix = ".tif"
    fixed = (
        "a strip that claims gigabytes was given memory: held against the size of the file first",
        "memory for all between two strips, one of them far beyond the end: such places are refused",
    )
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
        return damage_tiff(data, choices)


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
        if data.startswith(SIGNATURE):
            return damage_png(data, choices)
        if data.startswith(b"\xff\xd8"):
            return damage_jpeg(data, choices)
        if data[:2] in (b"II", b"MM"):
            return damage_tiff(data, choices)
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
