"""Whether a model file segments as the network does that it was made of."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.backends import load_backend
from segtool.errors import ModelError
from segtool.metrics import dice
from segtool.postprocess import decide
from segtool.postprocess.decision import own_thresholds
from segtool.sliding_window import slide
from segtool.spec import ModelSpec
from segtool_export.cases import Sample
from segtool_export.precision import Precision

AnyArray = npt.NDArray[Any]
Run = Callable[[AnyArray], AnyArray]


@dataclass(frozen=True)
class Gate:
    """What masks of the original and of its export must reach, label by label.

    Args:
        mean: Lowest mean Dice over cases.
        worst: Lowest Dice of any case.
        pixels: A mask that differs in no more of them counts as the same, whatever its Dice: of a lesion of 30 pixels
            one is 0.02 of Dice, and no finer step exists.
        loss: Most that the mean Dice to the reference may fall.
    """

    mean: float
    worst: float
    pixels: int
    loss: float = 0.005


GATES: dict[Precision, Gate] = {
    "fp32": Gate(0.9999, 0.9999, 1),
    "fp16": Gate(0.999, 0.99, 4),
    "int8": Gate(0.99, 0.9, 4),
}
"""By precision. FP32 must give the same masks. Rounding moves borders, which counts more in a small lesion than in a
large one, so that there the worst case may lose ten times what the mean may."""


@dataclass(frozen=True)
class LabelParity:
    """One label of a sample.

    Args:
        dice: Of the original's mask and the export's; two empty ones agree.
        differing: Pixels in one of them alone.
        before: Dice of the original's mask to the reference; None where the reference has no such structure.
        after: The same of the export's.
    """

    dice: float
    differing: int
    before: float | None = None
    after: float | None = None

    def gated(self, gate: Gate) -> float:
        """The Dice that the gate looks at."""
        return 1.0 if self.differing <= gate.pixels else self.dice


@dataclass(frozen=True)
class CaseParity:
    """One sample: largest difference of the logits, and its labels by name."""

    case: str
    max_abs_diff: float
    labels: Mapping[str, LabelParity]

    @property
    def mask_dice(self) -> float:
        """Lowest of the labels'."""
        return min(label.dice for label in self.labels.values())

    def gated(self, gate: Gate) -> float:
        """Lowest that the gate looks at."""
        return min(label.gated(gate) for label in self.labels.values())

    @property
    def differing(self) -> int:
        """Pixels, over all labels."""
        return sum(label.differing for label in self.labels.values())


@dataclass(frozen=True)
class Failure:
    """Why an export is refused, and what to try."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class LabelSummary:
    """A label over all samples; its Dice to the reference over the ``referenced`` ones, None where there are none."""

    worst: float
    mean: float
    gated: float
    referenced: int
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Parity:
    """All samples, in order; ``engine`` ran the export, ``against`` the original."""

    precision: Precision
    engine: str
    cases: tuple[CaseParity, ...]
    against: str = "torch fp32"

    @property
    def worst(self) -> CaseParity:
        """The case whose masks differ most."""
        gate = GATES[self.precision]
        return min(self.cases, key=lambda case: (case.gated(gate), case.mask_dice))

    @property
    def mean_dice(self) -> float:
        """Over cases, of the label that differs most in each."""
        return float(np.mean([case.mask_dice for case in self.cases]))

    @property
    def max_abs_diff(self) -> float:
        """Largest of all cases."""
        return max(case.max_abs_diff for case in self.cases)

    @property
    def mean_abs_diff(self) -> float:
        """Mean over cases of the largest difference in each."""
        return float(np.mean([case.max_abs_diff for case in self.cases]))

    def by_label(self) -> dict[str, LabelSummary]:
        """Every label over all samples."""
        gate = GATES[self.precision]
        return {name: _summary([case.labels[name] for case in self.cases], gate) for name in self.cases[0].labels}

    def failure(self) -> Failure | None:
        """The gate that fails, the gravest first; None where all pass."""
        gate, worst, remedy = GATES[self.precision], self.worst, REMEDIES[self.precision]
        if worst.gated(gate) < gate.worst:
            return Failure(
                f"gate {self.precision} mask Dice >= {gate.worst} in every case fails on {worst.case!r} with "
                f"{worst.gated(gate):.6f} ({worst.differing} pixels differ, logits by up to {worst.max_abs_diff:.2g})",
                remedy,
            )
        for name, label in self.by_label().items():
            if label.gated < gate.mean:
                return Failure(
                    f"gate {self.precision} mean mask Dice >= {gate.mean} fails on {name} with {label.gated:.6f} over "
                    f"{len(self.cases)} samples (worst {worst.case!r} with {worst.mask_dice:.4f})",
                    remedy,
                )
            if label.before is not None and label.after is not None and label.before - label.after > gate.loss:
                return Failure(
                    f"gate {self.precision} loss of Dice to the reference <= {gate.loss} fails on {name}: "
                    f"{label.before:.4f} before, {label.after:.4f} after, over {label.referenced} samples (masks "
                    f"differ most in {worst.case!r})",
                    remedy,
                )
        return None

    def check(self, path: Path) -> None:
        """Pass the gates or refuse.

        Raises:
            ModelError: One of them fails; the line says which, on which case, and what to try.
        """
        failure = self.failure()
        if failure is not None:
            raise ModelError(f"{path}: not written, {failure.reason}", failure.remedy)

    def to_provenance(self) -> dict[str, Any]:
        """What the model file says about it."""
        labels = {}
        for name, label in self.by_label().items():
            labels[name] = {"mask_dice_worst": round(label.worst, 6), "mask_dice_mean": round(label.mean, 6)}
            if label.before is not None and label.after is not None:
                labels[name] |= {
                    "reference_dice_before": round(label.before, 6),
                    "reference_dice_after": round(label.after, 6),
                }
        gate = GATES[self.precision]
        return {
            "against": self.against,
            "engine": self.engine,
            "precision": self.precision,
            "samples": len(self.cases),
            "logits_max_abs_diff": float(f"{self.max_abs_diff:.3g}"),
            "mask_dice_worst": round(min(case.mask_dice for case in self.cases), 6),
            "mask_dice_mean": round(self.mean_dice, 6),
            "gate": gate.worst,
            "gate_mean": gate.mean,
            "labels": labels,
        }


REMEDIES: dict[Precision, str] = {
    "fp32": "Try another --opset, or another version of onnxruntime or torch.",
    "fp16": "Export with --precision fp32: this network needs more than 11 bits.",
    "int8": "Give more and other scans with --calibrate, or export with --precision fp16.",
}


@dataclass(frozen=True)
class Original:
    """What an export is held against: ``run`` maps ``(N, C, *S)`` to logits ``(N, K, *S)``, ``name`` says by what.

    Its answers are kept in ``folder``, so that several exports are compared at the price of one.
    """

    run: Run
    name: str
    folder: Path

    def logits(self, index: int, sample: Sample, spec: ModelSpec) -> AnyArray:
        """``(K, *S)`` of the sample with that number."""
        file = self.folder / f"original-{index}.npy"
        if not file.is_file():
            np.save(file, _logits(self.run, sample.image, spec))
        answer: AnyArray = np.load(file, mmap_mode="r")
        return answer


def compare(
    original: Original, model: Path, spec: ModelSpec, samples: Iterable[Sample], precision: Precision = "fp32"
) -> Parity:
    """Run both on every sample, in inference's way: slices as they are, volumes by blended windows."""
    backend = load_backend(model, "cpu")
    cases = []
    for index, sample in enumerate(samples):
        before = original.logits(index, sample, spec)
        after = _logits(backend.run, sample.image, spec)
        cases.append(compare_case(sample, before, after, spec))
    engine = f"{backend.name} {backend.version} {backend.device}"
    return Parity(precision, engine, tuple(cases), original.name)


def _logits(run: Run, image: AnyArray, spec: ModelSpec) -> AnyArray:
    """``(K, *S)`` of one sample ``(C, *S)``."""
    if spec.input.rank == 3:
        return slide(image, run, spec.input.patch, spec.input.overlap)
    first: AnyArray = run(np.ascontiguousarray(image[None], np.float32))[0]
    return first


def compare_case(sample: Sample, before: AnyArray, after: AnyArray, spec: ModelSpec) -> CaseParity:
    """Both answers to one sample, ``(K, *S)`` logits each, held against each other and against the reference."""
    masks = [decide(np.asarray(logits), spec, own_thresholds(spec)) for logits in (before, after)]
    difference = float(np.abs(before - after).max())
    labels = {}
    for number, label in enumerate(spec.labels):
        one, two = masks[0] == label.value, masks[1] == label.value
        overlap, differing = _dice(one, two), int((one != two).sum())
        if not math.isfinite(difference):  # NaN compares with nothing and would pass any gate
            overlap, differing = 0.0, one.size
        reference = None if sample.reference is None else sample.reference[number]
        if reference is None or not reference.any():
            labels[label.name] = LabelParity(overlap, differing)
        else:
            labels[label.name] = LabelParity(overlap, differing, dice(one, reference), dice(two, reference))
    return CaseParity(sample.name, difference, labels)


def _dice(one: AnyArray, two: AnyArray) -> float:
    """Dice of two masks; two empty ones agree."""
    value = dice(one, two)
    return 1.0 if math.isnan(value) else value


def _summary(rows: Sequence[LabelParity], gate: Gate) -> LabelSummary:
    before = [row.before for row in rows if row.before is not None]
    after = [row.after for row in rows if row.after is not None]
    return LabelSummary(
        worst=min(row.dice for row in rows),
        mean=float(np.mean([row.dice for row in rows])),
        gated=float(np.mean([row.gated(gate) for row in rows])),
        referenced=len(before),
        before=float(np.mean(before)) if before else None,
        after=float(np.mean(after)) if after else None,
    )
