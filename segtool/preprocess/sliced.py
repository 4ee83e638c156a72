"""A case as a 2D network sees it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import Case
from segtool.geometry import Geometry, Reorientation
from segtool.preprocess.intensity import Statistics, normalise
from segtool.preprocess.masks import coverage, nonzero_box
from segtool.preprocess.placement import Placement
from segtool.resample import resize
from segtool.spec import ModelSpec, Plane

Float32Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]

# Slices lie as a radiologist hangs them: the first axis counts slices, then rows, then columns. Axial rows grow
# to Posterior and columns to Left; coronal and sagittal rows grow to Inferior.
_HANGING = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
_PLANE_ACROSS = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "L": "sagittal", "R": "sagittal"}
_EQUAL_SPACING = 1.01  # ratio up to which two spacings count as equal


def slice_orientation(geometry: Geometry, plane: Plane = "acquired") -> str:
    """The orientation, such as ``"SPL"``, in which a volume's first axis counts slices hung as radiologists do."""
    if plane != "acquired":
        return _HANGING[plane]
    coarsest = max(geometry.spacing_mm)
    candidates = [axis for axis in range(3) if geometry.spacing_mm[axis] * _EQUAL_SPACING >= coarsest]
    fewest = min(geometry.shape[axis] for axis in candidates)
    planes = {_PLANE_ACROSS[geometry.orientation[axis]] for axis in candidates if geometry.shape[axis] == fewest}
    return _HANGING["axial" if "axial" in planes else sorted(planes)[0]]


class SlicedCase:
    """A case as a 2D network sees it: ``count`` inputs ``(C, h, w)``.

    Attributes:
        count: Number of slices; 1 for a picture.
        geometry: The case's own grid.
    """

    def __init__(self, case: Case, spec: ModelSpec) -> None:
        assert spec.input.rank == 2
        self._spec = spec
        self._input = spec.input
        geometry = case.geometry
        self.geometry = geometry
        self._move: Reorientation | None = None
        if geometry.kind == "volume":
            self._move = geometry.reorientation_to(slice_orientation(geometry, spec.input.plane))
        self._slices = self._cut(case.data)  # (C, N, H, W), a view of the case
        self.count: int = self._slices.shape[1]
        spacing = (1.0, 1.0)
        if self._move is not None:
            _, height_mm, width_mm = geometry.moved(self._move).spacing_mm
            spacing = height_mm, width_mm
        boxes = self._boxes()
        shapes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes]
        # One box serves all slices of a volume.
        self._crops = boxes * (self.count // len(boxes))
        fits: list[Placement] = [Placement.fit(one, spacing, spec.input) for one in shapes]
        self._placements: list[Placement] = fits * (self.count // len(boxes))
        self._statistics: list[Statistics | None] = [None] * len(self._slices)
        if spec.intensity.scope == "volume" and geometry.kind == "volume":
            inside = self._slices[(..., *boxes[0])]
            self._statistics = [Statistics.of(channel, spec.intensity) for channel in inside]

    def _cut(self, array: AnyArray) -> AnyArray:
        """View ``(..., *S)`` on the case's grid as ``(..., N, H, W)`` slices."""
        if self._move is not None:
            array = self._move.apply(array)
        return array[..., None, :, :] if self.geometry.kind == "image" else array

    def _boxes(self) -> list[tuple[slice, slice]]:
        """Rows and columns that the network sees, of all slices or of each."""
        height, width = self._slices.shape[2:]
        if not self._input.crop_to_nonzero:
            return [(slice(0, height), slice(0, width))]
        if self.geometry.kind == "stack":
            # Its pictures know nothing of each other: each is seen as if it were alone, as in training.
            return [_last_two(nonzero_box(self._slices[:, index])) for index in range(self.count)]
        return [_last_two(nonzero_box(self._slices))]

    def placement(self, index: int) -> Placement:
        """Where slice ``index`` lies in the network's frame."""
        return self._placements[index]

    def view(self, array: AnyArray, index: int) -> AnyArray:
        """Slice ``index`` ``(..., h, w)`` of ``(..., *S)`` on the case's grid, writable where ``array`` is.

        Where the spec crops, it is the crop.
        """
        return self._cut(array)[(..., index, *self._crops[index])]

    def is_blank(self, index: int) -> bool:
        """True where every channel of the slice is constant: there is nothing to segment."""
        return all(bool((channel == channel.flat[0]).all()) for channel in self._seen(index))

    def tensor(self, index: int) -> Float32Array:
        """Network input ``(C, h, w)`` of slice ``index``."""
        place = self.placement(index)
        frame = np.empty((len(self._slices), *place.frame), np.float32)
        for channel, (native, known) in enumerate(zip(self._seen(index), self._statistics, strict=True)):
            values = self._fitted(native, known, place.inner)
            frame[channel] = 0.0 if self._spec.intensity.background == "zero" else values.min()
            frame[(channel, *place.window)] = values
        return frame

    def _seen(self, index: int) -> AnyArray:
        """Slice ``index`` of every channel, ``(C, h, w)``, as :meth:`view` gives it."""
        return self._slices[(slice(None), index, *self._crops[index])]

    def _fitted(self, native: AnyArray, known: Statistics | None, inner: tuple[int, int]) -> Float32Array:
        """One channel of a slice, normalised and resized to its place in the frame."""
        if known is None:
            return normalise(resize(native, inner), self._spec.intensity)
        # The statistics are of native voxels; resizing first would narrow the slice's own range against them.
        return resize(normalise(native, self._spec.intensity, known), inner)

    def target(self, labels: AnyArray, index: int) -> Float32Array:
        """What the network should answer for slice ``index``.

        Args:
            labels: Reference label map ``(*S)`` on the case's grid.
            index: The slice.

        Returns:
            ``(L, h, w)`` share of each pixel that each label of the spec covers, in [0, 1].
        """
        plane, place = self.view(labels, index), self.placement(index)
        frame = np.zeros((len(self._spec.labels), *place.frame), np.float32)
        for row, label in enumerate(self._spec.labels):
            frame[(row, *place.window)] = resize(coverage(plane, label), place.inner)
        return frame


def _last_two(box: tuple[slice, ...]) -> tuple[slice, slice]:
    return box[-2], box[-1]
