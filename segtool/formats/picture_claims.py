"""What a picture's header claims, held against limits and against what its bytes can hold, before it is decoded."""

import re
from collections.abc import Iterator

from PIL import Image as Pillow

from segtool.case import Source
from segtool.errors import UnreadableFileError

KINDS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
"""All that Pillow is asked to recognise. It knows forty more kinds, and starts a program for one of them."""

_DEFLATED_AT_MOST = 1032
"""Bytes out of each byte of deflate: 258 out of two bits (RFC 1951, section 3.2.5)."""
_JPEG_AT_MOST = 2048
"""Pixels of each byte of JPEG: a block of 64 costs at least one bit, and colours have four times fewer blocks."""
_SMALL = 2**24
"""Pixels that cost nothing worth a refusal."""
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_TILE_SIDE = 2**14


def pages_of(picture: Pillow.Image, source: Source) -> int:
    """The number of pages of a picture; those of a TIFF are counted one by one, and no further than the limits.

    Raises:
        UnreadableFileError: It is an animation.
        LimitError: More pages or pixels than the limits allow, or than the file can hold.
    """
    # The further pictures of an MPO are a camera's previews of the first.
    if picture.format == "TIFF":
        count = sum(1 for _ in _walk(picture, source))
        picture.seek(0)
    else:
        count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
        if count > 1:
            raise UnreadableFileError(
                f"{source.path}: an animation of {count} frames, not one picture", "Save the frames as pages of a TIFF."
            )
        _check(picture, 1, source)
        _check_size(picture, source)
    return count


def _walk(picture: Pillow.Image, source: Source) -> Iterator[int]:
    """Visit the pages of a TIFF: only directories are read."""
    size, number = source.path.stat().st_size, 0
    while True:
        _check(picture, number + 1, source)
        _check_pieces(picture, number, size, source)
        yield number
        number += 1
        try:
            picture.seek(number)
        except EOFError:
            return


def _check(picture: Pillow.Image, count: int, source: Source) -> None:
    where, (width, height), bands = str(source.path), picture.size, len(picture.getbands())
    pages = f"{count} pages of " if count > 1 else ""
    source.limits.check("pages", count, where, f"at least {count} pages")
    claim = f"{pages}{height}x{width} pixels" + (f" in {bands} colours" if bands > 1 else "")
    source.limits.check("voxels", count * width * height * bands, where, claim)


def _check_size(picture: Pillow.Image, source: Source) -> None:
    """Hold a PNG or JPEG against the size of the file.

    Raises:
        UnreadableFileError: No bytes of that number become so many pixels.
    """
    width, height = picture.size
    size = source.path.stat().st_size
    if picture.format == "PNG":
        needed, most = height * (1 + (width * _bits(picture) + 7) // 8), size * _DEFLATED_AT_MOST
    elif picture.format in ("JPEG", "MPO"):
        needed, most = width * height, size * _JPEG_AT_MOST
    else:
        return
    if needed > most + _SMALL:
        raise UnreadableFileError(
            f"{source.path}: claims {height}x{width} pixels, and {size} bytes cannot hold so many",
            "It is truncated or corrupt: copy or export it again.",
        )


def _bits(picture: Pillow.Image) -> int:
    """Of a pixel of a PNG, at least."""
    # Pillow names what is stored such as L, P;4, RGB or LA;16B.
    names = [str(tile.args) for tile in getattr(picture, "tile", ())]
    stored = re.fullmatch(r"([1A-Z]+)(?:;(\d+)B?)?", names[0]) if names else None
    if stored is None or stored[1] == "1":
        return 1
    return len(stored[1]) * int(stored[2] or 8)


def _check_pieces(picture: Pillow.Image, number: int, size: int, source: Source) -> None:
    """Hold the strips or tiles of a page of TIFF against the size of the file.

    Raises:
        UnreadableFileError: One is longer than the file, or a tile than any picture.
    """
    tags = getattr(picture, "tag_v2", {})
    lengths = [length for tag in (_STRIP_BYTES, _TILE_BYTES) for length in _numbers(tags.get(tag, ()))]
    places = [place for tag in (_STRIPS, _TILES) for place in _numbers(tags.get(tag, ()))]
    sides = [side for tag in (_TILE_WIDTH, _TILE_LENGTH) for side in _numbers(tags.get(tag, ()))]
    if max(lengths, default=0) > size:
        found = f"a piece of {max(lengths)} bytes, longer than the file"
    elif max(places, default=0) > size:
        found = f"a piece at byte {max(places)}, beyond its end"
    elif max(sides, default=0) > _TILE_SIDE:
        found = f"a tile of {'x'.join(map(str, sides))} pixels"
    else:
        return
    raise UnreadableFileError(
        f"{source.path}: page {number + 1} claims {found}", "It is truncated or corrupt: copy or export it again."
    )


def _numbers(value: object) -> list[int]:
    """The whole numbers of a tag, of whatever type its writer said it is."""
    values = value if isinstance(value, tuple) else (value,)
    return [one for one in values if isinstance(one, int)]
