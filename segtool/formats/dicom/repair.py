"""Slices that form no even stack: what is wrong with their positions, and how an even stack is made of them.

Heights are millimetres along the normal of the slices. Nothing in here reads a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segtool.formats.arrays import AnyArray

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

GAP_TOLERANCE_MM = 0.1
GAP_TOLERANCE = 0.01
"""Positions may miss an even stack by the larger of both: tags are rounded, those of thick slices more."""

_HIGHEST_TOLERANCE = 0.2
"""Of the distance of slices: however thin they are, uneven ones are found."""

MAX_MISSING = 0.2
"""Share of the slices that may be interpolated."""

MAX_MISSING_IN_A_ROW = 3
"""Beyond three slices of the usual 1 to 5 mm whole lesions would be invented or lost."""

_NAMED_GAPS = 3
_NO_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class Heights:
    """Where the slices lie along their normal.

    Args:
        mm: Ascending, all different; at least 2.
        usual_mm: The distance that most neighbours have.
        problem: What is wrong with the distances; empty where they are even.
        missing: How many slices would fill the gaps.
        is_whole: True where every distance is a whole multiple of the usual one: slices are missing, and those that
            are there lie where an even stack has them.
        beyond_repair: Why nothing evens them out; empty where something does.
    """

    mm: Floats
    usual_mm: float
    problem: str
    missing: int
    is_whole: bool
    beyond_repair: str


@dataclass(frozen=True, eq=False)
class Layers:
    """How the slices of an even stack come from those that are there.

    Args:
        below: ``(K,)``, for each slice of the stack the one of those that are there at its height, or next below.
        share: ``(K,)``, in [0, 1): weight of the next one above; 0 is a copy.
        nearest: ``(M,)``, for each of those that are there the nearest slice of the stack.
    """

    below: Indices
    share: Floats
    nearest: Indices


def tolerance_mm(usual_mm: float) -> float:
    """How far a position may miss its place."""
    return min(max(GAP_TOLERANCE_MM, GAP_TOLERANCE * usual_mm), _HIGHEST_TOLERANCE * usual_mm)


def measured(mm: Floats) -> Heights:
    """What is right and wrong with the distances of neighbours.

    Args:
        mm: As of :class:`Heights`.
    """
    gaps = np.diff(mm)
    usual = _usual(gaps)
    steps = np.maximum(np.rint(gaps / usual), 1)
    tolerance = tolerance_mm(usual)
    places = np.concatenate(([0.0], np.cumsum(steps)))
    misses = np.abs(mm - mm[0] - places * (mm[-1] - mm[0]) / places[-1])
    is_whole = bool((np.abs(gaps - steps * usual) <= tolerance * steps).all() and misses.max() <= tolerance)
    missing = int(steps.sum()) - len(gaps)
    if is_whole and not missing:
        return Heights(mm, usual, "", 0, is_whole=True, beyond_repair="")
    odd = np.flatnonzero(steps > 1) if is_whole else np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if not len(odd):  # every distance is nearly the usual one, and all of them together are not
        odd = np.array([np.abs(gaps - usual).argmax()])
    what = [f"{missing} missing"] * bool(missing) + ["unequal spacing"] * (not is_whole)
    problem = f"slices are {usual:.2f} mm apart, but {_named(mm, odd)} along the normal ({', '.join(what)})"
    too_many = missing > MAX_MISSING * (len(mm) + missing) or steps.max() > MAX_MISSING_IN_A_ROW + 1
    limits = f"too many to interpolate: at most {MAX_MISSING_IN_A_ROW} in a row and {MAX_MISSING:.0%} of all"
    return Heights(mm, usual, problem, missing, is_whole, limits if too_many else "")


def _usual(gaps: Floats) -> float:
    """The middle of the distances that most neighbours share; of several such the smallest."""
    ascending = np.sort(gaps)
    tolerance = np.array([tolerance_mm(gap) for gap in ascending])
    low = np.searchsorted(ascending, ascending - tolerance)
    high = np.searchsorted(ascending, ascending + tolerance, side="right")
    best = int((high - low).argmax())
    return float(np.median(ascending[low[best] : high[best]]))


def _named(mm: Floats, odd: Sequence[int] | Indices) -> str:
    named = [f"{mm[i + 1] - mm[i]:.2f} mm between {mm[i]:.1f} and {mm[i + 1]:.1f} mm" for i in odd[:_NAMED_GAPS]]
    more = len(odd) - len(named)
    named += [f"{more} {'gap' if more == 1 else 'gaps'} more"] * bool(more)
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def evened(heights: Heights) -> Layers:
    """The even stack from the lowest to the highest slice, about the usual distance apart."""
    mm, extent = heights.mm, heights.mm[-1] - heights.mm[0]
    if heights.is_whole:
        places = np.concatenate(([0.0], np.cumsum(np.rint(np.diff(mm) / heights.usual_mm))))
    else:
        places = (mm - mm[0]) * (max(round(extent / heights.usual_mm), 1) / extent)
    count = round(places[-1]) + 1
    wanted = np.arange(count, dtype=np.float64)
    below = np.clip(np.searchsorted(places, wanted + _NO_SHARE, side="right") - 1, 0, len(mm) - 1)
    above = np.minimum(below + 1, len(mm) - 1)
    share = np.clip((wanted - places[below]) / np.maximum(places[above] - places[below], _NO_SHARE), 0, 1)
    share[share < _NO_SHARE] = 0
    return Layers(below, share, np.clip(np.rint(places), 0, count - 1).astype(np.intp))


def copied(count: int) -> Layers:
    """The stack of slices that are even as they lie."""
    return Layers(np.arange(count), np.zeros(count), np.arange(count))


def assembled(
    stack: AnyArray, order: Indices, layers: Layers, offset: Floats, size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Interpolate linearly between slices, each moved within its plane.

    Args:
        stack: ``(N, rows, columns)`` in the order of the files.
        order: ``(M,)``, the files by height.
        layers: How the stack comes from them.
        offset: ``(M, 2)``, rows and columns by which each is moved, 0 or more.
        size: Rows and columns of the result, which holds all of them.

    Returns:
        ``(K, *size)``. Beyond the slices, the lowest value of them all.
    """
    # Most series need no repair.
    from scipy import ndimage

    lowest = float(stack[order].min())
    margins = [(0, more - have) for more, have in zip(size, stack.shape[1:], strict=True)]

    def moved(place: int) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = stack[order[place]].astype(np.float32)
        if not offset.any():
            return values
        padded = np.pad(values, margins, constant_values=lowest)
        shifted = np.empty_like(padded)
        ndimage.shift(padded, offset[place], shifted, order=1, mode="grid-constant", cval=lowest)
        return shifted

    made = np.empty((len(layers.below), *size), np.float32)
    held: dict[int, npt.NDArray[np.float32]] = {}
    for k, (below, share) in enumerate(zip(layers.below.tolist(), layers.share.tolist(), strict=True)):
        needed = (below, below + 1) if share else (below,)
        held = {place: held[place] if place in held else moved(place) for place in needed}
        made[k] = held[below]
        if share:
            made[k] += np.float32(share) * (held[below + 1] - held[below])
    return made
