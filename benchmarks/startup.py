"""Start-up: ``segtool --help`` beside a bare Typer application's, and the first mask of one small PNG.

The latter stands beside what other tools take before they do anything. Whole processes, in turn.

Run: ``python -m benchmarks.startup``, for nnU-Net's row in an environment that holds nnunetv2
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import machine, save, spread, versions
from segtool.phantom import phantom_slice

BARE = """\
import typer

app = typer.Typer()


@app.command()
def one() -> None:
    "One."


@app.command()
def two() -> None:
    "Two."


app()
"""
RUNS, WARM_UP = 21, 2
SIDE = 128  # of the small picture


def others() -> dict[str, list[str]]:
    """Commands of other tools that are installed beside this Python."""
    found = {
        f"python -c 'import {name}'": [sys.executable, "-c", f"import {name}"]
        for name in ("torch", "monai")
        if find_spec(name) is not None
    }
    nnunet = Path(sys.executable).with_name("nnUNetv2_predict")
    return found | ({"nnUNetv2_predict -h": [str(nnunet), "-h"]} if nnunet.is_file() else {})


def load_s(output: Path) -> float:
    """Seconds that the engine took to load the model, by the report of the last prediction."""
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return float(report["setup_seconds"]["load model"])


def seconds(command: list[str]) -> float:
    """Wall-clock time of a whole process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, save."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        picture, output = Path(folder) / "slice.png", Path(folder) / "out"
        Image.fromarray((phantom_slice(0, size=SIDE)[0] >> 4).astype(np.uint8)).save(picture)
        first_mask = [sys.executable, "-m", "segtool", "predict", str(picture), "-o", str(output)]
        commands = {
            "segtool predict slice.png": first_mask,
            **others(),
            "segtool --help": [sys.executable, "-m", "segtool", "--help"],
            "bare Typer --help": [sys.executable, str(bare), "--help"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        loads: list[float] = []
        for run in range(WARM_UP + RUNS):
            for name, command in commands.items():
                elapsed = seconds(command)
                if run >= WARM_UP:
                    times[name].append(elapsed)
                if command is first_mask and run >= WARM_UP:
                    loads.append(load_s(output))
    beyond = statistics.median(a - b for a, b in zip(times["segtool predict slice.png"], loads, strict=True))
    ratio = statistics.median(a / b for a, b in zip(times["segtool --help"], times["bare Typer --help"], strict=True))
    result = {
        "what": "start-up of the command line, whole processes in turn, seconds",
        "machine": machine(),
        "versions": versions("segtool", "typer", "rich", "onnxruntime", "openvino", "torch", "monai", "nnunetv2"),
        "seconds": {name: spread(values) for name, values in times.items()},
        "ratio_to_bare_typer": ratio,
        "goal": "below 1.5",
        "first_mask": {
            "picture": [SIDE, SIDE],
            "load_model_s": spread(loads),
            "beyond_load_s": beyond,
            "goal": "below 1",
        },
    }
    for name, values in times.items():
        print(f"{name:26} {statistics.median(values) * 1000:7.1f} ms")
    print(f"ratio to bare Typer  {ratio:.2f} (goal: below 1.5)")
    print(f"first mask, without the engine's load  {beyond:.2f} s (goal: below 1)")
    print(save("startup", result))


if __name__ == "__main__":
    main()
