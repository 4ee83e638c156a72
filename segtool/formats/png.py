"""Pictures: PNG, JPEG, TIFF, BMP, WebP."""

import colorsys
import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageChops

from segtool.atomic import atomic_path
from segtool.case import Image, LabelMap, Source
from segtool.errors import LimitError, OutputError, UnreadableFileError
from segtool.formats.arrays import AnyArray, NpzProbabilities, check_index, native, one_channel, to_labels
from segtool.formats.base import Description
from segtool.formats.picture_claims import KINDS, pages_of
from segtool.formats.picture_masks import CUT, cut, doubt
from segtool.formats.png_write import palette_png
from segtool.geometry import Geometry

_COLOUR = {"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV"}
_DTYPES = {"1": "uint8", "L": "uint8", "LA": "uint8", "I": "int32", "F": "float32"}
_LOSSY = {"JPEG", "MPO", "WEBP"}
_LOSSY_SPREAD = 2
"""Levels between the colours of a grey picture after conversion to YUV and back."""
_TIFF_SUFFIXES = (".tif", ".tiff")

# What Pillow raises for broken files depends on the codec. Warning: where the caller turns warnings into
# errors, Pillow's doubts about a file (its size, its tags) are faults of that file as well.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
    struct.error, zlib.error, Pillow.DecompressionBombError, Warning,
)  # fmt: skip


class PictureFormat(NpzProbabilities):
    """8 and 16 bit grey, colour, palette and 1-bit pictures; float and multi-page TIFF.

    Axes are rows, then columns, as the pixels lie in the file: an EXIF orientation is ignored, because the
    mask beside a picture does not carry it and would no longer fit. Alpha is dropped. 16-bit colour keeps its
    upper 8 bits (Pillow decodes no more). Pages of a TIFF are a stack ``(N, H, W)``.
    """

    name: ClassVar[str] = "png"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
    may_hold_reference: ClassVar[bool] = False

    def read_image(self, source: Source) -> Image:
        """``(C, H, W)`` or ``(C, N, H, W)``: C is 3 for a picture with colours, 1 for grey in any mode.

        Raises:
            UnreadableFileError: Truncated, corrupt, too large, animated, or not a picture.
        """
        with _opened(source.path) as picture:
            pages = [_pixels(page) for page in _pages(picture, source)]  # (1, H, W) or (3, H, W) each
        channels = max(len(page) for page in pages)
        # A grey page among coloured ones is grey in all three.
        pages = [np.broadcast_to(page, (channels, *page.shape[1:])) for page in pages]
        data = pages[0] if len(pages) == 1 else np.stack(pages, axis=1)
        return Image(one_channel(data, source), Geometry.of_pixels(data.shape[1:]))

    def read_labels(self, source: Source) -> LabelMap:
        """The label map in a picture.

        Palette pictures give their indices (what :meth:`write_labels` writes), grey and 1-bit ones their
        values. Of a colour picture every pixel that is not black becomes 255. Lossy files (JPEG, WebP with
        losses) are cut at 128 into 0 and 255, because compression blurs every value between; a note says so, and
        another one where a lossless mask holds the greys of an earlier compression.

        Raises:
            UnreadableFileError: As for :meth:`read_image`, or the values are not labels, or a lossy file holds
                areas of grey, which may mean several labels.
        """
        with _opened(source.path) as picture:
            lossy = picture.format in _LOSSY and not _is_lossless_webp(source.path)
            pages = [_label_pixels(page, lossy=lossy) for page in _pages(picture, source)]
            palette = picture.mode == "P"
        values = pages[0] if len(pages) == 1 else np.stack(pages)
        if lossy:
            values, note = cut(values, source.path), CUT
        else:
            note = "" if palette else doubt(values)
        notes = (note,) if note else ()
        return LabelMap(to_labels(values, source.path), Geometry.of_pixels(values.shape), notes)

    def describe(self, source: Source) -> Description:
        """The header of every page.

        A colour mode counts as 3 channels here; only the pixels tell whether the picture is grey after all,
        and :meth:`read_image` then gives 1.

        Raises:
            UnreadableFileError: As for :meth:`read_image`.
        """
        with _opened(source.path) as picture:
            pages = sum(1 for _ in _pages(picture, source))
            mode, kind, size = picture.mode, picture.format or "picture", (picture.height, picture.width)
        channels = 3 if mode in _COLOUR else 1
        check_index(source, channels)
        dtype = "uint8" if mode in _COLOUR else _DTYPES.get(mode, "uint16")
        return Description(
            geometry=Geometry.of_pixels(size if pages == 1 else (pages, *size)),
            channels=1 if source.index is not None else channels,
            dtype="uint16" if (kind, mode) == ("PNG", "I") else dtype,
            details=(f"{kind}, mode {mode}",),
        )

    def output_suffix(self, source: Source) -> str:
        """``.tif`` for TIFF, ``.png`` for all others."""
        return ".tif" if source.path.suffix.lower() in _TIFF_SUFFIXES else ".png"

    def write_labels(self, path: Path, label_map: LabelMap, source: Source) -> None:  # noqa: ARG002 - Protocol
        """Write a palette picture whose index is the label: values for programs, colours for eyes.

        Stacks become pages of a TIFF.

        Raises:
            OutputError: The file cannot be written, a label is above 255, or a stack goes into a PNG.
        """
        labels = label_map.labels
        if labels.size and int(labels.max()) > 255:
            raise OutputError(
                f"{path}: label {int(labels.max())} does not fit into a picture (0 to 255)",
                "Choose labels up to 255.",
            )
        pages = np.atleast_3d(labels.T).T  # (N, H, W)
        with atomic_path(path) as temporary:
            if path.suffix.lower() in _TIFF_SUFFIXES:
                pictures = [_palette_picture(page) for page in pages]
                rest = {"save_all": True, "append_images": pictures[1:]} if len(pages) > 1 else {}
                pictures[0].save(temporary, format="TIFF", compression="tiff_adobe_deflate", **rest)
            elif len(pages) == 1:
                temporary.write_bytes(palette_png(pages[0], PALETTE))
            else:
                raise OutputError(f"{path}: a PNG holds one slice, not {len(pages)}", "Write a TIFF.")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Pillow.Image]:
    """The open picture; whatever a codec raises inside the block becomes one line."""
    try:
        # Of a path Pillow may map the file into memory: one that is cut short meanwhile then kills the process.
        with path.open("rb") as file, Pillow.open(file, formats=KINDS) as picture:
            yield picture
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise LimitError(
            f"{path}: claims more pixels than Pillow opens ({2 * (Pillow.MAX_IMAGE_PIXELS or 0)})",
            "Cut it into smaller pictures, or check that it is a scan.",
        ) from error
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: no such file", "Check the path.") from error
    except _BROKEN as error:
        raise UnreadableFileError(
            f"{path}: cannot be read as a picture ({type(error).__name__})",
            "It is truncated, corrupt or of another kind: copy or export it again.",
        ) from error


def _pages(picture: Pillow.Image, source: Source) -> Iterator[Pillow.Image]:
    """Every page in turn, undecoded: one object that is moved from page to page."""
    path, count = source.path, pages_of(picture, source)
    first = picture.mode, picture.size
    for index in range(count):
        if count > 1:
            picture.seek(index)
        if (picture.mode, picture.size) != first:
            raise UnreadableFileError(
                f"{path}: page {index + 1} is {picture.mode} {picture.size}, page 1 is {first[0]} {first[1]}",
                "Keep pages of one size and mode in a file.",
            )
        yield picture


def _pixels(page: Pillow.Image) -> AnyArray:
    """``(C, H, W)``: 3 colours, or the grey values in the page's own type."""
    if page.mode not in _COLOUR:
        return _grey_values(page)[np.newaxis]
    picture = page if page.mode == "RGB" else page.convert("RGB")
    if _is_grey(picture, lossy=page.format in _LOSSY):
        # The weighted mean of three equal numbers is exact, and of nearly equal ones the best guess.
        return np.asarray(picture.convert("L"))[np.newaxis]
    return np.ascontiguousarray(np.moveaxis(np.asarray(picture), -1, 0))


def _is_grey(picture: Pillow.Image, *, lossy: bool) -> bool:
    """True where the three colours are equal; decoders of lossy files round one of them apart."""
    red, green, blue = picture.split()
    differences = (np.asarray(ImageChops.difference(red, other)) for other in (green, blue))
    return all(difference.max() <= (_LOSSY_SPREAD if lossy else 0) for difference in differences)


def _grey_values(page: Pillow.Image) -> AnyArray:
    """``(H, W)`` of a page without colours."""
    pixels = np.asarray(page)
    if page.mode == "1":
        return pixels.astype(np.uint8)
    if page.mode == "LA":
        return pixels[..., 0]
    if page.mode == "I" and page.format == "PNG":
        # Older versions of Pillow widen 16-bit PNGs.
        return pixels.astype(np.uint16)
    if page.mode in _DTYPES or page.mode.startswith("I;16"):
        return native(pixels)
    raise ValueError(page.mode)


def _label_pixels(page: Pillow.Image, *, lossy: bool) -> AnyArray:
    """``(H, W)`` label values."""
    if lossy:
        # The strongest colour: a lesion drawn in red is as sure as one in white, and darker as grey.
        strongest: AnyArray = np.asarray(page.convert("RGB")).max(axis=-1)
        return strongest
    if page.mode == "P":
        return np.asarray(page)
    values = _pixels(page)
    return values[0] if len(values) == 1 else np.where(values.any(axis=0), np.uint8(255), np.uint8(0))


def _is_lossless_webp(path: Path) -> bool:
    """True where the bit stream is VP8L, perhaps after an extended header with a colour profile."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head[8:12] == b"WEBP" and b"VP8L" in head


def _palette() -> bytes:
    """256 RGB triples: black, then bright colours whose hues step by the golden ratio, far apart."""
    colours = [(0.0, 0.0, 0.0)]
    colours += [colorsys.hsv_to_rgb((0.618034 * i) % 1.0, 0.9 - 0.3 * (i // 8 % 2), 1.0) for i in range(255)]
    return bytes(round(255 * part) for colour in colours for part in colour)


PALETTE = _palette()


def _palette_picture(labels: AnyArray) -> Pillow.Image:
    picture = Pillow.fromarray(np.ascontiguousarray(labels, np.uint8))
    picture.putpalette(PALETTE)
    return picture
