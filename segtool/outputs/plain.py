"""Results in a kind of file that the scan does not have: NIfTI, PNG, HDF5."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segtool.atomic import atomic_path, partial_path
from segtool.case import LabelMap, Source
from segtool.errors import OutputError
from segtool.formats import get_format
from segtool.formats.arrays import as_volume, narrow
from segtool.geometry import Geometry
from segtool.outputs.base import Result
from segtool.preprocess.sliced import slice_orientation

_SLICE = re.compile(r"slice_\d+\.png")

LabelArray = npt.NDArray[np.integer[Any]]


class NiftiOutput:
    """``.nii.gz`` on the scan's own grid. A picture is a volume of one slice, a stack one of all its pictures."""

    name: ClassVar[str] = "nifti"

    def suffix(self, source: Source) -> str:
        """``.nii`` for a source that is so, else ``.nii.gz``."""
        return get_format("nifti").output_suffix(source) if source.format == "nifti" else ".nii.gz"

    def write(self, path: Path, result: Result) -> None:
        """Write labels in the narrowest type; of a NIfTI scan with its form codes.

        Raises:
            OutputError: The file cannot be written.
        """
        if result.source.format in ("nifti", "dicom"):
            get_format(result.source.format).write_labels(path, result.label_map, result.source)
            return
        # Brings nibabel, which other kinds do without.
        from segtool.formats import nifti

        nifti.save(path, *as_volume(narrow(result.label_map.labels), result.label_map.geometry))


class PngOutput:
    """Palette PNG: of a picture one file, of volumes and stacks a folder with one file a slice.

    Slices lie as a radiologist hangs them, in the plane in which the volume was acquired, and are counted from 1.
    """

    name: ClassVar[str] = "png"

    def suffix(self, source: Source) -> str:
        """``.png``, or ``-png`` for a folder. Reads the header of files that hold one picture or several.

        Raises:
            UnreadableFileError: There is no such header.
        """
        if source.format == "dicom" and len(source.paths) > 1:
            return "-png"  # several files are no picture, and each has a header
        return ".png" if get_format(source.format).describe(source).geometry.kind == "image" else "-png"

    def write(self, path: Path, result: Result) -> None:
        """Write the file, or the folder with all its files.

        Raises:
            OutputError: It cannot be written, or a label is above 255.
        """
        form, geometry = get_format("png"), result.label_map.geometry
        if geometry.kind == "image":
            form.write_labels(path, result.label_map, result.source)
            return
        slices = _slices(result.label_map.labels, geometry)
        digits = max(3, len(str(len(slices))))
        with _whole_folder(path) as folder:
            for number, labels in enumerate(slices, start=1):
                page = LabelMap(labels, Geometry.of_pixels(labels.shape))
                form.write_labels(folder / f"slice_{number:0{digits}}.png", page, result.source)


class Hdf5Output:
    """``.h5`` with the dataset ``mask`` ``(*S)``; of a volume with its ``affine`` (index to RAS mm) as an attribute."""

    name: ClassVar[str] = "hdf5"

    def suffix(self, source: Source) -> str:
        """The source's own where it is HDF5, else ``.h5``."""
        return source.path.suffix if source.format == "hdf5" else ".h5"

    def write(self, path: Path, result: Result) -> None:
        """Write the dataset, with the labels that occur in its attribute ``values``.

        Raises:
            OutputError: The file cannot be written.
        """
        import h5py

        from segtool.formats.hdf5 import write_mask

        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            dataset = write_mask(file, "mask", result.label_map.labels)
            if result.label_map.geometry.is_physical:
                dataset.attrs["affine"] = result.label_map.geometry.affine


def _slices(labels: LabelArray, geometry: Geometry) -> LabelArray:
    """``(N, H, W)``."""
    if geometry.kind == "stack":
        return labels
    return geometry.reorientation_to(slice_orientation(geometry)).apply(labels)


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``path`` when the block ends well.

    Raises:
        OutputError: It cannot be made or renamed.
    """
    temporary = partial_path(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.is_dir():
            _refuse_foreign(path)
            shutil.rmtree(path)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error})",
            "Choose another folder with --output or free the space.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder of anything but slices."""
    foreign = next((one.name for one in folder.iterdir() if not _SLICE.fullmatch(one.name)), None)
    if foreign is not None:
        raise OutputError(
            f"{folder}: holds {foreign}, which is no slice of an earlier result",
            "Move it away, or choose another folder with --output.",
        )
