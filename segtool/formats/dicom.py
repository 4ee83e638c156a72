"""DICOM series, one slice a file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segtool.case import Image, LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats import nifti
from segtool.formats.arrays import check_index, narrow
from segtool.formats.base import Description
from segtool.formats.dicom_slice import dataset_of, looks_like_dicom, parsing, read_header, read_slice
from segtool.formats.dicom_stack import grid_of
from segtool.geometry import Geometry

__all__ = ["DicomFormat", "SeriesKey", "looks_like_dicom", "read_series_key"]

_NOT_IMAGES = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC"}
_UPRIGHT = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine of a picture without a place in the patient: rows grow downwards, as on DICOM's axial slices."""


@dataclass(frozen=True)
class SeriesKey:
    """To which series a file belongs, without anything that identifies a patient.

    Args:
        digest: SHA-256 of the SeriesInstanceUID, hexadecimal; files of one series share it.
        is_image: False for segmentations, reports and the like.
        modality: Such as ``MR``; empty where the header has none.
    """

    digest: str
    is_image: bool
    modality: str

    @property
    def short_name(self) -> str:
        """``series-`` and 8 hexadecimal digits: fit for file names and messages."""
        return f"series-{self.digest[:8]}"


def read_series_key(path: Path) -> SeriesKey | None:
    """Read the header of ``path`` as far as grouping needs it; None where it is not a readable DICOM object.

    A file without SeriesInstanceUID is a series of its own.
    """
    tags = ["SeriesInstanceUID", "SOPClassUID", "Modality", "Rows", "Columns"]
    try:
        with parsing(path):
            dataset = dataset_of(path, pixels=False, tags=tags)
            uid = str(dataset.get("SeriesInstanceUID") or "")
            is_object = "SOPClassUID" in dataset or "SeriesInstanceUID" in dataset or "Rows" in dataset
            modality = str(dataset.get("Modality") or "")
            is_image = "Rows" in dataset and "Columns" in dataset and modality not in _NOT_IMAGES
    except UnreadableFileError:
        return None
    if not is_object:
        return None
    digest = hashlib.sha256((uid or str(path)).encode()).hexdigest()
    return SeriesKey(digest, is_image, modality)


class DicomFormat:
    """A series of single-frame grey images. Results are NIfTI on the same grid.

    Axes are columns i, rows j, slices k (sorted along the normal of the plane), as NIfTI converters have
    them, so that the affine maps (i, j, k) to RAS. A single file without a place in the patient is a picture
    ``(rows, columns)``.
    """

    name: ClassVar[str] = "dicom"
    suffixes: ClassVar[tuple[str, ...]] = (".dicom", ".dcm", ".ima")
    may_hold_reference: ClassVar[bool] = False

    def read_image(self, source: Source) -> Image:
        """``(1, I, J, K)`` in the stored type, or float32 where slope and intercept apply; or ``(1, H, W)``.

        Raises:
            UnreadableFileError: A file is broken or of another kind, or the slices form no even stack.
        """
        check_index(source, 1)
        read = [read_slice(path) for path in source.paths]
        order, geometry = grid_of([header for header, _ in read])
        if geometry.kind == "image":
            return Image(read[0][1][np.newaxis], geometry)
        data = np.stack([read[index][1] for index in order])  # (slices, rows, columns)
        return Image(data.T[np.newaxis], geometry)

    def read_labels(self, source: Source) -> LabelMap | None:
        """Not supported.

        Raises:
            UnreadableFileError: Always.
        """
        raise UnreadableFileError(
            f"{source.path}: masks in DICOM are not read",
            "Convert the mask to NIfTI (for instance with dcmqi).",
        )

    def describe(self, source: Source) -> Description:
        """Grid, modality and compression of the series, from the headers of all its files.

        Raises:
            UnreadableFileError: As for :meth:`read_image`.
        """
        check_index(source, 1)
        slices = [read_header(path) for path in source.paths]
        _, geometry = grid_of(slices)
        rescaled = any(s.is_rescaled for s in slices)
        dtype = np.result_type(*("float32" if rescaled else s.dtype for s in slices))
        count = f"{len(slices)} slice" if len(slices) == 1 else f"{len(slices)} slices"
        return Description(geometry, 1, dtype.name, details=(slices[0].modality, slices[0].syntax, count))

    def output_suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.nii.gz``."""
        return ".nii.gz"

    def write_labels(self, path: Path, label_map: LabelMap, source: Source) -> None:  # noqa: ARG002 - Protocol
        """Write NIfTI with the affine of the series; nothing else of the headers.

        A picture ``(rows, columns)`` becomes a volume ``(columns, rows, 1)``.

        Raises:
            OutputError: The file cannot be written.
        """
        voxels, geometry = _as_volume(narrow(label_map.labels)[np.newaxis], label_map.geometry)
        nifti.save(path, voxels[0], geometry)

    def probabilities_suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.nii.gz``."""
        return ".nii.gz"

    def write_probabilities(
        self,
        path: Path,
        probabilities: npt.NDArray[np.floating[Any]],
        geometry: Geometry,
        source: Source,  # noqa: ARG002 - Protocol
    ) -> None:
        """Write a float32 NIfTI volume ``(I, J, K, labels)``.

        Raises:
            OutputError: The file cannot be written.
        """
        voxels, grid = _as_volume(probabilities, geometry)
        nifti.save(path, np.moveaxis(voxels, 0, -1).astype(np.float32, copy=False), grid)


def _as_volume(data: npt.NDArray[Any], geometry: Geometry) -> tuple[npt.NDArray[Any], Geometry]:
    """``(C, *S)`` and its grid, a picture ``(C, rows, columns)`` as ``(C, columns, rows, 1)``."""
    if geometry.kind == "volume":
        return data, geometry
    return data.swapaxes(1, 2)[..., np.newaxis], Geometry.of_volume((*geometry.shape[::-1], 1), _UPRIGHT)
