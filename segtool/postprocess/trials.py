"""Every candidate of one label, scored case by case."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.postprocess.components import holes, kept_components, label_components
from segtool.postprocess.decision import is_linear, own_thresholds
from segtool.preprocess import nonzero_box
from segtool.scores import mask_of
from segtool.spec import LabelRules, LabelSpec, ModelSpec

LabelArray = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Search:
    """What is tried, besides what the model does now.

    Args:
        thresholds: Probabilities above which a voxel belongs to the label.
        min_component_voxels: Smallest components, in voxels of the case.
        min_component_shares: Smallest components, as a share of the label's largest.
        largest_component: Try to keep the largest component alone.
        fill_holes: Try to fill cavities.
        margin: How much higher a mean Dice must be to be worth a rule more.
    """

    thresholds: tuple[float, ...] = tuple(round(0.1 + 0.05 * step, 2) for step in range(17))
    min_component_voxels: tuple[int, ...] = (5, 10, 20, 50, 100, 200, 500, 1000)
    min_component_shares: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5)
    largest_component: bool = True
    fill_holes: bool = True
    margin: float = 0.001

    def component_rules(self, present: LabelRules) -> list[LabelRules]:
        """The model's own rules, then none, then each alone, the mildest first; holes are left as in ``present``."""
        tried: list[dict[str, float]] = [{"min_component_voxels": n} for n in sorted(self.min_component_voxels)]
        tried += [{"min_component_share": share} for share in sorted(self.min_component_shares)]
        tried += [{"largest_component": True}] * self.largest_component
        rules = [LabelRules.model_validate({"fill_holes": present.fill_holes, **one}) for one in ({}, *tried)]
        return list(dict.fromkeys([present, *rules]))


@dataclass(frozen=True)
class Candidate:
    """A threshold and rules of one label, and what they scored.

    Args:
        label: Its name.
        threshold: Probability.
        rules: For its components and cavities.
        dice: Mean over the cases whose reference holds the label, NaN without any; candidates are compared by it.
        dice_all: Mean over all cases, where a label that neither side holds counts as 1.
        cases: Whose reference holds the label.
        is_default: What the model did before.
        is_chosen: What the model does now.
    """

    label: str
    threshold: float
    rules: LabelRules
    dice: float
    dice_all: float
    cases: int
    is_default: bool
    is_chosen: bool

    def as_dict(self) -> dict[str, Any]:
        """One flat row of a table."""
        dice = None if math.isnan(self.dice) else self.dice  # JSON has no NaN
        numbers = {"dice": dice, "dice_all": self.dice_all, "cases": self.cases}
        flags = {"is_default": self.is_default, "is_chosen": self.is_chosen}
        return {"label": self.label, "threshold": self.threshold, **self.rules.model_dump(), **numbers, **flags}


def decided_alone(shares: npt.NDArray[np.float32], spec: ModelSpec) -> Mask:
    """Where each label alone would be ``(L, *S)`` under the model's own thresholds, from probabilities."""
    cuts = _column(spec.thresholds, shares.ndim)
    if spec.activation == "sigmoid":
        return np.asarray(shares > cuts)
    if not is_linear(spec, own_thresholds(spec)):
        best = shares.argmax(axis=0)
        inside = shares.sum(axis=0) > spec.threshold
    else:
        weighted = shares * (1 - cuts) / cuts
        best = weighted.argmax(axis=0)
        inside = weighted.max(axis=0) > 1 - shares.sum(axis=0)
    return np.stack([inside & (best == index) for index in range(len(shares))])


def _column(values: Sequence[float], ndim: int) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, *[1] * (ndim - 1))


class Trials:
    """All candidates of one label."""

    def __init__(self, spec: ModelSpec, index: int, thresholds: Sequence[float], search: Search) -> None:
        self._spec, self._index = spec, index
        self._label: LabelSpec = spec.labels[index]
        self._own = spec.thresholds[index]
        # The nearest first: of equal scores the first wins.
        others = sorted(set(thresholds) - {self._own}, key=lambda value: (abs(value - self._own), value))
        self._thresholds = [self._own, *others]
        self._present = spec.postprocess.rules_of(self._label.name)
        components = search.component_rules(self._present)
        filling = [self._present.fill_holes, *([not self._present.fill_holes] if search.fill_holes else [])]
        self._rules = [
            rules.model_copy(update={"fill_holes": fill}) for fill, rules in itertools.product(filling, components)
        ]
        self._dice = np.zeros((len(self._thresholds), len(self._rules)))  # summed over cases with the label
        self._dice_without = np.zeros_like(self._dice)  # summed over the others
        self.referenced = self._cases = 0

    def score(self, shares: npt.NDArray[np.float32], decided: Mask, reference: LabelArray) -> None:
        """Add one case: probabilities, :func:`decided_alone` of them, and the reference's label map."""
        truth = mask_of(reference, self._label.reference_values)
        size = int(np.count_nonzero(truth))
        own, now, others = self._alone(shares, decided) if self._sigmoid else self._against(shares, decided)
        # Where neither the reference nor the lowest threshold shows the label, no candidate does.
        shown: Mask = truth | now | (own > min(self._thresholds))
        box = nonzero_box(shown[np.newaxis])
        truth, others, own, now = truth[box], others[box], own[box], now[box]
        scores = np.empty_like(self._dice)
        for row, threshold in enumerate(self._thresholds):
            mask = now if row == 0 else own > threshold
            for column, (predicted, both) in enumerate(_counts(mask, truth, others, self._rules)):
                scores[row, column] = 2 * both / (predicted + size) if predicted + size else 1.0
        if size:
            self._dice += scores
            self.referenced += 1
        else:
            self._dice_without += scores
        self._cases += 1

    @property
    def _sigmoid(self) -> bool:
        return self._spec.activation == "sigmoid"

    def _alone(self, shares: npt.NDArray[np.float32], decided: Mask) -> tuple[npt.NDArray[np.float32], Mask, Mask]:
        """Under sigmoid: the thresholds below which each voxel gets the label, where it has it now, and other labels.

        A voxel that a later label takes is out of reach.
        """
        taken = decided[self._index + 1 :].any(axis=0)
        others = np.delete(decided, self._index, axis=0).any(axis=0)
        own = np.where(taken, np.float32(0), shares[self._index])
        return own, np.asarray(decided[self._index] & ~taken), np.asarray(others)

    def _against(self, shares: npt.NDArray[np.float32], decided: Mask) -> tuple[npt.NDArray[np.float32], Mask, Mask]:
        """Under softmax, the same.

        The label wins where ``p (1 - t) / t`` exceeds the greatest such product ``m`` of another class, which is
        where ``p / (p + m)`` exceeds ``t``. Where it does not, the best of the others has the voxel.
        """
        cuts = _column(self._spec.thresholds, shares.ndim)
        background = np.maximum(1 - shares.sum(axis=0), np.finfo(np.float32).tiny)
        rivals = np.delete(shares * (1 - cuts) / cuts, self._index, axis=0).max(axis=0, initial=0.0)
        own = shares[self._index]
        share = own / (own + np.maximum(background, rivals))
        return np.asarray(share, np.float32), decided[self._index], np.asarray(rivals > background)

    def rows(self, margin: float) -> list[Candidate]:
        """The table, with the choice marked."""
        means = self._dice / max(1, self.referenced)
        everyone = (self._dice + self._dice_without) / max(1, self._cases)
        chosen = self._choose(means, margin)
        return [
            Candidate(
                self._label.name,
                threshold,
                rules,
                float(means[row, column]) if self.referenced else math.nan,
                float(everyone[row, column]),
                self.referenced,
                (row, column) == (0, 0),
                (row, column) == chosen,
            )
            for row, threshold in enumerate(self._thresholds)
            for column, rules in enumerate(self._rules)
        ]

    def _choose(self, means: npt.NDArray[np.float64], margin: float) -> tuple[int, int]:
        """Row and column: of those with one change more, the best one where it is better by the margin."""
        best = 0, 0
        if not self.referenced:
            return best
        changes = np.array([[self._changes(row, rules) for rules in self._rules] for row in range(len(means))])
        for count in range(1, int(changes.max()) + 1):
            masked = np.where(changes == count, means, -np.inf)
            rival = divmod(int(masked.argmax()), means.shape[1])
            if masked[rival] > means[best] + margin:
                best = rival
        return best

    def _changes(self, row: int, rules: LabelRules) -> int:
        holes_as_before = rules.model_copy(update={"fill_holes": self._present.fill_holes})
        return (row > 0) + (holes_as_before != self._present) + (rules.fill_holes != self._present.fill_holes)


def _counts(mask: Mask, truth: Mask, others: Mask, candidates: Sequence[LabelRules]) -> Iterable[tuple[int, int]]:
    """Voxels predicted, and those of them in the reference, after each candidate's rules."""
    if not mask.any():
        return [(0, 0)] * len(candidates)
    parts, sizes = label_components(mask)
    right = np.bincount(parts[truth], minlength=sizes.size)
    any_holes = any(rules.fill_holes for rules in candidates) and holes(mask).any()
    filled: dict[bytes, tuple[int, int]] = {}  # by the components that stay: many candidates keep the same
    counts = []
    for rules in candidates:
        kept = kept_components(sizes, rules)
        predicted, both = int(sizes[kept].sum()), int(right[kept].sum())
        if rules.fill_holes and any_holes:
            key = kept.tobytes()
            if key not in filled:
                added = holes(kept[parts]) & ~others
                filled[key] = int(np.count_nonzero(added)), int(np.count_nonzero(added & truth))
            predicted, both = predicted + filled[key][0], both + filled[key][1]
        counts.append((predicted, both))
    return counts
