"""Several views of one input as one backend: the mean of their probabilities.

A view is a model and the axes along which the input is flipped for it and its answer flipped back. Models of an
ensemble and test-time flips are both views, so that whatever comes after the engine knows of neither.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy.typing as npt

from segtool.backends.base import Backend
from segtool.spec import FLIP_AXES, ModelSpec

AnyArray = npt.NDArray[Any]

_REACH = 80.0
"""Logits beyond it count as it: float32 holds ``exp(80)`` and ``exp(-80)`` with full precision."""


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
    return AveragingBackend(views, specs[0].activation)


class AveragingBackend:
    """The logits of the views' mean probabilities, after the activation.

    Softmax gives the logarithm of the mean probability of each class, sigmoid the logit of each label's: what a
    single model with these probabilities would have answered, up to the constant that softmax ignores. The odds
    are formed from the means of ``p`` and of ``1 - p``, each summed by itself, so that no digits are lost where
    ``p`` rounds to 1.

    Args:
        views: At least one; their backends run on one device.
        activation: What turns their logits into probabilities.
    """

    def __init__(self, views: Sequence[View], activation: Literal["sigmoid", "softmax"]) -> None:
        self._views, self._activation = tuple(views), activation
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
        if self._activation == "softmax":
            return self._log(self._mean([self._softmax(self._answer(view, batch)) for view in self._views]))
        inside, outside = zip(*(self._sigmoid(self._answer(view, batch)) for view in self._views), strict=True)
        return self._log(self._mean(inside)) - self._log(self._mean(outside))

    def close(self) -> None:
        """Close the engine of every view."""
        for view in self._views:
            view.backend.close()

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
