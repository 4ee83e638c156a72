"""Measures the bundled model on real patients, stores the figures in its spec and writes its card.

Runs ``segtool predict`` (the same code path) on one side of the recipe's patient split of the Cheng set and, on
the test side, also on the tumour volumes of ``progression/``, which no training saw.

Run: ``python -m benchmarks.bundled_model`` (the test side; writes results, spec and card)
     ``python -m benchmarks.bundled_model --side validation --model M.onnx [--raw]`` (prints only, for choices)
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cheng import cheng_split, predict_cheng
from benchmarks.common import REAL_DATA, machine, save, versions
from benchmarks.model_card import rewrite_card, write_card
from segtool.bundled import default_model
from segtool.metrics import bootstrap_mean_ci
from segtool.model_file import read_spec, write_spec
from segtool.pipeline import PredictOptions, predict_folder
from segtool.report import Report
from segtool_train.data.base import Item

MEASURES = ("dice", "iou", "precision", "recall")


def row(scores: Sequence[dict[str, float]], patients: Sequence[str]) -> dict[str, Any]:
    """Means over slices; an undefined precision (nothing predicted) is left out of its own mean only."""
    result: dict[str, Any] = {"slices": len(scores), "patients": len(set(patients))}
    for measure in MEASURES:
        result[measure] = float(np.nanmean([score[measure] for score in scores]))
    dice = [score["dice"] for score in scores]
    # Whole patients are drawn: their slices are not independent.
    result["dice_ci95_over_patients"] = list(bootstrap_mean_ci(dice, groups=patients))
    result["dice_median"] = float(np.median(dice))
    result["missed"] = sum(value == 0 for value in dice)
    return result


def scores_of(report: Report) -> dict[str, dict[str, float]]:
    """Measures of the tumour by the case's last name."""
    assert not report.failures, report.failures[0].error
    return {
        case.name.rpartition("/")[2]: {m: float(getattr(case.scores["tumour"], m)) for m in MEASURES}
        for case in report.cases
    }


def measure_cheng(model: Path, items: Sequence[Item], raw: bool) -> dict[str, Any]:
    """All slices of ``items`` together and by kind of tumour, at the slices' own resolution."""
    scores = scores_of(predict_cheng(items, model, raw=raw))
    groups = {"all": list(items)}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    return {
        name: row([scores[item.name] for item in group], [item.patient for item in group])
        for name, group in groups.items()
    }


def measure_progression(model: Path, raw: bool) -> dict[str, Any]:
    """Volumes of another set: references show the enhancing rim only, not the whole tumour."""
    with tempfile.TemporaryDirectory() as folder:
        report = predict_folder(
            [REAL_DATA / "progression"], PredictOptions(model=model, output=Path(folder), device="cpu", raw=raw)
        )
    dice = [case.scores["tumour"].dice for case in report.cases]
    return {
        "volumes": len(dice),
        "dice": float(np.mean(dice)),
        "by_volume": {case.name.partition("/")[0]: case.scores["tumour"].dice for case in report.cases},
    }


def main() -> None:
    """Measure; on the test side also store and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["test", "validation"], default="test")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--card-only", action="store_true", help="write the card again from the stored results")
    parser.add_argument("--raw", action="store_true", help="without the model's post-processing")
    arguments = parser.parse_args()
    model = arguments.model or default_model()
    if arguments.card_only:
        print(rewrite_card(model))
        return
    items, split = cheng_split()
    names = set(getattr(split, arguments.side))
    groups = measure_cheng(model, [item for item in items if item.name in names], arguments.raw)
    for name, one in groups.items():
        low, high = one["dice_ci95_over_patients"]
        print(
            f"{name:12} {one['slices']:4} slices {one['patients']:3} patients  Dice {one['dice']:.4f} "
            f"({low:.3f}-{high:.3f})  IoU {one['iou']:.4f}  precision {one['precision']:.4f}  "
            f"recall {one['recall']:.4f}"
        )
    if arguments.side != "test" or arguments.model or arguments.raw:
        return
    spec = read_spec(model)
    result = {
        "what": "bundled model on the test patients of the Cheng set, segtool predict, mean over slices",
        "machine": machine(),
        "versions": versions("segtool", "onnxruntime", "numpy", "pillow"),
        "model": spec.name,
        "version": spec.version,
        "split": split.sizes(),
        "test": groups,
        "progression": measure_progression(model, False),
        "progression_without_postprocessing": measure_progression(model, True),
        "goal": "mean Dice 0.82 or more over the test slices",
        "paper": {"dice": 0.8046, "iou": 0.7167, "what": "system A, scratch U-Net; its split may leak patients"},
    }
    metrics = {"test": {key: value for key, value in groups["all"].items() if not isinstance(value, list)}}
    provenance = {**spec.provenance, "metrics": {**spec.provenance.get("metrics", {}), **metrics}}
    write_spec(model, spec.model_copy(update={"provenance": provenance}), model)
    print(save("bundled_model", result))
    print(write_card(model, result))


if __name__ == "__main__":
    main()
