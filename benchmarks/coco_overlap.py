"""Where the slices of the COCO set come from: slice by slice, against the Cheng set.

The COCO set names no patients. Its slices are compared, transposed, with those of the Cheng set, which does: a pair
counts as the same slice where its correlation is high and clearly higher than with any slice of another patient.
From the pairs follow the patients that lie on two sides of the COCO set's own split, and how far its boxes are from
the outlines that the Cheng set has of the same tumours.

Run: ``python -m benchmarks.coco_overlap``
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.common import REAL_DATA, save
from segtool.formats import label_reader
from segtool.metrics import dice
from segtool.scan.sets import Item, list_items

SIDE = 48  # pixels a side that slices are compared on: enough for anatomy, blind to noise and compression
CORRELATION, MARGIN = 0.97, 0.02
SETS = {"cheng": "cheng", "coco": "kaggle_coco"}
"""Layouts, and the folders of their sets."""

Array = npt.NDArray[Any]


def signature(path: Path, transposed: bool) -> Array:
    """``(SIDE * SIDE,)`` grey values of mean 0 and length 1."""
    picture = Image.open(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(picture, np.float32)
    values = (values.T if transposed else values) - values.mean()
    unit: Array = (values / max(float(np.linalg.norm(values)), 1e-6)).ravel()
    return unit


def outline_dice(coco: Item, cheng: Item) -> float:
    """Dice of the outlines of a COCO image and the transposed ones of the Cheng set, on the COCO image's grid."""
    drawn, true = (labels_of(item) > 0 for item in (coco, cheng))
    mask = Image.fromarray(true).transpose(Image.Transpose.TRANSPOSE)
    shape = drawn.shape
    return float(dice(drawn, np.asarray(mask.resize((shape[1], shape[0]), Image.Resampling.NEAREST))))


def labels_of(item: Item) -> Array:
    """The reference of an item ``(H, W)``."""
    reference = item.source.reference
    assert reference is not None
    read = label_reader(reference.format).read_labels(reference)
    assert read is not None
    return read.labels


def main() -> None:
    """Compare, print, save."""
    cheng, coco = (list_items(name, REAL_DATA / folder).items for name, folder in SETS.items())
    patients = np.array([item.patient for item in cheng])
    known = np.stack([signature(item.source.first.path, False) for item in cheng])
    counts: dict[str, dict[str, Any]] = {}
    agreement: list[float] = []
    found: dict[str, list[str]] = {}
    for part in ("train", "valid", "test"):
        images = [item for item in coco if item.fold == part]
        found[part] = []
        for item in images:
            closeness = known @ signature(item.source.first.path, True)
            best = int(closeness.argmax())
            rival = float(closeness[patients != patients[best]].max())
            if closeness[best] < CORRELATION or closeness[best] - rival < MARGIN:
                continue
            found[part].append(cheng[best].patient)
            agreement.append(outline_dice(item, cheng[best]))
        counts[part] = {
            "images": len(images),
            "found_in_cheng": len(found[part]),
            "patients": len(set(found[part])),
        }
    for part in ("valid", "test"):
        shared = [patient in found["train"] for patient in found[part]]
        counts[part]["of_a_patient_in_train"] = float(np.mean(shared))
    result = {
        "what": "slices of the COCO set found, transposed, in the Cheng set (180 of whose 233 patients were looked at)",
        "rule": f"correlation of {SIDE}x{SIDE} pixels >= {CORRELATION}, and {MARGIN} above every other patient's",
        "parts": counts,
        "dice_of_the_boxes_with_the_outlines": {
            "slices": len(agreement),
            "mean": float(np.nanmean(agreement)),
            "median": float(np.nanmedian(agreement)),
        },
    }
    print(json.dumps(result, indent=1))
    print(save("coco_overlap", result))


if __name__ == "__main__":
    main()
