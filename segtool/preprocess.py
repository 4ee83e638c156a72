"""From a case to what the network sees, and back onto the case's grid.

This is the only preprocessing there is. Training fills its cache through the same two classes, so that a
network never meets pixels at inference that were made in another way.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import Case
from segtool.geometry import Geometry, Reorientation
from segtool.resample import linear_matrix, resize
from segtool.spec import IntensitySpec, LabelSpec, ModelSpec, Plane, SliceSpec, VolumeSpec

Float32Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]

# Slices lie as a radiologist hangs them: the first axis counts slices, then rows, then columns. Axial rows grow
# to Posterior and columns to Left; coronal and sagittal rows grow to Inferior.
_HANGING = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
_PLANE_ACROSS = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "L": "sagittal", "R": "sagittal"}
_EQUAL_SPACING = 1.01  # ratio up to which two spacings count as equal


@dataclass(frozen=True)
class Statistics:
    """What normalising takes from an image: its clipped range, and mean and deviation of the foreground."""

    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, image: AnyArray, intensity: IntensitySpec) -> "Statistics":
        """Of all voxels ``(*S)`` of one channel."""
        values = image.astype(np.float32)
        low, high = _range(values, intensity.percentiles)
        nonzero = values != 0
        np.clip(values, low, high, out=values)
        return cls(low, high, *_moments(values[_foreground(values, nonzero, low, high, intensity)]))


def normalise(image: AnyArray, intensity: IntensitySpec, known: Statistics | None = None) -> Float32Array:
    """Normalise one channel as :class:`~segtool.spec.IntensitySpec` says.

    Args:
        image: ``(*S)`` finite intensities of one channel.
        intensity: The rule.
        known: Statistics to use; None takes those of ``image`` itself.

    Returns:
        A new float32 array ``(*S)``. A constant image becomes 0 everywhere.
    """
    values = image.astype(np.float32)
    if intensity.kind == "none":
        return values
    nonzero = values != 0
    low, high = (known.low, known.high) if known else _range(values, intensity.percentiles)
    np.clip(values, low, high, out=values)
    foreground = _foreground(values, nonzero, low, high, intensity)
    if high <= low or (known is None and not foreground.any()):
        return np.zeros_like(values)
    if intensity.kind == "minmax":
        values -= low
        values /= high - low
    else:
        mean, deviation = (known.mean, known.deviation) if known else _moments(values[foreground])
        values -= mean
        values /= deviation if deviation > 0 else 1.0
    if intensity.background == "zero":
        values[~foreground] = 0.0
    return values


def _foreground(
    values: Float32Array, nonzero: npt.NDArray[np.bool_], low: float, high: float, intensity: IntensitySpec
) -> npt.NDArray[np.bool_]:
    """Which of the clipped ``values`` count, as the rule says."""
    if intensity.foreground == "nonzero":
        return nonzero
    if intensity.foreground == "above":
        return np.asarray(values > low + intensity.foreground_fraction * (high - low))
    return np.ones(values.shape, bool)


def _moments(inside: Float32Array) -> tuple[float, float]:
    """Mean and standard deviation; 0 and 0 of nothing."""
    if not inside.size:
        return 0.0, 0.0
    return float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))


def _range(values: Float32Array, percentiles: tuple[float, float] | None) -> tuple[float, float]:
    """The low and high end of ``values``, by percentile (nearest rank) or by extremes."""
    if percentiles is None:
        return float(values.min()), float(values.max())
    last = values.size - 1
    ranks = [round(last * percent / 100) for percent in percentiles]
    # One partial sort for both ranks; interpolating between neighbours would change nothing that matters.
    ordered = np.partition(values, ranks, axis=None)
    return float(ordered[ranks[0]]), float(ordered[ranks[1]])


def coverage(labels: AnyArray, label: LabelSpec) -> Float32Array:
    """1 where a reference shows ``label``, else 0; float32 ``(*S)``."""
    if not label.reference_values:
        return np.asarray(labels != 0, np.float32)
    return np.asarray(np.isin(labels, label.reference_values), np.float32)


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
        placement: Where each slice lies in the network's frame.
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
        self._crop = (slice(None), slice(None))
        if spec.input.crop_to_nonzero:
            _, rows, columns = nonzero_box(self.slice_view(case.data))
            self._crop = (rows, columns)
        self.slices = self.slice_view(case.data)  # (C, N, H, W), a view of the case
        _, self.count, height, width = self.slices.shape
        self._statistics: list[Statistics | None] = [None] * len(self.slices)
        if spec.intensity.scope == "volume" and geometry.kind == "volume":
            self._statistics = [Statistics.of(channel, spec.intensity) for channel in self.slices]
        self.spacing = (1.0, 1.0)
        if self._move is not None:
            moved = geometry.moved(self._move)
            self.spacing = (moved.spacing_mm[1], moved.spacing_mm[2])
        self.placement = Placement.fit((height, width), self.spacing, spec.input)

    def slice_view(self, array: AnyArray) -> AnyArray:
        """View ``(..., *S)`` on the case's grid as ``(..., N, H, W)`` slices, writable where ``array`` is.

        Where the spec crops, the slices are the crops.
        """
        if self._move is not None:
            array = self._move.apply(array)
        elif self.geometry.kind == "image":
            array = array[..., None, :, :]
        return array[(..., *self._crop)]

    def is_blank(self, index: int) -> bool:
        """True where every channel of the slice is constant: there is nothing to segment."""
        return all(bool((channel == channel.flat[0]).all()) for channel in self.slices[:, index])

    def tensor(self, index: int) -> Float32Array:
        """Network input ``(C, h, w)`` of slice ``index``."""
        channels = self.slices.shape[0]
        frame = np.empty((channels, *self.placement.frame), np.float32)
        for channel in range(channels):
            values = self._fitted(channel, index)
            frame[channel] = 0.0 if self._spec.intensity.background == "zero" else values.min()
            frame[(channel, *self.placement.window)] = values
        return frame

    def _fitted(self, channel: int, index: int) -> Float32Array:
        """One channel of a slice, normalised and resized to its place in the frame."""
        native, known = self.slices[channel, index], self._statistics[channel]
        if known is None:
            return normalise(resize(native, self.placement.inner), self._spec.intensity)
        # The statistics are of native voxels; resizing first would narrow the slice's own range against them.
        return resize(normalise(native, self._spec.intensity, known), self.placement.inner)

    def target(self, labels: AnyArray, index: int) -> Float32Array:
        """What the network should answer for slice ``index``.

        Args:
            labels: Reference label map ``(*S)`` on the case's grid.
            index: The slice.

        Returns:
            ``(L, h, w)`` share of each pixel that each label of the spec covers, in [0, 1].
        """
        plane = self.slice_view(labels)[index]
        frame = np.zeros((len(self._spec.labels), *self.placement.frame), np.float32)
        for row, label in enumerate(self._spec.labels):
            frame[(row, *self.placement.window)] = resize(coverage(plane, label), self.placement.inner)
        return frame


class WindowedCase:
    """A case as a 3D network sees it: one tensor ``(C, D, H, W)``, larger or smaller than a patch.

    Attributes:
        tensor: Reoriented, cropped, normalised, resampled; float32.
        box: The crop, as slices of the reoriented grid.
        geometry: The case's own grid.
    """

    def __init__(self, case: Case, spec: ModelSpec) -> None:
        assert spec.input.rank == 3
        if case.geometry.kind != "volume":
            raise ValueError("a 3D model needs volumes; check Case.geometry.kind first")
        self._spec = spec
        self._input: VolumeSpec = spec.input
        self.geometry = case.geometry
        self._move = case.geometry.reorientation_to(spec.input.orientation)
        moved = self._move.apply(case.data)
        self._moved_geometry = case.geometry.moved(self._move)
        whole = tuple(slice(0, n) for n in moved.shape[1:])
        self.box = nonzero_box(moved) if spec.input.crop_to_nonzero else whole
        cropped = moved[(slice(None), *self.box)]
        # Normalise before resampling: interpolation smears the edge of the brain, and the statistics would
        # then count half-background voxels.
        normalised = np.stack([normalise(channel, spec.intensity) for channel in cropped])
        self.tensor: Float32Array = resize(normalised, self.network_shape)

    @cached_property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Voxels of the crop at the case's own spacing."""
        a, b, c = (s.stop - s.start for s in self.box)
        return a, b, c

    @cached_property
    def network_shape(self) -> tuple[int, int, int]:
        """Voxels of the crop at the network's spacing."""
        wanted = self._input.spacing_mm
        if wanted is None:
            return self.cropped_shape
        own = self._moved_geometry.spacing_mm
        a, b, c = (max(1, round(n * mm / to)) for n, mm, to in zip(self.cropped_shape, own, wanted, strict=True))
        return a, b, c

    def target(self, labels: AnyArray) -> Float32Array:
        """Share ``(L, D, H, W)`` of each network voxel that each label covers; ``labels`` is ``(*S)``."""
        cropped = self._move.apply(labels)[self.box]
        masks = np.stack([coverage(cropped, label) for label in self._spec.labels])
        return resize(masks, self.network_shape)

    def uncrop(self, maps: AnyArray) -> AnyArray:
        """Put maps ``(..., *cropped_shape)`` back on the case's own grid ``(..., *S)``, 0 outside the crop."""
        full = np.zeros((*maps.shape[:-3], *self._moved_geometry.shape), maps.dtype)
        full[(..., *self.box)] = maps
        return np.ascontiguousarray(self._move.undo(full))


def nonzero_box(data: AnyArray) -> tuple[slice, ...]:
    """The smallest box around voxels that are not 0 in any channel of ``(C, *S)``; the whole grid if all are 0."""
    occupied = (data != 0).any(axis=0)
    box = []
    for axis in range(occupied.ndim):
        along = np.flatnonzero(occupied.any(axis=tuple(a for a in range(occupied.ndim) if a != axis)))
        box.append(slice(int(along[0]), int(along[-1]) + 1) if along.size else slice(0, occupied.shape[axis]))
    return tuple(box)
