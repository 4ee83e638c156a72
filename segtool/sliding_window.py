"""Windows over a volume, blended with a Gaussian. Knows no engine: it is given a function."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

_SIGMA = 1 / 8  # of the patch, as nnU-Net has it (Isensee et al., Nature Methods 18, 2021)
_FLOOR = 1e-3  # of the peak: keeps float32 division exact enough where only a corner of a window reaches


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the fewest windows that cover ``size`` with at least ``overlap``, spread evenly."""
    if size <= patch:
        return [0]
    step = max(1.0, patch * (1 - overlap))
    steps = int(np.ceil((size - patch) / step))
    return [round(i * (size - patch) / steps) for i in range(steps + 1)]


def gaussian(patch: Sequence[int]) -> npt.NDArray[np.float32]:
    """Weights ``(*patch)`` in (0, 1], the product of one Gaussian an axis."""
    weights = np.ones((), np.float32)
    for n in patch:
        x = np.arange(n, dtype=np.float32) - (n - 1) / 2
        along = np.maximum(np.exp(-0.5 * (x / (n * _SIGMA)) ** 2), _FLOOR)
        weights = np.multiply.outer(weights, along.astype(np.float32))
    return np.asarray(weights)


def _batches(items: list[tuple[slice, ...]], size: int) -> Iterator[list[tuple[slice, ...]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def slide(
    tensor: AnyArray,
    run: Callable[[AnyArray], AnyArray],
    patch: Sequence[int],
    overlap: float,
    batch: int = 1,
    xp: ModuleType = np,
    on_window: Callable[[int, int], None] | None = None,
) -> AnyArray:
    """Run a network over all windows of a tensor and blend what it answers.

    Args:
        tensor: ``(C, *S)`` float32. Axes shorter than the patch are padded with the tensor's lowest value for
            the network's sake; the padding is cut off again.
        run: ``(N, C, *patch)`` to ``(N, K, *patch)``.
        patch: Extent of a window.
        overlap: Least share of a window that its neighbour covers too, in [0, 1).
        batch: Windows a call.
        xp: Array module of ``run``, numpy or cupy; blending happens there.
        on_window: Told (windows done, windows in all) after each call.

    Returns:
        ``(K, *S)`` float32 in ``xp``.
    """
    shape = tensor.shape[1:]
    missing = [max(0, p - n) for n, p in zip(shape, patch, strict=True)]
    if any(missing):
        before = [m // 2 for m in missing]
        width = [(0, 0), *((b, m - b) for b, m in zip(before, missing, strict=True))]
        padded = np.pad(tensor, width, constant_values=tensor.min())
    else:
        before, padded = [0] * len(shape), tensor
    source = xp.asarray(padded)
    weights = xp.asarray(gaussian(patch))
    starts = [window_starts(n, p, overlap) for n, p in zip(padded.shape[1:], patch, strict=True)]
    windows = [
        tuple(slice(s, s + p) for s, p in zip(corner, patch, strict=True)) for corner in itertools.product(*starts)
    ]
    total: AnyArray | None = None
    weight_sum = xp.zeros(padded.shape[1:], xp.float32)
    done = 0
    for group in _batches(windows, batch):
        answer = run(xp.ascontiguousarray(xp.stack([source[(slice(None), *w)] for w in group])))
        if total is None:
            total = xp.zeros((answer.shape[1], *padded.shape[1:]), xp.float32)
        for window, logits in zip(group, answer, strict=True):
            total[(slice(None), *window)] += logits * weights
            weight_sum[window] += weights
        done += len(group)
        if on_window is not None:
            on_window(done, len(windows))
    assert total is not None
    total /= weight_sum
    inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    return total[(slice(None), *inner)]
