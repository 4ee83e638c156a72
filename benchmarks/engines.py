"""Every engine, precision and batch with four networks, and torch beside them: ``segtool bench`` on each.

Weights are random, with the running statistics of a few passes over noise: what an engine takes does not depend on
them. INT8 keeps its sums in FP32, the form that passes the export's gates most often, calibrated on noise; whether a
trained network keeps its masks in INT8 is the export's to prove, not this table's.

Run: ``python -m benchmarks.engines [NAME ...]``
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import save
from benchmarks.export_matrix import write_int8
from benchmarks.random_run import write_random_run
from segtool_export.quantisation import CALIBRATION_EXTENT

FULL, INT8 = "model.onnx", "model-int8.onnx"


@dataclass(frozen=True)
class Subject:
    """A network, and what it takes to time it in minutes.

    Args:
        recipe: Whose network it is.
        batches: Of a call.
        changes: Of the recipe.
        more: Flags of ``segtool bench``.
    """

    recipe: str
    batches: str = "1"
    changes: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[str, ...] = ()


SUBJECTS = {
    "2D U-Net, 31.0 M": Subject("cheng-unet", "1,8"),
    "2D U-Net on ResNet34, 24.4 M": Subject("cheng-resnet34", "1,8"),
    "light 3D U-Net, 0.34 M": Subject("brats3d-light"),
    "3D U-Net, 5 levels, 30.5 M": Subject(
        "brats3d-5level-wide", changes={"network.width": 26}, more=("--calls", "3", "--rounds", "1", "--duration", "0")
    ),
}


def write_run(subject: Subject, folder: Path) -> Path:
    """A run's folder with random weights, and the model files beside them; the folder."""
    spec = write_random_run(subject.recipe, folder, FULL, subject.changes)
    extent = [min(n, CALIBRATION_EXTENT) if len(spec.extent) == 3 else n for n in spec.extent]
    images = np.random.default_rng(2).normal(0.5, 2, (2, len(spec.channels), *extent)).astype(np.float32)
    write_int8(folder / FULL, spec, images, folder / INT8, outputs=False)
    return folder


def bench(subject: Subject, folder: Path) -> dict[str, Any]:
    """What ``segtool bench --json`` says of the network's files; torch stands beside the one in fp32."""
    both: list[dict[str, Any]] = []
    for file, more in ((FULL, ["--compare", "torch,torch-amp"]), (INT8, ["--precision", "int8"])):
        command = [sys.executable, "-m", "segtool", "bench", "-m", str(folder / file), "--no-cases", "--json"]
        command += ["--batch", subject.batches, *subject.more, *more]
        # A row that fails makes the exit code 1, and the JSON says why.
        said = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
        both.append(json.loads(said.replace(f"{folder}/", "")))
    first, second = both
    return first | {key: first[key] + second[key] for key in ("rows", "notes")}


def main() -> None:
    """Measure, print, save."""
    results = {}
    with tempfile.TemporaryDirectory() as top:
        for number, name in enumerate(sys.argv[1:] or SUBJECTS):
            results[name] = bench(SUBJECTS[name], write_run(SUBJECTS[name], Path(top) / str(number)))
            for row in results[name]["rows"]:
                latency, engine = row["latency"], row["engine"]
                if latency is None:
                    print(f"{name:28} {row['asked']['device']:12} failed: {row['error']}", flush=True)
                    continue
                print(
                    f"{name:28} {engine['engine']:12} {engine['precision']:10} x{row['batch']} "
                    f"{latency['p50_ms']:9.1f} ms {row['throughput_per_s']:8.2f}/s {row['engine_peak_mb']:6.0f} MB",
                    flush=True,
                )
    print(save("engines", {"what": "segtool bench, random weights, latency of a call", "networks": results}))


if __name__ == "__main__":
    main()
