"""Collects a network's answers for one case and makes its label map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap
from segtool.postprocess.components import postprocess
from segtool.postprocess.confidence import Tally, tally, together
from segtool.postprocess.decision import Float32Array, Thresholds, activate, decide, is_linear
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.resample import Interpolation, array_module, on_host, resize
from segtool.spec import ModelSpec

AnyArray = npt.NDArray[Any]

_BLOCK_BYTES = 2**24  # of logits that are resampled and decided on at once: about what a cache holds
_SURE = 30.0  # one in 10^13, and the odds of any threshold that can be written


class SliceAssembler:
    """Collects a 2D network's answers for one case, slice by slice and in any order.

    Args:
        prepared: The case.
        spec: The model's spec.
        threshold: Probability above which a pixel belongs to a label; one for all, or one a label.
        keep_probabilities: Also keep ``(L, *S)`` float16 probabilities.
        keep_logits: Also keep ``(K, *S)`` float16 logits, which tell sure from very sure.

    Attributes:
        logits: Those, None where they are not kept.
    """

    def __init__(
        self,
        prepared: SlicedCase,
        spec: ModelSpec,
        threshold: Thresholds,
        keep_probabilities: bool = False,
        keep_logits: bool = False,
    ) -> None:
        self._prepared, self._spec, self._threshold = prepared, spec, threshold
        shape = prepared.geometry.shape
        self._labels = np.zeros(shape, np.uint8)
        self._probabilities = np.zeros((len(spec.labels), *shape), np.float16) if keep_probabilities else None
        self.logits = _sure_background(spec, shape) if keep_logits else None
        self._tallies: dict[int, Tally] = {}

    def add(self, index: int, logits: AnyArray) -> None:
        """Take logits ``(K, h, w)`` of slice ``index``, and behind them votes where the backend gave any."""
        place = self._prepared.placement(index)
        labels = self._prepared.view(self._labels, index)
        logits, votes = _parted(logits, self._spec)
        shown = (..., *place.window)
        self._tallies[index] = tally(
            logits[shown], self._spec, self._threshold, None if votes is None else votes[shown]
        )
        if self._probabilities is not None or self.logits is not None:
            native = place.to_native(logits)
            labels[...] = decide(native, self._spec, self._threshold)
            if self._probabilities is not None:
                self._prepared.view(self._probabilities, index)[...] = activate(native, self._spec)
            if self.logits is not None:
                self._prepared.view(self.logits, index)[...] = native
            return
        # A linear mix of logits on the background's side of a flat border stays on that side: only what the
        # labelled part of the frame can reach needs resampling, a small share of most slices.
        linear = is_linear(self._spec, self._threshold)
        box = place.native_box(decide(logits, self._spec, self._threshold) > 0) if linear else (slice(None),) * 2
        if box is not None:
            labels[box] = decide(place.to_native(logits, box), self._spec, self._threshold)

    def finish(self) -> tuple[LabelMap, npt.NDArray[np.float16] | None]:
        """The label map, after the spec's post-processing, and the probabilities where kept."""
        kind = self._prepared.geometry.kind
        separate = kind == "stack"
        labels = postprocess(self._labels, self._spec.postprocess, separate, self._spec.labels)
        return LabelMap(labels, self._prepared.geometry), self._probabilities

    def confidence(self) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """See :meth:`Tally.numbers`: of a picture or volume, or by index of a stack's pictures; one is empty.

        Slices without any contrast, which the network is not asked about, have none.
        """
        if self._prepared.geometry.kind == "stack":
            return {}, {index: self._tallies[index].numbers() for index in sorted(self._tallies)}
        # In order: whichever thread was first, sums are the same to the last bit.
        whole = together(self._tallies[index] for index in sorted(self._tallies))
        return {} if whole is None else whole.numbers(), {}


class VolumeAssembler:
    """Collects a 3D network's blended logits for one case, slab by slab in the order of planes.

    Logits are brought to the case's own spacing and decided on as soon as the planes that they need are there, a few
    at a time, so that those of a long volume never lie in memory together.

    Args:
        prepared: The case.
        spec: The model's spec.
        threshold: Probability above which a voxel belongs to a label; one for all, or one a label.
        keep_probabilities: Also keep ``(L, *S)`` float16 probabilities.
        keep_logits: Also keep ``(K, *S)`` float16 logits, which tell sure from very sure.

    Attributes:
        logits: Those, once the case is finished; None where they are not kept.
    """

    def __init__(
        self,
        prepared: WindowedCase,
        spec: ModelSpec,
        threshold: Thresholds,
        keep_probabilities: bool = False,
        keep_logits: bool = False,
    ) -> None:
        self._prepared, self._spec, self._threshold = prepared, spec, threshold
        self._shape = prepared.cropped_shape
        self._labels = np.zeros(self._shape, np.uint8)
        self._probabilities = np.zeros((len(spec.labels), *self._shape), np.float16) if keep_probabilities else None
        self.logits = _sure_background(spec, self._shape) if keep_logits else None
        self._tallies: list[Tally] = []
        self._along = Interpolation(prepared.network_shape[0], self._shape[0])
        self._pending: Float32Array | None = None
        self._first = 0  # plane of the network's grid that is the first of those pending
        self._next = 0  # plane of the case's grid

    def add(self, logits: Float32Array) -> None:
        """Take the next planes ``(K, n, h, w)`` on the network's grid; they stay where they lie, a GPU perhaps.

        Behind the logits may lie votes, as the backend gave them.
        """
        logits, votes = _parted(logits, self._spec)
        self._tallies.append(tally(logits, self._spec, self._threshold, votes))
        if self._pending is None:
            self._pending = logits
        else:
            self._pending = array_module(logits).concatenate([self._pending, logits], axis=1)
        known = self._first + self._pending.shape[1]
        step = max(1, _BLOCK_BYTES // max(1, 4 * len(logits) * self._shape[1] * self._shape[2]))
        while (stop := min(self._along.ready(known), self._next + step)) > self._next:
            planes = self._along.take(self._pending, self._first, self._next, stop)
            self._decide(resize(planes, self._shape[1:]), stop)
        needed = self._along.first_needed(self._next)
        self._pending = self._pending[:, needed - self._first :]
        self._first = needed

    def _decide(self, native: Float32Array, stop: int) -> None:
        """Of planes ``(K, n, H, W)`` at the case's spacing; a byte a voxel comes back from a GPU."""
        planes = slice(self._next, stop)
        self._labels[planes] = on_host(decide(native, self._spec, self._threshold))
        if self._probabilities is not None:
            self._probabilities[:, planes] = on_host(activate(native, self._spec).astype(np.float16))
        if self.logits is not None:
            self.logits[:, planes] = on_host(native.astype(np.float16))
        self._next = stop

    def finish(self) -> tuple[LabelMap, npt.NDArray[np.float16] | None]:
        """The label map, after the spec's post-processing, and the probabilities where kept."""
        assert self._next == self._shape[0]
        labels = self._prepared.uncrop(self._labels)
        probabilities = None if self._probabilities is None else self._prepared.uncrop(self._probabilities)
        cleaned = postprocess(labels, self._spec.postprocess, False, self._spec.labels)
        if self.logits is not None:
            inside = self._prepared.uncrop(np.ones(self._shape, np.bool_))
            logits, self.logits = self.logits, _sure_background(self._spec, inside.shape)
            np.copyto(self.logits, self._prepared.uncrop(logits), where=inside)
        return LabelMap(cleaned, self._prepared.geometry), probabilities

    def confidence(self) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """See :meth:`Tally.numbers`; the second is empty, as for all but stacks."""
        whole = together(self._tallies)
        return {} if whole is None else whole.numbers(), {}


def background_logits(spec: ModelSpec, votes: int = 0) -> Float32Array:
    """Logits ``(K,)`` of a voxel that is background beyond doubt, and as many channels of votes, none for it."""
    sure = np.zeros(spec.output_channels + votes, np.float32)
    sure[: spec.output_channels] = -_SURE
    if spec.activation == "softmax":
        sure[0] = _SURE
    return sure


def _sure_background(spec: ModelSpec, shape: Sequence[int]) -> npt.NDArray[np.float16]:
    """Logits ``(K, *S)`` of nothing but background, in memory of their own."""
    values = background_logits(spec).astype(np.float16).reshape(-1, *[1] * len(shape))
    return np.broadcast_to(values, (len(values), *shape)).copy()


def _parted(answer: AnyArray, spec: ModelSpec) -> tuple[AnyArray, AnyArray | None]:
    """Logits ``(K, *S)`` and the channels of votes behind them, None where there are none."""
    count = spec.output_channels
    return answer[:count], answer[count:] if len(answer) > count else None
