"""Closed polygons as masks.

Coordinates are pixels with x along the columns and y along the rows; the centre of pixel ``(row, column)`` is at
``x = column, y = row``.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
_IntArray = npt.NDArray[np.intp]
_PIXELS, _CROSSINGS = 2**22, 2**18
"""Worked on at once, so that no outline takes more memory than its picture."""

ON_CENTRE = 0.02
"""Pixels within which a border counts as running through a centre: files round millimetres to two digits."""


def polygons_mask(polygons: Sequence[FloatArray], shape: tuple[int, int], *, with_border: bool = False) -> Mask:
    """The pixels whose centres lie inside an odd number of polygons.

    So a polygon inside another one is a hole, and a channel that is walked in both directions has no area. A border
    belongs to the pixels right of it and below it, so that polygons that share an edge share no pixel and leave none
    between them.

    Args:
        polygons: Each ``(P, 2)`` finite corners ``x, y``; the last is joined to the first. A polygon may be a point.
        shape: Rows and columns of the picture; what lies outside is cut.
        with_border: Pixels whose centres lie on a border belong to the structure on whichever side they are, and
            to the one around a hole. It is how programs draw that trace the centres of a mask's outermost pixels.

    Returns:
        ``(rows, columns)``.
    """
    mask = np.zeros(shape, np.bool_)
    if not any(map(len, polygons)):
        return mask
    if with_border:
        polygons = [_snapped(polygon) for polygon in polygons]
    start = np.concatenate(polygons)
    end = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    _fill(mask, start, end)
    if with_border:
        _mark_border(mask, start, end)
    return mask


def _fill(mask: Mask, start: FloatArray, end: FloatArray) -> None:
    first, last = lines_crossed(start, end, mask.shape[0])
    crossed = last > first
    top, bottom = int(first.min(where=crossed, initial=mask.shape[0])), int(last.max(where=crossed, initial=0))
    # Crossings beside their edges by a rounding error shall lie within, too.
    left, right = np.clip([start[:, 0].min() - 2, start[:, 0].max() + 2], 0, mask.shape[1]).astype(np.intp).tolist()
    width = right - left + 1
    band = max(1, _PIXELS // width)
    for upper in range(top, bottom, band):
        lower = min(bottom, upper + band)
        crossings = np.zeros((lower - upper) * width, np.intp)
        for edges in _parts(np.minimum(last, lower) - np.maximum(first, upper)):
            edge, line = _ranges(np.maximum(first[edges], upper), np.minimum(last[edges], lower))
            crossing = _crossing(start[edges][edge], end[edges][edge], line)
            column = np.clip(np.ceil(crossing), left, right).astype(np.intp) - left
            crossings += np.bincount((line - upper) * width + column, minlength=len(crossings))
        # Every pixel right of an odd number of crossings of its row is inside.
        inside = np.cumsum(crossings.reshape(-1, width)[:, :-1], axis=1) % 2 == 1
        mask[upper:lower, left:right] = inside


def lines_crossed(start: FloatArray, end: FloatArray, rows: int) -> tuple[_IntArray, _IntArray]:
    """The first line of pixels that each edge ``(N, 2)`` crosses, and the one after its last; cut at the picture."""
    first = np.clip(np.ceil(start[:, 1]), 0, rows).astype(np.intp)
    last = np.clip(np.ceil(end[:, 1]), 0, rows).astype(np.intp)
    return np.minimum(first, last), np.maximum(first, last)


def _parts(counts: _IntArray) -> Iterator[slice]:
    """Runs of edges that cross about as many lines together as are worked on at once."""
    sums = np.cumsum(np.maximum(counts, 0))
    if not len(sums) or sums[-1] <= _CROSSINGS:
        yield slice(None)
        return
    cuts = np.searchsorted(sums, np.arange(_CROSSINGS, sums[-1], _CROSSINGS)) + 1
    borders = [0, *np.unique(cuts[cuts < len(sums)]).tolist(), len(sums)]
    yield from (slice(*pair) for pair in pairwise(borders))


def _ranges(start: _IntArray, stop: _IntArray) -> tuple[_IntArray, _IntArray]:
    """All numbers from each ``start`` to before its ``stop``: of which range each is, and the number."""
    counts = np.maximum(stop - start, 0)
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(counts.sum()) + np.repeat(start - np.cumsum(counts) + counts, counts)


def _crossing(start: FloatArray, end: FloatArray, line: _IntArray) -> FloatArray:
    """Where edges ``(N, 2)`` that are not level meet the lines ``y = line``."""
    slope = (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    x: FloatArray = start[:, 0] + (line - start[:, 1]) * slope
    return x


def _snapped(polygon: FloatArray) -> FloatArray:
    nearest = np.rint(polygon)
    return np.where(np.abs(polygon - nearest) <= ON_CENTRE, nearest, polygon)


def _mark_border(mask: Mask, start: FloatArray, end: FloatArray) -> None:
    """Set the pixels whose centres lie on an edge; corners near a centre lie on it already."""
    rows, columns = mask.shape
    level = start[:, 1] == end[:, 1]
    on_line = level & (start[:, 1] == np.rint(start[:, 1])) & (start[:, 1] >= 0) & (start[:, 1] < rows)
    x = np.sort(np.stack([start[on_line, 0], end[on_line, 0]]), axis=0)
    left = np.clip(np.ceil(x[0] - ON_CENTRE), 0, columns).astype(np.intp)
    right = np.clip(np.floor(x[1] + ON_CENTRE) + 1, 0, columns).astype(np.intp)
    line = start[on_line, 1].astype(np.intp)
    for edges in _parts(right - left):
        which, column = _ranges(left[edges], right[edges])
        mask[line[edges][which], column] = True

    start, end = start[~level], end[~level]
    y = np.sort(np.stack([start[:, 1], end[:, 1]]), axis=0)
    first = np.clip(np.ceil(y[0]), 0, rows).astype(np.intp)
    stop = np.clip(np.floor(y[1]) + 1, 0, rows).astype(np.intp)
    for edges in _parts(stop - first):
        which, line = _ranges(first[edges], stop[edges])
        crossing = _crossing(start[edges][which], end[edges][which], line)
        near = np.rint(crossing)
        hit = (np.abs(crossing - near) <= ON_CENTRE) & (near >= 0) & (near < columns)
        mask[line[hit], near[hit].astype(np.intp)] = True
