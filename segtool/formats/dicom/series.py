"""DICOM series, one slice a file."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segtool.case import Image, LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray, as_volume, check_index, narrow
from segtool.formats.base import Description
from segtool.formats.dicom.read import SeriesReader, headers_of
from segtool.formats.dicom.slice import Slice, check_voxels, fill_padding, unreadable
from segtool.formats.dicom.stack import plan_of
from segtool.geometry import Geometry


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
        try:
            headers, stack = _read_stack(source)
            plan = plan_of(headers, lenient=source.lenient, limits=source.limits)
            padded = fill_padding(headers, stack)
            data, said = plan.stacked(stack)
        except MemoryError as error:
            raise unreadable(source.path, error) from error
        frame = headers[0].frame_of_reference
        return Image(data[np.newaxis], plan.geometry, frame_of_reference=frame, notes=said + padded)

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
        slices = headers_of(source)
        plan = plan_of(slices, lenient=source.lenient, limits=source.limits)
        is_float = plan.is_interpolated or any(s.is_rescaled for s in slices)
        dtype = np.result_type(*("float32" if is_float else s.dtype for s in slices))
        count = f"{len(slices)} slice" if len(slices) == 1 else f"{len(slices)} slices"
        details = (slices[0].modality, slices[0].syntax, count, *plan.notes)
        return Description(plan.geometry, 1, dtype.name, details=details)

    def output_suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.nii.gz``."""
        return ".nii.gz"

    def write_labels(self, path: Path, label_map: LabelMap, source: Source) -> None:  # noqa: ARG002 - Protocol
        """Write NIfTI with the affine of the series; nothing else of the headers.

        A picture ``(rows, columns)`` becomes a volume ``(columns, rows, 1)``.

        Raises:
            OutputError: The file cannot be written.
        """
        _save(path, *as_volume(narrow(label_map.labels), label_map.geometry))

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
        voxels, grid = as_volume(probabilities, geometry)
        _save(path, np.moveaxis(voxels, 0, -1).astype(np.float32, copy=False), grid)


def _save(path: Path, voxels: AnyArray, geometry: Geometry) -> None:
    # Brings nibabel, which takes longer to import than a series to read.
    from segtool.formats import nifti

    nifti.save(path, voxels, geometry)


def _read_stack(source: Source) -> tuple[list[Slice], AnyArray]:
    """Headers and values ``(slices, rows, columns)`` in the order of the files, each read once.

    Slices of another size leave their place at 0: :func:`plan_of` refuses them.
    """
    paths, reader = source.paths, SeriesReader(source.limits)
    header, first = reader.slice(paths[0])
    check_voxels(source.path, (len(paths), *first.shape), "voxels in its series", source.limits)
    headers, stack = [header], np.zeros((len(paths), *first.shape), first.dtype.newbyteorder("="))
    stack[0] = first
    others: dict[int, AnyArray] = {}
    for index, path in enumerate(paths[1:], start=1):
        row = stack[index]
        header, values = reader.slice(path, into=row)
        headers.append(header)
        if values is row or values.shape != first.shape:
            continue
        if values.dtype.newbyteorder("=") == stack.dtype:
            stack[index] = values
        else:
            others[index] = values
    if others:
        stack = stack.astype(np.result_type(stack, *others.values()))
        for index, values in others.items():
            stack[index] = values
    return headers, stack
