"""Which label a voxel gets."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from segtool.errors import UsageError
from segtool.resample import array_module
from segtool.spec import ModelSpec

Float32Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

Thresholds = float | Sequence[float]
"""One for all labels, or one a label."""


def activate(logits: Float32Array, spec: ModelSpec) -> Float32Array:
    """Probabilities ``(L, *S)`` of the spec's labels from logits ``(K, *S)``; softmax's background is dropped."""
    xp = array_module(logits)
    if spec.activation == "sigmoid":
        odds = 1.0 / (1.0 + xp.exp(-logits))
    else:
        shifted = xp.exp(logits - logits.max(axis=0, keepdims=True))
        odds = shifted[1:] / shifted.sum(axis=0, keepdims=True)
    return cast("Float32Array", xp.asarray(odds, np.float32))


def logits_of(probabilities: Float32Array, spec: ModelSpec) -> Float32Array:
    """Logits ``(K, *S)`` that :func:`activate` turns into ``probabilities`` ``(L, *S)``; -inf for 0."""
    with np.errstate(divide="ignore"):
        if spec.activation == "sigmoid":
            logits = np.log(probabilities) - np.log1p(-probabilities)
        else:
            # What rounding has left of the background is never nothing.
            background = np.maximum(1 - probabilities.sum(axis=0), np.finfo(np.float32).tiny)
            logits = np.log(np.concatenate([background[np.newaxis], probabilities]))
    return cast("Float32Array", logits)


def own_thresholds(spec: ModelSpec) -> Thresholds:
    """What the model itself asks for: one threshold, or one a label where any label has its own."""
    return spec.thresholds if any(label.threshold is not None for label in spec.labels) else spec.threshold


def thresholds_for(spec: ModelSpec, asked: float | None) -> Thresholds:
    """What is asked for, for all labels; None means :func:`own_thresholds`.

    Raises:
        UsageError: Not between 0 and 1.
    """
    if asked is None:
        return own_thresholds(spec)
    if not 0 < asked < 1:
        raise UsageError(f"threshold {asked}: not a probability", "Give a number between 0 and 1.")
    return asked


def logit(probability: float) -> float:
    """The logarithm of the odds of a probability in (0, 1)."""
    return float(np.log(probability / (1 - probability)))


def decide(logits: Float32Array, spec: ModelSpec, threshold: Thresholds) -> Labels:
    """Label values ``(*S)`` from logits ``(K, *S)``, where the logits lie.

    Sigmoid: each label where its probability exceeds the threshold, later labels over earlier ones.

    Softmax, one threshold: the most probable class, where it is 0.5; else the most probable label where the
    labels' summed probability exceeds it. Softmax, one threshold a label: the class with the greatest odds-weighted
    probability ``p (1 - t) / t``, with ``t`` 0.5 for background. At 0.5 throughout that is the most probable class,
    and with one label it is the label where its probability exceeds ``t``. (The least expected cost, where missing
    the label costs ``(1 - t) / t`` times as much as missing background: Duda, Hart and Stork, Pattern
    Classification, 2001, chapter 2.)
    """
    xp = array_module(logits)
    values = xp.asarray([label.value for label in spec.labels], np.uint8)
    if spec.activation == "sigmoid":
        labels: Labels = xp.zeros(logits.shape[1:], np.uint8)
        cuts = [threshold] * len(values) if isinstance(threshold, (int, float)) else threshold
        for channel, label, cut in zip(logits, spec.labels, cuts, strict=True):
            # Compare logits with the threshold's logit: no exponential a pixel.
            labels[channel > np.float32(logit(cut))] = label.value
        return labels
    classes = xp.concatenate([xp.zeros(1, np.uint8), values])
    if not isinstance(threshold, (int, float)):
        shifts = xp.asarray([0.0, *map(logit, threshold)], np.float32)
        logits = logits - shifts.reshape(-1, *[1] * (logits.ndim - 1))
    elif threshold != 0.5:
        probabilities = activate(logits, spec)
        inside = probabilities.sum(axis=0) > threshold
        return cast("Labels", xp.where(inside, values[probabilities.argmax(axis=0)], np.uint8(0)))
    return cast("Labels", classes[logits.argmax(axis=0)])


def is_linear(spec: ModelSpec, threshold: Thresholds) -> bool:
    """True where the logits that :func:`decide` calls background are a convex set.

    Mixing logits of background pixels then gives background: the borders between classes are flat.
    """
    return spec.activation == "sigmoid" or threshold == 0.5 or not isinstance(threshold, (int, float))
