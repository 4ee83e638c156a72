"""Every engine, precision and batch with three networks, and torch beside them: ``segtool bench`` on each.

Weights are random, with the running statistics of a few passes over noise: what an engine takes does not depend on
them. INT8 is the form that is tried first, calibrated on noise; whether a trained network keeps its masks in INT8 is
the export's to prove, not this table's.

Run: ``python -m benchmarks.engines [RECIPE ...]``
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import save
from benchmarks.export_matrix import write_int8
from benchmarks.random_run import write_random_run

RECIPES = ("cheng-unet", "cheng-resnet34", "brats3d-light")
BATCHES = {"cheng-unet": "1,8", "cheng-resnet34": "1,8", "brats3d-light": "1"}


def write_run(name: str, folder: Path) -> Path:
    """A run's folder with random weights, and the model files beside them; the folder."""
    spec = write_random_run(name, folder, f"{name}.onnx")
    images = np.random.default_rng(2).normal(0.5, 2, (3, len(spec.channels), *spec.extent)).astype(np.float32)
    write_int8(folder / f"{name}.onnx", spec, images, folder / f"{name}-int8.onnx")
    return folder


def bench(folder: Path, name: str) -> dict[str, Any]:
    """What ``segtool bench --json`` says of the network's files; torch stands beside the one in fp32."""
    both: list[dict[str, Any]] = []
    for file, more in ((f"{name}.onnx", ["--compare", "torch,torch-amp"]), (f"{name}-int8.onnx", [])):
        command = [sys.executable, "-m", "segtool", "bench", "-m", str(folder / file), "--no-cases", "--json"]
        command += ["--batch", BATCHES.get(name, "1"), *more]
        both.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    first, second = both
    return first | {key: first[key] + second[key] for key in ("rows", "notes")}


def main() -> None:
    """Measure, print, save."""
    results = {}
    with tempfile.TemporaryDirectory() as top:
        for name in sys.argv[1:] or RECIPES:
            results[name] = bench(write_run(name, Path(top) / name), name)
            for row in results[name]["rows"]:
                latency, engine = row["latency"], row["engine"]
                print(
                    f"{name:16} {engine['engine']:12} {engine['precision']:10} x{row['batch']} "
                    f"{latency['p50_ms']:9.1f} ms {row['throughput_per_s']:8.2f}/s {row['engine_peak_mb']:6.0f} MB",
                    flush=True,
                )
    print(save("engines", {"what": "segtool bench, random weights, latency of a call", "networks": results}))


if __name__ == "__main__":
    main()
