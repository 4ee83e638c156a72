"""HDF5: pictures and stacks with the mask beside the image in one file."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from segtool.atomic import atomic_path
from segtool.case import Image, LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import (
    PROBABILITIES,
    AnyArray,
    check_index,
    narrow,
    native,
    one_channel,
    to_labels,
)
from segtool.formats.base import Description
from segtool.formats.hdf5_chunks import read_range
from segtool.formats.hdf5_find import Values, channel_names_of, find_image, find_mask
from segtool.formats.hdf5_guard import Storage, check_dataset
from segtool.formats.hdf5_layout import Layout, from_one_hot, layout_of, mask_layout
from segtool.formats.hdf5_slice import StackSlice
from segtool.formats.hdf5_walk import refuse_plugins
from segtool.geometry import Geometry

refuse_plugins()

_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        image: Name of the image's dataset, None without one.
        mask: Name of the mask's dataset, None without one. A file with one dataset of an unknown name names it
            twice, since only its place among other files tells what it is.
        shape: Of the image, of a mask that is alone.
        grid: ``(H, W)`` of a picture, ``(N, H, W)`` of a stack.
    """

    image: str | None
    mask: str | None
    shape: tuple[int, ...]
    grid: tuple[int, ...]


class Hdf5Format:
    """``.h5`` files with an image, a mask, or both.

    Images are ``(H, W)``, ``(H, W, C)``, ``(C, H, W)``, ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``
    with C up to 8; see :func:`layout_of`. Masks have the image's grid, with or without an axis of one-hot
    channels. Values that lie in other files (links, external storage, virtual datasets) are not followed, filters
    that are not part of HDF5 itself are not loaded, and what a file claims is held against what it has.
    ``Source.dataset`` names the image for :meth:`read_image` and the mask for :meth:`read_labels`; ``x[3]`` is
    slice 3, counted from 0, of the stack ``x``.
    """

    name: ClassVar[str] = "hdf5"
    suffixes: ClassVar[tuple[str, ...]] = (".hdf5", ".h5")
    may_hold_reference: ClassVar[bool] = True
    transposed: ClassVar[bool] = False
    """True where rows and columns are swapped on disk, as MATLAB does."""

    def read_image(self, source: Source) -> Image:
        """``(C, H, W)`` or ``(C, N, H, W)`` in the stored type.

        Raises:
            UnreadableFileError: Truncated, corrupt, not HDF5, no image or several, no known layout.
        """
        with self._opened(source.path) as file:
            image, mask = find_image(file, source)
            layout = self._layout(image, mask, source.path)
            data = layout.channels_first(self._values(image, source))
            names = channel_names_of(image, len(data), source.path)
        if source.index is not None and names:
            names = names[source.index : source.index + 1]
        return Image(one_channel(data, source), Geometry.of_pixels(layout.grid), names)

    def read_labels(self, source: Source) -> LabelMap | None:
        """The label map, None where the file holds an image only.

        Channels of a mask that is one-hot become labels 1 to C in their order; where they overlap the last
        one wins (regions nest outside in). Where they cover the whole picture the first is background.

        Raises:
            UnreadableFileError: As for :meth:`read_image`, or the values are not labels.
        """
        with self._opened(source.path) as file:
            mask, image = find_mask(file, source)
            if mask is None:
                return None
            grid = None if image is None else self._layout(image, mask, source.path).grid
            layout = mask_layout(self._shape(mask), grid, source.path)
            values = layout.channels_first(self._values(mask, source))
        labels = to_labels(values[0], source.path) if len(values) == 1 else from_one_hot(values, source.path)
        return LabelMap(labels, Geometry.of_pixels(layout.grid))

    def describe(self, source: Source) -> Description:
        """Grid and type of the image, names of image and mask.

        Raises:
            UnreadableFileError: As for :meth:`read_image`.
        """
        with self._opened(source.path) as file:
            image, mask = find_image(file, source)
            layout = self._layout(image, mask, source.path)
            channels = 1 if layout.channel_axis is None else self._shape(image)[layout.channel_axis]
            check_index(source, channels)
            _check(image, source)
            names = channel_names_of(image, channels, source.path)
            dtype = "uint8" if image.dtype.kind == "b" else image.dtype.newbyteorder("=").name
            details = (f"image {image.name}", f"mask {mask.name}" if mask is not None else "no mask")
        if source.index is not None:
            channels, names = 1, names[source.index : source.index + 1]
        return Description(Geometry.of_pixels(layout.grid), channels, dtype, names, details)

    def contents(self, path: Path) -> Contents:
        """Which datasets are image and mask; no values are read.

        Raises:
            UnreadableFileError: Truncated, corrupt, not HDF5, or neither is there.
        """
        source = Source(self.name, (path,))
        with self._opened(path) as file:
            mask, image = find_mask(file, source)
            if mask is None:
                image, _ = find_image(file, source)
            elif image is None:
                # A mask of a known name may be alone; a single dataset of any other name is found again.
                with contextlib.suppress(UnreadableFileError):
                    image, _ = find_image(file, source)
            if image is None:
                shape = self._shape(mask)
                grid = mask_layout(shape, None, path).grid
            else:
                shape = self._shape(image)
                grid = self._layout(image, None if mask == image else mask, path).grid
            return Contents(_name(image), _name(mask), shape, grid)

    def output_suffix(self, source: Source) -> str:
        """The source's own suffix."""
        return source.path.suffix

    def write_labels(self, path: Path, label_map: LabelMap, source: Source) -> None:  # noqa: ARG002 - Protocol
        """Write the dataset ``mask``, with the labels that occur in its attribute ``values``.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            write_mask(file, "mask", label_map.labels)

    def probabilities_suffix(self, source: Source) -> str:
        """The source's own suffix."""
        return source.path.suffix

    def write_probabilities(
        self,
        path: Path,
        probabilities: npt.NDArray[np.floating[Any]],
        geometry: Geometry,  # noqa: ARG002 - Protocol
        source: Source,  # noqa: ARG002 - Protocol
    ) -> None:
        """Write the dataset ``probabilities`` ``(K, *S)``, float16.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            _write(file, PROBABILITIES, probabilities.astype(np.float16))

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[h5py.File]:
        """The open file; whatever HDF5 raises inside the block becomes one line."""
        try:
            # Locks fail on read-only and network file systems, and nothing here writes.
            with h5py.File(path, "r", locking=False) as file:
                yield file
        except FileNotFoundError as error:
            raise UnreadableFileError(f"{path}: no such file", "Check the path.") from error
        except _BROKEN as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: Path, error: Exception) -> UnreadableFileError:
        return UnreadableFileError(
            f"{path}: cannot be read as HDF5 ({error})",
            "It is truncated, corrupt or of another kind: copy or export it again.",
        )

    def _shape(self, dataset: Values) -> tuple[int, ...]:
        shape = tuple(int(n) for n in dataset.shape)
        return (*shape[:-2], shape[-1], shape[-2]) if self.transposed else shape

    def _values(self, dataset: Values, source: Source) -> AnyArray:
        storage, where = _check(dataset, source), f"{source.path}: {dataset.name}"
        if isinstance(dataset, StackSlice):
            values = native(dataset.read(storage, where))
        else:
            values = native(read_range(dataset, storage, 0, len(dataset), where))
        if values.dtype.kind == "b":
            values = values.astype(np.uint8)
        return np.ascontiguousarray(np.swapaxes(values, -1, -2)) if self.transposed else values

    def _layout(self, image: Values, mask: Values | None, path: Path) -> Layout:
        return layout_of(self._shape(image), None if mask is None else self._shape(mask), path)


def _check(dataset: Values, source: Source) -> Storage | None:
    """Refuse what the file cannot hold, before memory is taken."""
    whole = dataset.whole if isinstance(dataset, StackSlice) else dataset
    return check_dataset(whole, tuple(map(int, dataset.shape)), source.path, source.limits)


def _name(dataset: Values | None) -> str | None:
    return None if dataset is None else str(dataset.name).strip("/")


def write_mask(group: h5py.Group, name: str, labels: npt.NDArray[np.integer[Any]]) -> h5py.Dataset:
    """Write ``labels`` ``(*S)`` in the narrowest type, chunked slice by slice."""
    dataset = _write(group, name, narrow(labels))
    values = np.unique(labels)
    dataset.attrs["values"] = values[values > 0]
    return dataset


def _write(group: h5py.Group, name: str, values: AnyArray) -> h5py.Dataset:
    chunks = (1,) * (values.ndim - 2) + values.shape[-2:]
    return group.create_dataset(name, data=values, chunks=chunks, compression="gzip", compression_opts=1)
