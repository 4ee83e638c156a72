"""Several views of one input as one backend: the mean of their probabilities.

A view is a model and the axes along which the input is flipped for it and its answer flipped back. Models of an
ensemble and test-time flips are both views, so that whatever comes after the engine knows of neither.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from segtool.backends.base import Backend
from segtool.spec import FLIP_AXES, ModelSpec

AnyArray = npt.NDArray[Any]

_REACH = 80.0
"""Logits beyond it count as it: float32 holds ``exp(80)`` and ``exp(-80)`` with full precision."""

_BYTE = 255
VOTES = 2
"""Channels that :meth:`AveragingBackend.run_with_votes` adds behind the logits."""


@dataclass(frozen=True)
class View:
    """A model, the axes of its input that are flipped (counted from the last), and its weight in the mean."""

    backend: Backend
    axes: tuple[int, ...] = ()
    weight: float = 1.0


def averaged(backends: Sequence[Backend], specs: Sequence[ModelSpec]) -> Backend:
    """One backend for one or several models, each with the test-time flips of its spec.

    Every model weighs the same, however many flips it has; all combinations of its axes are seen.

    Args:
        backends: Loaded models, on one device.
        specs: Their specs, of one activation.

    Returns:
        The backend itself where there is one model without flips.
    """
    if len(backends) == 1 and not specs[0].test_time_flips:
        return backends[0]
    views = []
    for backend, spec in zip(backends, specs, strict=True):
        axes = [FLIP_AXES[flip] for flip in spec.test_time_flips]
        subsets = [subset for size in range(len(axes) + 1) for subset in itertools.combinations(axes, size)]
        views += [View(backend, subset, 1 / (len(backends) * len(subsets))) for subset in subsets]
    return AveragingBackend(views, specs[0].activation, specs[0].thresholds)


def answers_of(backend: Backend) -> tuple[Callable[[AnyArray], AnyArray], int]:
    """What to call for all that a backend can tell, and the channels behind the logits in what it gives."""
    if isinstance(backend, AveragingBackend):
        return backend.run_with_votes, VOTES
    return backend.run, 0


class AveragingBackend:
    """The logits of the views' mean probabilities, after the activation.

    Softmax gives the logarithm of the mean probability of each class, sigmoid the logit of each label's: what a
    single model with these probabilities would have answered, up to the constant that softmax ignores. The odds
    are formed from the means of ``p`` and of ``1 - p``, each summed by itself, so that no digits are lost where
    ``p`` rounds to 1.

    Args:
        views: At least one; their backends run on one device.
        activation: What turns their logits into probabilities.
        thresholds: Of each label, for what a view by itself marks under sigmoid; 0.5 for all where left out.
    """

    def __init__(
        self, views: Sequence[View], activation: Literal["sigmoid", "softmax"], thresholds: Sequence[float] = (0.5,)
    ) -> None:
        self._views, self._activation = tuple(views), activation
        self._cuts = np.array([math.log(one / (1 - one)) for one in thresholds], np.float32)
        backends = [view.backend for view in views]
        first = backends[0]
        self.name = "+".join(dict.fromkeys(backend.name for backend in backends))
        self.version = "+".join(dict.fromkeys(backend.version for backend in backends))
        self.device = first.device
        self.precision = "+".join(dict.fromkeys(backend.precision for backend in backends))
        self.why, self.note = (
            "; ".join(filter(None, dict.fromkeys(texts)))
            for texts in ([backend.why for backend in backends], [backend.note for backend in backends])
        )
        self.xp = first.xp

    def run(self, batch: AnyArray) -> AnyArray:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32; NaN where a view is not finite."""
        return self._averaged(self._answer(view, batch) for view in self._views)

    def run_with_votes(self, batch: AnyArray) -> AnyArray:
        """:meth:`run`'s logits and behind them how far the views agree, ``(N, K + 2, *S)``.

        The first further channel is the share of the views that mark a voxel by themselves, the second the share of
        the pairs of views that do so both; of several labels the sums. Both are linear in the views, so that blended
        windows give blended shares. A view has one vote, whatever its weight.
        """
        counts: list[AnyArray] = []  # (N, L, *S): how many views mark each label

        def counted() -> Iterator[AnyArray]:
            for view in self._views:
                answer = self._answer(view, batch)
                marks = self._marks(answer).view(np.uint8)
                if counts:
                    counts[0] += marks
                else:
                    counts.append(marks if len(self._views) <= _BYTE else marks.astype(np.uint16))
                yield answer

        logits = self._averaged(counted())
        kinds, members = logits.shape[1], len(self._views)
        told: AnyArray = self.xp.empty((len(logits), kinds + VOTES, *logits.shape[2:]), np.float32)
        told[:, :kinds] = logits
        marked, agreed = told[:, kinds], told[:, kinds + 1]
        marked[...], agreed[...] = 0, 0
        for count in self.xp.moveaxis(counts[0], 1, 0):
            share = count * np.float32(1 / members)
            marked += share
            share *= count - np.float32(1)
            agreed += share
        agreed *= np.float32(1 / max(1, members - 1))
        return told

    def close(self) -> None:
        """Close the engine of every view."""
        for view in self._views:
            view.backend.close()

    def _averaged(self, answers: Iterable[AnyArray]) -> AnyArray:
        if self._activation == "softmax":
            return self._log(self._mean([self._softmax(answer) for answer in answers]))
        inside, outside = zip(*map(self._sigmoid, answers), strict=True)
        return self._log(self._mean(inside)) - self._log(self._mean(outside))

    def _marks(self, logits: AnyArray) -> AnyArray:
        """``(N, L, *S)`` bool: each label where it exceeds its threshold, or where it is the most probable class."""
        rank = logits.ndim - 2
        if self._activation == "sigmoid":
            return cast("AnyArray", logits > self.xp.asarray(self._cuts).reshape(-1, *[1] * rank))
        classes = self.xp.arange(1, logits.shape[1]).reshape(-1, *[1] * rank)
        return cast("AnyArray", logits.argmax(axis=1)[:, None] == classes)

    def _answer(self, view: View, batch: AnyArray) -> AnyArray:
        answer = view.backend.run(self._flipped(batch, view.axes))
        # Whoever looks for numbers that are not finite finds them behind the mean too.
        return self._flipped(self.xp.where(self.xp.isfinite(answer), answer, self.xp.nan), view.axes)

    def _flipped(self, array: AnyArray, axes: tuple[int, ...]) -> AnyArray:
        return cast("AnyArray", self.xp.ascontiguousarray(self.xp.flip(array, axes))) if axes else array

    def _mean(self, shares: Sequence[AnyArray]) -> AnyArray:
        total = shares[0] * self._views[0].weight
        for view, share in zip(self._views[1:], shares[1:], strict=True):
            total += share * view.weight
        return total

    def _log(self, array: AnyArray) -> AnyArray:
        return cast("AnyArray", self.xp.log(array))

    def _softmax(self, logits: AnyArray) -> AnyArray:
        shifted = self.xp.exp(self.xp.maximum(logits - logits.max(axis=1, keepdims=True), -_REACH))
        return cast("AnyArray", shifted / shifted.sum(axis=1, keepdims=True))

    def _sigmoid(self, logits: AnyArray) -> tuple[AnyArray, AnyArray]:
        """``p`` and ``1 - p``, both to full relative precision."""
        tail = self.xp.exp(-self.xp.clip(logits, -_REACH, _REACH))
        p = 1 / (1 + tail)
        return p, p * tail
