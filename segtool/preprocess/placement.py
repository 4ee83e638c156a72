"""Where a slice lies in the network's frame."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.resample import linear_matrix, resize
from segtool.spec import SliceSpec

Float32Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Placement:
    """Where a slice of ``native`` pixels lies in the network's frame of ``frame`` pixels."""

    native: tuple[int, int]
    frame: tuple[int, int]
    inner: tuple[int, int]
    offset: tuple[int, int]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that show the slice; the rest is padding."""
        return (
            slice(self.offset[0], self.offset[0] + self.inner[0]),
            slice(self.offset[1], self.offset[1] + self.inner[1]),
        )

    @classmethod
    def fit(cls, native: tuple[int, int], spacing: tuple[float, float], spec: SliceSpec) -> "Placement":
        """Fit a slice with pixels of ``spacing`` (rows, columns; any unit) into the frame of ``spec``."""
        frame = spec.size
        if spec.fit == "stretch":
            return cls(native, frame, frame, (0, 0))
        extent = native[0] * spacing[0], native[1] * spacing[1]
        scale = min(frame[0] / extent[0], frame[1] / extent[1])
        inner = (
            min(frame[0], max(1, round(extent[0] * scale))),
            min(frame[1], max(1, round(extent[1] * scale))),
        )
        return cls(native, frame, inner, ((frame[0] - inner[0]) // 2, (frame[1] - inner[1]) // 2))

    def to_native(self, maps: AnyArray, box: tuple[slice, slice] | None = None) -> Float32Array:
        """Resample maps ``(K, h, w)`` in the frame to the slice's own pixels.

        Args:
            maps: On the network's frame.
            box: Rows and columns of the slice to make; None for all of it.

        Returns:
            ``(K, H, W)``, or the box of it.
        """
        inner = maps[(..., *self.window)]
        if box is None:
            return resize(inner, self.native)
        rows, columns = (
            linear_matrix(small, large)[part] for small, large, part in zip(self.inner, self.native, box, strict=True)
        )
        # Weights vanish outside a narrow band: leave the rest of the frame out of the product.
        top, left = (_used(matrix) for matrix in (rows, columns))
        return np.asarray(rows[:, top] @ inner[..., top, left] @ columns[:, left].T, np.float32)

    def native_box(self, inside: npt.NDArray[np.bool_]) -> tuple[slice, slice] | None:
        """The native pixels that any pixel of the frame's mask ``(h, w)`` influences; None where there is none."""
        shown = inside[self.window]
        box = []
        for axis in range(2):
            hit = np.flatnonzero(shown.any(axis=1 - axis))
            if not hit.size:
                return None
            scale = self.native[axis] / self.inner[axis]
            # Linear weights reach one frame pixel, or one native pixel where that is wider; one more for rounding.
            reach = max(scale, 1.0) + 1
            start, stop = hit[0] * scale - reach, (hit[-1] + 1) * scale + reach
            box.append(slice(max(0, int(start)), min(self.native[axis], int(stop) + 1)))
        return box[0], box[1]


def _used(matrix: Float32Array) -> slice:
    """The columns of a weight matrix that are not 0 throughout."""
    columns = np.flatnonzero(matrix.any(axis=0))
    return slice(int(columns[0]), int(columns[-1]) + 1)
