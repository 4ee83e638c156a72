"""Reads the probability maps that ``segtool predict --save-probabilities`` writes beside label maps."""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from segtool.case import Source
from segtool.errors import GridError, UnreadableFileError
from segtool.formats import get_format, suffix_of
from segtool.formats.arrays import PROBABILITIES
from segtool.geometry import Geometry
from segtool.limits import DEFAULT_LIMITS
from segtool.spec import ModelSpec

_BROKEN = (OSError, ValueError, KeyError, EOFError, BadZipFile, RuntimeError, TokenError, zlib.error)
"""What the archive, NumPy's header (a Python literal) and HDF5 raise where they are damaged."""
_SUFFIXES = (".npz", ".nii.gz", ".h5", ".hdf5", ".mat")


def probabilities_beside(prediction: Source) -> Path | None:
    """The map that belongs to a label map, by name; None where there is none."""
    name = prediction.path.name
    stem = name[: len(name) - len(suffix_of(prediction.path))]
    files = (prediction.path.with_name(f"{stem}_probabilities{suffix}") for suffix in _SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def read_probabilities(path: Path, geometry: Geometry, spec: ModelSpec) -> npt.NDArray[np.floating[Any]]:
    """Probabilities ``(L, *S)`` of the labels of ``spec`` on ``geometry``.

    Raises:
        UnreadableFileError: Truncated, corrupt, or without probabilities.
        GridError: Of another shape, or of another number of labels.
    """
    wanted = (len(spec.labels), *geometry.shape)

    def check(shape: tuple[int, ...]) -> None:
        """Before any value is read: what the header claims is what will be taken of memory."""
        if shape != wanted:
            raise GridError(
                f"{path}: probabilities of shape {shape}, wanted {wanted} (labels of {spec.name}, then the grid)",
                "Predict with --save-probabilities and the model that is given with --model.",
            )

    return _stored(path, check)


def _stored(path: Path, check: Callable[[tuple[int, ...]], None]) -> npt.NDArray[np.floating[Any]]:
    if path.name.endswith(".nii.gz"):
        source, volume = Source("nifti", (path,)), get_format("nifti")
        about = volume.describe(source)
        check((about.channels, *about.geometry.shape))
        return volume.read_image(source).data
    try:
        if path.suffix == ".npz":
            return _of_npz(path, check)
        return _of_hdf5(path, check)
    except _BROKEN as error:
        raise UnreadableFileError(
            f"{path}: holds no probabilities ({type(error).__name__})", "Predict again with --save-probabilities."
        ) from error


def _of_npz(path: Path, check: Callable[[tuple[int, ...]], None]) -> npt.NDArray[np.floating[Any]]:
    with ZipFile(path) as archive, archive.open(f"{PROBABILITIES}.npy") as file:
        version = read_magic(file)
        shape, by_columns, dtype = (read_array_header_1_0 if version == (1, 0) else read_array_header_2_0)(file)
        if dtype.kind != "f":
            raise ValueError(f"values of type {dtype}")
        check(tuple(shape))
        values = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype)
    return values.reshape(shape, order="F" if by_columns else "C")


def _of_hdf5(path: Path, check: Callable[[tuple[int, ...]], None]) -> npt.NDArray[np.floating[Any]]:
    import h5py

    from segtool.formats.hdf5_guard import check_dataset

    with h5py.File(path, "r", locking=False) as file:
        # A link or storage in another file would lead out of the folder.
        is_here = isinstance(file.get(PROBABILITIES, getlink=True), h5py.HardLink)
        dataset = file[PROBABILITIES] if is_here else None
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external or dataset.dtype.kind != "f":
            raise KeyError(PROBABILITIES)
        check(dataset.shape or ())
        check_dataset(dataset, dataset.shape, path, DEFAULT_LIMITS)
        return np.asarray(dataset)
