"""Masks as closed polygons along the edges of their pixels.

Every group of pixels that share edges becomes one polygon, its holes included: a channel without width leads from the
outline to the hole and back (the "keyhole" of DICOM PS3.3 C.8.8.6.3). Readers that unite polygons, those that take
one inside another as a hole and those that count windings then all see the same area. Pixels that share only a
corner belong to different polygons, so none crosses itself.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
_IntArray = npt.NDArray[np.intp]

INSET = 0.01
"""Pixels by which polygons lie inside the edges. So those of pixels that share a corner do not touch, and a reader
that moves corners to the nearest pixel centre and fills up to the border included gets the same mask as one that
asks which centres lie inside."""

_NW, _NE, _SW, _SE = 1, 2, 4, 8
_ALL = _NW | _NE | _SW | _SE
_DIAGONALS = {_NW | _SE: (_NW, _SE), _NE | _SW: (_NE, _SW)}
_TOWARDS = {_NW: (-1, -1), _NE: (-1, 1), _SW: (1, -1), _SE: (1, 1)}
"""Row and column steps from a corner to the middle of one of the four pixels around it."""


class _Corners(NamedTuple):
    """Corners of outlines, sorted by slice, row, column. One where two outlines touch is there twice.

    Args:
        place: ``(N, 3)`` slice, row and column; corner ``(r, c)`` is the upper left one of pixel ``(r, c)``.
        shift: ``(N, 2)`` row and column steps into the structure, each 1, -1 or 0.
        arm: ``(N, 2)`` signs of the direction in which its outline leaves it along the column (rows) and along
            the row (columns).
    """

    place: _IntArray
    shift: _IntArray
    arm: _IntArray


def outlines(mask: Mask) -> list[list[FloatArray]]:
    """The polygons of every slice.

    Args:
        mask: ``(slices, rows, columns)``.

    Returns:
        For each slice its polygons, each ``(P, 2)`` corners as x (column) and y (row), in pixels, where the centre of
        pixel ``(row, column)`` is at ``x = column, y = row``. Seen with rows downwards they run clockwise. Their
        corners are where the outline turns, and the two ends of channels.
    """
    polygons: list[list[FloatArray]] = [[] for _ in mask]
    corners = _corners(mask)
    if not len(corners.place):
        return polygons
    after = _neighbours(corners)
    holes = _holes(corners, after)
    corners, after = _with_channels(corners, after, holes, mask)
    points = corners.place[:, 1:] - 0.5 + INSET * corners.shift
    points = points[:, ::-1]
    slices = corners.place[:, 0].tolist()
    for loop in _loops(after):
        polygons[slices[loop[0]]].append(points[loop])
    return polygons


def _corners(mask: Mask) -> _Corners:
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1))).view(np.uint8)
    pattern = padded[:, :-1, :-1] * np.uint8(_NW)
    pattern += padded[:, :-1, 1:] * np.uint8(_NE)
    pattern += padded[:, 1:, :-1] * np.uint8(_SW)
    pattern += padded[:, 1:, 1:] * np.uint8(_SE)
    turns = np.zeros(_ALL + 1, np.bool_)
    turns[[*_TOWARDS, *(_ALL - one for one in _TOWARDS), *_DIAGONALS]] = True
    flat = np.flatnonzero(turns[pattern])
    kinds = pattern.reshape(-1)[flat]
    # Two pixels that share only this corner: one corner of each.
    for both, (one, other) in _DIAGONALS.items():
        where = np.flatnonzero(kinds == both)
        kinds[where] = one
        flat, kinds = np.append(flat, flat[where]), np.append(kinds, np.full(len(where), other, kinds.dtype))
    shift, arm = np.zeros((2, _ALL + 1, 2), np.intp)
    for one, (down, right) in _TOWARDS.items():
        shift[one], shift[_ALL - one] = (down, right), (-down, -right)
        arm[one] = arm[_ALL - one] = down, right
    arm = arm[kinds]
    order = np.lexsort((arm[:, 1], flat))
    place = np.stack(np.unravel_index(flat, pattern.shape), axis=1)
    return _Corners(place[order], shift[kinds][order], arm[order])


def _neighbours(corners: _Corners) -> _IntArray:
    """``(N,)``, the corner that follows each one, the structure on the right hand.

    Along a row of corners every first and second one are the ends of an edge, and so along a column.
    """
    after = np.empty(len(corners.place), np.intp)
    left, right = np.arange(len(after)).reshape(-1, 2).T
    _link(after, left, right, corners.shift[left, 0] > 0)  # the structure below: to the right
    upper, lower = _by_columns(corners).reshape(-1, 2).T
    _link(after, upper, lower, corners.shift[upper, 1] < 0)  # the structure on the left: downwards
    return after


def _by_columns(corners: _Corners) -> _IntArray:
    slices, rows, columns = corners.place.T
    order: _IntArray = np.lexsort((corners.arm[:, 0], rows, columns, slices))
    return order


def _link(after: _IntArray, one: _IntArray, other: _IntArray, forward: npt.NDArray[np.bool_]) -> None:
    after[np.where(forward, one, other)] = np.where(forward, other, one)


def _loops(after: _IntArray) -> list[list[int]]:
    """The cycles of a permutation, each from its lowest member on."""
    following = after.tolist()
    loops = []
    for start in range(len(following)):
        if following[start] < 0:
            continue
        loop, here = [], start
        while following[here] >= 0:
            loop.append(here)
            following[here], here = -1, following[here]
        loops.append(loop)
    return loops


def _holes(corners: _Corners, after: _IntArray) -> _IntArray:
    """The first corner, upmost and of those leftmost, of every outline around a hole."""
    first = np.array([loop[0] for loop in _loops(after)], np.intp)
    # The pixel right below it is the structure's, or the hole's.
    holes: _IntArray = first[corners.shift[first, 0] < 0]
    return holes


def _with_channels(corners: _Corners, after: _IntArray, holes: _IntArray, mask: Mask) -> tuple[_Corners, _IntArray]:
    """Every hole joined to the outline on its left, at the height of its first corner.

    That outline is the outer one or that of a hole whose first corner comes earlier, so all end up in one polygon.
    Left of the first corner both rows beside the channel are the structure's, so no channel meets another.
    """
    if not len(holes):
        return corners, after
    ends = np.array([_channel_end(mask, *corners.place[hole].tolist()) for hole in holes], np.intp)
    k, rows, columns = mask.shape
    everywhere, wanted = (
        np.ravel_multi_index(tuple(place.T), (k, rows + 1, columns + 1)) for place in (corners.place, ends)
    )
    at = np.searchsorted(everywhere, wanted)  # before the last: that one lies at the bottom of an outline
    is_corner = everywhere[at] == wanted
    # In the middle of an upright edge, the structure on its right: cut in two, by one corner each.
    corners, (arriving, leaving) = _appended(corners, ends[~is_corner], np.array([0, 1]), down=(1, -1))
    after = np.append(after, np.empty(len(arriving) * 2, np.intp))
    upper, lower = _by_columns(corners).reshape(-1, 2).T
    _link(after, upper, lower, corners.shift[upper, 1] < 0)

    inlet, outlet = (np.empty(len(holes), np.intp) for _ in range(2))
    inlet[~is_corner], outlet[~is_corner] = arriving, leaving
    inlet[is_corner] = at[is_corner]
    corners, (outlet[is_corner],) = _appended(corners, ends[is_corner], corners.shift[at[is_corner]])
    corners, (mouth,) = _appended(corners, corners.place[holes], corners.shift[holes])
    after = np.append(after, np.empty(len(corners.place) - len(after), np.intp))
    after[outlet[is_corner]] = after[at[is_corner]]
    after[mouth] = after[holes]
    after[inlet], after[holes] = mouth, outlet
    return corners, after


def _channel_end(mask: Mask, k: int, row: int, column: int) -> tuple[int, int, int]:
    """Where the line from a corner to the left leaves the structure on either side of it."""
    outside = np.flatnonzero(~(mask[k, row - 1, :column] & mask[k, row, :column]))
    return k, row, int(outside[-1]) + 1 if len(outside) else 0


def _appended(
    corners: _Corners, place: _IntArray, shift: _IntArray, down: tuple[int, ...] = (0,)
) -> tuple[_Corners, list[_IntArray]]:
    """Corners at the end of the list, at each place one for each of ``down``; and their numbers."""
    n, count = len(corners.place), len(place)
    shift = np.broadcast_to(shift, (count, 2))
    arms = [np.broadcast_to(np.array([one, 0]), (count, 2)) for one in down]
    more = _Corners(
        np.concatenate([corners.place, *[place] * len(down)]),
        np.concatenate([corners.shift, *[shift] * len(down)]),
        np.concatenate([corners.arm, *arms]),
    )
    return more, [n + i * count + np.arange(count) for i in range(len(down))]
