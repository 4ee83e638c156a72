"""A case before and after it is read, and a label map."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.geometry import Geometry
from segtool.limits import DEFAULT_LIMITS, Limits

UNNAMED = ""
"""Channel name of an image whose channels no layout names; the model's spec decides what they are."""


@dataclass(frozen=True)
class Source:
    """One image or label map on disk.

    Args:
        format: Key of :data:`segtool.formats.FORMATS`; of a reference also of ``ANNOTATIONS`` there.
        paths: The file, or the files of a DICOM series.
        dataset: HDF5 dataset inside the file, where the user or the layout names one; ``x[3]`` is slice 3 of the
            stack ``x``. In a COCO file the name of the picture.
        index: Position on the channel axis of a file that packs several channels, None for the whole image.
        lenient: Repair a DICOM series that is no even stack, where that can be done, instead of refusing it.
        limits: What the file may claim.
    """

    format: str
    paths: tuple[Path, ...]
    dataset: str | None = None
    index: int | None = None
    lenient: bool = False
    limits: Limits = DEFAULT_LIMITS

    @property
    def path(self) -> Path:
        """The first, usually the only, file."""
        return self.paths[0]


@dataclass(frozen=True)
class CaseSource:
    """Where one case lies. Nothing of it has been read.

    Args:
        name: Unique within a run, safe in a path and free of patient data; ``/`` separates folders.
        channels: Canonical or literal channel name to its source; :data:`UNNAMED` where no layout names it.
        reference: A human's label map, where there is one. HDF5 and MATLAB files may hold it beside the image;
            then reading it may give None.
        notes: What the report must say about how the case was put together.
    """

    name: str
    channels: Mapping[str, Source]
    reference: Source | None = None
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Source:
        """The source whose kind of file and grid the result takes."""
        return next(iter(self.channels.values()))

    @property
    def output_stem(self) -> PurePath:
        """Path of the result below the output folder, without its suffix."""
        return PurePath(self.name)


@dataclass(frozen=True, eq=False)
class Image:
    """Voxels as they lie in a file.

    Args:
        data: ``(C, *S)``, any real dtype; the file's own intensities (rescale slope and intercept applied).
        geometry: Grid of ``S``.
        channel_names: One for each of ``C`` where the file says, else empty.
        frame_of_reference: Digest of the DICOM FrameOfReferenceUID; images of different ones share no coordinates.
            Empty where nothing is known.
        notes: What the report must say of how the image was read.
    """

    data: npt.NDArray[Any]
    geometry: Geometry
    channel_names: tuple[str, ...] = ()
    frame_of_reference: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation: ``labels`` is an unsigned integer array ``(*S)`` on ``geometry``; 0 is background.

    ``notes`` say what reading had to decide, such as where a mask compressed with losses was cut.
    """

    labels: npt.NDArray[np.integer[Any]]
    geometry: Geometry
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Case:
    """A case in memory, its channels in the order of the model and on one grid.

    Args:
        name: As in :class:`CaseSource`.
        data: ``(C, *S)``, any real dtype, finite.
        geometry: Grid of ``S``.
        reference: Label map on the same grid, or None.
        notes: What the report must say, such as "t2 resampled onto t1".
    """

    name: str
    data: npt.NDArray[Any]
    geometry: Geometry
    reference: LabelMap | None = None
    notes: tuple[str, ...] = field(default=())
