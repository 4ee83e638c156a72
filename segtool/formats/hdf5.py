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
from segtool.geometry import Geometry

IMAGE_NAMES = ("image", "images", "x", "X", "data", "img", "scan", "slice")
MASK_NAMES = ("mask", "masks", "y", "Y", "label", "labels", "seg", "segmentation", "target", "tumorMask")
"""Last part of a dataset's path, in the order in which they are looked for."""

MAX_CHANNELS = 8
"""A longer axis is a stack of slices. BraTS packs 4 sequences."""

_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)


@dataclass(frozen=True)
class Layout:
    """What the axes of a dataset mean: the axis of channels, None without one; the rest is the grid."""

    channel_axis: int | None
    grid: tuple[int, ...]

    def channels_first(self, values: AnyArray) -> AnyArray:
        """``(C, *grid)``, a view."""
        return values[np.newaxis] if self.channel_axis is None else np.moveaxis(values, self.channel_axis, 0)


class Hdf5Format:
    """``.h5`` files with an image, a mask, or both.

    Images are ``(H, W)``, ``(H, W, C)``, ``(C, H, W)``, ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``
    with C up to 8; see :func:`layout_of`. Masks have the image's grid, with or without an axis of one-hot
    channels. Values that lie in other files (links, external storage, virtual datasets) are not followed.
    ``Source.dataset`` names the image for :meth:`read_image` and the mask for :meth:`read_labels`.
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
            image, mask = _find_image(file, source)
            layout = self._layout(image, mask, source.path)
            data = layout.channels_first(self._values(image))
            names = _channel_names(image, len(data))
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
            mask, image = _find_mask(file, source)
            if mask is None:
                return None
            grid = None if image is None else self._layout(image, mask, source.path).grid
            layout = _mask_layout(self._shape(mask), grid, source.path)
            values = layout.channels_first(self._values(mask))
        labels = to_labels(values[0], source.path) if len(values) == 1 else _from_one_hot(values, source.path)
        return LabelMap(labels, Geometry.of_pixels(layout.grid))

    def describe(self, source: Source) -> Description:
        """Names, grid and type of the image; without an image those of the mask.

        Raises:
            UnreadableFileError: As for :meth:`read_image`.
        """
        with self._opened(source.path) as file:
            image, mask = _find_image(file, source)
            layout = self._layout(image, mask, source.path)
            channels = 1 if layout.channel_axis is None else self._shape(image)[layout.channel_axis]
            check_index(source, channels)
            names = _channel_names(image, channels)
            dtype = "uint8" if image.dtype.kind == "b" else image.dtype.newbyteorder("=").name
            details = (f"image {image.name}", f"mask {mask.name}" if mask is not None else "no mask")
        if source.index is not None:
            channels, names = 1, names[source.index : source.index + 1]
        return Description(Geometry.of_pixels(layout.grid), channels, dtype, names, details)

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

    def _shape(self, dataset: h5py.Dataset) -> tuple[int, ...]:
        shape = tuple(int(n) for n in dataset.shape)
        return (*shape[:-2], shape[-1], shape[-2]) if self.transposed else shape

    def _values(self, dataset: h5py.Dataset) -> AnyArray:
        values = native(np.asarray(dataset[()]))
        if values.dtype.kind == "b":
            values = values.astype(np.uint8)
        return np.ascontiguousarray(np.swapaxes(values, -1, -2)) if self.transposed else values

    def _layout(self, image: h5py.Dataset, mask: h5py.Dataset | None, path: Path) -> Layout:
        return layout_of(self._shape(image), None if mask is None else self._shape(mask), path)


def layout_of(shape: tuple[int, ...], mask: tuple[int, ...] | None, path: Path) -> Layout:
    """Guess what the axes of an image mean.

    An axis of up to 8 at the end, or before rows and columns, that is at most a quarter of both, holds
    channels. A mask beside the image settles what the image's own shape leaves open.

    Args:
        shape: Of the image, rows before columns.
        mask: Shape of the mask in the same file.
        path: The file, for the message.

    Raises:
        UnreadableFileError: No known layout.
    """
    rank = len(shape)
    last = rank >= 3 and _is_channels(shape[-1], shape[-3:-1])
    first = rank >= 3 and _is_channels(shape[-3], shape[-2:])
    if rank == 3 and mask is not None:
        if mask == shape[1:] or (len(mask) == 3 and mask[1:] == shape[1:] and mask[0] != shape[0] and first):
            return Layout(0, shape[1:])
        if mask == shape[:2]:
            return Layout(2, shape[:2])
        if mask == shape and not last:
            return Layout(None, shape)
    if rank == 2:
        return Layout(None, shape)
    if rank in (3, 4) and last:
        return Layout(rank - 1, shape[:-1])
    if rank in (3, 4) and first:
        return Layout(rank - 3, shape[: rank - 3] + shape[-2:])
    if rank == 3:
        return Layout(None, shape)
    raise UnreadableFileError(
        f"{path}: an image of {'x'.join(map(str, shape))} has no known layout",
        "Store it as H W, H W C, N H W, N H W C or N C H W, or name another dataset.",
    )


def write_mask(group: h5py.Group, name: str, labels: npt.NDArray[np.integer[Any]]) -> h5py.Dataset:
    """Write ``labels`` ``(*S)`` in the narrowest type, chunked slice by slice."""
    dataset = _write(group, name, narrow(labels))
    values = np.unique(labels)
    dataset.attrs["values"] = values[values > 0]
    return dataset


def _write(group: h5py.Group, name: str, values: AnyArray) -> h5py.Dataset:
    chunks = (1,) * (values.ndim - 2) + values.shape[-2:]
    return group.create_dataset(name, data=values, chunks=chunks, compression="gzip", compression_opts=1)


def _is_channels(count: int, plane: tuple[int, ...]) -> bool:
    return count <= MAX_CHANNELS and 4 * count <= min(plane)


def _mask_layout(shape: tuple[int, ...], grid: tuple[int, ...] | None, path: Path) -> Layout:
    """Layout of a mask, given the grid of the image beside it, if any.

    Without an image an axis in front counts slices: one-hot masks alone, channels first, are not to be told
    from short stacks.
    """
    if shape == grid:
        return Layout(None, shape)
    if grid is not None:
        if shape[:-1] == grid:
            return Layout(len(shape) - 1, grid)
        if len(shape) >= 3 and shape[:-3] + shape[-2:] == grid:
            return Layout(len(shape) - 3, grid)
    # Another grid than the image's: read it as it is, and let whoever compares the two say so.
    if len(shape) == 3 and not _is_channels(shape[2], shape[:2]):
        return Layout(None, shape)
    return layout_of(shape, None, path)


def _from_one_hot(channels: AnyArray, path: Path) -> npt.NDArray[np.unsignedinteger[Any]]:
    """``(C, *S)`` of zeros and one other value to labels ``(*S)``."""
    top = channels.max()
    if not np.isin(channels, (0, top)).all():
        raise UnreadableFileError(
            f"{path}: a mask of {len(channels)} channels that are not 0 or 1 each",
            "Store one whole number a pixel, or one channel of zeros and ones a label.",
        )
    is_set = channels > 0
    covered = bool((is_set.sum(axis=0) == 1).all())
    labels = np.zeros(channels.shape[1:], np.uint8)
    for index, channel in enumerate(is_set):
        labels[channel] = index if covered else index + 1
    return labels


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Numeric datasets with rows and columns, by path, the shallowest first."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        # The references of MATLAB's cell arrays are not meant for readers.
        if isinstance(item, h5py.Dataset) and _is_picture(item) and not name.startswith("#"):
            found[name] = item

    # Follows neither soft nor external links, and meets every object once.
    file.visititems(visit)
    return dict(sorted(found.items(), key=lambda entry: (entry[0].count("/"), entry[0])))


def _is_picture(dataset: h5py.Dataset) -> bool:
    shape = dataset.shape or ()
    # Two axes, one of them 1, are MATLAB's way to store a number, a text or a list.
    return (
        dataset.dtype.kind in "biuf" and 0 not in shape and (len(shape) > 2 or min(shape[:2], default=1) > 1)
    )


def _named(found: dict[str, h5py.Dataset], names: tuple[str, ...], path: Path) -> h5py.Dataset | None:
    """The shallowest dataset with the first of ``names`` that occurs."""
    for wanted in names:
        same = [name for name in found if name.rsplit("/", 1)[-1] == wanted]
        level = [name for name in same if name.count("/") == same[0].count("/")]
        if len(level) > 1:
            raise UnreadableFileError(
                f"{path}: several datasets called {wanted!r} ({', '.join(level[:3])})",
                "Name one with --dataset.",
            )
        if level:
            return found[level[0]]
    return None


def _at(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The dataset that the user named."""
    found = _datasets(file)
    dataset = found.get(name.strip("/"))
    if dataset is None:
        raise UnreadableFileError(
            f"{path}: no image or mask {name!r} (found: {', '.join(found) or 'none'})",
            "Name one that is there.",
        )
    return _own(dataset, path)


def _own(dataset: h5py.Dataset, path: Path) -> h5py.Dataset:
    """``dataset``, provided that its values lie in this file."""
    if dataset.external or dataset.is_virtual:
        raise UnreadableFileError(
            f"{path}: the values of {dataset.name} lie in other files", "Copy them into one file (h5repack)."
        )
    return dataset


def _find_image(file: h5py.File, source: Source) -> tuple[h5py.Dataset, h5py.Dataset | None]:
    """The image and, where there is one, the mask beside it."""
    path, found = source.path, _datasets(file)
    mask = _named(found, MASK_NAMES, path)
    image = _at(file, source.dataset, path) if source.dataset else _named(found, IMAGE_NAMES, path)
    if image is None:
        rest = [name for name in found if mask is None or found[name] != mask]
        if len(rest) == 1:
            image = found[rest[0]]
    if image is None:
        raise UnreadableFileError(
            f"{path}: no image found{_links(file)} (looked for: {', '.join(IMAGE_NAMES)}; "
            f"the file holds: {', '.join(found) or 'nothing of two axes'})",
            "Name the dataset with --dataset.",
        )
    return _own(image, path), None if mask is None or mask == image else mask


def _find_mask(file: h5py.File, source: Source) -> tuple[h5py.Dataset | None, h5py.Dataset | None]:
    """The mask, and the image beside it; a file of one unnamed dataset is a mask."""
    path, found = source.path, _datasets(file)
    mask = _at(file, source.dataset, path) if source.dataset else _named(found, MASK_NAMES, path)
    image = _named(found, IMAGE_NAMES, path)
    if mask is None and image is None and len(found) == 1:
        mask = next(iter(found.values()))
    if mask is None:
        return None, image
    return _own(mask, path), None if image == mask else image


def _links(file: h5py.File) -> str:
    """A hint for the message where links lead out of the file."""
    outside: list[str] = []

    def visit(name: str, link: object) -> None:
        if isinstance(link, h5py.ExternalLink):
            outside.append(name)

    file.visititems_links(visit)
    return f", links to other files are not followed ({', '.join(outside[:3])})" if outside else ""


def _channel_names(image: h5py.Dataset, channels: int) -> tuple[str, ...]:
    """The attribute ``channels`` as texts, where there is one name a channel."""
    names = np.atleast_1d(image.attrs.get("channels", ()))
    texts = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist())
    return texts if len(texts) == channels else ()
