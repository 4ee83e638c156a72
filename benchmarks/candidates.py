"""Networks tried for the bundled model: validation Dice of their runs beside their time a slice and size.

Run: ``python -m benchmarks.candidates RUN RUN...`` with folders that ``segtool train`` wrote; each is exported here.
"""

import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.common import machine, save, spread, versions
from segtool_export.exporting import export_run
from segtool_train.run_folder import RunFolder

SLICES, ROUNDS = 40, 5


def candidate(run: RunFolder, folder: Path) -> tuple[dict[str, Any], onnxruntime.InferenceSession]:
    """What a run reached, and a session of its export."""
    recipe, spec = run.read_recipe(), run.read_spec()
    with run.metrics_file.open(newline="", encoding="utf-8") as file:
        epochs = len(list(csv.DictReader(file)))
    exported = export_run(run.path, folder / f"{recipe.name}.onnx", None, 17)
    facts = {
        "recipe": recipe.name,
        "epochs": epochs,
        "validation_dice": spec.provenance["validation"]["val_dice"],
        "mb": exported.size_bytes / 1e6,
    }
    return facts, onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])


def main() -> None:
    """Measure all in turn, print, save."""
    with tempfile.TemporaryDirectory() as name:
        tried = [candidate(RunFolder(Path(path)), Path(name)) for path in sys.argv[1:]]
        image = np.random.default_rng(0).normal(size=(1, 1, 256, 256)).astype(np.float32)
        times: list[list[float]] = [[] for _ in tried]
        for _ in range(ROUNDS):
            for (_, session), values in zip(tried, times, strict=True):
                start = time.perf_counter()
                for _ in range(SLICES):
                    session.run(["logits"], {"image": image})
                values.append((time.perf_counter() - start) / SLICES * 1000)
    rows = [
        {**facts, "ms_a_slice": statistics.median(values), "ms_spread": spread(values)}
        for (facts, _), values in zip(tried, times, strict=True)
    ]
    for row in rows:
        print(
            f"{row['recipe']:14} {row['epochs']:3} epochs  validation Dice {row['validation_dice']:.4f}  "
            f"{row['ms_a_slice']:.1f} ms a slice  {row['mb']:.1f} MB"
        )
    what = "networks tried for the bundled model; Dice of the same validation patients on the network's grid"
    print(
        save(
            "candidates",
            {"what": what, "machine": machine(), "versions": versions("onnxruntime", "torch"), "candidates": rows},
        )
    )


if __name__ == "__main__":
    main()
