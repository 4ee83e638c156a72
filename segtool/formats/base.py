"""What every file format can do. One file a format; the table is in :mod:`segtool.formats`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from segtool.case import Image, LabelMap, Source
from segtool.geometry import Geometry


@dataclass(frozen=True)
class Description:
    """What a header says; no pixels are decoded.

    Args:
        geometry: The grid.
        channels: How many images the file packs on one grid.
        dtype: Stored type, such as ``int16``.
        channel_names: One a channel where the file says, else empty.
        details: Further facts for ``segtool inspect``, none of which identifies a patient.
    """

    geometry: Geometry
    channels: int
    dtype: str
    channel_names: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


class LabelReader(Protocol):
    """Reads references. Stateless; called from several threads."""

    def read_labels(self, source: Source) -> LabelMap | None:
        """The label map in a file; None where a file that may hold a reference has none.

        Raises:
            UnreadableFileError: Truncated, corrupt, or values that are not labels (fractions, negatives).
        """
        ...


@runtime_checkable
class PlacedLabelReader(LabelReader, Protocol):
    """Reads references that lie in the patient and have no grid, or one with the slices alone that hold something."""

    def read_labels_on(self, source: Source, geometry: Geometry, frame_of_reference: str = "") -> LabelMap:
        """The label map as a scan on ``geometry`` needs it, on that grid or one of its own.

        Args:
            source: The file.
            geometry: Of the scan.
            frame_of_reference: Of the scan, as :class:`~segtool.case.Image` has it; empty where it is not known.

        Raises:
            UnreadableFileError: It is damaged or another kind of object.
            GridError: It was not made on this scan.
        """
        ...


class Format(LabelReader, Protocol):
    """Reads and writes one kind of file. Stateless; methods are called from several threads."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """Lower-case, with the dot, the longest first (``.nii.gz`` before ``.gz``)."""
    may_hold_reference: ClassVar[bool]
    """True where a file can hold the reference beside the image (HDF5, MATLAB)."""

    def read_image(self, source: Source) -> Image:
        """All channels of the image, or the one at ``source.index``.

        Raises:
            UnreadableFileError: Truncated, corrupt or not this format; no image inside.
        """
        ...

    def describe(self, source: Source) -> Description:
        """Read the header only.

        Raises:
            UnreadableFileError: As for :meth:`read_image`.
        """
        ...

    def output_suffix(self, source: Source) -> str:
        """Suffix of the label map written for ``source``, such as ``.nii.gz``."""
        ...

    def write_labels(self, path: Path, label_map: LabelMap, source: Source) -> None:
        """Write a label map with the grid, affine and header conventions of ``source``, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        ...

    def probabilities_suffix(self, source: Source) -> str:
        """Suffix of the probability map written for ``source``."""
        ...

    def write_probabilities(
        self, path: Path, probabilities: npt.NDArray[np.floating[Any]], geometry: Geometry, source: Source
    ) -> None:
        """Write ``(K, *S)`` probabilities in [0, 1], whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        ...
