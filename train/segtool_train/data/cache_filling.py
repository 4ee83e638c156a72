"""Fills a cache: every item prepared on all cores and written one after the other, whole or not at all."""

import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from segtool.atomic import PARTIAL_PREFIX
from segtool.errors import CaseError, OutputError, UsageError
from segtool_train.data.base import Item
from segtool_train.data.prepare import ByteArray, Float32Array, Prepared, Rule, prepare
from segtool_train.data.split import slice_name

IMAGES, TARGETS, CENTRES, INDEX = "images.f32", "targets.u8", "centres.i64", "index.json"

_MOST_CENTRES = 1000
"""Labelled voxels kept of each label of a volume: more than an epoch's patches, few beside its voxels."""
_FIRST_ESTIMATE = 4
"""Items after which the size of the whole is told from theirs."""
_ABANDONED_S = 24 * 3600
"""Age at which what another machine left unfinished counts as abandoned."""

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_PARTIAL = re.compile(re.escape(PARTIAL_PREFIX) + r"(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-")


@dataclass(frozen=True)
class Sample:
    """One input of the network.

    Args:
        item: Name of the item.
        slice: Which slice of it; 0 for pictures and volumes.
        shape: Spatial extent of image and target.
        offset: Pixels before this sample, over all samples.
        labelled: A label covers some of it.
        lowest: Value of the image, over all channels.
        centres: Of volumes: how many labelled voxels are kept of each label.
        first_centre: Kept voxels before those of this sample.
    """

    item: str
    slice: int
    shape: tuple[int, ...]
    offset: int
    labelled: bool
    lowest: float
    centres: tuple[int, ...] = ()
    first_centre: int = 0

    @property
    def name(self) -> str:
        """Where samples are parted one by one."""
        return slice_name(self.item, self.slice)

    @property
    def pixels(self) -> int:
        """Of one channel."""
        return int(np.prod(self.shape))


def fill(final: Path, items: Sequence[Item], rule: Rule, on_item: Callable[[int, int], None]) -> None:
    """Write the cache ``final``. Items that cannot be used are listed in it, each with its error.

    Raises:
        UsageError: No item has a sample.
        OutputError: The cache cannot be written, or does not fit onto the disk.
    """
    partial = final.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{_HOST}-{final.name}")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writer = _Writer(*(stack.enter_context((partial / name).open("wb")) for name in (IMAGES, TARGETS, CENTRES)))
            broken, notes = _write_all(writer, final.parent, items, rule, on_item)
        if not writer.samples and not broken:
            raise UsageError("no item has a slice to train on", "Check the references, or the recipe's [data] slices.")
        content = {
            "channels": len(rule.spec.channels),
            "labels": len(rule.spec.labels),
            "broken": broken,
            "notes": notes,
            "samples": [asdict(sample) for sample in writer.samples],
        }
        (partial / INDEX).write_text(json.dumps(content), encoding="utf-8")
        try:
            partial.rename(final)
        except OSError:
            # Another run that trains on the same data was first: both wrote the same.
            if not (final / INDEX).is_file():
                raise
    except OSError as error:
        raise OutputError(
            f"{final}: the cache cannot be written ({error.strerror or error})",
            "Free the space, or name another folder with --output or --cache.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Writer:
    """Appends samples to the three files."""

    def __init__(self, images: BinaryIO, targets: BinaryIO, centres: BinaryIO) -> None:
        self.samples: list[Sample] = []
        self.size = 0  # bytes
        self._images, self._targets, self._centres = images, targets, centres
        self._pixels = self._kept = 0

    def add(self, item: str, index: int, image: Float32Array, target: ByteArray) -> None:
        """Append ``image`` ``(C, *S)`` and ``target`` ``(L, *S)``."""
        volume = image.ndim == 4
        kept = [_some_voxels(label, len(self.samples)) for label in target] if volume else []
        self.samples.append(
            Sample(
                item,
                index,
                image.shape[1:],
                self._pixels,
                bool(target.any()),
                float(image.min()),
                tuple(len(voxels) for voxels in kept),
                self._kept,
            )
        )
        arrays: list[tuple[BinaryIO, npt.NDArray[Any]]] = [(self._images, image), (self._targets, target)]
        for file, array in (*arrays, *((self._centres, voxels) for voxels in kept)):
            file.write(np.ascontiguousarray(array).data)
            self.size += array.nbytes
        self._pixels += self.samples[-1].pixels
        self._kept += sum(len(voxels) for voxels in kept)


def _some_voxels(label: ByteArray, seed: int) -> npt.NDArray[np.int64]:
    """Places, in the flattened volume, of at most :data:`_MOST_CENTRES` voxels that the label covers, any of them."""
    covered = np.flatnonzero(label).astype(np.int64)
    if covered.size <= _MOST_CENTRES:
        return covered
    return np.sort(np.random.default_rng(seed).choice(covered, _MOST_CENTRES, replace=False))


def _write_all(
    writer: _Writer, folder: Path, items: Sequence[Item], rule: Rule, on_item: Callable[[int, int], None]
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Write all items that can be used.

    Returns:
        The others by name, each with its error; and what reading had to decide, in how many items.
    """
    broken: list[tuple[str, str]] = []
    notes: Counter[str] = Counter()
    for done, (item, prepared) in enumerate(_in_order(items, rule), start=1):
        if isinstance(prepared, CaseError):
            broken.append((item.name, str(prepared)))
        else:
            for index, image, target in prepared.samples:
                writer.add(item.name, index, image, target)
            notes.update(set(prepared.notes))
        # At doubling distances: items differ, and other programs write too.
        if done >= min(_FIRST_ESTIMATE, len(items)) and done & (done - 1) == 0:
            _require_space(folder, writer.size, done, len(items))
        on_item(done, len(items))
    return broken, dict(notes.most_common())


def _in_order(items: Sequence[Item], rule: Rule) -> Iterator[tuple[Item, Prepared | CaseError]]:
    """Prepare on all cores, a few items ahead, so that memory stays bounded."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Item, Future[Prepared]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(prepare, item, rule)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.popleft()
                    yield first, _outcome(future)
            while waiting:
                first, future = waiting.popleft()
                yield first, _outcome(future)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _outcome(future: Future[Prepared]) -> Prepared | CaseError:
    try:
        return future.result()
    except CaseError as error:
        return error


def _require_space(folder: Path, written: int, done: int, total: int) -> None:
    """Refuse before the disk is full what would not fit.

    Raises:
        OutputError: The items to come, as large as those written on average, need more than is free.
    """
    missing, free = written * (total - done) // done, shutil.disk_usage(folder).free
    if missing > free:
        raise OutputError(
            f"{folder}: the cache of {total} cases needs about {_in_words(written + missing)} of disk, "
            f"and {_in_words(written + free)} can be had",
            "Free the space, or name a folder on another disk with --cache.",
        )


def _in_words(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 10**9 else f"{size / 1e6:.3g} MB"


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half written in a folder of caches."""
    for path in folder.glob(f"{PARTIAL_PREFIX}*"):
        name = _PARTIAL.match(path.name)
        if name is None:
            continue
        if name["host"] == _HOST:
            abandoned = not _is_alive(int(name["pid"]))
        else:
            # Its processes cannot be asked for; a filling writes all the time.
            abandoned = time.time() - _last_written(path) > _ABANDONED_S
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # signal 0 would end a process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def _last_written(folder: Path) -> float:
    """Seconds since the epoch; now, where the folder vanishes meanwhile."""
    with suppress(OSError):
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return time.time()
