"""From logits to a label map on the case's own grid."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap
from segtool.preprocess import SlicedCase, WindowedCase, nonzero_box
from segtool.resample import resize
from segtool.spec import ModelSpec, PostprocessSpec

AnyArray = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


def activate(logits: Float32Array, spec: ModelSpec) -> Float32Array:
    """Probabilities ``(L, *S)`` of the spec's labels from logits ``(K, *S)``; softmax's background is dropped."""
    if spec.activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)
    shifted = np.exp(logits - logits.max(axis=0, keepdims=True))
    return np.asarray(shifted[1:] / shifted.sum(axis=0, keepdims=True), np.float32)


def decide(logits: Float32Array, spec: ModelSpec, threshold: float) -> Labels:
    """Label values ``(*S)`` from logits ``(K, *S)``.

    Sigmoid: each label where its probability exceeds ``threshold``, later labels over earlier ones. Softmax: the
    most probable class, where ``threshold`` is 0.5; else the most probable label where the labels' summed
    probability exceeds ``threshold``.
    """
    labels = np.zeros(logits.shape[1:], np.uint8)
    values = np.array([label.value for label in spec.labels], np.uint8)
    if spec.activation == "sigmoid":
        # Compare logits with the threshold's logit: no exponential a pixel.
        cut = np.float32(np.log(threshold / (1 - threshold)))
        for channel, value in zip(logits, values, strict=True):
            labels[channel > cut] = value
        return labels
    if threshold == 0.5:
        return np.asarray(np.concatenate([np.zeros(1, np.uint8), values])[logits.argmax(axis=0)], np.uint8)
    probabilities = activate(logits, spec)
    inside = probabilities.sum(axis=0) > threshold
    labels[inside] = values[probabilities.argmax(axis=0)[inside]]
    return labels


class SliceAssembler:
    """Collects a 2D network's answers for one case, slice by slice and in any order.

    Args:
        prepared: The case.
        spec: The model's spec.
        threshold: Probability above which a pixel belongs to a label.
        keep_probabilities: Also keep ``(L, *S)`` float16 probabilities.
    """

    def __init__(
        self, prepared: SlicedCase, spec: ModelSpec, threshold: float, keep_probabilities: bool = False
    ) -> None:
        self._prepared, self._spec, self._threshold = prepared, spec, threshold
        shape = prepared.geometry.shape
        self._labels = np.zeros(shape, np.uint8)
        self._probabilities = np.zeros((len(spec.labels), *shape), np.float16) if keep_probabilities else None

    def add(self, index: int, logits: AnyArray) -> None:
        """Take logits ``(K, h, w)`` of slice ``index``."""
        place = self._prepared.placement
        labels = self._prepared.slice_view(self._labels)[index]
        if self._probabilities is not None:
            native = place.to_native(logits)
            labels[...] = decide(native, self._spec, self._threshold)
            self._prepared.slice_view(self._probabilities)[:, index] = activate(native, self._spec)
            return
        # A linear mix of logits on the background's side of a flat border stays on that side: only what the
        # labelled part of the frame can reach needs resampling, a small share of most slices.
        linear = self._spec.activation == "sigmoid" or self._threshold == 0.5
        box = place.native_box(decide(logits, self._spec, self._threshold) > 0) if linear else (slice(None),) * 2
        if box is not None:
            labels[box] = decide(place.to_native(logits, box), self._spec, self._threshold)

    def finish(self) -> tuple[LabelMap, npt.NDArray[np.float16] | None]:
        """The label map, after the spec's post-processing, and the probabilities where kept."""
        kind = self._prepared.geometry.kind
        separate = kind == "stack"
        labels = postprocess(self._labels, self._spec.postprocess, separate)
        return LabelMap(labels, self._prepared.geometry), self._probabilities


def finish_volume(
    prepared: WindowedCase,
    logits: Float32Array,
    spec: ModelSpec,
    threshold: float,
    keep_probabilities: bool = False,
) -> tuple[LabelMap, npt.NDArray[np.float16] | None]:
    """Label map and, where asked for, probabilities ``(L, *S)`` from a 3D network's blended logits ``(K, D, H, W)``."""
    native = resize(logits, prepared.cropped_shape)
    labels = prepared.uncrop(decide(native, spec, threshold))
    probabilities = prepared.uncrop(activate(native, spec).astype(np.float16)) if keep_probabilities else None
    return LabelMap(postprocess(labels, spec.postprocess, False), prepared.geometry), probabilities


def postprocess(labels: Labels, rules: PostprocessSpec, separate_slices: bool) -> Labels:
    """Apply the spec's rules to each label; ``separate_slices`` treats ``(N, H, W)`` as N unrelated pictures."""
    if rules == PostprocessSpec():
        return labels
    if separate_slices:
        return np.stack([postprocess(one, rules, False) for one in labels])
    result = np.zeros_like(labels)
    if not labels.any():
        return result
    # Nothing lies outside the box of all labels, and a lesion fills a small share of its picture.
    box = nonzero_box(labels[np.newaxis])
    inside, cleaned = labels[box], result[box]
    for value in np.unique(inside[inside > 0]):
        cleaned[_clean(inside == value, rules)] = value
    return result


def _clean(mask: npt.NDArray[np.bool_], rules: PostprocessSpec) -> npt.NDArray[np.bool_]:
    """Component and hole rules on one structure ``(*S)``."""
    from scipy import ndimage  # a quarter of a second that models without such rules need not pay

    if rules.min_component_voxels or rules.min_component_share or rules.largest_component:
        parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        keep = sizes >= max(1, rules.min_component_voxels, rules.min_component_share * sizes.max())
        if rules.largest_component:
            keep &= np.arange(count + 1) == sizes.argmax()
        mask = keep[parts]
    if rules.fill_holes:
        mask = np.asarray(ndimage.binary_fill_holes(mask), bool)
    return mask
