"""What the formats share: which numbers are labels, one channel out of several, probabilities as ``.npz``."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.atomic import atomic_path
from segtool.case import Source
from segtool.errors import GridError, UnreadableFileError
from segtool.geometry import Geometry

AnyArray = npt.NDArray[Any]

_UPRIGHT = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine of pictures without a place in the patient: rows grow downwards, as on axial slices."""

MAX_LABEL = 65535
"""Far above any atlas in use; a larger value is an intensity."""

PROBABILITIES = "probabilities"
"""Name of the array of ``(K, *S)`` probabilities inside ``.npz`` and HDF5 files."""


def to_labels(values: AnyArray, path: Path) -> npt.NDArray[np.unsignedinteger[Any]]:
    """``values`` as the narrowest unsigned integers, ``uint8`` up to 255.

    Args:
        values: ``(*S)`` booleans, integers, or floats that are whole numbers.
        path: The file, for the message.

    Raises:
        UnreadableFileError: A value is negative, a fraction, not finite or above 65535; the line names the
            first one.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        # NaN fails every comparison.
        bad = ~((values >= 0) & (values <= MAX_LABEL) & (values == np.trunc(values)))
    elif values.dtype.kind in "iu":
        bad = (values < 0) | (values > MAX_LABEL) if values.dtype.itemsize > 1 else values < 0
    else:
        raise UnreadableFileError(
            f"{path}: values of type {values.dtype} are not labels", "Store labels as whole numbers."
        )
    if np.any(bad):
        first = values[bad][0]
        raise UnreadableFileError(
            f"{path}: the value {first} is not a label (labels are whole numbers from 0 to {MAX_LABEL})",
            "Threshold or round the mask and save it as integers.",
        )
    return narrow(values)


def narrow(labels: AnyArray) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Whole numbers from 0 in the narrowest unsigned type that holds them; no copy where they have it."""
    narrowed: npt.NDArray[np.unsignedinteger[Any]] = labels.astype(np.min_scalar_type(int(labels.max())), copy=False)
    return narrowed


def one_channel(data: AnyArray, source: Source) -> AnyArray:
    """``data`` ``(C, *S)``, or ``(1, *S)`` of the channel at ``source.index``; a view.

    Raises:
        GridError: The file has fewer channels.
    """
    if source.index is None:
        return data
    check_index(source, len(data))
    return data[source.index : source.index + 1]


def check_index(source: Source, channels: int) -> None:
    """Hold ``source.index`` against the number of channels in the file.

    Raises:
        GridError: The file has fewer channels.
    """
    if source.index is not None and not 0 <= source.index < channels:
        raise GridError(
            f"{source.path}: no channel {source.index}, the file holds {channels} (counted from 0)",
            "Name a channel that is there.",
        )


def as_volume(data: AnyArray, geometry: Geometry) -> tuple[AnyArray, Geometry]:
    """A picture ``(..., H, W)`` as a volume ``(..., W, H, 1)``, a stack ``(..., N, H, W)`` as ``(..., W, H, N)``."""
    if geometry.kind == "volume":
        return data, geometry
    stack = data[..., np.newaxis, :, :] if geometry.kind == "image" else data
    data = np.moveaxis(stack, (-3, -2, -1), (-1, -2, -3))
    return data, Geometry.of_volume(data.shape[-3:], _UPRIGHT)


def native(values: AnyArray) -> AnyArray:
    """``values`` in the byte order of this computer; no copy where they are already."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


class NpzProbabilities:
    """How a format whose own files hold no probabilities writes them."""

    def probabilities_suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.npz``."""
        return ".npz"

    def write_probabilities(
        self,
        path: Path,
        probabilities: npt.NDArray[np.floating[Any]],
        geometry: Geometry,  # noqa: ARG002 - Protocol
        source: Source,  # noqa: ARG002 - Protocol
    ) -> None:
        """Write ``(K, *S)`` as float16 under the key ``probabilities``.

        Half precision errs by at most 0.00025 below 1, a fortieth of the steps of 1 % that anybody reads.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            # An open file, since a name without .npz would get the suffix appended and escape the rename.
            np.savez_compressed(file, probabilities=probabilities.astype(np.float16))
