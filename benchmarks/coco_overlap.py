"""Where the slices of the COCO set come from: slice by slice, against the Cheng set.

The COCO set names no patients. Its slices are compared, transposed, with those of the Cheng set, which does: a pair
counts as the same slice where its correlation is high and clearly higher than with any slice of another patient.
From the pairs follow the patients that lie on two sides of the COCO set's own split, and how far its boxes are from
the outlines that the Cheng set has of the same tumours.

Run: ``python -m benchmarks.coco_overlap``
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.common import REAL_DATA, save
from segtool.metrics import dice

SIDE = 48  # pixels a side that slices are compared on: enough for anatomy, blind to noise and compression
CORRELATION, MARGIN = 0.97, 0.02

Array = npt.NDArray[Any]


def signature(path: Path, transposed: bool) -> Array:
    """``(SIDE * SIDE,)`` grey values of mean 0 and length 1."""
    picture = Image.open(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(picture, np.float32)
    values = (values.T if transposed else values) - values.mean()
    unit: Array = (values / max(float(np.linalg.norm(values)), 1e-6)).ravel()
    return unit


def coco_images(side: Path) -> dict[str, list[Any]]:
    """File name to the boxes ``[x, y, width, height]`` in one folder of the COCO set."""
    content = json.loads((side / "_annotations.coco.json").read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in content["images"]}
    boxes: dict[str, list[Any]] = {name: [] for name in names.values()}
    for annotation in content["annotations"]:
        boxes[names[annotation["image_id"]]].append(annotation["bbox"])
    return boxes


def box_dice(boxes: list[Any], shape: tuple[int, int], outline: Path) -> float:
    """Dice of the boxes of a COCO image and the transposed outline of the Cheng set, on the COCO image's grid."""
    drawn = np.zeros(shape, bool)
    for x, y, width, height in boxes:
        drawn[round(y) : round(y + height), round(x) : round(x + width)] = True
    mask = Image.open(outline).convert("L").transpose(Image.Transpose.TRANSPOSE)
    true = np.asarray(mask.resize((shape[1], shape[0]), Image.Resampling.NEAREST)) > 0
    return float(dice(drawn, true))


def main() -> None:
    """Compare, print, save."""
    with (REAL_DATA / "cheng" / "index.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pictures = {path.stem: path for path in (REAL_DATA / "cheng" / "images").iterdir()}
    outlines = {path.stem: path for path in (REAL_DATA / "cheng" / "masks").iterdir()}
    patients = np.array([row["patient_group"] for row in rows])
    known = np.stack([signature(pictures[row["id"]], False) for row in rows])
    matched: dict[str, set[str]] = {}
    counts: dict[str, dict[str, Any]] = {}
    agreement: list[float] = []
    found: dict[str, list[str]] = {}
    for part in ("train", "valid", "test"):
        boxes = coco_images(REAL_DATA / "kaggle_coco" / part)
        found[part] = []
        for name, drawn in boxes.items():
            path = REAL_DATA / "kaggle_coco" / part / name
            closeness = known @ signature(path, True)
            best = int(closeness.argmax())
            rival = float(closeness[patients != patients[best]].max())
            if closeness[best] < CORRELATION or closeness[best] - rival < MARGIN:
                continue
            found[part].append(str(patients[best]))
            with Image.open(path) as picture:
                agreement.append(box_dice(drawn, (picture.height, picture.width), outlines[rows[best]["id"]]))
        matched[part] = set(found[part])
        counts[part] = {"images": len(boxes), "found_in_cheng": len(found[part]), "patients": len(matched[part])}
    for part in ("valid", "test"):
        shared = [patient in matched["train"] for patient in found[part]]
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
