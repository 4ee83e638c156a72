"""Whether an exported file segments as the network does that was trained."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segtool.backends import load_backend
from segtool.errors import ModelError
from segtool.metrics import dice
from segtool.postprocess import decide
from segtool.postprocess.decision import own_thresholds
from segtool.sliding_window import slide
from segtool.spec import ModelSpec
from segtool_export.cases import Sample

AnyArray = npt.NDArray[Any]
Run = Callable[[AnyArray], AnyArray]

GATES: dict[str, float] = {"fp32": 0.9999}
"""Lowest Dice between a network's mask and its export's, on the worst case, by precision."""


@dataclass(frozen=True)
class CaseParity:
    """One sample: largest difference of the logits, lowest Dice of a label's mask, and pixels that differ."""

    case: str
    max_abs_diff: float
    mask_dice: float
    differing: int


@dataclass(frozen=True)
class Parity:
    """All samples, in order; ``engine`` ran the export."""

    precision: str
    engine: str
    cases: tuple[CaseParity, ...]

    @property
    def worst(self) -> CaseParity:
        """The case whose masks differ most."""
        return min(self.cases, key=lambda case: case.mask_dice)

    @property
    def mean_dice(self) -> float:
        """Of the masks, over cases."""
        return float(np.mean([case.mask_dice for case in self.cases]))

    @property
    def max_abs_diff(self) -> float:
        """Largest of all cases."""
        return max(case.max_abs_diff for case in self.cases)

    @property
    def mean_abs_diff(self) -> float:
        """Mean over cases of the largest difference in each."""
        return float(np.mean([case.max_abs_diff for case in self.cases]))

    def check(self, path: Path) -> None:
        """Pass the gate or refuse.

        Raises:
            ModelError: The worst mask Dice is below the gate of the precision.
        """
        gate, worst = GATES[self.precision], self.worst
        if worst.mask_dice < gate:
            raise ModelError(
                f"{path}: not written, gate {self.precision} mask Dice >= {gate} fails on {worst.case!r} "
                f"with {worst.mask_dice:.6f} ({worst.differing} pixels differ, "
                f"logits by up to {worst.max_abs_diff:.2g})",
                "Try another --opset, or another version of onnxruntime or torch.",
            )

    def to_provenance(self) -> dict[str, Any]:
        """What the model file says about it."""
        return {
            "against": "torch fp32",
            "engine": self.engine,
            "precision": self.precision,
            "samples": len(self.cases),
            "logits_max_abs_diff": float(f"{self.max_abs_diff:.3g}"),
            "mask_dice_worst": round(self.worst.mask_dice, 6),
            "mask_dice_mean": round(self.mean_dice, 6),
            "gate": GATES[self.precision],
        }


def compare(
    network: nn.Module, model: Path, spec: ModelSpec, samples: Iterable[Sample], precision: str = "fp32"
) -> Parity:
    """Run both on every sample, in inference's way: slices as they are, volumes by blended windows."""
    backend = load_backend(model, "cpu")
    trained = _torch_run(network)
    cases = []
    for sample in samples:
        before = _logits(trained, sample.image, spec)
        after = _logits(backend.run, sample.image, spec)
        cases.append(_compare(sample.name, before, after, spec))
    return Parity(precision, f"{backend.name} {backend.version} {backend.device}", tuple(cases))


def _torch_run(network: nn.Module) -> Run:
    network = network.eval().float().cpu()

    @torch.inference_mode()
    def run(batch: AnyArray) -> AnyArray:
        logits: AnyArray = network(torch.from_numpy(np.array(batch, np.float32))).numpy()
        return logits

    return run


def _logits(run: Run, image: AnyArray, spec: ModelSpec) -> AnyArray:
    """``(K, *S)`` of one sample ``(C, *S)``."""
    if spec.input.rank == 3:
        return slide(image, run, spec.input.patch, spec.input.overlap)
    first: AnyArray = run(np.ascontiguousarray(image[None], np.float32))[0]
    return first


def _compare(name: str, before: AnyArray, after: AnyArray, spec: ModelSpec) -> CaseParity:
    masks = [decide(logits, spec, own_thresholds(spec)) for logits in (before, after)]
    overlaps = [_dice(masks[0] == label.value, masks[1] == label.value) for label in spec.labels]
    difference = float(np.abs(before - after).max())
    # NaN compares with nothing and would pass any gate.
    lowest = min(overlaps) if np.isfinite(difference) else 0.0
    return CaseParity(name, difference, lowest, int((masks[0] != masks[1]).sum()))


def _dice(one: AnyArray, two: AnyArray) -> float:
    """Dice of two masks; two empty ones agree."""
    value = dice(one, two)
    return 1.0 if math.isnan(value) else value
