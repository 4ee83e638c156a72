"""What the annotations of a picture claim, held against limits before anything is drawn."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from segtool.limits import Limits

_PASSES = 32
"""Times ``Limits.voxels`` that drawing may pass over pixels: each outline passes over its picture once."""
_CROSSING = 16
"""Passes over a pixel that take as long as working out where an edge crosses a line."""
_LONGEST = 2**31
"""Side of a picture beyond which it does not matter how much longer it is: JSON has numbers of any length."""


def check_claims(where: str, shape: tuple[int, int], annotations: Sequence[Mapping[str, Any]], limits: Limits) -> None:
    """Hold what is to be drawn on a picture ``(H, W)`` against the limits.

    Args:
        where: File and picture, as messages call them.
        shape: As the file says, which costs it nothing.
        annotations: All of the picture.
        limits: Of the source.

    Raises:
        LimitError: It is more.
    """
    sides = tuple(min(side, _LONGEST) for side in shape)
    pixels, outlines, size = math.prod(sides), len(annotations), f"{sides[0]}x{sides[1]} pixels"
    limits.check("drawn_pixels", pixels, where, f"{size} to draw on")
    limits.check("labels", outlines, where, f"{outlines} outlines")
    limits.check("voxels", outlines * pixels // _PASSES, where, f"{outlines} outlines on {size}")
    crossings = sum(_crossings(annotation.get("segmentation"), sides[0]) for annotation in annotations)
    limits.check("voxels", crossings * _CROSSING, where, f"outlines that cross {crossings} lines of pixels")


def _crossings(outline: Any, rows: int) -> int:  # noqa: ANN401 - whatever JSON holds
    """Lines of pixels that the edges of polygons cross at most; what is no polygon is refused when it is drawn."""
    parts = [part for part in outline if isinstance(part, list)] if isinstance(outline, list) else []
    return sum(len(part) * _height(part[1::2], rows) // 2 for part in parts)


def _height(heights: list[Any], rows: int) -> int:
    """Of a polygon in lines, at most those of the picture."""
    try:
        return int(min(rows, max(heights) - min(heights) + 2))
    except (TypeError, ValueError, OverflowError):  # no numbers, none at all, or such as no picture has
        return rows
