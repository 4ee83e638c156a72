"""What the axes of a bare array mean: HDF5 and MATLAB files do not say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray

MAX_CHANNELS = 8
"""A longer axis is a stack of slices. BraTS packs 4 sequences."""


@dataclass(frozen=True)
class Layout:
    """What the axes of a dataset mean: the axis of channels, None without one; the rest is the grid."""

    channel_axis: int | None
    grid: tuple[int, ...]

    def channels_first(self, values: AnyArray) -> AnyArray:
        """``(C, *grid)``, a view."""
        return values[np.newaxis] if self.channel_axis is None else np.moveaxis(values, self.channel_axis, 0)


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
    if mask is not None and len(mask) == rank + 1 and mask[-1] == 1:
        mask = mask[:-1]
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


def mask_layout(shape: tuple[int, ...], grid: tuple[int, ...] | None, path: Path) -> Layout:
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


def from_one_hot(channels: AnyArray, path: Path) -> npt.NDArray[np.unsignedinteger[Any]]:
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


def _is_channels(count: int, plane: tuple[int, ...]) -> bool:
    return count <= MAX_CHANNELS and 4 * count <= min(plane)
