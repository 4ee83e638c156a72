"""What a mask covers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.spec import LabelSpec

AnyArray = npt.NDArray[Any]


def coverage(labels: AnyArray, label: LabelSpec) -> npt.NDArray[np.float32]:
    """1 where a reference shows ``label``, else 0; float32 ``(*S)``."""
    if not label.reference_values:
        return np.asarray(labels != 0, np.float32)
    return np.asarray(np.isin(labels, label.reference_values), np.float32)


def nonzero_box(data: AnyArray) -> tuple[slice, ...]:
    """The smallest box around voxels that are not 0 in any channel of ``(C, *S)``; the whole grid if all are 0."""
    occupied = (data != 0).any(axis=0)
    box = []
    for axis in range(occupied.ndim):
        along = np.flatnonzero(occupied.any(axis=tuple(a for a in range(occupied.ndim) if a != axis)))
        box.append(slice(int(along[0]), int(along[-1]) + 1) if along.size else slice(0, occupied.shape[axis]))
    return tuple(box)
