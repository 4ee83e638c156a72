"""What is scored, the scores of a structure in a case, and how they are computed from label maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.geometry import Geometry
from segtool.metrics import Counts, Mask, confusion, soft_measures
from segtool.spec import ModelSpec

LabelArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Structure:
    """What is scored: the label values that count as one structure on either side.

    An empty tuple means every value that is not zero.
    """

    name: str
    prediction_values: tuple[int, ...] = ()
    reference_values: tuple[int, ...] = ()


def structures_of(spec: ModelSpec) -> tuple[Structure, ...]:
    """The structures of a model: one a label, then one a region, each in the order of the spec."""
    references = {label.value: label.reference_values for label in spec.labels}
    labels = [Structure(label.name, (label.value,), label.reference_values) for label in spec.labels]
    regions = [
        # A label that takes any value of the reference makes its region take any.
        Structure(
            name,
            members,
            () if not all(references[v] for v in members) else _distinct(r for v in members for r in references[v]),
        )
        for name, members in spec.regions.items()
    ]
    return (*labels, *regions)


def _distinct(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class Scores:
    """The measures of one structure in one case; None where not computed, NaN where undefined.

    Sizes and distances carry the unit of the grid in their name: millilitres and mm in patient space,
    pixels in pictures. Overlap measures need a reference; without one only the size is given. Soft measures need
    probabilities too, see :func:`segtool.metrics.soft_measures`.

    Args:
        missed: The reference has the structure, the prediction has none of it.
        spurious: The prediction has the structure, the reference has none of it.
        in_reference: The reference has the structure; None without a reference.
    """

    dice: float | None = None
    iou: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    specificity: float | None = None
    soft_accuracy: float | None = None
    soft_precision: float | None = None
    soft_recall: float | None = None
    soft_iou: float | None = None
    soft_dice: float | None = None
    hd95_mm: float | None = None
    hd95_px: float | None = None
    nsd_1mm: float | None = None
    nsd_2mm: float | None = None
    nsd_1px: float | None = None
    nsd_2px: float | None = None
    volume_ml: float | None = None
    reference_volume_ml: float | None = None
    volume_difference_ml: float | None = None
    volume_difference_percent: float | None = None
    area_px: float | None = None
    reference_area_px: float | None = None
    area_difference_px: float | None = None
    area_difference_percent: float | None = None
    in_reference: bool | None = None
    missed: bool | None = None
    spurious: bool | None = None

    @property
    def is_empty(self) -> bool:
        """True where neither prediction nor reference has the structure."""
        return self.in_reference is False and not self.spurious

    def as_dict(self) -> dict[str, float | bool]:
        """The fields that were computed, in order."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


FLAGS = ("in_reference", "missed", "spurious")
MEASURES = tuple(f.name for f in fields(Scores) if f.name not in FLAGS)


def mask_of(labels: LabelArray, values: Sequence[int]) -> Mask:
    """Voxels of a label map ``(*S)`` that hold one of ``values``; with no values, those that are not zero."""
    mask: Mask = labels == values[0] if values else labels != 0
    for value in values[1:]:
        mask |= labels == value
    return mask


def score_case(
    prediction: LabelArray,
    reference: LabelArray | None,
    geometry: Geometry,
    structures: Sequence[Structure],
    *,
    surface: bool = False,
) -> dict[str, Scores]:
    """Score one image or volume.

    Args:
        prediction: Label map ``(*S)``.
        reference: Label map ``(*S)`` on the same grid; None gives sizes only.
        geometry: The grid. Its spacing turns voxels into millilitres and mm.
        structures: What to score.
        surface: Add F1, specificity, differences of size, and the distances, which take much longer.

    Returns:
        Scores by the name of the structure, in the order of ``structures``.

    Raises:
        ValueError: The shapes differ.
    """
    scores = {}
    for structure in structures:
        predicted = mask_of(prediction, structure.prediction_values)
        if reference is None:
            scores[structure.name] = Scores(**_sizes(geometry, {"": int(np.count_nonzero(predicted))}))
            continue
        referenced = mask_of(reference, structure.reference_values)
        counts = confusion(predicted, referenced)
        measures = _overlap(counts, geometry)
        if surface:
            measures |= _full(counts, geometry) | _distances(predicted, referenced, geometry)
        scores[structure.name] = Scores(
            **measures,
            in_reference=counts.referenced > 0,
            missed=counts.referenced > 0 and not counts.predicted,
            spurious=counts.predicted > 0 and not counts.referenced,
        )
    return scores


def score_slices(
    prediction: LabelArray,
    reference: LabelArray | None,
    geometry: Geometry,
    structures: Sequence[Structure],
    *,
    surface: bool = False,
) -> dict[int, dict[str, Scores]]:
    """Score a stack ``(N, H, W)`` picture by picture, by index; otherwise as :func:`score_case`."""
    picture = Geometry.of_pixels(geometry.shape[1:])
    references: Sequence[LabelArray | None] = [None] * len(prediction) if reference is None else list(reference)
    if len(references) != len(prediction):
        raise ValueError(f"stacks of {len(prediction)} and {len(references)} pictures")
    return {
        index: score_case(one, other, picture, structures, surface=surface)
        for index, (one, other) in enumerate(zip(prediction, references, strict=True))
    }


def score(
    prediction: LabelArray,
    reference: LabelArray | None,
    geometry: Geometry,
    structures: Sequence[Structure],
    *,
    surface: bool = False,
) -> tuple[dict[str, Scores], dict[int, dict[str, Scores]]]:
    """Score anything: ``scores`` and ``slices`` of a case result, of which one is empty."""
    if geometry.kind == "stack":
        return {}, score_slices(prediction, reference, geometry, structures, surface=surface)
    return score_case(prediction, reference, geometry, structures, surface=surface), {}


def with_soft(
    scores: Mapping[str, Scores],
    slices: Mapping[int, Mapping[str, Scores]],
    probabilities: npt.NDArray[np.floating[Any]],
    reference: LabelArray,
    spec: ModelSpec,
) -> tuple[dict[str, Scores], dict[int, dict[str, Scores]]]:
    """What :func:`score` gave for the structures of a model, with the soft measures.

    The probability of a region is the sum of those of its labels under softmax, where they exclude each other, and
    the highest of them under sigmoid, where they may overlap.

    Args:
        scores: Of an image or volume.
        slices: Of a stack.
        probabilities: ``(L, *S)`` in the order of the spec's labels.
        reference: Label map ``(*S)``.
        spec: Of the model.
    """
    if not slices:
        return _soft(scores, probabilities, reference, spec), {}
    return {}, {index: _soft(one, probabilities[:, index], reference[index], spec) for index, one in slices.items()}


def _soft(
    scores: Mapping[str, Scores], probabilities: npt.NDArray[np.floating[Any]], reference: LabelArray, spec: ModelSpec
) -> dict[str, Scores]:
    rows = {label.value: row for row, label in enumerate(spec.labels)}
    join = np.sum if spec.activation == "softmax" else np.max
    found = {}
    for structure in structures_of(spec):
        mine = probabilities[[rows[value] for value in structure.prediction_values]].astype(np.float32)
        measures: Mapping[str, Any] = soft_measures(join(mine, axis=0), mask_of(reference, structure.reference_values))
        found[structure.name] = replace(scores[structure.name], **measures)
    return found


def _sizes(geometry: Geometry, voxels: Mapping[str, int]) -> dict[str, Any]:
    """Counts of voxels, by the prefix of the field, in the unit of the grid."""
    if not geometry.is_physical:
        return {f"{prefix}area_px": float(count) for prefix, count in voxels.items()}
    voxel_ml = geometry.voxel_ml
    return {f"{prefix}volume_ml": count * voxel_ml for prefix, count in voxels.items()}


def _overlap(counts: Counts, geometry: Geometry) -> dict[str, Any]:
    ratios = {name: getattr(counts, name) for name in ("dice", "iou", "precision", "recall")}
    return ratios | _sizes(geometry, {"": counts.predicted, "reference_": counts.referenced})


def _full(counts: Counts, geometry: Geometry) -> dict[str, Any]:
    what, unit = ("volume", "ml") if geometry.is_physical else ("area", "px")
    (difference,) = _sizes(geometry, {"": counts.fp - counts.fn}).values()
    return {
        "f1": counts.dice,
        "specificity": counts.specificity,
        f"{what}_difference_{unit}": difference,
        f"{what}_difference_percent": counts.difference_percent,
    }


def _distances(predicted: Mask, referenced: Mask, geometry: Geometry) -> dict[str, Any]:
    from segtool.surface import surface_distances

    unit = "mm" if geometry.is_physical else "px"
    distances = surface_distances(predicted, referenced, geometry.spacing_mm)
    return {f"hd95_{unit}": distances.percentile(95.0)} | {
        f"nsd_{tolerance}{unit}": distances.share_within(tolerance) for tolerance in (1, 2)
    }
