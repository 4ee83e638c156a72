"""A training set for every layout that a shipped recipe names: the fewest small cases that its split can part."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tiny_cheng import write_cheng
from tiny_sets import BRATS_CHANNELS, coco, hdf5_slices, save_volume

_RANDOM = np.random.default_rng(7)
_AFFINE = np.array([[-1.0, 0, 0, 40], [0, -1, 0, 50], [0, 0, 1, -60], [0, 0, 0, 1]])
_VISIT_AFFINE = np.diag([0.9, 0.9, 5.0, 1.0])


def cheng(folder: Path) -> None:
    """The fewest patients of whom one is in fold 5."""
    write_cheng(folder, patients=5, size=32)


def tissues(oedema: int, core: int, enhancing: int) -> np.ndarray:
    """Three nested blocks: 8x8x6 voxels, in them 6x6x4, in them 2x2x2."""
    labels = np.zeros((14, 12, 10), np.uint8)
    labels[3:11, 2:10, 2:8] = oedema
    labels[4:10, 3:9, 3:7] = enhancing
    labels[6:8, 5:7, 4:6] = core
    return labels


def head(labels: np.ndarray) -> np.ndarray:
    """A noisy head, brighter where labels are higher, with air on one side."""
    image = _RANDOM.normal(300, 20, labels.shape) + 60 * labels
    image[:2] = 0
    return image.astype(np.int16)


def brats(folder: Path) -> None:
    labels = tissues(2, 1, 4)
    for number in range(1, 5):
        name = f"BraTS20_Training_{number:03d}"
        for channel in BRATS_CHANNELS:
            save_volume(folder / name / f"{name}_{channel}.nii.gz", head(labels), _AFFINE)
        save_volume(folder / name / f"{name}_seg.nii.gz", labels, _AFFINE)


def decathlon(folder: Path) -> None:
    labels = tissues(1, 2, 3)
    names = [f"BRATS_{number:03d}" for number in range(1, 5)]
    for name in names:
        save_volume(folder / "imagesTr" / f"{name}.nii.gz", np.stack([head(labels)] * 4, axis=-1), _AFFINE)
        save_volume(folder / "labelsTr" / f"{name}.nii.gz", labels, _AFFINE)
    content = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def visits(folder: Path) -> None:
    """Thick slices of four patients, the first of whom was there twice."""
    labels = (tissues(1, 1, 1) > 0).astype(np.uint8)
    for case in ("1_Pre", "1_Post", "2_Pre", "3_Pre", "4_Post"):
        save_volume(folder / case / f"{case}_t1ce.nii.gz", head(labels), _VISIT_AFFINE)
        save_volume(folder / case / f"{case}_mask.nii.gz", labels, _VISIT_AFFINE)


def hdf5(folder: Path) -> None:
    hdf5_slices(folder, ("TCGA_A_1", "TCGA_A_2", "TCGA_B_1", "TCGA_B_2", "TCGA_C_1", "TCGA_D_1"))


TRAINING_SETS: dict[str, Callable[[Path], None]] = {
    "cheng": cheng,
    "coco": coco,
    "hdf5_xy": hdf5,
    "brats": brats,
    "decathlon": decathlon,
    "folder": visits,
}
"""By layout: a function that writes the set into an empty folder."""
