"""A case as a 3D network sees it."""

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import Case
from segtool.errors import GridError
from segtool.limits import DEFAULT_LIMITS
from segtool.preprocess.intensity import normalise
from segtool.preprocess.masks import coverage, nonzero_box
from segtool.resample import resize
from segtool.side_by_side import side_by_side
from segtool.spec import ModelSpec, VolumeSpec

Float32Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]


class WindowedCase:
    """A case as a 3D network sees it: one tensor ``(C, D, H, W)``, larger or smaller than a patch.

    Attributes:
        tensor: ``(C, D, H, W)`` float32: reoriented, cropped, normalised, resampled.
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
        self.tensor = self._prepare(cropped, spec)

    def _prepare(self, cropped: AnyArray, spec: ModelSpec) -> Float32Array:
        """``(C, D, H, W)`` at the network's spacing, a channel a core: a large one is in memory once or twice."""
        tensor = np.empty((len(cropped), *self.network_shape), np.float32)

        def prepare(index: int) -> None:
            tensor[index] = resize(normalise(cropped[index], spec.intensity), self.network_shape)

        side_by_side(prepare, range(len(cropped)))
        return tensor

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
        if a * b * c > DEFAULT_LIMITS.voxels:
            raise GridError(
                f"a spacing of {' x '.join(f'{mm:.3g}' for mm in own)} mm, of which the network's "
                f"{' x '.join(f'{mm:.3g}' for mm in wanted)} mm would make {a}x{b}x{c} voxels",
                "Check the scan's spacing.",
            )
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
