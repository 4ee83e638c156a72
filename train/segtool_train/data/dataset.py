"""The cache as torch sees it: batches of whole slices, of random patches, or whole volumes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segtool_train.data.cache import Cache
from segtool_train.data.prepare import FULL

AnyArray = npt.NDArray[Any]


class Batch(NamedTuple):
    """``image`` ``(N, C, *S)``, ``target`` ``(N, L, *S)`` shares in [0, 1], ``samples`` ``(N,)`` numbers."""

    image: torch.Tensor
    target: torch.Tensor
    samples: torch.Tensor


class EpochShuffle(Sampler[tuple[int, int]]):
    """The samples of each epoch, as ``(pass, index)``, in an order that seed and epoch decide alone.

    Every sample comes ``copies`` times, or by its weight: as often as its share of all weights says, rounded up in
    some epochs and down in others, in an epoch of the same length. A pass tells the occurrences of a sample apart,
    over all epochs, so that each gives another patch of a volume. The last incomplete batch is left out where there
    is a complete one: the statistics of batch norm would be those of a few samples.

    Args:
        indices: The samples.
        batch: Samples a batch.
        seed: Of the order.
        copies: Length of an epoch, as a multiple of the number of samples.
        weights: One for each of ``indices``; None weighs all alike.
    """

    def __init__(
        self, indices: Sequence[int], batch: int, seed: int, copies: int = 1, weights: Sequence[float] | None = None
    ) -> None:
        self._indices = np.asarray(indices)
        self._total = len(indices) * copies
        self._kept = self._total // batch * batch or self._total
        self._seed = seed
        self._epoch = 0
        relative = np.ones(len(indices)) if weights is None else np.asarray(weights, float)
        self._expected = relative * (self._total / relative.sum())
        # Rounding keeps 2.0000000001 from counting as 3.
        self._passes = int(np.ceil(self._expected.max().round(6)))

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._kept

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng([self._seed, self._epoch])
        occurrences = self._occurrences(random)
        first = self._epoch * self._passes
        return ((first + int(nth), int(self._indices[place])) for place, nth in occurrences[: self._kept])

    def _occurrences(self, random: np.random.Generator) -> npt.NDArray[np.intp]:
        """Shuffled rows ``(place in indices, how many of this sample came before)``."""
        # Systematic sampling: the samples lie, in random order, on a line as long as the epoch, each as long as it
        # is expected, and every whole number, moved by one random offset, takes the sample it falls on.
        order = random.permutation(self._indices.size)
        ends = np.cumsum(self._expected[order]).round(6)
        counts = np.diff(np.ceil(np.append(0.0, ends) - random.random())).astype(int)
        places = np.repeat(order, counts)
        nth = np.concatenate([np.arange(count) for count in counts])
        return random.permutation(np.stack([places, nth], axis=1))


class TrainingSamples(Dataset[Batch]):
    """Slices as they are, or random patches of volumes.

    Args:
        cache: All samples.
        patch: Extent of a patch; None takes whole samples, which must then have one shape.
        foreground: Share of the patches centred on a voxel of some label.
        seed: With epoch and sample it decides where a patch lies, whoever fetches it and in which order.
    """

    def __init__(self, cache: Cache, patch: tuple[int, ...] | None, foreground: float, seed: int) -> None:
        self._cache, self._patch = cache, patch
        self._foreground, self._seed = foreground, seed

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        # Called by torch with the keys of a whole batch, which is then built in one go.
        pairs = [self._pair(epoch, index) for epoch, index in keys]
        return to_batch(pairs, [index for _, index in keys])

    def _pair(self, epoch: int, index: int) -> tuple[AnyArray, AnyArray]:
        image, target = self._cache.image(index), self._cache.target(index)
        if self._patch is None:
            return image, target
        random = np.random.default_rng([self._seed, epoch, index])
        centre = self._cache.labelled_voxel(index, random) if random.random() < self._foreground else None
        return random_patch(image, target, self._patch, centre, self._cache.samples[index].lowest, random)


class WholeSamples(Dataset[Batch]):
    """Samples as they are, in order, for validation."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __getitems__(self, keys: Sequence[int]) -> Batch:
        return to_batch([(self._cache.image(index), self._cache.target(index)) for index in keys], keys)


def random_patch(
    image: AnyArray,
    target: AnyArray,
    patch: tuple[int, ...],
    centre: tuple[int, ...] | None,
    lowest: float,
    random: np.random.Generator,
) -> tuple[AnyArray, AnyArray]:
    """Cut ``patch`` out of ``(C, *S)`` and ``(L, *S)``, padded where the volume is smaller.

    Args:
        image: Padded with ``lowest``, as :func:`segtool.sliding_window.slide` does.
        target: Padded with background.
        patch: Extent of the cut.
        centre: Voxel to centre it on, as far as the volume's edges allow; None takes any place.
        lowest: Value of the image.
        random: Source of chance.
    """
    corner = []
    for axis, (size, extent) in enumerate(zip(image.shape[1:], patch, strict=True)):
        room = size - extent
        place = int(random.integers(max(0, room) + 1))
        if centre is not None:
            place = min(max(0, centre[axis] - extent // 2), room)
        # A smaller volume lies in the patch's middle.
        corner.append(place if room > 0 else -(-room // 2))
    return _cut(image, corner, patch, lowest), _cut(target, corner, patch, 0)


def _cut(array: AnyArray, corner: Sequence[int], patch: tuple[int, ...], outside: float) -> AnyArray:
    """The part of ``(C, *S)`` from ``corner``, which may lie before the first voxel; only this part is read."""
    window = tuple(slice(max(0, c), c + p) for c, p in zip(corner, patch, strict=True))
    inner = array[(slice(None), *window)]
    before = [max(0, -c) for c in corner]
    width = [(b, p - b - n) for b, p, n in zip(before, patch, inner.shape[1:], strict=True)]
    return np.pad(inner, [(0, 0), *width], constant_values=outside) if np.any(width) else inner


def to_batch(pairs: Sequence[tuple[AnyArray, AnyArray]], indices: Sequence[int]) -> Batch:
    """Stack images and targets of one shape; targets become shares in [0, 1]."""
    image = torch.from_numpy(np.stack([image for image, _ in pairs]))
    target = torch.from_numpy(np.stack([target for _, target in pairs])).float().div_(FULL)
    return Batch(image, target, torch.tensor(indices))


def _as_built(batch: Any) -> Any:  # noqa: ANN401 - torch says list, but gives what __getitems__ gave
    return batch


def loader(dataset: Dataset[Batch], sampler: Any, batch: int, workers: int) -> DataLoader[Batch]:  # noqa: ANN401
    """A loader that keeps the batches as the dataset builds them.

    ``sampler`` is a torch Sampler or a sequence of keys.
    """
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_as_built,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # Seeds of workers come from here, so that a loader draws nothing from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
