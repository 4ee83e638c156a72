"""What was measured on a run's cases, as RUN/evaluation/results.json and the model file hold it."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segtool.atomic import write_text
from segtool.errors import ModelError
from segtool.model_file import read_spec, sha256, write_spec
from segtool.scores import structures_of
from segtool.spec import ModelSpec
from segtool.summary import SOFT
from segtool_export.evaluation import Evaluation
from segtool_export.exporting import trained_network
from segtool_export.figures import Picture, draw_cases, draw_histograms, draw_reliability
from segtool_export.summary import EVERYTHING, groups_of, mean_and_interval, summarise_rows
from segtool_train.data.base import Item
from segtool_train.data.split import Split
from segtool_train.run_folder import RunFolder

EVALUATION = "evaluation"
"""Folder in the run."""
_MOST_NOTES = 5
"""A set may have a note of its own for every case."""
_STORED = ("dice", "iou", "precision", "recall", "hd95_mm", "hd95_px", *SOFT)


def results_file(run: RunFolder) -> Path:
    """Where the results lie."""
    return run.path / EVALUATION / "results.json"


def write_results(run: RunFolder, results: Mapping[str, Any]) -> None:
    """Store them."""
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(results_file(run), text + "\n")


def read_results(run: RunFolder) -> dict[str, Any] | None:
    """Those measured with the run's present best weights; None where there are none.

    Raises:
        ModelError: The file is damaged.
    """
    path = results_file(run)
    if not path.is_file():
        return None
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return results if results["weights_sha256"] == sha256(run.best_file) else None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error})", "Measure again with `segtool export --card`.") from error


def results_of(run: RunFolder, side: str, split: Split, notes: Sequence[str], evaluation: Evaluation) -> dict[str, Any]:
    """Everything that the card says, but for the pictures.

    Args:
        run: The run.
        side: That was measured, ``test`` or ``validation``.
        split: Of the run.
        notes: What the layout said of the data.
        evaluation: What was measured.
    """
    recipe, spec, rows = run.read_recipe(), run.read_spec(), evaluation.rows
    names = [structure.name for structure in structures_of(spec)]
    validation = spec.provenance.get("validation", {})
    with run.metrics_file.open(newline="", encoding="utf-8") as file:
        epochs = sum(1 for _ in csv.DictReader(file))
    return {
        "weights_sha256": sha256(run.best_file),
        "model": f"{spec.name} {spec.version}",
        "side": side,
        "cases": len(evaluation.cases) - len(evaluation.failures),
        "failures": len(evaluation.failures),
        "unit": "volumes" if any(one.hd95_mm is not None for row in rows for one in row.scores.values()) else "slices",
        "engine": evaluation.engine,
        "elapsed_s": round(evaluation.elapsed_s, 3),
        "network": {
            "name": recipe.network.name,
            **recipe.network.options,
            "parameters": sum(parameter.numel() for parameter in trained_network(run).parameters()),
        },
        "training": {
            "recipe": recipe.name,
            "epochs": epochs,
            "best_epoch": validation.get("epoch"),
            "best_val_dice": validation.get("val_dice"),
            "seed": recipe.training.seed,
            "slices": recipe.data.slices,
        },
        "software": spec.provenance.get("software", {}),
        "split": split.sizes(),
        "split_rule": None if split.rule is None else str(split.rule),
        "patients_on_two_sides": split.patients_on_two_sides,
        "patients_leaking": split.leaks.get(side, 0),
        "notes": [*notes, *notes_on_cases(evaluation)],
        "structures": {
            group: {name: summarise_rows(members, name) for name in names} for group, members in groups_of(rows).items()
        },
    }


def notes_on_cases(evaluation: Evaluation) -> list[str]:
    """What reading the measured cases had to decide, the most frequent first, each with how many cases it was."""
    counts = Counter(note for case in evaluation.cases for note in set(case.notes))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"{count} of {len(evaluation.cases)} measured cases: {note}" for note, count in ranked[:_MOST_NOTES]]


def draw_figures(evaluation: Evaluation, items: Sequence[Item], spec: ModelSpec, run: Path) -> dict[str, Any]:
    """Draw histograms and pictures into the run; their paths below it, for the results."""
    target = run / EVALUATION
    histograms = {}
    for structure in structures_of(spec):
        path = target / f"histograms_{_in_a_path(structure.name)}.png"
        draw_histograms(evaluation.rows, structure.name, path)
        histograms[structure.name] = path.relative_to(run).as_posix()
    labels = {case.name: evaluation.labels / case.output for case in evaluation.cases if case.output is not None}
    pictures = draw_cases(evaluation.rows, {item.name: item for item in items}, labels, spec, target / "pictures")
    return {"histograms": histograms, "pictures": {one.what: _described(one, run) for one in pictures}}


def with_picture(confidence: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """What is known of the probabilities, with the path of a reliability diagram that is drawn into the run."""
    path = run / EVALUATION / "reliability.png"
    draw_reliability(confidence["sides"], confidence["temperature"], path)
    return {**confidence, "picture": path.relative_to(run).as_posix()}


def _described(picture: Picture, run: Path) -> dict[str, Any]:
    return {"case": picture.row.name, "dice": picture.dice, "path": picture.path.relative_to(run).as_posix()}


def _in_a_path(name: str) -> str:
    """A structure's name with nothing in it that a file's name or a link could not hold."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


def store_metrics(model: Path, results: Mapping[str, Any]) -> ModelSpec:
    """Write the main figures into the model file; its spec then."""
    spec = read_spec(model)
    metrics: dict[str, Any] = {}
    for name, one in results["structures"][EVERYTHING].items():
        means = {measure: mean_and_interval(one, measure)[0] for measure in _STORED}
        known = {measure: round(mean, 6) for measure, mean in means.items() if mean is not None}
        metrics[name] = {"cases": one["n_with_reference"], "patients": one["patients"], **known}
    calibration = {"calibration": _without(results["confidence"], "picture")} if "confidence" in results else {}
    provenance = {
        **spec.provenance,
        **calibration,
        "metrics": {**spec.provenance.get("metrics", {}), results["side"]: metrics},
    }
    spec = spec.model_copy(update={"provenance": provenance})
    write_spec(model, spec, model)
    return spec


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}
