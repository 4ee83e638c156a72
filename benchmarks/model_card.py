"""Writes a model's card from its spec, its file and measured results; no figure is typed by hand."""

import json
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.model_sums import sums
from segtool.atomic import write_text
from segtool.bundled import MODELS_FOLDER, SUMS_NAME
from segtool.model_file import read_spec
from segtool.spec import ModelSpec
from segtool_export.card import NOT_A_DEVICE, believed, data, facts, table

CARDS = Path(__file__).resolve().parent.parent / "model_cards"


def write_card(model: Path, result: dict[str, Any]) -> Path:
    """Write ``model_cards/<stem>.md`` for ``model`` from ``benchmarks/results/bundled_model.json``'s content.

    Of a bundled model the list of checksums is written too, which the card would contradict otherwise.
    """
    if model.parent == MODELS_FOLDER:
        write_text(MODELS_FOLDER / SUMS_NAME, sums())
    path = CARDS / f"{model.stem}.md"
    path.write_text(card(model, result), encoding="utf-8")
    return path


def rewrite_card(model: Path) -> Path:
    """The card again, from the stored results and what the file says now."""
    return write_card(model, json.loads((RESULTS / "bundled_model.json").read_text(encoding="utf-8")))


def diagram_of(model: Path) -> Path:
    """Where the reliability diagram of a card lies."""
    return CARDS / f"{model.stem}-reliability.png"


def _believed(model: Path, spec: ModelSpec) -> str:
    """How far probabilities can be believed; empty where nothing was learnt."""
    if "calibration" not in spec.provenance:
        return ""
    measured = json.loads((RESULTS / "reliability_confidence.json").read_text(encoding="utf-8"))["test"]["as_shipped"]
    parts = [
        "## How far the probabilities can be believed",
        *believed(spec.provenance["calibration"]),
        f"It ranks and does not foretell: on the test slices the mean expected Dice is "
        f"{measured['mean_expected_dice']:.2f}, and the Dice reached {measured['mean_dice']:.2f}.",
        f"![reliability diagram]({diagram_of(model).name})",
        "Learnt and measured by `python -m benchmarks.bundled_confidence`. How well other measures rank, with and "
        "without flips: `benchmarks/results/reliability_confidence.json`.",
    ]
    return "\n\n".join(parts) + "\n\n"


def _table(groups: dict[str, dict[str, Any]]) -> str:
    head = ("tumour", "slices", "patients", "Dice (95 % CI over patients)", "median", "IoU", "precision", "recall")
    rows = [
        (
            name,
            str(one["slices"]),
            str(one["patients"]),
            f"**{one['dice']:.4f}** ({' to '.join(f'{end:.3f}' for end in one['dice_ci95_over_patients'])})",
            f"{one['dice_median']:.3f}",
            *(f"{one[measure]:.4f}" for measure in ("iou", "precision", "recall")),
            str(one["missed"]),
        )
        for name, one in groups.items()
    ]
    return table((*head, "missed"), rows)


def card(model: Path, result: dict[str, Any]) -> str:
    """The card as Markdown."""
    spec = read_spec(model)
    source = spec.provenance
    sizes = result["split"]
    split = ", ".join(f"{side} {n['patients']} patients / {n['items']} slices" for side, n in sizes.items())
    paper, volumes, bare = result["paper"], result["progression"], result["progression_without_postprocessing"]
    by_volume = ", ".join(f"{name} {dice:.2f}" for name, dice in volumes["by_volume"].items())
    network = f"U-Net on an EfficientNet-lite0 encoder, recipe `train/recipes/{source['recipe']}.toml`"
    missed = {name: one["missed"] for name, one in result["test"].items()}
    validation = source["validation"]["val_dice"]
    apart = " and ".join(f"{dice:.3f}" for dice in source["validation"]["val_dice_of_each"])
    return f"""# {spec.name}

{spec.description}

{NOT_A_DEVICE}

{facts(model, spec, network)}

## Data

{data(spec)}

Split by patient: {split}. The test part is every patient with a slice in the set's official fold 5, with all of
their slices; no weight, threshold, post-processing or temperature was trained, chosen or tuned on it. The limits beyond
which `segtool predict` warns of a scan, which change no mask, are learnt from training slices; by how much a scan may
pass them was settled with the rate of warnings on test slices in view.

The weights are the mean of two runs: one from ImageNet weights, 26 epochs, and one that started from it and saw lesions
put into other slices, 12 epochs. Validation Dice {apart} apart, {validation:.3f} together:

```
segtool train cheng-lite0 --data cheng -o one
segtool train cheng-lite0 --data cheng -o two --init one --set augmentation.transplant=0.5 \\
    --lr 6e-4 --epochs 12 --seed 1
python -m benchmarks.averaged_run one two -o mean
segtool export mean --card
```

## Measured on the test patients

Mean over slices at the slices' own resolution, `segtool predict` on a CPU. The paper whose network this replaces
states Dice {paper["dice"]} and IoU {paper["iou"]}, on a split that may put slices of one patient on both sides.

{_table(result["test"])}

"Missed" counts slices with Dice 0; {missed["glioma"]} of the {missed["all"]} are gliomas; those looked at take
up little contrast. The goal of 0.82 was not reached. Patients differ much: on the validation patients, which chose the
epoch, the mean is {validation:.3f}. Source: `benchmarks/results/bundled_model.json`, written by
`python -m benchmarks.bundled_model`.

## Measured elsewhere

{volumes["volumes"]} T1-CE volumes of glioblastoma patients after treatment (Brain-Tumor-Progression, TCIA, CC BY 3.0),
never trained on: mean Dice {volumes["dice"]:.3f} ({bare["dice"]:.3f} with `--raw`); by volume {by_volume}. Their
references mark the enhancing rim only, while this model marks the whole tumour with its dark core, which lowers
Dice even where the lesion is found. The post-processing was learnt on the validation slices alone.

{_believed(model, spec)}## Limits

- Every training slice shows a tumour. On slices without one the model may mark bright normal structures (vessels,
  the sinuses, the pituitary, fat in the skull base); in a volume the post-processing removes most, not all, of that.
- Gliomas that take up little contrast are found poorly, see the table.
- Contrast-enhanced T1 only. Other sequences, children, other diseases and scans after surgery were not trained on.
- Oedema around the tumour is not part of the label.
- Images were 8 bit; scanners, sites and field strengths of the set are not recorded.
"""
