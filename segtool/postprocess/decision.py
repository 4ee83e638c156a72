"""Which label a voxel gets."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segtool.spec import ModelSpec

Float32Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

Thresholds = float | Sequence[float]
"""One for all labels, or one a label."""


def activate(logits: Float32Array, spec: ModelSpec) -> Float32Array:
    """Probabilities ``(L, *S)`` of the spec's labels from logits ``(K, *S)``; softmax's background is dropped."""
    if spec.activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)
    shifted = np.exp(logits - logits.max(axis=0, keepdims=True))
    return np.asarray(shifted[1:] / shifted.sum(axis=0, keepdims=True), np.float32)


def own_thresholds(spec: ModelSpec) -> Thresholds:
    """What the model itself asks for: one threshold, or one a label where any label has its own."""
    return spec.thresholds if any(label.threshold is not None for label in spec.labels) else spec.threshold


def logit(probability: float) -> float:
    """The logarithm of the odds of a probability in (0, 1)."""
    return float(np.log(probability / (1 - probability)))


def decide(logits: Float32Array, spec: ModelSpec, threshold: Thresholds) -> Labels:
    """Label values ``(*S)`` from logits ``(K, *S)``.

    Sigmoid: each label where its probability exceeds the threshold, later labels over earlier ones.

    Softmax, one threshold: the most probable class, where it is 0.5; else the most probable label where the
    labels' summed probability exceeds it. Softmax, one threshold a label: the class with the greatest odds-weighted
    probability ``p (1 - t) / t``, with ``t`` 0.5 for background. At 0.5 throughout that is the most probable class,
    and with one label it is the label where its probability exceeds ``t``. (The least expected cost, where missing
    the label costs ``(1 - t) / t`` times as much as missing background: Duda, Hart and Stork, Pattern
    Classification, 2001, chapter 2.)
    """
    values = np.array([label.value for label in spec.labels], np.uint8)
    if spec.activation == "sigmoid":
        labels = np.zeros(logits.shape[1:], np.uint8)
        cuts = [threshold] * len(values) if isinstance(threshold, (int, float)) else threshold
        for channel, value, cut in zip(logits, values, cuts, strict=True):
            # Compare logits with the threshold's logit: no exponential a pixel.
            labels[channel > np.float32(logit(cut))] = value
        return labels
    classes = np.concatenate([np.zeros(1, np.uint8), values])
    if not isinstance(threshold, (int, float)):
        shifts = np.array([0.0, *map(logit, threshold)], np.float32)
        logits = logits - shifts.reshape(-1, *[1] * (logits.ndim - 1))
    elif threshold != 0.5:
        probabilities = activate(logits, spec)
        inside = probabilities.sum(axis=0) > threshold
        return np.where(inside, values[probabilities.argmax(axis=0)], np.uint8(0))
    return np.asarray(classes[logits.argmax(axis=0)], np.uint8)


def is_linear(spec: ModelSpec, threshold: Thresholds) -> bool:
    """True where the logits that :func:`decide` calls background are a convex set.

    Mixing logits of background pixels then gives background: the borders between classes are flat.
    """
    return spec.activation == "sigmoid" or threshold == 0.5 or not isinstance(threshold, (int, float))
