"""Distances between the surfaces of two binary masks.

A surface voxel is a voxel of the mask with a face neighbour outside; what lies beyond the edge of the grid is
outside. Every surface voxel counts once and stands for its centre, so on anisotropic grids the shares below
approximate those of Nikolov et al., who weight by the area of a triangulated surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.metrics import NAN, Mask, check_masks

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From every surface voxel of one mask to the nearest of the other, in the unit of the spacing.

    Args:
        of_prediction: ``(P,)``, from the prediction's surface; infinite where the reference is empty.
        of_reference: ``(R,)``, from the reference's surface; infinite where the prediction is empty.
    """

    of_prediction: FloatArray
    of_reference: FloatArray

    def percentile(self, percent: float = 95.0) -> float:
        """A percentile of the distances of both directions, pooled (the default is HD95).

        Returns:
            NaN when a mask is empty: there is no distance to a structure that is not there.
        """
        if not self.of_prediction.size or not self.of_reference.size:
            return NAN
        return float(np.percentile(np.concatenate([self.of_prediction, self.of_reference]), percent))

    def share_within(self, tolerance: float) -> float:
        """Share of both surfaces that lies within ``tolerance`` of the other one.

        Returns:
            A value in [0, 1]; 0 when exactly one mask is empty, NaN when both are.
        """
        surface = self.of_prediction.size + self.of_reference.size
        if not surface:
            return NAN
        near = np.count_nonzero(self.of_prediction <= tolerance) + np.count_nonzero(self.of_reference <= tolerance)
        return int(near) / surface


def surface_distances(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure both directions at once.

    Args:
        prediction: ``(*S)``, True inside the predicted structure.
        reference: ``(*S)``, True inside the reference structure.
        spacing: Distance of neighbouring voxel centres along each axis, in mm (1 for pixels).

    Raises:
        ValueError: The shapes differ, an array is not boolean, or there is not one spacing an axis.
    """
    from scipy import ndimage  # costs 0.1 s, which only those who ask for distances pay

    check_masks(prediction, reference)
    if len(spacing) != prediction.ndim:
        raise ValueError(f"{prediction.ndim} axes have {prediction.ndim} spacings, not {len(spacing)}")
    union = prediction | reference
    if not union.any():
        return SurfaceDistances(np.zeros(0), np.zeros(0))
    box = _bounding_box(union)
    inner, outer = (mask[box] & ~ndimage.binary_erosion(mask[box], border_value=0) for mask in (prediction, reference))
    if not inner.any() or not outer.any():
        return SurfaceDistances(*(np.full(np.count_nonzero(side), np.inf) for side in (inner, outer)))
    to_outer = ndimage.distance_transform_edt(~outer, sampling=tuple(spacing))[inner]
    to_inner = ndimage.distance_transform_edt(~inner, sampling=tuple(spacing))[outer]
    return SurfaceDistances(to_outer, to_inner)


def hd95(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """95th percentile of the pooled surface distances, in the unit of ``spacing``.

    Returns:
        A distance of 0 or more; NaN when a mask is empty.

    Raises:
        ValueError: As for :func:`surface_distances`.

    Source: Huttenlocher et al., IEEE PAMI 15(9), 1993 (the Hausdorff distance at a percentile). Tools differ
    in pooling: here both directions are one sample; others take the larger of two percentiles.
    """
    return surface_distances(prediction, reference, spacing).percentile(95.0)


def normalised_surface_distance(prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float) -> float:
    """Share of both surfaces within ``tolerance`` of the other one (surface Dice at a tolerance).

    Returns:
        A value in [0, 1]; 0 when exactly one mask is empty, NaN when both are.

    Raises:
        ValueError: As for :func:`surface_distances`.

    Source: Nikolov et al., arXiv:1809.04430, 2018.
    """
    return surface_distances(prediction, reference, spacing).share_within(tolerance)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around the True voxels; there is one at least."""
    box = []
    for axis in range(mask.ndim):
        (inside,) = np.nonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)
