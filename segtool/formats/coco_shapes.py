"""The outlines of COCO annotations as masks: polygons, boxes, and run lengths in both spellings.

Coordinates are continuous: pixel ``(row, column)`` covers ``[column, column + 1) x [row, row + 1)``, so that a box
``[0, 0, w, h]`` is the whole picture. A pixel belongs to an outline that holds its centre.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segtool.formats.polygons import Mask, polygons_mask

__all__ = ["Mask", "box_mask", "polygon_mask", "read_runs", "runs_mask"]

_BITS = 5
"""Of a number in each letter of compressed run lengths; the sixth bit says that the number goes on."""
_MOST_BITS = 60
_MORE, _SIGN, _FIRST_LETTER = 1 << _BITS, 1 << (_BITS - 1), 48


def polygon_mask(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> Mask:
    """The pixels whose centres lie inside a closed polygon, by the even-odd rule.

    An edge belongs to the pixels right of it and below it, so that polygons that share an edge share no pixel
    and leave none between them.

    Args:
        points: ``(P, 2)`` finite corners as x (to the right), y (downwards), in pixels; P is at least 3.
        shape: Rows and columns of the picture; what lies outside is cut.

    Returns:
        ``(H, W)``.
    """
    return polygons_mask([points - 0.5], shape)


def box_mask(box: Sequence[float], shape: tuple[int, int]) -> Mask:
    """``(H, W)`` of a box ``x, y, width, height``, as :func:`polygon_mask` of its corners."""
    x, y, width, height = box
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return polygon_mask(np.array(corners, np.float64), shape)


def runs_mask(counts: Sequence[int], shape: tuple[int, int]) -> Mask:
    """``(H, W)`` of run lengths that go down the columns and begin with background.

    Raises:
        ValueError: A negative length, or lengths that do not add up to the picture.
    """
    if any(count < 0 for count in counts):
        raise ValueError(f"a run length is {min(counts)}")
    if sum(counts) != shape[0] * shape[1]:
        raise ValueError(f"run lengths add up to {sum(counts)} pixels, the picture has {shape[0] * shape[1]}")
    values = np.arange(len(counts)) % 2 == 1
    by_columns: Mask = np.repeat(values, counts).reshape(shape[1], shape[0])
    return by_columns.T


def read_runs(text: str) -> list[int]:
    """Run lengths out of COCO's compressed spelling.

    Each letter carries five bits of a number, the lowest first; from the fourth number on, numbers are
    differences to the number two places before.

    Raises:
        ValueError: A letter that the spelling does not have, or an end inside a number.

    Source: the format's description in the COCO API (Lin et al., ECCV 2014).
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - _FIRST_LETTER
        if not 0 <= bits < 2 * _MORE:
            raise ValueError(f"the letter {letter!r} does not occur in run lengths")
        value |= (bits & (_MORE - 1)) << shift
        shift += _BITS
        if shift > _MOST_BITS:
            raise ValueError("a run length is longer than any picture")
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the run lengths end inside a number")
    return counts
