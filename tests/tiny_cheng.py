"""A training set in the Cheng layout, small enough for a test: bright discs on grey noise."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("glioma", "meningioma")
SLICES_A_PATIENT = 2


def write_cheng(folder: Path, patients: int = 10, size: int = 64) -> Path:
    """Two slices a patient, ``images/``, ``masks/`` and ``index.csv``; patient ``p`` is in fold ``p % 5 + 1``."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["id,label,label_name,patient_id,patient_group,official_fold"]
    y, x = np.ogrid[:size, :size]
    for number in range(patients * SLICES_A_PATIENT):
        patient, name = number // SLICES_A_PATIENT, f"{number:04d}"
        row, column = random.integers(size // 4, size * 3 // 4, 2)
        mask = (y - row) ** 2 + (x - column) ** 2 < (size / 8) ** 2
        image = random.normal(60, 10, (size, size)) + 120 * mask
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "masks" / f"{name}.png")
        rows.append(f"{name},1,{CLASSES[patient % 2]},{patient},{patient},{patient % 5 + 1}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


RECIPE = """
[data]
layout = "cheng"
split = { test_fold = "5", validation = 0.25, seed = 0 }

[network]
name = "unet"
width = 4
depth = 3

[spec]
name = "discs"
channels = [{ name = "t1ce" }]
labels = [{ name = "tumour", value = 1 }]
input = { rank = 2, size = [64, 64] }
divisor = 4
intensity = { kind = "zscore", percentiles = [0.5, 99.5], foreground = "above" }

[training]
lr = 1e-2
epochs = 2
batch = 4
precision = "fp32"
ema_decay = 0.9
gradient_clip = 5.0

[augmentation]
rotation_deg = 20
flip_horizontal = 0.5
noise = 0.1
"""
"""Two epochs of a network with 6,000 weights: seconds."""
