"""How far probabilities can be believed, and the temperature that makes them more so.

Measured near the structures: of each case the box around what its prediction and its reference mark, some voxels wider.
Elsewhere nearly every voxel is background beyond doubt, and a million of those would hide any fault of the few that are
in question. (The box and its reason: Mehrtash et al., IEEE TMI 39(12), 2020.)
"""

import math
import threading
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap
from segtool.errors import UsageError
from segtool.postprocess.decision import activate
from segtool.preprocess import nonzero_box
from segtool.scores import mask_of
from segtool.spec import ConfidenceSpec, ModelSpec

Logits = npt.NDArray[np.floating[Any]]
Truth = npt.NDArray[np.bool_]
"""``(L, n)``: which labels of the reference a voxel has."""

MARGIN = 16
"""Voxels by which the box is wider on every side."""
_VOXELS = {2: 4_096, 3: 65_536}
"""Drawn of a picture and of a volume: neighbours say nearly the same."""
_BINS = 15  # as Guo et al. have it
_REACH = math.log(0.25), math.log(100.0)
"""Below, validation cases without a fault would make every later doubt vanish."""


@dataclass(frozen=True)
class Bin:
    """The voxels whose probability of a label lies between two ends; both means are 0 where there are none."""

    count: int
    probability: float
    frequency: float


@dataclass(frozen=True)
class Reliability:
    """Probabilities beside what came true.

    Args:
        ece: Expected calibration error: the difference of probability and frequency, the mean over bins of equal width,
            weighted by their voxels. Every label is judged by itself and counts alike. (Naeini, Cooper and
            Hauskrecht, AAAI 2015; by class: Kull et al., NeurIPS 2019.)
        nll: Mean negative log likelihood, in nats.
        bins: From probability 0 to 1.
    """

    ece: float
    nll: float
    bins: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a bin as its count, mean probability and frequency."""
        rows = [[one.count, round(one.probability, 6), round(one.frequency, 6)] for one in self.bins]
        return {"ece": round(self.ece, 6), "nll": round(self.nll, 6), "bins": rows}


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to a model's probabilities on some cases."""

    temperature: float
    before: Reliability
    after: Reliability
    cases: int
    voxels: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "cases": self.cases,
            "voxels": self.voxels,
            "margin_voxels": MARGIN,
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
        }

    @property
    def spec(self) -> ConfidenceSpec:
        """For the model's spec."""
        return ConfidenceSpec(
            temperature=round(self.temperature, 4),
            ece_before=round(self.before.ece, 6),
            ece_after=round(self.after.ece, 6),
            cases=self.cases,
        )


class Calibrator:
    """Gathers voxels of labelled cases, in any order and from any thread, and learns or judges a temperature on them.

    Args:
        spec: Of the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._gathered: dict[str, tuple[Logits, Truth]] = {}

    def add(self, name: str, logits: Logits, predicted: LabelMap, reference: LabelMap) -> None:
        """Draw voxels of one case; the same of the same case, whatever came before.

        Args:
            name: Of the case.
            logits: ``(K, *S)``.
            predicted: On the same grid.
            reference: On the same grid. A case in which neither marks anything adds nothing.
        """
        if predicted.geometry.kind == "stack":
            for index, (mine, theirs) in enumerate(zip(predicted.labels, reference.labels, strict=True)):
                self._add(f"{name}[{index}]", logits[:, index], mine, theirs)
        else:
            self._add(name, logits, predicted.labels, reference.labels)

    def _add(self, name: str, logits: Logits, predicted: npt.NDArray[Any], reference: npt.NDArray[Any]) -> None:
        truth = np.stack([mask_of(reference, label.reference_values) for label in self._spec.labels])
        marked = truth.any(axis=0) | (predicted != 0)
        if not marked.any():
            return
        box = tuple(slice(max(0, one.start - MARGIN), one.stop + MARGIN) for one in nonzero_box(marked[np.newaxis]))
        inside: Logits = logits[(slice(None), *box)].reshape(len(logits), -1)
        there: Truth = truth[(slice(None), *box)].reshape(len(truth), -1)
        limit = _VOXELS[marked.ndim]
        if inside.shape[1] > limit:
            drawn = np.random.default_rng(zlib.crc32(name.encode())).choice(inside.shape[1], limit, replace=False)
            inside, there = inside[:, drawn], there[:, drawn]
        with self._lock:
            self._gathered[name] = inside.astype(np.float32), there

    @property
    def cases(self) -> int:
        """Of which something was drawn; a stack's pictures count one by one."""
        return len(self._gathered)

    def learn(self) -> Calibration:
        """The temperature of least negative log likelihood, and what it does.

        Raises:
            UsageError: No case had anything to draw from.
        """
        logits, truth = self._all()
        return self._judged(fit_temperature(logits, truth, self._spec), logits, truth)

    def judge(self, temperature: float) -> Calibration:
        """What a temperature does; errors as for :meth:`learn`."""
        return self._judged(temperature, *self._all())

    def _judged(self, temperature: float, logits: Logits, truth: Truth) -> Calibration:
        before, after = (reliability(logits / np.float32(one), truth, self._spec) for one in (1.0, temperature))
        return Calibration(temperature, before, after, self.cases, logits.shape[1])

    def _all(self) -> tuple[Logits, Truth]:
        if not self._gathered:
            raise UsageError(
                "no temperature can be learnt: neither predictions nor references of the cases hold a label",
                "Check the values of the references and `reference_values` of the model's labels.",
            )
        parts = [self._gathered[name] for name in sorted(self._gathered)]
        return np.concatenate([one for one, _ in parts], axis=1), np.concatenate([one for _, one in parts], axis=1)


def fit_temperature(logits: Logits, truth: Truth, spec: ModelSpec) -> float:
    """The temperature in [0.01, 100] of least negative log likelihood, after Guo et al., ICML 2017.

    Args:
        logits: ``(K, n)``.
        truth: ``(L, n)``.
        spec: Of the model.
    """
    from scipy.optimize import minimize_scalar

    exact = logits.astype(np.float64)
    found = minimize_scalar(
        lambda log: likelihood(exact / math.exp(log), truth, spec),
        bounds=_REACH,
        method="bounded",
        options={"xatol": 1e-4},
    )
    return math.exp(float(found.x))


def likelihood(logits: Logits, truth: Truth, spec: ModelSpec) -> float:
    """Mean negative log likelihood in nats: of labels by themselves under sigmoid, of the class under softmax."""
    if spec.activation == "sigmoid":
        return float(np.mean(np.logaddexp(0, logits) - truth * logits, dtype=np.float64))
    # A voxel with several labels of the reference has the last of them, as label maps are written.
    order = np.arange(1, len(truth) + 1)[:, np.newaxis]
    classes = (truth * order).max(axis=0)
    top = logits.max(axis=0)
    total = np.log(np.exp(logits - top).sum(axis=0)) + top
    return float(np.mean(total - np.take_along_axis(logits, classes[np.newaxis], axis=0)[0], dtype=np.float64))


def reliability(logits: Logits, truth: Truth, spec: ModelSpec) -> Reliability:
    """Probabilities of ``(K, n)`` beside ``(L, n)``."""
    shares = activate(logits.astype(np.float32), spec).ravel().astype(np.float64)
    places = np.minimum((shares * _BINS).astype(int), _BINS - 1)
    counts, summed, true = (
        np.bincount(places, weights, minlength=_BINS) for weights in (None, shares, truth.ravel().astype(float))
    )
    bins = tuple(
        Bin(int(n), float(p / max(n, 1)), float(t / max(n, 1))) for n, p, t in zip(counts, summed, true, strict=True)
    )
    return Reliability(float(np.abs(summed - true).sum() / shares.size), likelihood(logits, truth, spec), bins)
