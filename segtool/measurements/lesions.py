"""The voxels of a label map as runs along its rows, and the lesions that they form.

A tumour of 200,000 voxels is some 5,000 runs: what is measured of it costs next to nothing once they are known.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

# Half of a voxel's neighbours by face, edge and corner, as steps of plane and row; its own row is one of them.
_NEIGHBOURS = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, eq=False)
class Runs:
    """Stretches of one label value in a row of a volume ``(N, H, W)``, ordered as they lie in memory; arrays ``(R,)``.

    Args:
        plane: Index of the slice.
        row: Index of the row in it.
        first: Column of the first voxel.
        last: Column of the last voxel.
        value: The label value, not 0.
    """

    plane: IntArray
    row: IntArray
    first: IntArray
    last: IntArray
    value: IntArray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def voxels(self) -> IntArray:
        """In each run."""
        return self.last - self.first + 1

    def chosen(self, which: npt.NDArray[Any]) -> "Runs":
        """Those of a mask or of indices."""
        return Runs(*(part[which] for part in (self.plane, self.row, self.first, self.last, self.value)))


def runs_of(labels: npt.NDArray[Any]) -> Runs:
    """The runs of all label values of ``(N, H, W)``, unsigned integers."""
    box = _box(labels)
    inside = labels[box]
    # A 0 behind every row ends its last run there.
    flat = np.zeros((*inside.shape[:2], inside.shape[2] + 1), labels.dtype)
    flat[..., :-1] = inside
    shape, flat = flat.shape, flat.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    begins = flat[changes] != 0
    starts, ends = changes[begins], changes[1:][begins[:-1]]
    plane, row, first = (index + axis.start for index, axis in zip(np.unravel_index(starts, shape), box, strict=True))
    return Runs(plane, row, first, first + (ends - starts) - 1, flat[starts].astype(np.int64))


def _box(labels: npt.NDArray[Any]) -> tuple[slice, ...]:
    """The smallest box around what is not 0; empty where there is nothing."""
    # The axis of the longest stride first: the others are then searched in one picture.
    slowest = int(np.argmax(np.abs(labels.strides)))
    shadow = np.asarray(labels.max(axis=slowest) != 0, np.bool_)
    across = [_extent(np.asarray(shadow.any(axis=axis))) for axis in (1, 0)]
    box = [*across[:slowest], slice(None), *across[slowest:]]
    others = tuple(axis for axis in range(3) if axis != slowest)
    box[slowest] = _extent(np.asarray(labels[tuple(box)].any(axis=others), np.bool_))
    return tuple(box)


def _extent(occupied: npt.NDArray[np.bool_]) -> slice:
    inside = np.flatnonzero(occupied)
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def lesions_of(runs: Runs) -> IntArray:
    """Number the connected components of runs by face, edge and corner neighbours.

    Returns:
        ``(R,)`` the component of each run, from 0.
    """
    if not len(runs):
        return np.zeros(0, np.int64)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Positions in a volume with a border, so that a step from its edge meets nothing on the other side.
    width, height = int(runs.last.max()) + 3, int(runs.row.max()) + 2
    start = (runs.plane * height + runs.row + 1) * width + 1
    first, last = start + runs.first, start + runs.last
    one, other = [], []
    for plane, row in _NEIGHBOURS:
        step = (plane * height + row) * width
        low = np.searchsorted(last, first + step - 1, side="left")
        high = np.searchsorted(first, last + step + 1, side="right")
        which, met = spread(low, np.maximum(high, low))
        one.append(which)
        other.append(met)
    pairs = np.concatenate(one), np.concatenate(other)
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), (len(runs), len(runs)))
    _, numbers = connected_components(graph, directed=False)
    return np.asarray(numbers, np.int64)


def spread(low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
    """Write ranges out: for every ``i`` the numbers from ``low[i]`` up to ``high[i]``, beside as many ``i``."""
    count = high - low
    which = np.repeat(np.arange(len(low)), count)
    within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return which, low[which] + within
