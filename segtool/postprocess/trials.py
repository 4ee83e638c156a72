"""Every candidate of one label, scored case by case."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.postprocess.components import (
    Labels,
    Mask,
    holes,
    kept_components,
    label_components,
    with_holes_filled,
    without_components,
)
from segtool.postprocess.decision import Float32Array, Thresholds, decide, own_thresholds
from segtool.preprocess import nonzero_box
from segtool.scores import mask_of
from segtool.spec import LabelRules, LabelSpec, ModelSpec

LabelArray = npt.NDArray[np.integer[Any]]


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


class Trials:
    """All candidates of one label."""

    def __init__(self, spec: ModelSpec, index: int, thresholds: Sequence[float], search: Search) -> None:
        self._spec, self._index = spec, index
        self._label: LabelSpec = spec.labels[index]
        self._own = spec.thresholds[index]
        # The nearest first: of equal scores the first wins.
        others = sorted(set(thresholds) - {self._own}, key=lambda value: (abs(value - self._own), value))
        self._thresholds = [self._own, *others]
        self._cuts: list[Thresholds] = [own_thresholds(spec), *(self._with_own(cut) for cut in others)]
        self._present = spec.postprocess.rules_of(self._label.name)
        components = search.component_rules(self._present)
        filling = [self._present.fill_holes, *([not self._present.fill_holes] if search.fill_holes else [])]
        self._rules = [
            rules.model_copy(update={"fill_holes": fill}) for fill, rules in itertools.product(filling, components)
        ]
        self._rules_of_others = {
            one.value: spec.postprocess.rules_of(one.name) for one in spec.labels if one is not self._label
        }
        self._dice = np.zeros((len(self._thresholds), len(self._rules)))  # summed over cases with the label
        self._dice_without = np.zeros_like(self._dice)  # summed over the others
        self.referenced = self._cases = 0

    def _with_own(self, threshold: float) -> tuple[float, ...]:
        """The model's thresholds by label, with this one for the label that is tried."""
        return tuple(threshold if n == self._index else cut for n, cut in enumerate(self._spec.thresholds))

    def score(self, logits: Float32Array, reference: LabelArray) -> None:
        """Add one case: logits ``(K, *S)``, and the reference's label map ``(*S)``."""
        truth = mask_of(reference, self._label.reference_values)
        size = int(np.count_nonzero(truth))
        # The higher its threshold, the more voxels are background: all that any threshold labels lies in the lowest's.
        lowest = self._thresholds.index(min(self._thresholds))
        box = nonzero_box(truth[np.newaxis] | (decide(logits, self._spec, self._cuts[lowest]) > 0))
        truth, logits = truth[box], logits[:, *box]
        scores = np.empty_like(self._dice)
        for row, cuts in enumerate(self._cuts):
            for column, (predicted, both) in enumerate(self._counts(decide(logits, self._spec, cuts), truth)):
                scores[row, column] = 2 * both / (predicted + size) if predicted + size else 1.0
        if size:
            self._dice += scores
            self.referenced += 1
        else:
            self._dice_without += scores
        self._cases += 1

    def _counts(self, labels: Labels, truth: Mask) -> list[tuple[int, int]]:
        """The label's voxels after each candidate's rules, and how many of them the reference has.

        As :func:`segtool.postprocess.postprocess` makes them, of whose steps those are taken once that candidates
        share.
        """
        value = self._label.value
        mask = labels == value
        if not mask.any():
            return [(0, 0)] * len(self._rules)
        parts, sizes = label_components(mask)
        right = np.bincount(parts[truth], minlength=sizes.size)
        any_holes = any(rules.fill_holes for rules in self._rules) and holes(mask).any()
        others = without_components(labels, self._rules_of_others) if any_holes else labels
        filled: dict[bytes, tuple[int, int]] = {}  # by the components that stay: many candidates keep the same
        counts = []
        for rules in self._rules:
            kept = kept_components(sizes, rules)
            if rules.fill_holes and any_holes:
                key = kept.tobytes()
                if key not in filled:
                    cleaned = np.where(kept[parts], np.uint8(value), others)
                    own = with_holes_filled(cleaned, {**self._rules_of_others, value: rules}) == value
                    filled[key] = int(np.count_nonzero(own)), int(np.count_nonzero(own & truth))
                counts.append(filled[key])
            else:
                counts.append((int(sizes[kept].sum()), int(right[kept].sum())))
        return counts

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
