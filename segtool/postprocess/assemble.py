"""Collects a network's answers for one case and makes its label map."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap
from segtool.postprocess.components import postprocess
from segtool.postprocess.decision import Float32Array, Thresholds, activate, decide, is_linear
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.resample import on_host, resize
from segtool.spec import ModelSpec

AnyArray = npt.NDArray[Any]


class SliceAssembler:
    """Collects a 2D network's answers for one case, slice by slice and in any order.

    Args:
        prepared: The case.
        spec: The model's spec.
        threshold: Probability above which a pixel belongs to a label; one for all, or one a label.
        keep_probabilities: Also keep ``(L, *S)`` float16 probabilities.
    """

    def __init__(
        self, prepared: SlicedCase, spec: ModelSpec, threshold: Thresholds, keep_probabilities: bool = False
    ) -> None:
        self._prepared, self._spec, self._threshold = prepared, spec, threshold
        shape = prepared.geometry.shape
        self._labels = np.zeros(shape, np.uint8)
        self._probabilities = np.zeros((len(spec.labels), *shape), np.float16) if keep_probabilities else None

    def add(self, index: int, logits: AnyArray) -> None:
        """Take logits ``(K, h, w)`` of slice ``index``."""
        place = self._prepared.placement(index)
        labels = self._prepared.view(self._labels, index)
        if self._probabilities is not None:
            native = place.to_native(logits)
            labels[...] = decide(native, self._spec, self._threshold)
            self._prepared.view(self._probabilities, index)[...] = activate(native, self._spec)
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


def finish_volume(
    prepared: WindowedCase,
    logits: Float32Array,
    spec: ModelSpec,
    threshold: Thresholds,
    keep_probabilities: bool = False,
) -> tuple[LabelMap, npt.NDArray[np.float16] | None]:
    """Label map and, where asked for, probabilities ``(L, *S)`` from a 3D network's blended logits ``(K, D, H, W)``."""
    native = resize(logits, prepared.cropped_shape)
    # On a GPU all of this happens there; a byte a voxel comes back.
    labels = prepared.uncrop(on_host(decide(native, spec, threshold)))
    kept = on_host(activate(native, spec).astype(np.float16)) if keep_probabilities else None
    probabilities = None if kept is None else prepared.uncrop(kept)
    return LabelMap(postprocess(labels, spec.postprocess, False, spec.labels), prepared.geometry), probabilities
