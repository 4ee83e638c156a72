"""The end of a training: model file, figures on the test cases, pictures, card. All of it lies in the run's folder."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segtool.atomic import write_text
from segtool.backends import Device
from segtool.errors import UsageError
from segtool.model_file import sha256
from segtool.spec import ModelSpec
from segtool_export.card import mean_of
from segtool_export.confidence import confidence_results, forget_confidence, learn_confidence
from segtool_export.evaluation import evaluate_items
from segtool_export.exporting import Exported, export_run
from segtool_export.learning import forget
from segtool_export.learning import learn as learn_on_validation
from segtool_export.results import (
    EVALUATION,
    draw_figures,
    read_results,
    results_of,
    store_metrics,
    with_picture,
    write_results,
)
from segtool_export.run_card import CARD, write_run_card
from segtool_export.statistics import forget as forget_statistics
from segtool_export.statistics import learn_statistics
from segtool_export.summary import EVERYTHING, mean_and_interval
from segtool_export.weights import RunWeights
from segtool_train.data.base import Item, Listing
from segtool_train.data.listing import listed
from segtool_train.data.split import Split
from segtool_train.held_out import score_test
from segtool_train.run_folder import RunFolder
from segtool_train.training import Options

Log = Callable[[str], None]

MODEL, REPORT = "model.onnx", "report.json"
OPSET = 17


def finish_run(run: Path, *, learn: bool = True, device: Device = "auto", log: Log = print) -> dict[str, Any]:
    """Export a run, measure it on its test cases (validation cases where there are none) and write its card.

    Writes ``model.onnx``, ``evaluation/`` (``labels/``, ``report.json``, ``report.csv``, ``results.json``,
    histograms and pictures) and ``card.md`` into the run; what is there from before is replaced. A run without test
    and validation cases gets its model file alone, as does one that parts the slices of a case.

    Args:
        run: Folder that `segtool train` wrote.
        learn: Choose thresholds and post-processing on the validation cases, as the recipe allows.
        device: Where to run the model file.
        log: Takes a line for each step.

    Returns:
        Paths and the main figures, for JSON.

    Raises:
        UserError: A step cannot be done; what training wrote is as it was.
    """
    folder = RunFolder(run)
    split, listing = folder.read_split(), _listing(folder)
    side, items = _side(split, listing)
    validation = _named(split.cases(split.validation), "validation", listing)
    _clear(folder)
    compared = validation or items or _named(split.cases(split.train), "training", listing)
    exported = export_run(run, run / MODEL, compared, OPSET)
    log(_export_line(exported))
    learn_statistics(folder, exported.path, _named(split.cases(split.train), "training", listing), log)
    if not items:
        log("note    the run has no test and no validation cases: nothing is measured, and no card is written")
        return {"model": str(exported.path)}
    if split.of_slices:
        return {"model": str(exported.path), **_score_slices(folder, split, side, device, log)}
    learnt = None
    if learn and validation:
        learn_on_validation(folder, exported.path, validation, device, log)
        learnt = learn_confidence(folder, exported.path, validation, device, log)
    target = run / EVALUATION
    evaluation = evaluate_items(exported.path, items, target / "labels", device, log)
    for case in evaluation.failures:
        log(f"failed  {case.name}: {case.error}")
    results = results_of(folder, side, split, _without_paths(listing.notes, folder), evaluation)
    results |= draw_figures(evaluation, items, exported.spec, run)
    if learnt is not None:
        results["confidence"] = with_picture(confidence_results(learnt, side, evaluation), run)
    spec = store_metrics(exported.path, results)
    evaluation.report(exported.path, side).write_json(target / REPORT)
    evaluation.report(exported.path, side).write_csv(target / "report.csv")
    write_results(folder, results)
    card = write_run_card(folder, exported.path, results)
    log(_result_line(spec, side, results))
    log(f"card    {card}")
    dice = {name: mean_and_interval(one, "dice")[0] for name, one in results["structures"][EVERYTHING].items()}
    return {"model": str(exported.path), "card": str(card), "side": side, "dice": dice}


def export_into_run(path: Path, cases: Path | None, opset: int, min_component_share: float | None) -> Exported:
    """Export a run anew to its own ``model.onnx``; figures and card of the same weights stay true of the new file.

    Args:
        path: As for :func:`segtool_export.exporting.export_run`, as are the other arguments and the errors.
        cases: To compare on.
        opset: ONNX operator set.
        min_component_share: For the post-processing.

    Raises:
        UsageError: The run has a card, and the file would not be what it describes.
    """
    weights = RunWeights.at(path)
    run, target = weights.run, weights.run.path / MODEL
    card = run.path / CARD
    if card.is_file() and (weights.which == "last" or min_component_share is not None):
        raise UsageError(f"{target}: {CARD} describes it, and this would be another model", "Name a file with -o.")
    earlier = sha256(target) if target.is_file() else None
    exported = export_run(path, target, cases, opset, min_component_share)
    results = read_results(run)
    if results is None or not card.is_file():
        card.unlink(missing_ok=True)  # of weights that are no longer those of the file
        return exported
    beside = exported.size_bytes - target.stat().st_size  # weights past what one file holds
    spec = store_metrics(target, results)
    report, checksum = run.path / EVALUATION / REPORT, sha256(target)
    if earlier is not None and report.is_file():
        write_text(report, report.read_text(encoding="utf-8").replace(earlier, checksum))
    write_run_card(run, target, results)
    return replace(exported, spec=spec, sha256=checksum, size_bytes=target.stat().st_size + beside)


def _clear(run: RunFolder) -> None:
    """Remove what an earlier finish wrote about an earlier model file, so that nothing of it stands beside the new."""
    forget(run)
    forget_confidence(run)
    forget_statistics(run)
    (run.path / CARD).unlink(missing_ok=True)
    shutil.rmtree(run.path / EVALUATION, ignore_errors=True)


def _listing(run: RunFolder) -> Listing:
    """The set that the run was trained on, listed anew."""
    return listed(run.read_recipe(), _data_folder(run))


def _data_folder(run: RunFolder) -> Path:
    try:
        return Path(json.loads(run.data_file.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{run.data_file}: does not say where the run's data lies ({error})", "Restore the run's folder."
        ) from error


def _without_paths(notes: Sequence[str], run: RunFolder) -> list[str]:
    """A card is published; where the data lies on this machine is nobody's business."""
    folder = _data_folder(run)
    return [note.replace(str(folder), folder.name) for note in notes]


def _score_slices(run: RunFolder, split: Split, side: str, device: Device, log: Log) -> dict[str, Any]:
    """Held-out slices of cases whose other slices trained: figures on the network's grid, and no card."""
    options = Options(_data_folder(run), run.path, "cpu" if device == "cpu" else "auto")
    dice = score_test(run, options, "test" if side == "test" else "validation").mean["dice"]
    count, leaking = len(split.test or split.validation), split.leaks.get(side, 0)
    log(f"{side:<7} Dice {dice:.4f} on {count} slices, on the network's grid")
    log(
        f"note    {leaking} patients of these slices were trained on or chosen on, too: the figure is too good. "
        "A card measures whole cases and is not written; --split patient gives one"
    )
    known = dice if math.isfinite(dice) else None  # JSON has no NaN
    return {"side": side, "slices": count, "patients_leaking": leaking, "dice_on_slices": known}


def _side(split: Split, listing: Listing) -> tuple[str, list[Item]]:
    """The cases to measure on: those for testing, else those for validation."""
    side = "test" if split.test else "validation"
    return side, _named(split.cases(split.test or split.validation), side, listing)


def _named(names: Sequence[str], side: str, listing: Listing) -> list[Item]:
    """The items of those names.

    Raises:
        UsageError: Some are not in the data any more.
    """
    there = {item.name: item for item in listing.items}
    gone = [name for name in names if name not in there]
    if gone:
        raise UsageError(
            f"{len(gone)} of {len(names)} {side} cases are not in the data any more (first {gone[0]!r})",
            "Restore the data.",
        )
    return [there[name] for name in names]


def _export_line(exported: Exported) -> str:
    worst = exported.parity.worst
    return (
        f"export  {exported.path}   {exported.size_bytes / 1e6:.2f} MB   mask Dice to torch {worst.mask_dice:.6f} "
        f"at worst of {len(exported.parity.cases)}"
    )


def _result_line(spec: ModelSpec, side: str, results: Mapping[str, Any]) -> str:
    figures = []
    for name, one in results["structures"][EVERYTHING].items():
        figures.append(f"{name} {mean_of(one, 'dice', interval=True)}")
    return f"{side:<7} {spec.name} on {results['cases']} cases: Dice {', '.join(figures)}"
