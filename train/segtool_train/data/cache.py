"""What the network sees of every item, computed once and memory-mapped.

All pixels come from :mod:`segtool.preprocess`, as at inference: images are kept as they are, float32; targets
are shares of a pixel, kept in steps of 1/255. A cache is named after everything that decides its content, so
that a stale one is never used.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segtool.atomic import PARTIAL_PREFIX
from segtool.errors import CaseError, OutputError, UsageError, VoxelError
from segtool.loading import load_case
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.spec import ModelSpec
from segtool_train.data.base import Item

Float32Array = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Slices = Literal["all", "labelled"]

VERSION = 1
"""Raised when preprocessing changes what a cache holds without changing its key."""
FULL = 255
"""What a pixel that a label covers wholly is stored as."""

_IMAGES, _TARGETS, _INDEX = "images.f32", "targets.u8", "index.json"
_DECIDING = {"channels", "labels", "input", "intensity", "activation"}


@dataclass(frozen=True)
class Sample:
    """One input of the network.

    Args:
        item: Name of the item.
        slice: Which slice of it; 0 for pictures and volumes.
        shape: Spatial extent of image and target.
        offset: Pixels before this sample, over all samples.
    """

    item: str
    slice: int
    shape: tuple[int, ...]
    offset: int

    @property
    def pixels(self) -> int:
        """Of one channel."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Cache:
    """All samples of a set. Arrays are views of the files and are not to be written to."""

    folder: Path
    channels: int
    labels: int
    samples: tuple[Sample, ...]

    @cached_property
    def _images(self) -> Float32Array:
        return np.memmap(self.folder / _IMAGES, np.float32, "r")

    @cached_property
    def _targets(self) -> ByteArray:
        return np.memmap(self.folder / _TARGETS, np.uint8, "r")

    def image(self, index: int) -> Float32Array:
        """``(C, *S)`` normalised intensities of a sample."""
        sample = self.samples[index]
        start, count = sample.offset * self.channels, sample.pixels * self.channels
        return self._images[start : start + count].reshape(self.channels, *sample.shape)

    def target(self, index: int) -> ByteArray:
        """``(L, *S)`` share of each pixel that each label covers, :data:`FULL` for all of it."""
        sample = self.samples[index]
        start, count = sample.offset * self.labels, sample.pixels * self.labels
        return self._targets[start : start + count].reshape(self.labels, *sample.shape)

    def indices(self, items: Sequence[str]) -> list[int]:
        """Samples of the named items, in the cache's order."""
        wanted = set(items)
        return [index for index, sample in enumerate(self.samples) if sample.item in wanted]


def cache_key(items: Sequence[Item], spec: ModelSpec, slices: Slices) -> str:
    """Checksum of all that decides what a cache holds: spec, rule, and the files with size and time."""
    digest = hashlib.sha256()
    deciding = spec.model_dump(mode="json", include=_DECIDING)
    digest.update(json.dumps([VERSION, slices, deciding], sort_keys=True).encode())
    for item in items:
        sources = [*item.source.channels.items(), ("reference", item.source.reference)]
        for role, source in sources:
            assert source is not None
            digest.update(f"{item.name}\0{role}\0{source.format}\0{source.dataset}\0{source.index}\n".encode())
            for path in source.paths:
                found = path.stat()
                digest.update(f"{path.resolve()}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def open_cache(
    folder: Path,
    items: Sequence[Item],
    spec: ModelSpec,
    slices: Slices = "all",
    on_item: Callable[[int, int], None] | None = None,
) -> Cache:
    """The cache of ``items`` below ``folder``, filled first where it is not there yet.

    Args:
        folder: Holds one folder a cache.
        items: Labelled cases.
        spec: Decides the pixels.
        slices: Of volumes under a 2D spec: all that are not blank, or those that show a label.
        on_item: Told (items done, items in all) while the cache is filled.

    Raises:
        CaseError: An item cannot be read.
        OutputError: The cache cannot be written.
    """
    final = folder / cache_key(items, spec, slices)
    if not (final / _INDEX).is_file():
        _fill(final, items, spec, slices, on_item or (lambda _done, _all: None))
    return read_cache(final)


def read_cache(folder: Path) -> Cache:
    """A cache that :func:`open_cache` filled earlier.

    Raises:
        UsageError: It is gone or damaged.
    """
    try:
        raw = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        samples = tuple(Sample(**{**sample, "shape": tuple(sample["shape"])}) for sample in raw["samples"])
        cache = Cache(folder, raw["channels"], raw["labels"], samples)
    except OSError as error:
        raise UsageError(
            f"{folder}: the cache of the training run is gone ({error.strerror})",
            "Fill it again with `segtool train --resume`, or name labelled scans with --cases.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder) from error
    pixels = sum(sample.pixels for sample in samples)
    wanted = {_IMAGES: pixels * cache.channels * np.dtype(np.float32).itemsize, _TARGETS: pixels * cache.labels}
    for name, size in wanted.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise _damaged(folder)
    return cache


def _damaged(folder: Path) -> UsageError:
    return UsageError(
        f"{folder}: the cache of the training run is damaged",
        "Remove that folder, and fill it again with `segtool train --resume`.",
    )


Prepared = list[tuple[int, Float32Array, ByteArray]]


def prepare(item: Item, spec: ModelSpec, slices: Slices) -> Prepared:
    """``(slice, image (C, *S), target (L, *S))`` of every sample of an item.

    Raises:
        CaseError: The item cannot be read, or has no reference.
    """
    case = load_case(item.source, spec)
    if case.reference is None:
        raise CaseError(f"{item.name}: has no reference mask", "Add its mask, or take the case out of the folder.")
    labels = case.reference.labels
    if spec.input.rank == 3:
        if case.geometry.kind != "volume":
            raise VoxelError(f"{item.name}: is no volume, and the recipe is 3D", "Give volumes, or a 2D recipe.")
        windowed = WindowedCase(case, spec)
        return [(0, windowed.tensor, _to_bytes(windowed.target(labels)))]
    sliced = SlicedCase(case, spec)
    samples: Prepared = []
    for index in range(sliced.count):
        if sliced.is_blank(index):
            continue
        target = _to_bytes(sliced.target(labels, index))
        if slices == "labelled" and not target.any():
            continue
        samples.append((index, sliced.tensor(index), target))
    return samples


def _to_bytes(share: Float32Array) -> ByteArray:
    return np.rint(share * FULL).astype(np.uint8)


def _in_order(items: Sequence[Item], spec: ModelSpec, slices: Slices) -> Iterator[tuple[Item, Prepared]]:
    """Prepare on all cores, a few items ahead, so that memory stays bounded."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Item, Future[Prepared]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(prepare, item, spec, slices)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _fill(
    final: Path, items: Sequence[Item], spec: ModelSpec, slices: Slices, on_item: Callable[[int, int], None]
) -> None:
    partial = final.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{final.name}")
    samples: list[Sample] = []
    offset = 0
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / _IMAGES).open("wb") as images, (partial / _TARGETS).open("wb") as targets:
            for done, (item, prepared) in enumerate(_in_order(items, spec, slices), start=1):
                for index, image, target in prepared:
                    sample = Sample(item.name, index, image.shape[1:], offset)
                    images.write(np.ascontiguousarray(image).data)
                    targets.write(np.ascontiguousarray(target).data)
                    offset += sample.pixels
                    samples.append(sample)
                on_item(done, len(items))
        if not samples:
            raise UsageError("no item has a slice to train on", "Check the references, or the recipe's [data] slices.")
        content = {
            "channels": len(spec.channels),
            "labels": len(spec.labels),
            "samples": [asdict(s) for s in samples],
        }
        (partial / _INDEX).write_text(json.dumps(content), encoding="utf-8")
        partial.rename(final)
    except OSError as error:
        raise OutputError(
            f"{final}: the cache cannot be written ({error.strerror or error})",
            "Free the space, or name another folder with --output or --cache.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
