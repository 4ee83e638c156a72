"""How sure a model is of a case, from its logits on the network's own grid.

Everything is counted while slices and slabs pass by, over the few voxels in which a label is plausible at all, before
components are cleaned. Logits are divided by the temperature that the spec has from its validation cases; label maps
never are.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.postprocess.decision import Float32Array, Thresholds, activate, decide, logit
from segtool.resample import array_module, on_host
from segtool.spec import ModelSpec

Float64Array = npt.NDArray[np.float64]
AnyFloat = npt.NDArray[np.floating[Any]]

_AT_ONCE = 2**18
"""Voxels: a high temperature makes every one of a slab plausible, and each takes tens of bytes while it is counted."""

PLAUSIBLE = 0.05
"""Voxels whose labels are all less probable are left out: they are many, and what they add up to is noise. Of 0.01 to
0.3 the value whose expected Dice found the worst of the bundled model's validation slices best."""


@dataclass(frozen=True, eq=False)
class Tally:
    """What is counted of a slice, a slab or, added up, of a case; ``L`` labels.

    Args:
        marked: ``(L,)`` voxels of each label's own mask.
        sure: ``(L,)`` probability in it, summed.
        mass: ``(L,)`` probability of each label in all plausible voxels, summed.
        highest: ``(L,)`` probability of each label where it is highest.
        voxels: In the mask of all labels.
        entropy: Bits in it, summed.
        doubt: Bits at the voxel whose labels are most probable.
        votes: What members mark and what pairs of them agree on, summed; None of a single member.
    """

    marked: Float64Array
    sure: Float64Array
    mass: Float64Array
    highest: Float64Array
    voxels: int
    entropy: float
    doubt: float
    votes: tuple[float, float] | None = None

    def numbers(self) -> dict[str, float]:
        """What a reviewer is told.

        ``mean_entropy``: bits a label under sigmoid, and of the distribution over classes under softmax, the mean over
        the voxels of the mask. Of an empty mask that of the voxel whose labels are most probable: 0 where nothing
        was near, 1 at even odds.

        ``expected_dice``: of the mask with a reference that is drawn voxel by voxel from the probabilities, the
        mean over labels. Of a label that is not marked one minus its highest probability, an upper bound of
        the probability that it is truly absent. (Soft Dice confidence: Borges, Pacheco and Silva,
        arXiv 2402.10665, 2024.)

        ``disagreement``: of several models or flips, one minus the Dice coefficient of the members' masks in
        pairs, sums over pairs of numerator and denominator taken apart; 0 where no member marks anything. (Dice
        agreement of samples: Roy et al., NeuroImage 195, 2019.)
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            dice = np.where(self.marked > 0, 2 * self.sure / (self.marked + self.mass), 1 - self.highest)
        found = {
            "mean_entropy": self.entropy / self.voxels if self.voxels else self.doubt,
            "expected_dice": float(dice.mean()),
        }
        if self.votes is not None:
            marked, agreed = self.votes
            found["disagreement"] = 1 - agreed / marked if marked else 0.0
        return found


def tally(logits: Float32Array, spec: ModelSpec, threshold: Thresholds, votes: Float32Array | None = None) -> Tally:
    """Count one piece of a case.

    Args:
        logits: ``(K, *S)``, where they lie.
        spec: Of the model.
        threshold: As for :func:`segtool.postprocess.decide`.
        votes: ``(2, *S)`` as :class:`segtool.backends.averaging.AveragingBackend` gives them, or None.
    """
    temperature = 1.0 if spec.confidence is None else spec.confidence.temperature
    xp = array_module(logits)
    flat = logits.reshape(len(logits), -1)
    # No label is more probable than its odds against background alone.
    first, *more = flat if spec.activation == "sigmoid" else flat[1:]
    gap = functools.reduce(xp.maximum, more, first)
    if spec.activation == "softmax":
        gap = gap - flat[0]
    chosen = xp.flatnonzero(gap > np.float32(_plausible(spec, threshold, temperature)))
    if chosen.size:
        pieces = (on_host(flat[:, chosen[start : start + _AT_ONCE]]) for start in range(0, chosen.size, _AT_ONCE))
        whole = together([_counted(few, spec, threshold, temperature) for few in pieces])
        assert whole is not None
    else:
        whole = _counted(on_host(flat[:, int(gap.argmax())][:, np.newaxis]), spec, threshold, temperature)
        # A voxel that stands for a piece without a plausible one adds nothing.
        whole = replace(whole, mass=np.zeros_like(whole.mass))
    return replace(whole, votes=None if votes is None else (float(xp.sum(votes[0])), float(xp.sum(votes[1]))))


def _counted(few: Float32Array, spec: ModelSpec, threshold: Thresholds, temperature: float) -> Tally:
    """Count voxels ``(K, n)``, all of them."""
    labels = decide(few, spec, threshold)
    cooled: Float32Array = (few / temperature).astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # a logit of -1000 has probability 0, and says so
        shares = activate(cooled, spec)
    masks = _masks(few, labels, spec, threshold)
    inside = labels > 0
    bits = entropy(cooled[:, inside], spec)
    best = int(shares.max(axis=0).argmax())
    return Tally(
        masks.sum(axis=1, dtype=np.float64),
        (shares * masks).sum(axis=1, dtype=np.float64),
        shares.sum(axis=1, dtype=np.float64),
        shares.max(axis=1).astype(np.float64),
        int(np.count_nonzero(inside)),
        float(bits.sum(dtype=np.float64)),
        float(entropy(cooled[:, best : best + 1], spec)[0]),
    )


def together(parts: Iterable[Tally]) -> Tally | None:
    """Of a case, from its slices or slabs; None of none."""
    found = list(parts)
    if not found:
        return None
    surest = max(found, key=lambda one: float(one.highest.max()))
    votes = [one.votes for one in found if one.votes is not None]
    return Tally(
        np.sum([one.marked for one in found], axis=0),
        np.sum([one.sure for one in found], axis=0),
        np.sum([one.mass for one in found], axis=0),
        np.max([one.highest for one in found], axis=0),
        sum(one.voxels for one in found),
        math.fsum(one.entropy for one in found),
        surest.doubt,
        (math.fsum(one for one, _ in votes), math.fsum(one for _, one in votes)) if votes else None,
    )


def entropy(logits: AnyFloat, spec: ModelSpec) -> AnyFloat:
    """Bits ``(*S)`` of logits ``(K, *S)``: the mean over labels under sigmoid, over classes jointly under softmax."""
    if spec.activation == "sigmoid":
        size = np.abs(logits)
        tail = np.exp(-size)
        nats = (np.log1p(tail) + size * tail / (1 + tail)).mean(axis=0)
    else:
        shifted = logits - logits.max(axis=0, keepdims=True)
        odds = np.exp(shifted)
        total = odds.sum(axis=0)
        nats = np.log(total) - (odds * shifted).sum(axis=0) / total
    bits: AnyFloat = nats / math.log(2)
    return bits


def _plausible(spec: ModelSpec, threshold: Thresholds, temperature: float) -> float:
    """The logit above which a voxel is looked at: no voxel that a threshold could take is left out."""
    cuts = [threshold] if isinstance(threshold, (int, float)) else threshold
    lowest = logit(min(cuts))
    if spec.activation == "softmax":
        lowest -= math.log(len(spec.labels))  # one threshold may be for the sum of the labels
    return min(lowest, temperature * logit(PLAUSIBLE))


def _masks(
    logits: Float32Array, labels: npt.NDArray[np.uint8], spec: ModelSpec, threshold: Thresholds
) -> npt.NDArray[np.bool_]:
    """``(L, n)`` of each label by itself: under sigmoid also where a later label is written over it."""
    if spec.activation == "softmax":
        return np.stack([labels == label.value for label in spec.labels])
    cuts = [threshold] * len(logits) if isinstance(threshold, (int, float)) else list(threshold)
    return np.asarray(logits > np.array([logit(cut) for cut in cuts], np.float32)[:, np.newaxis])
