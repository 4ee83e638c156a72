"""Trained runs of the published systems beside the figures that their papers state.

Run: ``python -m benchmarks.systems RUN RUN...`` with folders that ``segtool train`` wrote, those of a cross-validation
and of a sweep among them. A run that was not evaluated yet is exported and evaluated here. Rows of other runs that were
measured before stay in the result. The table of a sweep goes into ``sweep.json``.
"""

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine, save, versions
from segtool_export.finish import finish_run
from segtool_train.recipe import Recipe, find_recipe, read_recipe, shipped_recipes
from segtool_train.run_folder import RunFolder

PAPER = {
    "cheng-unet": ("A", "Dice 0.8046, IoU 0.7167 (split not stated)"),
    "cheng-resnet34": ("A", "Dice 0.7802, IoU 0.6857 (split not stated)"),
    "cheng-lite0": ("A", "Dice 0.7802, IoU 0.6857 with ResNet34 (split not stated)"),
    "cheng-attention": ("E", "on BraTS: Dice 0.64"),
    "cheng-residual": ("E", "on BraTS: Dice 0.58"),
    "coco-unet": ("B", "curves and histograms only"),
    "coco-resnet50": ("B", "curves and histograms only"),
    "hdf5-unet": ("D", "Dice 0.979 (split by slice), validation 0.8211"),
    "brats3d-light": ("C", "validation Dice 0.79 on BraTS 2020"),
    "progression3d-light": ("C", "validation Dice 0.79 on BraTS 2020"),
}
"""By recipe: the system, and what its paper reports."""

QUIET = ("name", "spec.name", "spec.version", "spec.description", "spec.provenance", "inference")
"""Parts of a recipe that change no figure of a run, or are told in columns of their own."""


TRIED = ("training.epochs", "training.batch", "training.lr")
"""What the trials of a sweep differ in, and have columns of their own for."""


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to plain values."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if name in QUIET:
            continue
        values |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return values


def differences(recipe: Recipe) -> dict[str, Any]:
    """Dotted keys in which a run's recipe differs from the shipped one of its name, with the run's values."""
    if recipe.name not in shipped_recipes():
        return {}
    shipped = flat(read_recipe(find_recipe(recipe.name)).model_dump(mode="json"))
    own = flat(recipe.model_dump(mode="json"))
    return {key: own.get(key) for key in {**shipped, **own} if own.get(key) != shipped.get(key)}


def mean_of(summary: dict[str, Any], measure: str) -> float | None:
    """The mean of a measure over the cases with a reference; None where it was not measured."""
    value: float | None = summary.get(f"{measure}_mean_with_reference")
    return value


def _split(recipe: Recipe, rule: str | None) -> str:
    """How the run was split, for a column."""
    if recipe.data.layout == "coco":
        return "the set's own (patients unknown)"
    return "by patient" if rule is None else rule.partition(":")[0]


def row_of(run: RunFolder) -> dict[str, Any]:
    """What one run reached and how it was trained."""
    recipe = run.read_recipe()
    file = run.path / "evaluation" / "results.json"
    if not file.is_file():
        finish_run(run.path)
    results = json.loads(file.read_text(encoding="utf-8"))
    with run.metrics_file.open(newline="", encoding="utf-8") as text:
        epochs = list(csv.DictReader(text))
    system, paper = PAPER.get(recipe.name, ("", ""))
    label = next(iter(results["structures"]["all"]))
    whole = results["structures"]["all"][label]
    extent = recipe.spec.extent
    waits = [float(row["data_wait_share"]) for row in epochs if row.get("data_wait_share")]
    return {
        "run": run.path.name,
        "system": system,
        "recipe": recipe.name,
        "differs_from_recipe": differences(recipe),
        "network": recipe.network.name,
        "parameters": results["network"]["parameters"],
        "input": list(extent),
        "epochs": len(epochs),
        "best_epoch": results["training"]["best_epoch"],
        "s_an_epoch": statistics.median(float(row["elapsed_s"]) for row in epochs),
        "data_wait_share": statistics.median(waits) if waits else None,
        "split": _split(recipe, results["split_rule"]),
        "sizes": results["split"],
        "patients_on_two_sides": results["patients_on_two_sides"],
        "side": results["side"],
        "validation_dice": results["training"]["best_val_dice"],
        "dice": mean_of(whole, "dice"),
        "dice_ci95_over_patients": whole.get("dice_ci95_with_reference"),
        "by_group": {
            group: mean_of(members[label], "dice") for group, members in results["structures"].items() if group != "all"
        },
        **{
            name: mean_of(whole, name)
            for name in ("iou", "precision", "recall", "soft_dice", "soft_iou", "soft_precision", "soft_recall")
        },
        "paper": paper,
    }


def row_of_folds(folder: Path) -> dict[str, Any]:
    """A cross-validation as one row: means over its folds, each measured on its own patients."""
    folds = [row_of(RunFolder(fold)) for fold in sorted(folder.glob("fold-*"))]
    dice = [fold["dice"] for fold in folds]
    row = folds[0] | {
        "run": folder.name,
        "split": f"by patient, {len(folds)} folds",
        "epochs": max(fold["epochs"] for fold in folds),
        "dice_of_folds": dice,
        "dice_ci95_over_patients": None,
        "by_group": {},
    }
    measured = [key for key, value in folds[0].items() if isinstance(value, float)]
    return (
        row
        | {key: statistics.fmean(fold[key] for fold in folds) for key in measured}
        | {"dice_sd_over_folds": statistics.stdev(dice)}
    )


def save_sweep(folder: Path) -> None:
    """The table of a sweep, as it was written beside its trials; without times, as other work may have gone on."""
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as text:
        rows = [{key: row[key] for key in row if key not in ("elapsed_s", "error")} for row in csv.DictReader(text)]
    recipe = RunFolder(next(iter(sorted(folder.glob("trial-*"))))).read_recipe()
    print(
        save(
            "sweep",
            {
                "what": "trials of a sweep; means over validation samples and, where they were scored, test samples",
                "recipe": recipe.name,
                "differs_from_recipe": {key: value for key, value in differences(recipe).items() if key not in TRIED},
                "machine": machine(),
                "versions": versions("segtool", "torch", "lightning"),
                "rows": rows,
            },
        )
    )


def main() -> None:
    """Measure the named runs, print and save all rows."""
    path = RESULTS / "systems.json"
    rows = {row["run"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]} if path.is_file() else {}
    for folder in map(Path, sys.argv[1:]):
        if (folder / "sweep.csv").is_file():
            save_sweep(folder)
            continue
        row = row_of_folds(folder) if (folder / "folds.csv").is_file() else row_of(RunFolder(folder))
        rows[row["run"]] = row
        print(f"{row['run']:24} {row['split']:12} {row['side']} Dice {row['dice']:.4f}  val {row['validation_dice']}")
    ordered = sorted(rows.values(), key=lambda row: (row["system"], row["recipe"], row["run"]))
    print(
        save(
            "systems",
            {
                "what": "runs of the published systems, measured on the scans' own grids",
                "machine": machine(),
                "versions": versions("segtool", "torch", "onnxruntime", "lightning"),
                "rows": ordered,
            },
        )
    )


if __name__ == "__main__":
    main()
