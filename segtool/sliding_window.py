"""Windows over a volume, blended with a Gaussian. Knows no engine: it is given a function."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.resample import array_module
from segtool.side_by_side import ranges, side_by_side
from segtool.spec import ModelSpec

AnyArray = npt.NDArray[Any]
Window = tuple[slice, ...]

_SIGMA = 1 / 8  # of the patch, as nnU-Net has it (Isensee et al., Nature Methods 18, 2021)
_SLAB_PLANES = 16
_FLOOR = 1e-3  # of the peak: keeps float32 division exact enough where only a corner of a window reaches


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the fewest windows that cover ``size`` with at least ``overlap``, spread evenly."""
    if size <= patch:
        return [0]
    step = max(1.0, patch * (1 - overlap))
    steps = int(np.ceil((size - patch) / step))
    return [round(i * (size - patch) / steps) for i in range(steps + 1)]


def window_extent(shape: Sequence[int], spec: ModelSpec) -> tuple[int, ...]:
    """Extent of the windows over a tensor ``(C, *shape)``: the spec's patch, or all of a case that it serves whole."""
    assert spec.input.rank == 3
    whole = tuple(-(-n // spec.divisor) * spec.divisor for n in shape)
    limit = spec.input.whole_case_voxels
    return whole if limit is not None and math.prod(whole) <= limit else spec.input.patch


def gaussian(patch: Sequence[int]) -> npt.NDArray[np.float32]:
    """Weights ``(*patch)`` in (0, 1], the product of one Gaussian an axis."""
    weights = np.ones((), np.float32)
    for n in patch:
        x = np.arange(n, dtype=np.float32) - (n - 1) / 2
        along = np.maximum(np.exp(-0.5 * (x / (n * _SIGMA)) ** 2), _FLOOR)
        weights = np.multiply.outer(weights, along.astype(np.float32))
    return np.asarray(weights)


@dataclass(frozen=True)
class Slab:
    """Blended logits ``(K, n, *S[1:])`` of ``n`` neighbouring planes of a volume, or rows of a picture.

    Attributes:
        start: The first of them.
        logits: Float32, in the network's array module; belongs to whoever takes it.
    """

    start: int
    logits: AnyArray


class Windows:
    """The windows of one tensor, in levels along its first axis.

    Args:
        tensor: ``(C, *S)`` float32. Axes shorter than the patch are padded with the tensor's lowest value for
            the network's sake; the padding is cut off again.
        patch: Extent of a window.
        overlap: Least share of a window that its neighbour covers too, in [0, 1).
    """

    def __init__(self, tensor: AnyArray, patch: Sequence[int], overlap: float) -> None:
        self._shape, self._patch = tensor.shape[1:], tuple(patch)
        missing = [max(0, p - n) for n, p in zip(self._shape, patch, strict=True)]
        self._before = [m // 2 for m in missing]
        self._padded = tensor
        if any(missing):
            width = [(0, 0), *((b, m - b) for b, m in zip(self._before, missing, strict=True))]
            self._padded = np.pad(tensor, width, constant_values=tensor.min())
        extents = self._padded.shape[1:]
        # What is no padding, across the first axis.
        self._inner = [slice(b, b + n) for b, n in zip(self._before[1:], self._shape[1:], strict=True)]
        self._starts = [window_starts(n, p, overlap) for n, p in zip(extents, patch, strict=True)]

    @property
    def slab_count(self) -> int:
        """How many slabs :meth:`slabs` gives."""
        return sum(len(list(self._pieces(*level))) for level in self._levels())

    @property
    def count(self) -> int:
        """Windows in all."""
        return math.prod(len(starts) for starts in self._starts)

    def slabs(
        self,
        run: Callable[[AnyArray], AnyArray],
        batch: int = 1,
        xp: ModuleType = np,
        on_window: Callable[[int, int], None] | None = None,
        background: npt.NDArray[np.float32] | None = None,
    ) -> Iterator[Slab]:
        """Run a network over all windows and give planes as soon as no further window reaches them.

        Only the planes that one level of windows covers are held as logits, whatever the volume's length.

        Args:
            run: ``(N, C, *patch)`` to ``(N, K, *patch)``.
            batch: Windows a call.
            xp: Array module of ``run``, numpy or cupy; blending happens there.
            on_window: Told (windows done, windows in all) after each call.
            background: Logits ``(K,)`` of windows that hold one value a channel and nothing else: the network is
                not asked about them. None asks it about all.
        """
        source = xp.asarray(self._padded)
        if self.count == 1:
            return self._one_window(source, run, on_window, background)
        return self._blended(source, run, batch, on_window, background)

    def _blended(
        self,
        source: AnyArray,
        run: Callable[[AnyArray], AnyArray],
        batch: int,
        on_window: Callable[[int, int], None] | None,
        background: npt.NDArray[np.float32] | None,
    ) -> Iterator[Slab]:
        xp = array_module(source)
        weights = xp.asarray(gaussian(self._patch))
        along, *across = (xp.asarray(sums) for sums in self._weight_sums())
        plane_sums = _outer(across, xp)
        end = self._padded.shape[1]
        images = xp.empty((min(batch, self.count), len(source), *self._patch), source.dtype)
        total: AnyArray | None = None
        done = 0
        for start, following in self._levels():
            level = [self._window(start, corner) for corner in itertools.product(*self._starts[1:])]
            asked = []
            for window in level:
                if background is None or not _is_blank(source[(slice(None), *window)]):
                    asked.append(window)
                    continue
                if total is None:
                    total = self._zeros(len(background), xp)
                values = xp.asarray(background).reshape(-1, *[1] * len(self._patch))
                total[(slice(None), *_moved(window, start))] += values * weights
            done += len(level) - len(asked)
            for group in _batches(asked, batch):
                for place, window in zip(images, group, strict=False):
                    _copy(place, source[(slice(None), *window)], xp)
                answer = run(images[: len(group)])
                if total is None:
                    total = self._zeros(answer.shape[1], xp)
                for window, logits in zip(group, answer, strict=True):
                    _add_weighted(total[(slice(None), *_moved(window, start))], logits, weights, xp)
                done += len(group)
                if on_window is not None:
                    on_window(done, self.count)
            assert total is not None
            for first, last in self._pieces(start, following):
                sums = along[first:last].reshape(-1, *[1] * plane_sums.ndim) * plane_sums
                blended = total[:, first - start : last - start] / sums
                yield Slab(first - self._before[0], blended[(slice(None), slice(None), *self._inner)])
            if following < end:
                _shift(total, following - start)

    def _one_window(
        self,
        source: AnyArray,
        run: Callable[[AnyArray], AnyArray],
        on_window: Callable[[int, int], None] | None,
        background: npt.NDArray[np.float32] | None,
    ) -> Iterator[Slab]:
        """Nothing to blend: what the network answers is the result."""
        xp = array_module(source)
        if background is None or not _is_blank(source):
            logits = run(source[None])[0]
        else:
            values = xp.asarray(background).reshape(-1, *[1] * len(self._patch))
            logits = xp.broadcast_to(values, (len(background), *source.shape[1:]))
        if on_window is not None:
            on_window(1, 1)
        for first, last in self._pieces(0, source.shape[1]):
            yield Slab(first - self._before[0], logits[(slice(None), slice(first, last), *self._inner)].copy())

    def _window(self, start: int, corner: Sequence[int]) -> Window:
        return tuple(slice(s, s + p) for s, p in zip((start, *corner), self._patch, strict=True))

    def _zeros(self, classes: int, xp: ModuleType) -> AnyArray:
        """Of one level: as many planes as a window has."""
        zeros: AnyArray = xp.zeros((classes, self._patch[0], *self._padded.shape[2:]), xp.float32)
        return zeros

    def _weight_sums(self) -> Iterator[npt.NDArray[np.float32]]:
        """What the weights of all windows add up to along each axis; the windows are a grid, so that suffices."""
        for extent, patch, starts in zip(self._padded.shape[1:], self._patch, self._starts, strict=True):
            sums = np.zeros(extent, np.float32)
            for start in starts:
                sums[start : start + patch] += gaussian([patch])
            yield sums

    def _levels(self) -> Iterator[tuple[int, int]]:
        """Of every level of windows its first plane, and the first that the next level reaches."""
        return zip(self._starts[0], [*self._starts[0][1:], self._padded.shape[1]], strict=True)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The planes from ``start`` to ``stop`` that are no padding, in slabs."""
        start, stop = max(start, self._before[0]), min(stop, self._before[0] + self._shape[0])
        for first in range(start, stop, _SLAB_PLANES):
            yield first, min(first + _SLAB_PLANES, stop)


def _add_weighted(total: AnyArray, logits: AnyArray, weights: AnyArray, xp: ModuleType) -> None:
    """Add ``logits`` ``(K, *patch)`` times ``weights`` ``(*patch)`` to ``total``, in place."""
    if xp is not np:
        total += logits * weights
        return

    def add(planes: slice) -> None:
        # Plane by plane, so that the product never leaves the cache.
        product = np.empty_like(logits[:, 0])
        for plane in range(planes.start, planes.stop):
            np.multiply(logits[:, plane], weights[plane], out=product)
            total[:, plane] += product

    side_by_side(add, ranges(len(weights)))


def _copy(place: AnyArray, window: AnyArray, xp: ModuleType) -> None:
    """Write ``window`` ``(C, *patch)`` into ``place``."""
    if xp is not np:
        place[...] = window
        return

    def copy(planes: slice) -> None:
        place[:, planes] = window[:, planes]

    side_by_side(copy, ranges(window.shape[1]))


def _shift(total: AnyArray, planes: int) -> None:
    """Move planes ``(K, n, ...)`` to the front by ``planes``, in place, zeros behind them."""
    depth = total.shape[1]
    # In steps that do not overlap, which no array module has to copy for.
    for first in range(0, depth - planes, planes):
        last = min(first + planes, depth - planes)
        total[:, first:last] = total[:, first + planes : last + planes]
    total[:, max(0, depth - planes) :] = 0


def _batches(items: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _moved(window: Window, start: int) -> Window:
    """The same window in an array that begins at plane ``start``."""
    return (slice(window[0].start - start, window[0].stop - start), *window[1:])


def _outer(sums: Sequence[AnyArray], xp: ModuleType) -> AnyArray:
    """The product of one vector an axis."""
    product: AnyArray = xp.ones((), xp.float32)
    for one in sums:
        product = product[..., None] * one
    return product


def _is_blank(window: AnyArray) -> bool:
    """Whether every channel of ``(C, *patch)`` is one value throughout."""
    return all(bool((channel == channel[(0,) * channel.ndim]).all()) for channel in window)


def slide(
    tensor: AnyArray,
    run: Callable[[AnyArray], AnyArray],
    patch: Sequence[int],
    overlap: float,
    batch: int = 1,
    xp: ModuleType = np,
    on_window: Callable[[int, int], None] | None = None,
) -> AnyArray:
    """Run a network over all windows of a tensor and blend what it answers, all of it in memory.

    Arguments as for :class:`Windows` and :meth:`Windows.slabs`.

    Returns:
        ``(K, *S)`` float32 in ``xp``.
    """
    slabs = list(Windows(tensor, patch, overlap).slabs(run, batch, xp, on_window))
    blended: AnyArray = xp.concatenate([slab.logits for slab in slabs], axis=1)
    return blended
