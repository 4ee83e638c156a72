"""What a reader would measure of each structure of a label map."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.geometry import Geometry
from segtool.measurements.diameters import MOST_TIED, Diameters, Sections
from segtool.measurements.lesions import Runs, lesions_of, runs_of
from segtool.preprocess.sliced import slice_orientation
from segtool.scores import structures_of
from segtool.spec import ModelSpec, Plane

LabelArray = npt.NDArray[Any]
Point = tuple[float, float, float]

_NEARLY_EQUAL = 1.5  # widest by narrowest spacing of a volume that can as well be read in axial slices
_MEASURABLE_MM = 10.0
_TARGETS = 5


@dataclass(frozen=True)
class Measurements:
    """One structure of a case; None where a number does not apply.

    Lesions are connected by face, edge and corner neighbours. The diameters are those of the lesion with the largest
    volume, in the slice where it is longest; :mod:`segtool.measurements.diameters` defines them. A lesion is
    measurable where both are 10 mm or more, and no less than two slices, and it is seen in two slices or more.

    Args:
        volume_ml: Of the whole structure.
        lesions: How many.
        measurable_lesions: How many are measurable.
        largest_lesion_ml: Volume of the largest lesion.
        longest_diameter_mm: Of the largest lesion.
        perpendicular_diameter_mm: Likewise.
        diameter_product_mm2: Of the two.
        sum_of_products_mm2: Of the measurable lesions, the five with the largest products at most.
        plane: In which the diameters lie: ``axial``, ``coronal`` or ``sagittal``, or the oblique one nearest to it.
        slice: Index of that slice along its axis of the label map, from 0.
        centroid_right_mm: Of the whole structure in the patient's RAS coordinates: how far to the right of the origin,
            left where negative. DICOM (LPS) has the opposite sign.
        centroid_anterior_mm: Likewise; posterior where negative. DICOM has the opposite sign.
        centroid_superior_mm: Likewise; inferior where negative.
        longest_ends_ras_mm: Both ends of the longest diameter.
        perpendicular_ends_ras_mm: Both ends of the perpendicular diameter.

    Source: Wen et al., J Clin Oncol 28(11), 2010 (RANO: measurable lesions, sum of products of two to five).
    """

    volume_ml: float | None = None
    lesions: int = 0
    measurable_lesions: int | None = None
    largest_lesion_ml: float | None = None
    longest_diameter_mm: float | None = None
    perpendicular_diameter_mm: float | None = None
    diameter_product_mm2: float | None = None
    sum_of_products_mm2: float | None = None
    plane: str | None = None
    slice: int | None = None
    centroid_right_mm: float | None = None
    centroid_anterior_mm: float | None = None
    centroid_superior_mm: float | None = None
    longest_ends_ras_mm: tuple[Point, Point] | None = None
    perpendicular_ends_ras_mm: tuple[Point, Point] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields that apply, in order."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


MEASURED = tuple(f.name for f in fields(Measurements))


def measure(labels: LabelArray, geometry: Geometry, spec: ModelSpec) -> dict[str, Measurements]:
    """Measure every label and region of a model.

    Diameters of a volume lie in axial slices, as RANO has them, where its spacings are nearly equal (within 1.5 times),
    otherwise in those across the widest spacing.

    Args:
        labels: Label map ``(I, J, K)``, unsigned integers.
        geometry: The grid, a volume: nobody knows the pixels of pictures in millimetres.
        spec: Of the model.

    Returns:
        Measurements by the name of the structure, in the order of :func:`segtool.scores.structures_of`. A structure
        that is not there has a size of 0, no lesions, and nothing else.

    Raises:
        ValueError: The labels are not on the grid, or it is no volume.
    """
    if labels.shape != geometry.shape or geometry.kind != "volume":
        raise ValueError(f"labels of {labels.shape} on a grid of kind {geometry.kind}, {geometry.shape}")
    slices = _Volume(geometry)
    runs = runs_of(slices.cut(labels))
    return {
        structure.name: _measured(runs.chosen(np.isin(runs.value, structure.prediction_values)), slices)
        for structure in structures_of(spec)
    }


class _Volume:
    """A volume as slices in the plane of its diameters, its unit the millimetre."""

    def __init__(self, geometry: Geometry) -> None:
        spacings = geometry.spacing_mm
        plane: Plane = "axial" if max(spacings) <= _NEARLY_EQUAL * min(spacings) else "acquired"
        hanging = slice_orientation(geometry, plane)
        self._plane = {"S": "axial", "P": "coronal", "L": "sagittal"}[hanging[0]]
        self._move = geometry.reorientation_to(hanging)
        self._grid = geometry.moved(self._move)
        steps = self._grid.affine[:3, :3]
        self._voxel_ml = geometry.voxel_ml
        # Rows and columns need not be at right angles; the first axis in the plane is along a row.
        along = steps[:, 2] / np.linalg.norm(steps[:, 2])
        across = steps[:, 1] - (steps[:, 1] @ along) * along
        self.pixels = np.stack([steps[:, 1], steps[:, 2]]) @ np.stack([along, across / np.linalg.norm(across)], axis=1)
        self.measurable = max(_MEASURABLE_MM, 2 * self._grid.spacing_mm[0])

    def cut(self, labels: LabelArray) -> LabelArray:
        return self._move.apply(labels)

    def sizes(self, whole: float, largest: float, centre: npt.NDArray[np.float64]) -> dict[str, Any]:
        right, anterior, superior = self._point(centre)
        return {
            "volume_ml": whole * self._voxel_ml,
            "largest_lesion_ml": largest * self._voxel_ml,
            "centroid_right_mm": right,
            "centroid_anterior_mm": anterior,
            "centroid_superior_mm": superior,
        }

    def diameters(self, largest: Diameters, products: Sequence[float]) -> dict[str, Any]:
        ends = [[self._point((largest.plane, *end)) for end in line] for line in largest.ends]
        index = largest.plane
        return {
            "measurable_lesions": len(products),
            "longest_diameter_mm": largest.longest,
            "perpendicular_diameter_mm": largest.perpendicular,
            "diameter_product_mm2": largest.longest * largest.perpendicular,
            "sum_of_products_mm2": sum(sorted(products)[-_TARGETS:]),
            "plane": self._plane,
            "slice": self._grid.shape[0] - 1 - index if self._move.flipped[0] else index,
            "longest_ends_ras_mm": (ends[0][0], ends[0][1]),
            "perpendicular_ends_ras_mm": (ends[1][0], ends[1][1]),
        }

    def _point(self, index: Sequence[float] | npt.NDArray[np.float64]) -> Point:
        """Where an index into the slices lies in the patient."""
        right, anterior, superior = self._grid.affine[:3, :3] @ np.asarray(index) + self._grid.affine[:3, 3]
        return float(right), float(anterior), float(superior)


def _measured(runs: Runs, slices: _Volume) -> Measurements:
    if not len(runs):
        return Measurements(volume_ml=0.0, measurable_lesions=0)
    lesions = lesions_of(runs)
    voxels = np.bincount(lesions, runs.voxels)
    centre = [np.average(axis, weights=runs.voxels) for axis in (runs.plane, runs.row, (runs.first + runs.last) / 2)]
    sections = Sections.of(runs, lesions, slices.pixels)
    at_most = np.zeros(len(voxels))
    np.maximum.at(at_most, sections.lesion, sections.at_most)
    tied = np.flatnonzero(voxels == voxels.max())
    largest = np.zeros(len(voxels), np.bool_)
    largest[tied[np.argsort(-at_most[tied], kind="stable")[:MOST_TIED]]] = True
    candidates = (np.bincount(sections.lesion) >= 2) & (at_most >= slices.measurable)
    found = {lesion: sections.diameters(lesion) for lesion in np.flatnonzero(largest | candidates).tolist()}
    products = [
        one.longest * one.perpendicular
        for lesion, one in found.items()
        if candidates[lesion] and min(one.longest, one.perpendicular) >= slices.measurable
    ]
    return Measurements(
        lesions=len(voxels),
        **slices.sizes(float(voxels.sum()), float(voxels.max()), np.array(centre)),
        **slices.diameters(
            max((found[i] for i in np.flatnonzero(largest).tolist()), key=lambda one: one.rank), products
        ),
    )
