"""The card of a trained run: RUN/card.md, written from its model file and RUN/evaluation/results.json."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segtool.atomic import write_text
from segtool.model_file import read_spec
from segtool.spec import ModelSpec
from segtool.summary import SOFT
from segtool_export.card import NOT_A_DEVICE, NOT_STATED, believed, data, facts, mean_of, number, table
from segtool_export.figures import title_of
from segtool_export.summary import EVERYTHING, mean_and_interval
from segtool_train.run_folder import RunFolder

CARD = "card.md"
_FEW_PATIENTS = 10  # below it an interval over patients is itself a guess
_UNCHECKED = " So the recipe says: that the cases of this run are from that set was not checked."
_SIDES = {
    "test": "the test patients, which chose nothing",
    "validation": "the **validation** patients, as the run has no test patients. They chose the epoch and the "
    "post-processing, so that these figures are too good",
}


def write_run_card(run: RunFolder, model: Path, results: Mapping[str, Any]) -> Path:
    """Write the card from the content of ``results.json``.

    Raises:
        OutputError: It cannot be written.
    """
    path = run.path / CARD
    write_text(path, run_card(run, model, results))
    return path


def run_card(run: RunFolder, model: Path, results: Mapping[str, Any]) -> str:
    """The card as Markdown; its pictures lie in the run's folder."""
    spec = read_spec(model)
    parts = [
        f"# {spec.name}",
        spec.description,
        NOT_A_DEVICE,
        facts(model, spec, _network(results)),
        "## Data",
        data(spec) + (_UNCHECKED if "data" in spec.provenance else ""),
        _split(results),
        f"## Measured on {_SIDES[results['side']]}",
        *_measured(results),
        "## Training",
        _training(results),
        *(f"![{what}]({path.name})" for what, path in _curves(run).items() if path.is_file()),
        *_learnt(spec),
        *_believed(results),
        "## Export",
        _parity(spec),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(spec, results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _curves(run: RunFolder) -> dict[str, Path]:
    return {"loss and validation scores by epoch": run.curves_file, "validation scores by class": run.bars_file}


def _network(results: Mapping[str, Any]) -> str:
    network = results["network"]
    options = ", ".join(f"{key} {value}" for key, value in network.items() if key not in ("name", "parameters"))
    return f"{network['name']} ({options or 'no options'}), {network['parameters']:,} parameters"


def _split(results: Mapping[str, Any]) -> str:
    sizes, shared = results["split"], results["patients_on_two_sides"]
    sides = ", ".join(f"{side} {n['patients']} patients / {n['items']} cases" for side, n in sizes.items())
    rule = f" ({results['split_rule']})" if results["split_rule"] else ""
    if not shared:
        return f"Split{rule}: {sides}. No patient is on two sides."
    if not _leaking(results):
        return f"Split{rule}: {sides}. {shared} patients are on two sides, none of them among those measured here."
    return (
        f"Split{rule}: {sides}. **{shared} patients are on two sides**: slices of the same tumour were trained on and "
        "are measured here, so that the figures below are too good for patients that the network has not seen."
    )


def _leaking(results: Mapping[str, Any]) -> int:
    """Measured patients that training or choices have seen."""
    # Results of earlier versions tell of all sides together.
    leaking: int = results.get("patients_leaking", results["patients_on_two_sides"])
    return leaking


def _measured(results: Mapping[str, Any]) -> Iterator[str]:
    unit, groups = results["unit"], results["structures"]
    whole = groups[EVERYTHING]
    patients = max(one["patients"] for one in whole.values())
    yield (
        f"{results['cases']} cases of {patients} patients at the scans' own resolution, {results['engine']}. Means "
        f"are over the {unit} whose reference has the structure; 95 % intervals are bootstrapped over patients."
    )
    yield table(*_score_table(whole, unit, "structure"))
    for name in whole if len(groups) > 1 else ():
        by_group = {group: rows[name] for group, rows in groups.items() if group != EVERYTHING}
        yield f"{name}, by class of the case:"
        yield table(*_score_table(by_group, unit, "class"))
    yield f"Without a threshold, from probabilities (products `y ŷ`), means over the same {unit}:"
    yield table(*_soft_table(whole))
    for name, path in results["histograms"].items():
        yield f"![histograms of {name}]({path})"
    yield from _pictures(results["pictures"])


def _score_table(rows: Mapping[str, Mapping[str, Any]], unit: str, what: str) -> tuple[list[str], list[list[str]]]:
    distance = "hd95_mm" if any("hd95_mm_mean" in one for one in rows.values()) else "hd95_px"
    head = [what, unit, "patients", "Dice (95 % CI)", "median", "IoU (95 % CI)", "precision", "recall"]
    head += [f"{title_of(distance)} (95 % CI)", "Dice 0", "false alarms", "Dice, empty = 1"]
    lines = []
    for name, one in rows.items():
        line = [name, f"{one['n_with_reference']} of {one['n']}", str(one["patients"])]
        line += [f"**{mean_of(one, 'dice', 4, interval=True)}**", number(one["dice_median_with_reference"])]
        line += [mean_of(one, "iou", interval=True), mean_of(one, "precision"), mean_of(one, "recall")]
        line += [mean_of(one, distance, 2, interval=True), str(one["n_dice_0"])]
        without = one["n"] - one["n_with_reference"]  # only there a false alarm is possible
        line += [f"{one['n_spurious']} of {without}" if without else "-"]
        lines.append([*line, number(one["dice_mean_all"])])
    return head, lines


def _soft_table(rows: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["structure", *(title_of(measure).removeprefix("soft ") for measure in SOFT)]
    return head, [[name, *(mean_of(one, measure, 4) for measure in SOFT)] for name, one in rows.items()]


def _pictures(pictures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not pictures:
        return
    yield "Best, worst and quartile cases; contours of the reference green, of the prediction red, of both yellow:"
    rows = [[what, one["case"], number(one["dice"], 3), f"![{what}]({one['path']})"] for what, one in pictures.items()]
    yield table(("which", "case", "Dice", "picture"), rows)


def _training(results: Mapping[str, Any]) -> str:
    training, software = results["training"], results["software"]
    versions = ", ".join(f"{name} {version}" for name, version in software.items())
    return (
        f"Recipe `{training['recipe']}` (`recipe.toml` has it as resolved): {training['epochs']} epochs, weights "
        f"of epoch {training['best_epoch']} with validation Dice {number(training['best_val_dice'], 4)}, "
        f"seed {training['seed']}. "
        f"Software: {versions}."
    )


def _learnt(spec: ModelSpec) -> Iterator[str]:
    learnt = spec.provenance.get("learnt")
    if not learnt:
        return
    yield "## Chosen on the validation patients"
    yield table(("what", "chosen", "validation Dice before", "after"), [
        [one["what"], one["chosen"], number(one["before"], 4), number(one["after"], 4)] for one in learnt["steps"]
    ])  # fmt: skip


def _believed(results: Mapping[str, Any]) -> Iterator[str]:
    # Results of earlier versions have none.
    if "confidence" not in results:
        return
    yield "## How far the probabilities can be believed"
    yield from believed(results["confidence"])
    yield f"![reliability diagram]({results['confidence']['picture']})"


def _parity(spec: ModelSpec) -> str:
    export = spec.provenance["export"]
    proof = export["parity"]
    rows = [
        ("compared", f"{proof['engine']} {proof['precision']} against {proof['against']}, {proof['samples']} samples"),
        ("Dice of the masks, worst", f"{proof['mask_dice_worst']:.6f} (gate {proof.get('gate_worst', proof['gate'])})"),
        ("Dice of the masks, mean", f"{proof['mask_dice_mean']:.6f}"),
        ("largest difference of logits", f"{proof['logits_max_abs_diff']:.2g}"),
        ("operator set", str(export["opset"])),
    ]
    for one in export.get("proved_on", ()):
        outcome = "passes: taken unasked" if one["passed"] else "fails: only where asked for"
        rows.append((f"on {one['parity']['engine']}", f"worst {one['parity']['mask_dice_worst']:.6f}, {outcome}"))
    return table(("", ""), rows)


def _limits(spec: ModelSpec, results: Mapping[str, Any]) -> Iterator[str]:
    """What follows from the figures and the recipe; more is for the person who publishes the model to add."""
    whole = results["structures"][EVERYTHING]
    yield f"{', '.join(spec.channel_names)} only: other sequences were not trained on."
    if results["training"]["slices"] == "labelled":
        yield "Trained on slices that show a structure, alone: it may mark healthy ones."
    patients = max(one["patients"] for one in whole.values())
    if results["side"] == "validation":
        yield "There was no test side: no figure here is independent of the training."
    if _leaking(results):
        yield "Patients lie on both sides of the split: nothing here says how it does on new patients."
    if patients < _FEW_PATIENTS:
        yield f"{patients} patients are few: the intervals say little about others."
    if all(one["n"] == one["n_with_reference"] for one in whole.values()):
        yield "Every measured case shows every structure: false alarms on scans without one were not measured."
    for name, one in whole.items():
        if one["n_dice_0"]:
            yield f"{name} was not found (Dice 0) in {one['n_dice_0']} of {one['n_with_reference']} {results['unit']}."
    if len(results["structures"]) > 1:
        yield from _weakest(results["structures"])
    if results["failures"]:
        yield f"{results['failures']} cases could not be measured; `evaluation/report.json` names them."
    yield from (f"{note[:1].upper()}{note[1:]}." for note in results["notes"])
    if "licence" not in spec.provenance:
        yield f"The licence of the weights is {NOT_STATED}: set `[spec.provenance] licence` in the recipe."


def _weakest(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name in groups[EVERYTHING]:
        means = {group: mean_and_interval(rows[name], "dice")[0] for group, rows in groups.items()}
        known = {group: mean for group, mean in means.items() if group != EVERYTHING and mean is not None}
        if len(known) > 1:
            worst = min(known, key=lambda group: known[group])
            yield f"{name} is found worst in {worst} (Dice {known[worst]:.3f})."
