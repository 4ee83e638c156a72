"""Learns thresholds and component rules on validation cases, label by label.

Every candidate is scored while the cases pass by once, so that one case at a time is in memory. A label is judged by
itself, with the others as the model's present rules have them. Few validation cases make every rule look useful
that happens to suit them: a candidate replaces a simpler one only where its mean Dice is higher by a margin.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.errors import UsageError
from segtool.geometry import Geometry
from segtool.postprocess.decision import is_linear, logits_of, own_thresholds
from segtool.postprocess.trials import Candidate, Search, Trials
from segtool.spec import LabelRules, ModelSpec, PostprocessSpec

__all__ = ["Candidate", "Learnt", "PostprocessLearner", "Search", "learn_postprocessing"]

FloatArray = npt.NDArray[np.floating[Any]]
LabelArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Learnt:
    """The outcome.

    Args:
        spec: The model's spec with what was learnt.
        thresholds: By label.
        table: Every candidate.
    """

    spec: ModelSpec
    thresholds: dict[str, float]
    table: tuple[Candidate, ...]

    @property
    def postprocess(self) -> PostprocessSpec:
        """The rules, learnt or as they were."""
        return self.spec.postprocess

    def as_dict(self) -> dict[str, Any]:
        """What the model did before and does now, by label, with their scores; for provenance."""
        rows: dict[str, dict[str, Any]] = {}
        for row in self.table:
            for which, meant in (("before", row.is_default), ("now", row.is_chosen)):
                if meant:
                    rows.setdefault(row.label, {})[which] = row.as_dict()
        return rows


def learn_postprocessing(
    cases: Iterable[tuple[FloatArray, LabelArray, Geometry]], spec: ModelSpec, search: Search | None = None
) -> Learnt:
    """Find the threshold and the rules of each label that score best on validation cases.

    Args:
        cases: Probabilities ``(L, *S)`` in the order of the spec's labels, the reference's label map ``(*S)``, and
            the grid of each case. Consumed once. A stack ``(N, H, W)`` counts as N cases.
        spec: Of the model; its present threshold and rules are what must be beaten.
        search: What is tried.

    Raises:
        UsageError: No reference holds any label.
    """
    learner = PostprocessLearner(spec, search)
    for probabilities, reference, geometry in cases:
        learner.add(probabilities, reference, geometry)
    return learner.finish()


class PostprocessLearner:
    """:func:`learn_postprocessing` for cases that come one by one; arguments as there."""

    def __init__(self, spec: ModelSpec, search: Search | None = None) -> None:
        search = search or Search()
        self._spec, self._margin = spec, search.margin
        # A softmax threshold other than 0.5 is one for the sum of all labels: there is none of a label to move.
        able = len(spec.labels) == 1 or is_linear(spec, own_thresholds(spec))
        self._trials = [
            Trials(spec, index, search.thresholds if able else (), search) for index in range(len(spec.labels))
        ]

    def add(self, probabilities: FloatArray, reference: LabelArray, geometry: Geometry) -> None:
        """Score every candidate on one case.

        Raises:
            ValueError: The shapes do not fit the spec or each other.
        """
        if probabilities.shape != (len(self._spec.labels), *reference.shape):
            raise ValueError(
                f"probabilities {probabilities.shape} and a reference {reference.shape} "
                f"of a model with {len(self._spec.labels)} labels"
            )
        if geometry.kind == "stack":
            pictures = list(zip(np.moveaxis(probabilities, 1, 0), reference, strict=True))
        else:
            pictures = [(probabilities, reference)]
        for shares, truth in pictures:
            logits = logits_of(shares.astype(np.float32), self._spec)
            for trials in self._trials:
                trials.score(logits, truth)

    def finish(self) -> Learnt:
        """Choose.

        Raises:
            UsageError: No reference holds any label.
        """
        if not any(trials.referenced for trials in self._trials):
            raise UsageError(
                "no post-processing can be learnt: no reference of the validation cases holds a label",
                "Check the values of the references and `reference_values` of the model's labels.",
            )
        rows = [trials.rows(self._margin) for trials in self._trials]
        chosen = [next(row for row in label_rows if row.is_chosen) for label_rows in rows]
        return Learnt(
            _with(self._spec, chosen),
            {row.label: row.threshold for row in chosen},
            tuple(itertools.chain.from_iterable(rows)),
        )


def _with(spec: ModelSpec, chosen: Sequence[Candidate]) -> ModelSpec:
    """The spec with the chosen rows; rules that hold for all labels are said once, as older installations read them."""
    rules = {row.label: row.rules for row in chosen}
    first = chosen[0].rules
    if all(one == first for one in rules.values()):
        postprocess = PostprocessSpec(**first.model_dump())
    else:
        own = {name: one for name, one in rules.items() if one != LabelRules()}
        postprocess = PostprocessSpec(labels=own)
    labels = spec.labels
    if any(row.threshold != own for row, own in zip(chosen, spec.thresholds, strict=True)):
        labels = tuple(
            label.model_copy(update={"threshold": row.threshold})
            for label, row in zip(spec.labels, chosen, strict=True)
        )
    return spec.model_copy(update={"labels": labels, "postprocess": postprocess})
