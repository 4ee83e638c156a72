"""What contours make drawing do, held against limits before anything is drawn."""

import numpy as np
import numpy.typing as npt

from segtool.case import Source
from segtool.formats.polygons import ON_CENTRE, lines_crossed

_FloatArray = npt.NDArray[np.float64]
_IntArray = npt.NDArray[np.intp]

_PASSES = 16
"""Times ``Limits.drawn_pixels`` that drawing may pass over pixels. 100 structures in 500 slices take a third of it."""
_CROSSING = 4
"""Pixels of the limit for each line of pixels that an edge crosses: 20 times what takes as long as it."""


def check_work(
    points: _FloatArray,
    starts: _IntArray,
    structures: _IntArray,
    slices: _IntArray,
    shape: tuple[int, int],
    source: Source,
) -> None:
    """Refuse what would take minutes to draw, whatever the size of the file.

    Args:
        points: ``(P, 2)`` of all contours, one after another, as ``x, y`` in pixels.
        starts: ``(C + 1,)`` first point of each contour, and the end of the last.
        structures: ``(C,)`` to which the contours belong; those of one in a slice are drawn together.
        slices: ``(C,)`` in which they lie.
        shape: Rows and columns of a slice.
        source: The file.

    Raises:
        LimitError: They cross too many lines, or cover too many pixels.
    """
    following = np.roll(points, -1, axis=0)
    following[starts[1:] - 1] = points[starts[:-1]]
    first, last = lines_crossed(points, following, shape[0])
    # The border of a level edge is marked pixel by pixel.
    is_level = np.abs(points[:, 1] - following[:, 1]) <= 2 * ON_CENTRE
    lengths = np.minimum(np.abs(points[:, 0] - following[:, 0]), shape[1])
    crossings = int((last - first).sum()) + int(lengths.sum(where=is_level)) + len(points)
    where = str(source.path)
    source.limits.check("drawn_pixels", crossings * _CROSSING, where, f"contours that cross {crossings} pixels")
    contours = np.minimum.reduceat(points, starts[:-1]), np.maximum.reduceat(points, starts[:-1])
    order = np.lexsort((slices, structures))
    is_next = (np.diff(structures[order]) != 0) | (np.diff(slices[order]) != 0)
    masks = np.concatenate([[0], np.flatnonzero(is_next) + 1])
    low, high = np.minimum.reduceat(contours[0][order], masks), np.maximum.reduceat(contours[1][order], masks)
    sides = reach(low, high, shape)
    pixels = int((sides[..., 1] - sides[..., 0]).prod(axis=0).sum())
    source.limits.check("drawn_pixels", pixels // _PASSES, where, f"contours around {pixels} pixels")


def reach(low: _FloatArray, high: _FloatArray, shape: tuple[int, int]) -> _IntArray:
    """The pixels that drawing between two corners may set, and one more on each side; cut at the picture.

    Args:
        low: ``(N, 2)`` least ``x, y`` in pixels.
        high: Likewise the greatest.
        shape: Rows and columns of the picture.

    Returns:
        ``(2, N, 2)``: of rows and of columns the first, and the one after the last.
    """
    size = np.array(shape)[:, np.newaxis]
    first, after = np.floor(low.T[::-1]) - 1, np.ceil(high.T[::-1]) + 2
    sides: _IntArray = np.clip(np.stack([first, after], axis=-1), 0, size[..., np.newaxis]).astype(np.intp)
    return sides
