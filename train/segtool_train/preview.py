"""What augmentation makes of a few training samples, as one picture to look at before training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segtool.atomic import atomic_path
from segtool.overlay import PERCENTILES, contour
from segtool_train.augment import augment
from segtool_train.data.base import spread
from segtool_train.data.cache import Cache, open_cache
from segtool_train.data.dataset import Batch, TrainingSamples
from segtool_train.data.listing import listed
from segtool_train.data.split import split_items
from segtool_train.recipe import Recipe
from segtool_train.sides import parts_slices

Array = npt.NDArray[Any]
ByteArray = npt.NDArray[np.uint8]

_ROWS = 6
"""Rows of the picture, one a sample and channel; at least two samples are shown."""
_COPIES = 5
_GAP_PX = 4
_SMALLEST_PX = 160
"""Panels below this are enlarged by a whole factor."""
_COLOURS = ((0, 255, 0), (255, 160, 0), (255, 0, 255), (0, 200, 255), (255, 255, 0))
"""Of the labels' contours, in the recipe's order, over again where there are more."""
_AXES = ("SI", "PA", "LR")
"""Slices, rows and columns of axial slices hung as radiologists do: rows to the back, columns to the left."""


def draw_preview(recipe: Recipe, data: Path, picture: Path, log: Callable[[str], None]) -> None:
    """Write a PNG: a row a sample and channel; the original, then copies augmented as in training.

    Contours of the labels are drawn over. Greys of a row share one window, so that changes of brightness show. Of
    volumes the axial slice with most of all labels is shown, of patches as training cuts them around a label.

    Args:
        recipe: As for training.
        data: The training set; a few cases of its training part are read.
        picture: The file.
        log: Takes a line for every row.

    Raises:
        UserError: As training raises it.
    """
    listing = listed(recipe, data)
    for note in listing.notes:
        log(f"note    {note}")
    # Of slices that are parted one by one, nearly every case has some to train on.
    all_train = parts_slices(recipe)
    training = set() if all_train else set(split_items(listing.items, recipe.data.split).train)
    channels = [channel.name for channel in recipe.spec.channels]
    shown = [item for item in listing.items if all_train or item.name in training]
    items = spread(shown, max(2, _ROWS // len(channels)))
    with TemporaryDirectory() as folder:
        cache = open_cache(
            Path(folder), items, recipe.spec, recipe.data.slices, background_values=recipe.data.background_values
        )
        chosen = _fullest_samples(cache)
        batches = _augmented(cache, chosen, recipe)
        # Arrays of a cache are views of its files, which Windows cannot remove while they are open.
        del cache
    rows = []
    for row, item in enumerate(items):
        for number, channel in enumerate(channels):
            rows.append(_row(batches, row, number, recipe))
            log(f"row {len(rows):<4}{item.name}   {channel}")
    write_rows(picture, rows)


def _fullest_samples(cache: Cache) -> list[int]:
    """Of every item the sample with most label."""
    fullest: dict[str, tuple[int, int]] = {}
    for index, sample in enumerate(cache.samples):
        size = int(np.count_nonzero(cache.target(index)))
        fullest[sample.item] = max(fullest.get(sample.item, (-1, 0)), (size, index))
    return [index for _, index in fullest.values()]


def _augmented(cache: Cache, chosen: Sequence[int], recipe: Recipe) -> list[Batch]:
    """The chosen samples as they are, then augmented again and again."""
    patch = recipe.spec.input.patch if recipe.spec.input.rank == 3 else None
    samples = TrainingSamples(cache, patch, 1.0, recipe.training.seed)
    # One pass: every copy shows the same patch, so that only augmentation tells them apart.
    original = samples.__getitems__([(0, index) for index in chosen])
    torch.manual_seed(recipe.training.seed)
    copies = [augment(original.image, original.target, recipe.augmentation) for _ in range(_COPIES)]
    return [original, *(Batch(image, target, original.samples) for image, target in copies)]


def _row(batches: Sequence[Batch], row: int, channel: int, recipe: Recipe) -> list[ByteArray]:
    """One sample's panels ``(H, W, 3)``, original first."""
    low, high = np.percentile(batches[0].image[row, channel].numpy(), PERCENTILES)
    panels = []
    for batch in batches:
        image, labels = batch.image[row, channel].numpy(), _label_map(batch.target[row].numpy())
        if recipe.spec.input.rank == 3:
            volume, label_volume = (hang(array, recipe.spec.input.orientation) for array in (image, labels))
            fullest = fullest_slice(label_volume)
            image, labels = volume[fullest], label_volume[fullest]
        panels.append(_panel(image, labels, float(low), float(high)))
    return panels


def fullest_slice(labels: Array) -> int:
    """The slice of ``(slices, rows, columns)`` with most label, each label counted as a share of its largest slice.

    The middle one where there is no label.
    """
    counts = [np.count_nonzero(labels == value, axis=(1, 2)) for value in np.unique(labels[labels > 0])]
    if not counts:
        return len(labels) // 2
    return int(np.argmax(sum(count / count.max() for count in counts)))


def _label_map(target: Array) -> Array:
    """``(*S)`` numbers of the labels from 1 on, of shares ``(L, *S)``; 0 where no label has half a pixel."""
    labels: Array = np.where(target.max(axis=0) >= 0.5, target.argmax(axis=0) + 1, 0)
    return labels


def hang(volume: Array, orientation: str) -> Array:
    """A volume ``(I, J, K)`` of an ``orientation`` such as ``"RAS"`` as axial slices ``(slices, rows, columns)``.

    The patient's front is up, and the right side on the left of the picture.
    """
    axes = [next(axis for axis, code in enumerate(orientation) if code in pair) for pair in _AXES]
    backwards = tuple(number for number, pair in enumerate(_AXES) if orientation[axes[number]] != pair[0])
    hung: Array = np.flip(volume.transpose(axes), backwards)
    return hung


def _panel(image: Array, labels: Array, low: float, high: float) -> ByteArray:
    """``(H, W, 3)``, greys from ``low`` to ``high`` with the labels' contours over them."""
    factor = max(1, -(-_SMALLEST_PX // max(image.shape)))
    image, labels = (array.repeat(factor, axis=0).repeat(factor, axis=1) for array in (image, labels))
    grey = np.clip((image - low) / (high - low or 1.0) * 255, 0, 255).astype(np.uint8)
    panel = np.stack([grey] * 3, axis=-1)
    edge = contour(labels)
    panel[edge] = np.array(_COLOURS, np.uint8)[(labels[edge] - 1) % len(_COLOURS)]
    return panel


def write_rows(path: Path, rows: Sequence[Sequence[ByteArray]]) -> None:
    """Write panels ``(H, W, 3)`` of one size as a PNG, with a gap between them.

    Raises:
        OutputError: The file cannot be written.
    """
    bordered = [[np.pad(panel, ((0, _GAP_PX), (0, _GAP_PX), (0, 0))) for panel in row] for row in rows]
    whole = np.concatenate([np.concatenate(row, axis=1) for row in bordered])[:-_GAP_PX, :-_GAP_PX]
    with atomic_path(path) as temporary:
        Image.fromarray(whole).save(temporary, format="PNG")
