"""The cache as torch sees it: batches of whole slices, of random patches, or whole volumes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segtool_train.data.cache import FULL, Cache

AnyArray = npt.NDArray[Any]


class Batch(NamedTuple):
    """``image`` ``(N, C, *S)``, ``target`` ``(N, L, *S)`` shares in [0, 1], ``samples`` ``(N,)`` numbers."""

    image: torch.Tensor
    target: torch.Tensor
    samples: torch.Tensor


class EpochShuffle(Sampler[tuple[int, int]]):
    """Every sample once an epoch, as ``(epoch, index)``, in an order that seed and epoch decide alone.

    The last incomplete batch is left out where there is a complete one: the statistics of batch norm would be
    those of a few samples.
    """

    def __init__(self, indices: Sequence[int], batch: int, seed: int) -> None:
        self._indices = np.asarray(indices)
        self._kept = len(indices) // batch * batch or len(indices)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._kept

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._indices)
        return ((self._epoch, int(index)) for index in order[: self._kept])


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
        return random_patch(image, target, self._patch, random.random() < self._foreground, random)


class WholeSamples(Dataset[Batch]):
    """Samples as they are, in order, for validation."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __getitems__(self, keys: Sequence[int]) -> Batch:
        return to_batch([(self._cache.image(index), self._cache.target(index)) for index in keys], keys)


def random_patch(
    image: AnyArray, target: AnyArray, patch: tuple[int, ...], on_label: bool, random: np.random.Generator
) -> tuple[AnyArray, AnyArray]:
    """Cut ``patch`` out of ``(C, *S)`` and ``(L, *S)``, padded where the volume is smaller.

    Args:
        image: Padded with its lowest value.
        target: Padded with background.
        patch: Extent of the cut.
        on_label: Centre it on a random voxel of some label, as far as the volume's edges allow.
        random: Source of chance.
    """
    missing = [max(0, p - n) for p, n in zip(patch, image.shape[1:], strict=True)]
    if any(missing):
        width = [(0, 0), *((m // 2, m - m // 2) for m in missing)]
        image = np.pad(image, width, constant_values=image.min())
        target = np.pad(target, width)
    room = [n - p for n, p in zip(image.shape[1:], patch, strict=True)]
    corner = [int(random.integers(r + 1)) for r in room]
    labelled = np.flatnonzero(target.any(axis=0)) if on_label else np.empty(0, np.intp)
    if labelled.size:
        voxel = np.unravel_index(labelled[random.integers(labelled.size)], target.shape[1:])
        corner = [int(np.clip(v - p // 2, 0, r)) for v, p, r in zip(voxel, patch, room, strict=True)]
    window = (slice(None), *(slice(c, c + p) for c, p in zip(corner, patch, strict=True)))
    return image[window], target[window]


def to_batch(pairs: Sequence[tuple[AnyArray, AnyArray]], indices: Sequence[int]) -> Batch:
    """Stack images and targets of one shape; targets become shares in [0, 1]."""
    image = torch.from_numpy(np.stack([image for image, _ in pairs]))
    target = torch.from_numpy(np.stack([target for _, target in pairs])).float() / FULL
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
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
        # Seeds of workers come from here, so that a loader draws nothing from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
