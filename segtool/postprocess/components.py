"""Connected components and cavities of a label map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.preprocess import nonzero_box
from segtool.spec import LabelRules, LabelSpec, PostprocessSpec

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def postprocess(
    labels: Labels, rules: PostprocessSpec, separate_slices: bool, label_specs: Sequence[LabelSpec] = ()
) -> Labels:
    """Apply the spec's rules to each label.

    Args:
        labels: ``(*S)`` label values.
        rules: What to do.
        separate_slices: Treat ``(N, H, W)`` as N unrelated pictures.
        label_specs: The names of the values, for rules of single labels.
    """
    if rules == PostprocessSpec():
        return labels
    if separate_slices:
        return np.stack([postprocess(one, rules, False, label_specs) for one in labels])
    result = np.zeros_like(labels)
    if not labels.any():
        return result
    names = {label.value: label.name for label in label_specs}
    # Nothing lies outside the box of all labels, and a lesion fills a small share of its picture.
    box = nonzero_box(labels[np.newaxis])
    inside = labels[box]
    rules_of = {value: rules.rules_of(names.get(value, "")) for value in np.unique(inside[inside > 0]).tolist()}
    # Holes come last, so that what lies in them for good, such as necrosis in a rim, is known.
    result[box] = with_holes_filled(without_components(inside, rules_of), rules_of)
    return result


def without_components(labels: Labels, rules_of: Mapping[int, LabelRules]) -> Labels:
    """A label map ``(*S)`` with the values of ``rules_of`` alone, and of these the components that their rules keep."""
    kept = np.zeros_like(labels)
    for value, rules in rules_of.items():
        kept[keep_components(labels == value, rules)] = value
    return kept


def with_holes_filled(labels: Labels, rules_of: Mapping[int, LabelRules]) -> Labels:
    """``labels`` ``(*S)``, changed where rules fill holes: what no label has, the lowest value first."""
    for value in sorted(rules_of):
        if rules_of[value].fill_holes:
            labels[holes(labels == value) & (labels == 0)] = value
    return labels


def label_components(mask: Mask) -> tuple[npt.NDArray[np.signedinteger[Any]], npt.NDArray[np.signedinteger[Any]]]:
    """Number of the component of every voxel ``(*S)``, 0 outside, and the components' voxels; entry 0 is 0."""
    from scipy import ndimage  # a quarter of a second that models without such rules need not pay

    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return parts, sizes


def kept_components(sizes: npt.NDArray[np.signedinteger[Any]], rules: LabelRules) -> Mask:
    """Which components stay, from their voxels; entry 0, the background, never does."""
    kept: Mask = sizes >= max(1, rules.min_component_voxels, rules.min_component_share * sizes.max())
    if rules.largest_component:
        kept &= np.arange(sizes.size) == sizes.argmax()
    return kept


def keep_components(mask: Mask, rules: LabelRules) -> Mask:
    """One structure ``(*S)`` without the components that the rules remove."""
    if not (rules.min_component_voxels or rules.min_component_share or rules.largest_component):
        return mask
    parts, sizes = label_components(mask)
    return np.asarray(kept_components(sizes, rules)[parts])


def holes(mask: Mask) -> Mask:
    """The cavities of ``(*S)``: what is not reached from outside through faces.

    What SciPy's ``binary_fill_holes`` adds, from one labelling of the background instead of one dilation a voxel of
    the longest way in.
    """
    from scipy import ndimage

    parts, count = ndimage.label(~mask)
    inner = np.ones(count + 1, bool)
    inner[0] = False
    for axis in range(mask.ndim):
        for face in (0, -1):
            inner[parts.take(face, axis)] = False
    return inner[parts] if inner.any() else np.zeros_like(mask)
