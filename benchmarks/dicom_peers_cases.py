"""Series, and the results that segtool writes of them, for :mod:`benchmarks.dicom_peers`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segtool.case import LabelMap, Source
from segtool.formats import get_format
from segtool.outputs import Result, get_output
from segtool.phantom import phantom_volume
from segtool.spec import ChannelSpec, LabelSpec, ModelSpec, SliceSpec
from tests.dicom_series import write_volume

LABELS = (LabelSpec(name="rim", value=1), LabelSpec(name="core", value=4))
REGION = "whole"
SHAPE, SPACING_MM, SQUARE_MM = (104, 88, 14), (1.8, 2.2, 5.0), (2.0, 2.0, 5.0)
KINDS = ("SEG binary", "SEG fractional", "SEG label map", "RTSTRUCT", "SR")

_TURN, _TILT = 0.3, 0.2
_OBLIQUE = np.array([[np.cos(_TURN), np.sin(_TURN), 0], [-np.sin(_TURN), np.cos(_TURN), 0], [0, 0, 1]]) @ np.array([
    [1, 0, 0], [0, np.cos(_TILT), np.sin(_TILT)], [0, -np.sin(_TILT), np.cos(_TILT)]
])  # fmt: skip
PLANES = {
    "axial": np.diag([-1.0, -1, 1]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0, 0, -1.0], [-1, 0, 0], [0, -1, 0]]),
    "oblique": _OBLIQUE,
}
"""Columns are the RAS directions of columns, rows and slices."""

_STUDY = "1.2.826.0.1.3680043.10.8"
_BLANK = ("StudyTime", "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "StudyID", "ReferringPhysicianName")


@dataclass(frozen=True, eq=False)
class PeerCase:
    """A series with its results.

    Args:
        name: Plane and direction.
        series: Folder of the images.
        files: Written results by kind.
        affine: Of the NIfTI result, index to RAS mm.
        labels: Voxels ``(I, J, K)`` of the NIfTI result.
        shares: Probabilities ``(2, I, J, K)`` in 255ths.
    """

    name: str
    series: Path
    files: dict[str, Path]
    affine: npt.NDArray[np.float64]
    labels: npt.NDArray[np.uint8]
    shares: npt.NDArray[np.uint8]

    def wanted(self, kind: str) -> npt.NDArray[np.uint8]:
        """What a file of ``kind`` must hold of each label, ``(2, I, J, K)``: 0 or 1, or 255ths."""
        if kind == "SEG fractional":
            return self.shares
        return np.stack([self.labels == label.value for label in LABELS]).astype(np.uint8)

    def volumes_ml(self) -> list[float]:
        """Of the labels and the region, ascending."""
        voxel_ml = abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000
        counts = [int((self.labels == label.value).sum()) for label in LABELS]
        return sorted(count * voxel_ml for count in (*counts, sum(counts)))


def write_cases(folder: Path) -> list[PeerCase]:
    """Every plane in both directions of its slices; axial ones of square pixels too."""
    voxels, lesion, _ = phantom_volume(3, SHAPE, SPACING_MM)
    labels = _two_labels(lesion)
    cases = []
    series = [(plane, way, SPACING_MM) for plane in PLANES for way in (1, -1)]
    series += [("axial", way, SQUARE_MM) for way in (1, -1)]
    for number, (plane, direction, spacing) in enumerate(series):
        affine = np.eye(4)
        affine[:3, :3] = PLANES[plane] * spacing * np.array([1, 1, direction])
        affine[:3, 3] = 12.5, -7.25, 30.125
        name = f"{plane}{', square pixels' if spacing == SQUARE_MM else ''} {'+' if direction > 0 else '-'}"
        cases.append(_write_case(folder / name.replace(" ", "").replace(",", ""), name, number, voxels, labels, affine))
    return cases


def _two_labels(lesion: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A core in a rim, with a hole, a voxel by itself that touches another at a corner, and an empty slice inside."""
    inside = np.stack([ndimage.binary_erosion(plane, iterations=2) for plane in np.moveaxis(lesion, 2, 0)], axis=2)
    labels = np.where(inside, 4, lesion).astype(np.uint8)
    used = np.flatnonzero(labels.any(axis=(0, 1)))
    assert len(used) > 3, "a lesion of some slices"
    middle = used[len(used) // 2]
    i, j = (round(float(one)) for one in ndimage.center_of_mass(labels[:, :, middle - 1] == 4))
    labels[i : i + 3, j : j + 2, middle - 1] = 0
    labels[2, 3, used[0]] = labels[3, 4, used[0]] = 1
    labels[:, :, middle] = 0
    return labels


def _write_case(
    folder: Path,
    name: str,
    number: int,
    voxels: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
) -> PeerCase:
    tags: dict[str, Any] = dict.fromkeys(_BLANK, "")
    tags |= {"SeriesInstanceUID": f"{_STUDY}.{number + 1}", "StudyInstanceUID": _STUDY}
    # The files' names tell nothing of their order.
    names = [f"{k * 5 % SHAPE[2]:03}.dcm" for k in range(SHAPE[2])]
    paths = write_volume(folder / "series", voxels, affine, names=names, **tags)
    source = Source("dicom", tuple(sorted(paths)))
    grid = get_format("dicom").read_image(source).geometry
    # Reading sorts slices along rows x columns, whichever way they were written.
    on_grid = labels if np.allclose(grid.affine, affine, atol=1e-4) else labels[:, :, ::-1]
    soft = ndimage.gaussian_filter(np.stack([on_grid == one.value for one in LABELS]).astype(np.float32), (0, 1, 1, 0))
    result = Result("case", source, LabelMap(on_grid, grid), _spec(), "ab" * 32)
    files = {kind: folder / f"{kind.replace(' ', '_')}.dcm" for kind in KINDS}
    get_output("nifti").write(folder / "labels.nii.gz", result)
    get_output("dicom-seg").write(files["SEG binary"], result)
    get_output("dicom-seg").write(files["SEG fractional"], replace(result, probabilities=soft))
    get_output("dicom-labelmap").write(files["SEG label map"], result)
    get_output("rtstruct").write(files["RTSTRUCT"], result)
    get_output("dicom-sr").write(files["SR"], result)
    nifti: Any = nibabel.load(folder / "labels.nii.gz")
    shares = np.rint(soft * np.float32(255)).astype(np.uint8)
    return PeerCase(name, folder / "series", files, nifti.affine, np.asarray(nifti.dataobj, np.uint8), shares)


def _spec() -> ModelSpec:
    return ModelSpec(
        name="phantom",
        channels=(ChannelSpec(name="t1ce"),),
        labels=LABELS,
        regions={REGION: tuple(label.value for label in LABELS)},
        input=SliceSpec(size=(16, 16)),
    )
