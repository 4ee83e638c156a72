"""What the network sees of every item, computed once and memory-mapped.

Images are kept as they are, float32; targets are shares of a pixel, kept in steps of 1/255. Of volumes, places of
labelled voxels are kept too, so that a patch on a label is cut without a look at the whole target. A cache is
named after everything that decides its content, so that a stale one is never used. Items that cannot be used are
listed in it, so that all of them are known at once and leaving them out needs no second pass.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.errors import CaseError, UsageError
from segtool.spec import ModelSpec
from segtool_train.data.base import Item
from segtool_train.data.cache_filling import CENTRES, IMAGES, INDEX, TARGETS, Sample, fill, remove_abandoned
from segtool_train.data.prepare import ByteArray, Float32Array, Rule, Slices

VERSION = 3
"""Raised when preprocessing changes what a cache holds without changing its key."""

_NOT_DECIDING = {"patch", "overlap"}
"""Of a volume's input: windows are cut out of what the cache holds."""


@dataclass(frozen=True)
class Cache:
    """All samples of a set. Arrays are views of the files and are not to be written to.

    Args:
        folder: Where it lies.
        channels: Of the images.
        labels: Of the targets.
        samples: In the order of the items.
        broken: Names of the items that could not be used, each with its error.
        notes: What reading items had to decide, and in how many.
    """

    folder: Path
    channels: int
    labels: int
    samples: tuple[Sample, ...]
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, int], ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the files itself: an open memory map would be sent to it as a copy of all pixels.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _images(self) -> Float32Array:
        return np.memmap(self.folder / IMAGES, np.float32, "r")

    @cached_property
    def _targets(self) -> ByteArray:
        return np.memmap(self.folder / TARGETS, np.uint8, "r")

    @cached_property
    def _centres(self) -> npt.NDArray[np.int64]:
        return np.memmap(self.folder / CENTRES, np.int64, "r")

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

    def labelled_voxel(self, index: int, random: np.random.Generator) -> tuple[int, ...] | None:
        """A voxel of a volume that shows a label, each label equally often; None where it shows none."""
        sample = self.samples[index]
        shown = np.flatnonzero(sample.centres)
        if not shown.size:
            return None
        label = int(shown[random.integers(shown.size)])
        start = sample.first_centre + sum(sample.centres[:label])
        place = self._centres[start + int(random.integers(sample.centres[label]))]
        return tuple(int(n) for n in np.unravel_index(place, sample.shape))

    def indices(self, items: Sequence[str]) -> list[int]:
        """Samples of the named items, or samples by their own names, in the cache's order."""
        wanted = set(items)
        return [index for index, sample in enumerate(self.samples) if wanted & {sample.item, sample.name}]


def cache_key(items: Sequence[Item], rule: Rule) -> str:
    """Checksum of all that decides what a cache holds: the rule, and the files with size and time."""
    digest = hashlib.sha256()
    spec = rule.spec
    deciding = [
        VERSION,
        rule.slices,
        sorted(rule.background_values),
        [channel.model_dump(mode="json") for channel in spec.channels],
        [sorted(label.reference_values) for label in spec.labels],
        spec.input.model_dump(mode="json", exclude=_NOT_DECIDING),
        spec.intensity.model_dump(mode="json"),
    ]
    digest.update(json.dumps(deciding, sort_keys=True).encode())
    for item in items:
        sources = [*item.source.channels.items(), ("reference", item.source.reference)]
        for role, source in sources:
            assert source is not None
            digest.update(f"{item.name}\0{role}\0{source.format}\0{source.dataset}\0{source.index}\n".encode())
            for path in source.paths:
                digest.update(f"{path.resolve()}\0{_state(path)}\n".encode())
    return digest.hexdigest()[:16]


def _state(path: Path) -> str:
    """Size and time of a file. One that is not there is reported with all else that is broken, not here."""
    try:
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_size}\0{found.st_mtime_ns}"


def open_cache(
    folder: Path,
    items: Sequence[Item],
    spec: ModelSpec,
    slices: Slices = "all",
    on_item: Callable[[int, int], None] | None = None,
    *,
    background_values: tuple[int, ...] = (),
    skip_broken: bool = False,
) -> Cache:
    """The cache of ``items`` below ``folder``, filled first where it is not there yet.

    Args:
        folder: Holds one folder a cache.
        items: Labelled cases.
        spec: Decides the pixels.
        slices: Of volumes under a 2D spec: all that are not blank, or those that show a label.
        on_item: Told (items done, items in all) while the cache is filled.
        background_values: Of references, beside 0.
        skip_broken: Give the cache without the items that cannot be used; it names them.

    Raises:
        CaseError: Items cannot be used; the line names the first and how many there are.
        OutputError: The cache cannot be written.
    """
    rule = Rule(spec, slices, background_values)
    final = folder / cache_key(items, rule)
    remove_abandoned(folder)
    if not final.exists():
        fill(final, items, rule, on_item or (lambda _done, _all: None))
    cache = read_cache(final)
    if cache.broken and not skip_broken:
        raise broken_error([line for _, line in cache.broken], len(items))
    return cache


def broken_error(lines: Sequence[str], total: int, where: Path | None = None) -> CaseError:
    """One line about items that cannot be used.

    Args:
        lines: One for each.
        total: Of which there are so many.
        where: File that lists them.
    """
    listed = f", all in {where}" if where is not None and len(lines) > 1 else ""
    return CaseError(
        f"{len(lines)} of {total} cases cannot be used{listed}; the first: {lines[0].rstrip('.')}",
        f"Then train again, or pass --skip-broken to go on without {'them' if len(lines) > 1 else 'it'}.",
    )


def read_cache(folder: Path) -> Cache:
    """A cache that :func:`open_cache` filled earlier.

    Raises:
        UsageError: It is gone or damaged.
    """
    try:
        raw = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        samples = tuple(_sample(sample) for sample in raw["samples"])
        broken = tuple((name, line) for name, line in raw["broken"])
        notes = tuple(dict(raw.get("notes", {})).items())  # caches of earlier versions have none
        cache = Cache(folder, raw["channels"], raw["labels"], samples, broken, notes)
    except OSError as error:
        if folder.is_dir():
            raise _damaged(folder) from error
        raise UsageError(
            f"{folder}: the cache of the training run is gone ({error.strerror})",
            "Fill it again with `segtool train --resume`, or name labelled scans with --cases.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder) from error
    pixels, centres = sum(sample.pixels for sample in samples), sum(sum(sample.centres) for sample in samples)
    wanted = {
        IMAGES: pixels * cache.channels * np.dtype(np.float32).itemsize,
        TARGETS: pixels * cache.labels,
        CENTRES: centres * np.dtype(np.int64).itemsize,
    }
    for name, size in wanted.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise _damaged(folder)
    return cache


def _sample(raw: dict[str, Any]) -> Sample:
    # JSON knows no tuples.
    return Sample(**{**raw, "shape": tuple(raw["shape"]), "centres": tuple(raw["centres"])})


def _damaged(folder: Path) -> UsageError:
    return UsageError(
        f"{folder}: the cache of the training run is damaged",
        "Remove that folder, and fill it again with `segtool train --resume`.",
    )
