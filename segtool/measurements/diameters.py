"""The longest diameter of a lesion in a plane, and the one across it.

A lesion's outline in a slice runs half-way between the centres of pixels inside and outside, as marching squares
draw it; a pixel by itself is then one pixel long, a row of ten is ten. Outlines through the outer corners of
pixels would add another half pixel to every oblique diameter.

* The **longest diameter** joins the two points of the outline that are farthest apart.
* The **perpendicular diameter** joins the two that are farthest apart among those on one line at right angles to the
  longest one, in the same slice.

What lies between the two points of either is not asked: necrosis within a ring belongs to the lesion's size.

Source: Macdonald et al., J Clin Oncol 8(7), 1990; Wen et al., J Clin Oncol 28(11), 2010 (the two diameters).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segtool.measurements.lesions import IntArray, Runs, spread

FloatArray = npt.NDArray[np.float64]

_DIRECTIONS = 16
_EQUAL = 6  # decimals up to which two lengths are equal
MOST_TIED = 8
"""So many equally long slices are looked at for the widest: of noise there may be hundreds."""
_ONE_PLACE = 9  # decimals up to which two points along a diameter are at one place


@dataclass(frozen=True, eq=False)
class Diameters:
    """The two diameters of a lesion in the slice where it is longest.

    Args:
        longest: In the unit of the pixels.
        perpendicular: Likewise.
        plane: Index of the slice.
        ends: ``(2, 2, 2)``: of the longest and of the perpendicular diameter the row and the column of both ends.
    """

    longest: float
    perpendicular: float
    plane: int
    ends: FloatArray

    @property
    def rank(self) -> tuple[float, float]:
        """Longer ones, and among equally long ones those that are wider, come last."""
        return round(self.longest, _EQUAL), round(self.perpendicular, _EQUAL)


_REACHES = (1, 1, 2, 4, 8, 1)
"""How far apart in their order points are held against each other."""


@dataclass(frozen=True, eq=False)
class Sections:
    """Every lesion in every slice, a section each, with a bound of its longest diameter.

    Args:
        runs: Ordered by lesion, then slice.
        starts: ``(S,)`` the first run of each section.
        lesion: ``(S,)`` the lesion of each.
        pixels: ``(2, 2)`` the step from row to row and from column to column in the plane, in mm or pixels.
        at_most: ``(S,)`` no shorter than the longest diameter.
    """

    runs: Runs
    starts: IntArray
    lesion: IntArray
    pixels: FloatArray
    at_most: FloatArray

    @classmethod
    def of(cls, runs: Runs, lesions: IntArray, pixels: FloatArray) -> "Sections":
        """Part runs, in the order of memory, by their lesions."""
        order = np.argsort(lesions, kind="stable")
        runs, lesions = runs.chosen(order), lesions[order]
        new = (np.diff(lesions, prepend=-1) != 0) | (np.diff(runs.plane, prepend=-1) != 0)
        starts = np.flatnonzero(new)
        widths = np.zeros(len(starts))
        for turn in range(_DIRECTIONS):
            angle = math.pi * turn / _DIRECTIONS
            row, column = pixels @ (math.cos(angle), math.sin(angle))
            ends = runs.row * row + np.sort(np.stack([runs.first, runs.last]) * column, axis=0)
            width = np.maximum.reduceat(ends[1], starts) - np.minimum.reduceat(ends[0], starts)
            # A pixel's own outline, a diamond, reaches this far to both sides of its centre.
            np.maximum(widths, width + max(abs(row), abs(column)), out=widths)
        # No direction is farther from one of those than half the angle between them.
        return cls(runs, starts, lesions[starts], pixels, widths / math.cos(math.pi / 2 / _DIRECTIONS))

    def diameters(self, lesion: int) -> Diameters:
        """Of one lesion; of equally long diameters the one with the longer perpendicular."""
        mine = np.flatnonzero(self.lesion == lesion)
        longest, found, tied = 0.0, None, 0
        # The most promising slices first; those that cannot be longer are never looked at.
        for section in mine[np.argsort(-self.at_most[mine])]:
            if self.at_most[section] < longest - 10.0**-_EQUAL or tied >= MOST_TIED:
                break
            runs = self._section(int(section))
            hull = _hull(runs)
            length, pairs = _farthest(hull @ self.pixels)
            if found is not None and round(length, _EQUAL) < round(longest, _EQUAL):
                continue
            tied = tied + 1 if round(length, _EQUAL) == round(longest, _EQUAL) else 0
            outline = _outline(runs)
            for pair in pairs[:MOST_TIED]:
                one = _with_perpendicular(hull[pair], outline, self.pixels, int(runs.plane[0]))
                if found is None or one.rank > found.rank:
                    longest, found = one.longest, one
        assert found is not None
        return found

    def _section(self, section: int) -> Runs:
        stop = self.starts[section + 1] if section + 1 < len(self.starts) else len(self.runs)
        return self.runs.chosen(np.arange(self.starts[section], stop))


def _hull(runs: Runs) -> FloatArray:
    """Corners ``(V, 2)`` of the convex hull of a section's outline, as row and column.

    By Andrew's monotone chain in whole numbers, for which the half pixels are doubled.
    """
    begins = np.flatnonzero(np.diff(runs.row, prepend=-1))
    rows = 2 * runs.row[begins]
    left, right = 2 * np.minimum.reduceat(runs.first, begins), 2 * np.maximum.reduceat(runs.last, begins)
    sides = []
    for column, outwards in ((left, -1), (right, 1)):
        corners = np.concatenate([(rows - 1, column), (rows, column + outwards), (rows + 1, column)], axis=1).T
        chain: list[tuple[int, int]] = []
        for point in map(tuple, _outermost(corners, outwards).tolist()):
            while len(chain) > 1 and outwards * _turn(chain[-2], chain[-1], point) >= 0:
                chain.pop()
            chain.append(point)
        sides += chain
    return np.array(sorted(set(sides)), np.float64) / 2


def _outermost(points: IntArray, outwards: int) -> IntArray:
    """Those of ``(V, 2)`` points that may be corners of the hull on one side, by row.

    Most are not: they lie on or within a line between two others, which is told of all at once.
    """
    points = points[np.lexsort((-outwards * points[:, 1], points[:, 0]))]
    points = points[np.diff(points[:, 0], prepend=-2) != 0]  # the outermost of each row; rows are -1 or more
    for reach in _REACHES:
        if len(points) <= 2 * reach:
            break
        steps = points[reach:-reach] - points[: -2 * reach], points[2 * reach :] - points[reach:-reach]
        bend = steps[0][:, 0] * steps[1][:, 1] - steps[0][:, 1] * steps[1][:, 0]
        kept = np.ones(len(points), np.bool_)
        kept[reach:-reach] = outwards * bend < 0
        points = points[kept]
    return points


def _turn(one: tuple[int, int], two: tuple[int, int], three: tuple[int, int]) -> int:
    """Above 0 where the columns at ``two`` bend towards higher ones."""
    return (two[0] - one[0]) * (three[1] - one[1]) - (two[1] - one[1]) * (three[0] - one[0])


def _farthest(points: FloatArray) -> tuple[float, IntArray]:
    """The greatest distance between two of ``(V, 2)`` points, and the pairs ``(P, 2)`` that have it."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    longest = float(distances.max())
    pairs = np.argwhere(distances > longest - 10.0**-_EQUAL)
    return longest, pairs[pairs[:, 0] < pairs[:, 1]]


def _outline(runs: Runs) -> FloatArray:
    """Segments ``(E, 2, 2)`` of the outline of a section, outer and inner: both ends as row and column.

    Pixels that touch at a corner hang together.
    """
    top, left = int(runs.row.min()) - 1, int(runs.first.min()) - 1
    mask = np.zeros((int(runs.row.max()) - top + 2, int(runs.last.max()) - left + 2), np.bool_)
    rows, columns = spread(runs.first - left, runs.last - left + 1)
    mask[runs.row[rows] - top, columns] = True
    # The four pixels around every corner of the grid; the outline crosses between two of them that differ.
    a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
    above, below, before, after = (0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)
    crossed = (a == d) & (b == c) & (a != b)
    kinds = [
        ((a != b) & (a != c) & ~(crossed & a), above, before),
        ((b != a) & (b != d) & ~(crossed & b), above, after),
        ((c != a) & (c != d) & ~(crossed & c), below, before),
        ((d != b) & (d != c) & ~(crossed & d), below, after),
        ((a == b) & (c == d) & (a != c), before, after),
        ((a == c) & (b == d) & (a != b), above, below),
    ]
    segments = [np.argwhere(where)[:, None] + np.array([one, other]) for where, one, other in kinds]
    return np.asarray(np.concatenate(segments) + np.array([top, left]), np.float64)


def _with_perpendicular(ends: FloatArray, outline: FloatArray, pixels: FloatArray, plane: int) -> Diameters:
    """Find the perpendicular diameter of a longest one whose ends are ``(2, 2)``.

    The distance across changes evenly between two stops along the longest diameter at which no segment of the outline
    begins or ends, and grows away from where two segments meet: the greatest is at a stop.
    """
    one, other = ends @ pixels
    longest = math.dist(one, other)
    along = (other - one) / longest
    across = np.array([-along[1], along[0]])
    points = outline @ pixels - one  # (E, 2, 2)
    where, height = np.round(points @ along, _ONE_PLACE), points @ across
    stops, at = np.unique(where, return_inverse=True)
    at = at.reshape(where.shape)
    which, stop = spread(at.min(axis=1), at.max(axis=1) + 1)
    begin, end = where[which].T
    share = np.divide(stops[stop] - begin, end - begin, out=np.zeros(len(which)), where=end != begin)
    heights = np.concatenate([height[which, 0] + share * (height[which, 1] - height[which, 0]), height.ravel()])
    stop = np.concatenate([stop, at.ravel()])  # a segment across the way has both its ends at one stop
    high, low = np.full(len(stops), -np.inf), np.full(len(stops), np.inf)
    np.maximum.at(high, stop, heights)
    np.minimum.at(low, stop, heights)
    best = int(np.argmax(high - low))
    line = one + stops[best] * along + np.array([[low[best]], [high[best]]]) * across
    return Diameters(longest, float(high[best] - low[best]), plane, np.stack([ends, line @ np.linalg.inv(pixels)]))
