"""A whole BraTS-like case, from four NIfTI files to a label map, by nnU-Net, MONAI and segtool with one network.

Run: ``python -m benchmarks.whole_case RUN CASE --name light`` with a 3D run of ``segtool train`` and a folder of one
case, in an environment that holds ``segtool[cpu,openvino,export]`` and nnunetv2; whatever is not installed is left out.
Where no run is at hand, ``python -m benchmarks.whole_case CASE --random RECIPE --name wide`` gives the recipe's network
random weights. The result keeps the other networks that were measured before.

Every contender has a process of its own and keeps its network loaded, but segtool, whose command loads the model
anew for each case. They take turns. All use the same weights, windows of the same size and overlap, Gaussian
blending, no mirroring and all cores. Rows with ``malloc`` set glibc's allocator so that it keeps its memory, which
makes torch on a CPU up to twice as fast and which no tool sets by itself.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine, save, spread, versions
from segtool.backends import Device
from segtool.backends.base import Precision
from segtool.bench.memory import peak_mb
from segtool.bench.rows import Row
from segtool.bench.run import agreement
from segtool.bench.worker import own_stdout
from segtool.machine import cores
from segtool.model_file import read_spec
from segtool.scan import scan
from segtool.scores import Structure

KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**33), "MALLOC_MMAP_THRESHOLD_": str(2**32 - 1)}
MODEL = "model.onnx"
INT8 = "model-int8.onnx"  # as `segtool export RUN --precision int8` calls it
Stages = dict[str, float]


@dataclass(frozen=True)
class Contender:
    """One way to segment a case.

    Args:
        what: For the table.
        command: What is called, with its settings.
        package: It needs this one.
        build: From a row with model and threads, the case's folder and an output folder to a function that segments
            the case once and gives its seconds by stage, of which ``infer`` is the network.
        malloc: Set glibc's allocator.
        file: Of the run, without which it is left out.
    """

    what: str
    command: str
    package: str
    build: Callable[[Row, Path, Path], Callable[[], Stages]]
    malloc: bool = False
    file: str = MODEL


def nnunet(row: Row, case: Path, out: Path) -> Callable[[], Stages]:
    """nnU-Net's predictor around the run's network."""
    from segtool_export.peers_nnunet import NnunetPeer

    return by_peer(NnunetPeer(row), case, out)


def monai(*, crop: bool = False, half: bool = False) -> Callable[[Row, Path, Path], Callable[[], Stages]]:
    """MONAI's transforms and sliding window around the run's network."""

    def build(row: Row, case: Path, out: Path) -> Callable[[], Stages]:
        from segtool_export.peers_monai import MonaiPeer

        return by_peer(MonaiPeer(row, mixed=half, crop=crop), case, out)

    return build


def by_peer(peer: Any, case: Path, out: Path) -> Callable[[], Stages]:  # noqa: ANN401 - a Backend that is SegmentsCases
    """As ``segtool bench --compare`` has it segment cases."""
    (source,) = scan([case], peer.spec).cases

    def segment() -> Stages:
        before = peer.network_s
        peer.segment(source, out / "case.nii.gz")
        return {"infer": peer.network_s - before}

    return segment


def segtool(device: Device, precision: Precision | None = None) -> Callable[[Row, Path, Path], Callable[[], Stages]]:
    """``segtool predict`` as the Python interface runs it; the model is loaded each time."""

    def build(row: Row, case: Path, out: Path) -> Callable[[], Stages]:
        from segtool.pipeline import PredictOptions, predict_folder

        def segment() -> Stages:
            options = PredictOptions(model=row.model, output=out, device=device, precision=precision)
            report = predict_folder([case], options)
            assert not report.failures, report.failures
            return {**report.setup_seconds, **report.stage_seconds}

        return segment

    return build


PREDICTOR = "nnUNetPredictor(tile_step_size=0.5, use_mirroring=False).predict_from_files_sequential(files)"
SLIDING = "sliding_window_inference({}, patch, sw_batch_size=1, network, overlap=0.5, mode='gaussian')"
PREDICT = f"segtool predict CASE -m {MODEL} --output OUT"
CONTENDERS = {
    "nnunet": Contender(
        "nnU-Net, nnUNetPredictor.predict_from_files_sequential, tile_step_size 0.5, no mirroring",
        PREDICTOR, "nnunetv2", nnunet,
    ),
    "nnunet-malloc": Contender("nnU-Net, with glibc's allocator set", PREDICTOR, "nnunetv2", nnunet, malloc=True),
    "monai": Contender(
        "MONAI, sliding_window_inference on the whole volume, overlap 0.5, gaussian",
        SLIDING.format("volume"), "monai", monai(),
    ),
    "monai-crop": Contender(
        "MONAI, cropped to the foreground first", SLIDING.format("CropForeground()(volume)"), "monai", monai(crop=True)
    ),
    "monai-crop-bf16": Contender(
        "MONAI, cropped first, autocast to bf16",
        f"torch.autocast('cpu', bfloat16): {SLIDING.format('CropForeground()(volume)')}",
        "monai", monai(crop=True, half=True),
    ),
    "monai-crop-bf16-malloc": Contender(
        "MONAI, cropped first, autocast to bf16, with glibc's allocator set",
        f"torch.autocast('cpu', bfloat16): {SLIDING.format('CropForeground()(volume)')}",
        "monai", monai(crop=True, half=True), malloc=True,
    ),
    "segtool-cpu": Contender(
        "segtool predict --device cpu (ONNX Runtime, fp32)", f"{PREDICT} --device cpu", "onnxruntime", segtool("cpu")
    ),
    "segtool-openvino": Contender(
        "segtool predict --precision fp32 (OpenVINO)", f"{PREDICT} --device openvino --precision fp32",
        "openvino", segtool("openvino", "fp32"),
    ),
    "segtool": Contender("segtool predict, as it chooses by itself", PREDICT, "openvino", segtool("auto")),
    "segtool-openvino-bf16": Contender(
        "segtool predict --precision bf16 (OpenVINO)", f"{PREDICT} --device openvino --precision bf16",
        "openvino", segtool("openvino", "bf16"),
    ),
    "segtool-int8": Contender(
        "segtool predict of the INT8 file, as it chooses by itself", PREDICT.replace(MODEL, INT8), "openvino",
        segtool("auto"), file=INT8,
    ),
}  # fmt: skip


def serve(name: str, run: Path, case: Path, out: Path) -> None:
    """A contender's process: segments once for every line it reads."""
    channel = own_stdout()
    segment = CONTENDERS[name].build(Row(run / CONTENDERS[name].file, "cpu", None, 1, cores(), name), case, out)
    for _ in sys.stdin:
        start = time.perf_counter()
        stages = segment()
        seconds = time.perf_counter() - start
        channel.write(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "stages": stages}) + "\n")


def label_map(folder: Path) -> Path:
    """The one label map in a contender's folder."""
    (found,) = sorted(folder.rglob("*.nii.gz"))
    return found


def measure(run: Path, case: Path, names: list[str], rounds: int, top: Path) -> dict[str, dict[str, Any]]:
    """Seconds and memory of every contender, in turns; the first round warms up and does not count."""
    processes = {}
    for name in names:
        (top / name).mkdir()
        environment = os.environ | (KEEPS_MEMORY if CONTENDERS[name].malloc else {})
        command = [sys.executable, "-m", "benchmarks.whole_case", str(run), str(case), "--child", name, str(top / name)]
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            stderr=(top / f"{name}.log").open("w"),
        )  # fmt: skip
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, process in processes.items():
            assert process.stdin is not None and process.stdout is not None
            if name.startswith("segtool"):
                # Nothing is kept of an earlier round.
                shutil.rmtree(top / name)
            process.stdin.write("go\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{name} ended:\n{(top / f'{name}.log').read_text()[-2000:]}")
            answers[name].append(json.loads(line))
            print(f"round {turn}  {name:24} {answers[name][-1]['seconds']:7.2f} s", flush=True)
    for process in processes.values():
        process.communicate()
    return {name: row_of(name, found) for name, found in answers.items()}


def row_of(name: str, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """What a contender's rounds came to; ``stages`` are those of the last."""
    counted = answers[1:]
    row = {
        "what": CONTENDERS[name].what,
        "command": CONTENDERS[name].command,
        "seconds": spread([one["seconds"] for one in counted]),
        "network_s": statistics.median(one["stages"]["infer"] for one in counted),
        "peak_mb": max(one["peak_mb"] for one in answers),
    }
    return row | ({"stages": counted[-1]["stages"]} if name.startswith("segtool") else {})


def compare(rows: dict[str, dict[str, Any]], run: Path, top: Path) -> None:
    """Add to every row how it stands to the first, and print it."""
    structures = tuple(Structure(one.name, (one.value,), (one.value,)) for one in read_spec(run / MODEL).labels)
    first = next(iter(rows))
    for name, row in rows.items():
        dice = agreement(label_map(top / name), label_map(top / first), structures)
        row["dice_to_first"] = None if math.isnan(dice) else dice
        row["times_the_first"] = rows[first]["seconds"]["median"] / row["seconds"]["median"]
        print(
            f"{name:24} {row['seconds']['median']:7.2f} s, network {row['network_s']:7.2f} s  "
            f"{row['peak_mb']:6.0f} MB  {row['times_the_first']:5.2f}x  mask Dice {dice:.4f}"
        )


def contest(run: Path, case: Path, names: list[str], rounds: int, weights: str) -> dict[str, Any]:
    """All that is measured of one network."""
    spec = read_spec(run / MODEL)
    assert spec.input.rank == 3
    names = [name for name in names if (run / CONTENDERS[name].file).is_file()]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(run, case, names, rounds, Path(folder))
        compare(rows, run, Path(folder))
    return {
        "what": "one case of four NIfTI files to a label map, the same 3D network; seconds of whole cases in turn",
        "machine": machine(),
        "versions": versions("segtool", "torch", "nnunetv2", "monai", "onnxruntime", "openvino", "nibabel"),
        "network": {
            "spec": spec.name,
            "patch": list(spec.input.patch),
            "whole_case_voxels": spec.input.whole_case_voxels,
            "channels": list(spec.channel_names),
            "weights": weights,
            "model_mb": (run / MODEL).stat().st_size / 1e6,
        },
        "malloc": KEEPS_MEMORY,
        "rounds": rounds,
        "median_of": statistics.median.__name__,
        "rows": rows,
    }


def keep(name: str, result: dict[str, Any]) -> Path:
    """Write the network's result beside those of the other networks."""
    file = RESULTS / "whole_case.json"
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return save("whole_case", {"networks": {**earlier.get("networks", {}), name: result}})


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("case", type=Path)
    parser.add_argument("--name", default="light", help="what the result calls the network")
    parser.add_argument("--random", metavar="RECIPE", help="in place of RUN: a recipe's network with random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="contenders, with commas between")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        serve(asked.child[0], asked.run, asked.case, Path(asked.child[1]))
        return
    if (asked.run is None) == (asked.random is None):
        parser.error("give RUN and CASE, or CASE and --random RECIPE")
    wanted = asked.only.split(",") if asked.only else CONTENDERS
    names = [name for name in wanted if find_spec(CONTENDERS[name].package) is not None]
    with tempfile.TemporaryDirectory() as folder:
        run, weights = asked.run, "trained"
        if asked.random is not None:
            from benchmarks.random_run import write_random_run

            run, weights = Path(folder) / "run", "random"
            write_random_run(asked.random, run)
        result = contest(run, asked.case, names, asked.rounds, weights)
    print(keep(asked.name, result))


if __name__ == "__main__":
    main()
