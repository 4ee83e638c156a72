"""Soak: 10,000 slices and 300 volumes in one process, and what that leaves behind.

``python -m benchmarks.reliability_soak [--scale 0.01]``. Slices are PNG and HDF5, volumes NIfTI and DICOM series; half
of each goes through one call of ``predict_folder``, half through many, as in a service that lives for weeks. Resident
memory is taken after every case; the slope is that of least squares over the second half of each phase,
when caches and the allocator's own pools are full. Afterwards open files, threads, temporary files and half-written
results are counted against those before the first case. Networks are small: what surrounds them is what may leak; one
phase has the bundled model and a new engine for each call.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from PIL import Image

from benchmarks.common import machine, save, versions
from segtool.atomic import PARTIAL_PREFIX
from segtool.case import CaseSource
from segtool.pipeline import PredictOptions, Progress, predict_folder
from segtool.scan import scan
from tests.dicom_series import write_series
from tests.tiny import bright_spec, volume_spec, write_model

SLICES, VOLUMES = 10_000, 300
CHUNK_SLICES, CHUNK_VOLUMES, WARM_CALLS = 250, 3, 40
"""Cases of one call, where there are many calls, and calls before counting begins: the allocator keeps pools."""
_DISTINCT = 50
_SIDE, _DEPTH = 96, 24
_MB = 2**20


@dataclass
class _Phase:
    """Resident memory after each case."""

    name: str
    done: list[int] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0

    def note(self, is_failed: bool) -> None:
        self.failed += is_failed
        self.done.append(len(self.done) + 1)
        self.mb.append(_resident_mb())

    def result(self) -> dict[str, Any]:
        half = len(self.done) // 2
        return {
            "cases": len(self.done),
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "resident_mb": {
                "first": round(self.mb[0], 1),
                "half": round(self.mb[half], 1),
                "last": round(self.mb[-1], 1),
                "most": round(max(self.mb), 1),
            },
            "slope_mb_per_1000_cases": round(slope(self.done[half:], self.mb[half:]) * 1000, 3),
        }


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line of least squares through points; 0 for fewer than two."""
    if len(x) < 2:
        return 0.0
    across = np.asarray(x, np.float64) - np.mean(x)
    return float(across @ (np.asarray(y, np.float64) - np.mean(y)) / (across @ across))


def _resident_mb() -> float:
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def write_slices(folder: Path, count: int) -> None:
    """PNG and HDF5 slices, three to one, of 50 contents; the names of one content are links to one file."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        kind = "h5" if number % 4 == 3 else "png"
        first = folder / f"s{number % (4 * _DISTINCT):05}.{kind}"
        path = folder / f"s{number:05}.{kind}"
        if path != first:
            os.link(first, path)
            continue
        picture = random.integers(0, 90, (_SIDE, _SIDE)).astype(np.uint8)
        picture[20 + number % 30 : 50 + number % 30, 30:60] += 120
        if kind == "png":
            Image.fromarray(picture).save(path)
        else:
            with h5py.File(path, "w") as file:
                file.create_dataset("image", data=picture, chunks=(32, 32), compression="gzip")
                file.create_dataset("mask", data=(picture > 100).astype(np.uint8))


def write_volumes(folder: Path, count: int) -> None:
    """NIfTI and DICOM, two to one."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for number in range(count):
        voxels = random.integers(0, 300, (_SIDE, _SIDE, _DEPTH)).astype(np.int16)
        voxels[30:60, 30:60, 6:18] += 600
        if number % 3 == 2:
            # Real exports give every series UIDs of its own.
            uid = f"1.2.826.0.1.{number + 1}"
            write_series(folder / f"v{number:03}", voxels, [f"{k:03}.dcm" for k in range(_DEPTH)], uid=uid,
                         StudyInstanceUID=f"{uid}.1", FrameOfReferenceUID=f"{uid}.2")  # fmt: skip
        else:
            image = nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 3.0, 1.0]))
            nibabel.save(image, folder / f"v{number:03}.nii.gz")


def _predict(inputs: Sequence[Path], model: Path | None, output: Path, phase: _Phase) -> None:
    options = PredictOptions(model=model, output=output, device="cpu", threads=1)
    start = time.perf_counter()
    predict_folder(inputs, options, Progress(on_case=lambda one: phase.note(one.status == "failed")))
    phase.seconds += time.perf_counter() - start


def _files(folder: Path) -> list[list[Path]]:
    """The files of each case below a folder, in order; of a series its folder."""
    return [[_input(case)] for case in scan([folder]).cases]


def _input(case: CaseSource) -> Path:
    source = case.first
    return source.path.parent if source.format == "dicom" else source.path


def _chunked(cases: Sequence[Sequence[Path]], size: int) -> list[list[Path]]:
    return [[path for case in cases[n : n + size] for path in case] for n in range(0, len(cases), size)]


def soak(folder: Path, scale: float) -> dict[str, Any]:
    """Write the cases below ``folder``, run them in this process, count what is left.

    Args:
        folder: Empty.
        scale: 1 for all.
    """
    slices, volumes = max(8, round(SLICES * scale)), max(6, round(VOLUMES * scale))
    one_go, rest = folder / "slices", folder / "more"
    bundled = min(1000, slices // 4)
    write_slices(one_go, slices // 2)
    write_slices(rest, slices - slices // 2)
    write_volumes(folder / "volumes", volumes - volumes // 2)
    write_volumes(folder / "more-volumes", volumes // 2)
    flat = write_model(folder / "flat.onnx", bright_spec(_SIDE))
    solid = write_model(folder / "solid.onnx", volume_spec(32))
    temporary = folder / "tmp"
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    output = folder / "out"
    # Once through everything, so that imports and pools are not counted as left behind.
    warm = _Phase("warm-up")
    every = _files(rest)
    series = _files(folder / "more-volumes")
    _predict([path for case in every[:4] for path in case], flat, output / "w1", warm)
    _predict([path for case in every[:4] for path in case], None, output / "w2", warm)
    for number in range(max(1, round(WARM_CALLS * min(1, scale)))):
        _predict([path for case in series[:3] for path in case], solid, output / f"w3-{number}", warm)
    gc.collect()
    before = _left(output, temporary)
    phases = [_Phase("slices, one call, the bundled model anew for every 250"), _Phase("slices, one call"),
              _Phase("slices, many calls"), _Phase("volumes, one call"), _Phase("volumes, many calls")]  # fmt: skip
    for number, inputs in enumerate(_chunked(every[:bundled], CHUNK_SLICES)):
        _predict(inputs, None, output / f"b{number}", phases[0])
    _predict([one_go], flat, output / "one", phases[1])
    for number, inputs in enumerate(_chunked(every[bundled:], CHUNK_SLICES)):
        _predict(inputs, flat, output / f"c{number}", phases[2])
    _predict([folder / "volumes"], solid, output / "v", phases[3])
    for number, inputs in enumerate(_chunked(series, CHUNK_VOLUMES)):
        _predict(inputs, solid, output / f"m{number}", phases[4])
    gc.collect()
    after = _left(output, temporary)
    return {
        "slices": slices,
        "volumes": volumes,
        "failed": sum(phase.failed for phase in phases),
        "network": {"bundled": "bundled model", "others": "1x1 convolution", "device": "cpu", "threads": 1},
        "phases": {phase.name: phase.result() for phase in phases if phase.done},
        "before": before,
        "after": after,
        "left_behind": {what: after[what] - before[what] for what in before},
    }


def _left(output: Path, temporary: Path) -> dict[str, int]:
    return {
        "open_files": _open_files(),
        "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
        "python_threads": threading.active_count(),
        "temporary_files": len(list(temporary.rglob("*"))),
        "half_written_results": len(list(output.rglob(f"{PARTIAL_PREFIX}*"))),
        "hidden_results": len(list(output.rglob(".*"))),
    }


def run(scale: float = 1.0) -> dict[str, Any]:
    """The soak in a process of its own, as plain JSON."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.reliability_soak", "--scale", str(scale), "--inside", folder]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        facts: dict[str, Any] = json.loads(answer.splitlines()[-1])
        seconds = time.perf_counter() - start
    found = versions("segtool", "numpy", "h5py", "nibabel", "pydicom", "pillow", "onnxruntime", "openvino")
    return {"machine": machine(), "versions": found, "seconds": round(seconds, 1), **facts}


def main() -> None:
    """Run it and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside is not None:
        print(json.dumps(soak(given.inside, given.scale)))
        return
    result = run(given.scale)
    print(json.dumps(result, indent=2))
    print(save("reliability_soak", result))


if __name__ == "__main__":
    main()
