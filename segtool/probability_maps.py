"""Reads the probability maps that ``segtool predict --save-probabilities`` writes beside label maps."""

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from segtool.case import Source
from segtool.errors import GridError, UnreadableFileError
from segtool.formats import get_format, suffix_of
from segtool.formats.arrays import PROBABILITIES
from segtool.geometry import Geometry
from segtool.spec import ModelSpec

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
    shares = _stored(path)
    wanted = (len(spec.labels), *geometry.shape)
    if shares.shape != wanted:
        raise GridError(
            f"{path}: probabilities of shape {shares.shape}, wanted {wanted} (labels of {spec.name}, then the grid)",
            "Predict with --save-probabilities and the model that is given with --model.",
        )
    return shares


def _stored(path: Path) -> npt.NDArray[np.floating[Any]]:
    if path.name.endswith(".nii.gz"):
        return get_format("nifti").read_image(Source("nifti", (path,))).data
    try:
        if path.suffix == ".npz":
            with path.open("rb") as opened, np.load(opened) as stored:
                return np.asarray(stored[PROBABILITIES])
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            return np.asarray(file[PROBABILITIES])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise UnreadableFileError(
            f"{path}: holds no probabilities ({type(error).__name__})", "Predict again with --save-probabilities."
        ) from error
