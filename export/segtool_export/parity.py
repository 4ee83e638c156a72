"""Whether a model file segments as the network does that it was made of."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segtool.backends import Device, load_backend
from segtool.backends.base import Precision as EnginePrecision
from segtool.errors import ModelError
from segtool.metrics import dice
from segtool.postprocess import decide
from segtool.postprocess.decision import own_thresholds
from segtool.sliding_window import slide, window_extent
from segtool.spec import ModelSpec
from segtool_export.cases import Sample

AnyArray = npt.NDArray[Any]
Run = Callable[[AnyArray], AnyArray]


Judged = Literal["fp32", "fp16", "bf16", "int8"]
"""What has a gate: the precisions of files, and bf16, in which an engine may compute a file in fp32."""


@dataclass(frozen=True)
class Gate:
    """What masks of the original and of its export must reach, label by label.

    Args:
        together: Lowest Dice over the pixels of all cases together.
        worst: Lowest Dice of any case.
        pixels: A case that differs in no more of them passes, whatever its Dice: of a lesion of 30 pixels one is 0.02
            of Dice, and no finer step exists.
        loss: Most that the mean Dice to the reference may fall.
        mean: Lowest mean over labels of the Dice over the pixels of all cases together.
    """

    together: float
    worst: float
    pixels: int
    loss: float = 0.005
    mean: float = 0.0


GATES: dict[Judged, Gate] = {
    "fp32": Gate(0.9999, 0.9999, 1),
    "fp16": Gate(0.999, 0.99, 4),
    "bf16": Gate(0.998, 0.99, 4, mean=0.999),
    "int8": Gate(0.99, 0.9, 4),
}
"""By precision. FP32 must give the same masks. Rounding moves borders, which counts more in a small lesion than in a
large one: of a good FP16 export one pixel of a small lesion is more than 0.001. So the figure that a precision is known
by holds for all cases together, with every pixel counted, and any one case may lose ten times as much. bf16 has three
bits less than FP16: its figure holds for the mean over labels, of which one may lose twice as much."""
_SMALLEST_STEP = 1  # pixel over all cases together: what a run on few and small lesions cannot resolve


@dataclass(frozen=True)
class LabelParity:
    """One label of a sample.

    Args:
        differing: Pixels in the original's mask or the export's alone.
        pixels: In the one and in the other, added up.
        before: Dice of the original's mask to the reference; None where the reference has no such structure.
        after: The same of the export's.
    """

    differing: int
    pixels: int
    before: float | None = None
    after: float | None = None

    @property
    def dice(self) -> float:
        """Of the two masks; two empty ones agree."""
        return _dice(self.differing, self.pixels)

    def gated(self, gate: Gate) -> float:
        """The Dice that the gate of the worst case looks at."""
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
    """A label over all samples.

    Args:
        worst: Lowest Dice of a sample.
        mean: Over samples.
        together: Dice over the pixels of all samples.
        differing: Pixels of all samples.
        referenced: Samples whose reference has the label.
        before: Mean Dice of the original's masks to the reference over those; None where there are none.
        after: The same of the export's.
    """

    worst: float
    mean: float
    together: float
    differing: int
    referenced: int
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Parity:
    """All samples, in order; ``engine`` ran the export, ``against`` the original."""

    precision: Judged
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
        return {name: _summary([case.labels[name] for case in self.cases]) for name in self.cases[0].labels}

    def failure(self) -> Failure | None:
        """The gate that fails, the gravest first; None where all pass."""
        gate, worst, remedy = GATES[self.precision], self.worst, REMEDIES[self.precision]
        if worst.gated(gate) < gate.worst:
            return Failure(
                f"gate {self.precision} mask Dice >= {gate.worst} in every case fails on {worst.case!r} with "
                f"{worst.gated(gate):.6f} ({worst.differing} pixels differ, logits by up to {worst.max_abs_diff:.2g})",
                remedy,
            )
        labels = self.by_label()
        mean = float(np.mean([label.together for label in labels.values()]))
        if mean < gate.mean and sum(label.differing for label in labels.values()) > _SMALLEST_STEP:
            return Failure(
                f"gate {self.precision} mask Dice >= {gate.mean} in the mean over labels fails with {mean:.6f}", remedy
            )
        for name, label in labels.items():
            if label.together < gate.together and label.differing > _SMALLEST_STEP:
                return Failure(
                    f"gate {self.precision} mask Dice >= {gate.together} over all cases fails on {name} with "
                    f"{label.together:.6f} ({label.differing} pixels of {len(self.cases)} samples differ, most in "
                    f"{worst.case!r} with {worst.mask_dice:.4f})",
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
            labels[name] = {
                "mask_dice_worst": round(label.worst, 6),
                "mask_dice_mean": round(label.mean, 6),
                "mask_dice_together": round(label.together, 6),
            }
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
            "gate": gate.together,
            "gate_worst": gate.worst,
            "gate_loss": gate.loss,
            **({"gate_mean_over_labels": gate.mean} if gate.mean else {}),
            "labels": labels,
        }


REMEDIES: dict[Judged, str] = {
    "fp32": "Try another --opset, or another version of onnxruntime or torch.",
    "fp16": "Export with --precision fp32: this network needs more than 11 bits.",
    "bf16": "Predict with --precision fp32: this network needs more than 8 bits.",
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
    original: Original,
    model: Path,
    spec: ModelSpec,
    samples: Iterable[Sample],
    precision: Judged = "fp32",
    device: Device = "cpu",
    computing: EnginePrecision | None = None,
) -> Parity:
    """Run both on every sample, in inference's way: slices as they are, volumes by blended windows.

    Args:
        original: What it was made of.
        model: The file.
        spec: Its spec.
        samples: To compare on.
        precision: Whose gates are meant.
        device: Engine that runs the file.
        computing: Precision of that engine's arithmetic, None for its own choice.
    """
    backend = load_backend(model, device, precision=computing)
    cases = []
    for index, sample in enumerate(samples):
        before = original.logits(index, sample, spec)
        after = _logits(backend.run, sample.image, spec)
        cases.append(compare_case(sample, before, after, spec))
    engine = f"{backend.name} {backend.version} {backend.device}"
    if computing is not None:
        engine += f" {backend.precision}"
    backend.close()
    return Parity(precision, engine, tuple(cases), original.name)


def _logits(run: Run, image: AnyArray, spec: ModelSpec) -> AnyArray:
    """``(K, *S)`` of one sample ``(C, *S)``."""
    if spec.input.rank == 3:
        return slide(image, run, window_extent(image.shape[1:], spec), spec.input.overlap)
    first: AnyArray = run(np.ascontiguousarray(image[None], np.float32))[0]
    return first


def compare_case(sample: Sample, before: AnyArray, after: AnyArray, spec: ModelSpec) -> CaseParity:
    """Both answers to one sample, ``(K, *S)`` logits each, held against each other and against the reference."""
    masks = [decide(np.asarray(logits), spec, own_thresholds(spec)) for logits in (before, after)]
    difference = float(np.abs(before - after).max())
    labels = {}
    for number, label in enumerate(spec.labels):
        one, two = masks[0] == label.value, masks[1] == label.value
        differing, pixels = int((one != two).sum()), int(one.sum() + two.sum())
        if not math.isfinite(difference):  # NaN compares with nothing and would pass any gate
            differing = pixels = one.size
        reference = None if sample.reference is None else sample.reference[number]
        if reference is None or not reference.any():
            labels[label.name] = LabelParity(differing, pixels)
        else:
            labels[label.name] = LabelParity(differing, pixels, dice(one, reference), dice(two, reference))
    return CaseParity(sample.name, difference, labels)


def _dice(differing: int, pixels: int) -> float:
    """Twice the overlap of two masks over the sum of their pixels: what is not overlap differs."""
    return 1.0 if not pixels else 1 - differing / pixels


def _summary(rows: Sequence[LabelParity]) -> LabelSummary:
    before = [row.before for row in rows if row.before is not None]
    after = [row.after for row in rows if row.after is not None]
    return LabelSummary(
        worst=min(row.dice for row in rows),
        mean=float(np.mean([row.dice for row in rows])),
        together=_dice(sum(row.differing for row in rows), sum(row.pixels for row in rows)),
        differing=sum(row.differing for row in rows),
        referenced=len(before),
        before=float(np.mean(before)) if before else None,
        after=float(np.mean(after)) if after else None,
    )
