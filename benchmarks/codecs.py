"""Reading and writing of every kind of file beside other libraries, and beside the least that it can take.

Each task is done by all sides in turn, several times over, from warm files in one process (dcm2niix in its own).
Sides that read give the same voxels, which is checked once before.

Run: ``python -m benchmarks.codecs`` (peers that are not installed are left out: ``pip install SimpleITK highdicom
pyspng opencv-python-headless pylibjpeg pylibjpeg-openjpeg``, ``apt-get install dcm2niix``)
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import codecs_dicom, codecs_pictures, codecs_volumes
from benchmarks.common import machine, save, spread, versions

RUNS = 7
PACKAGES = (
    "segtool", "numpy", "pydicom", "SimpleITK", "highdicom", "pylibjpeg", "pylibjpeg-openjpeg", "pillow", "pyspng",
    "opencv-python-headless", "nibabel", "isal", "h5py",
)  # fmt: skip

Sides = dict[str, Callable[[], Any]]
TASKS: tuple[Callable[[Path], tuple[str, Sides]], ...] = (
    codecs_dicom.plain,
    codecs_dicom.plain_phantom,
    codecs_dicom.compressed,
    codecs_dicom.headers,
    codecs_pictures.read,
    codecs_pictures.write,
    codecs_volumes.read_gzip,
    codecs_volumes.write_gzip,
    codecs_volumes.read_plain,
    codecs_volumes.hdf5_files,
    codecs_volumes.hdf5_stack,
)


def measure(sides: Sides, runs: int) -> dict[str, list[float]]:
    """Seconds of each side and run; the first run of all is not counted."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for run in range(runs + 1):
        for side, act in sides.items():
            start = time.perf_counter()
            act()
            if run:
                seconds[side].append(time.perf_counter() - start)
    return seconds


def check(sides: Sides) -> None:
    """All sides that give an array give the same voxels, perhaps in another order of axes or slices."""
    sums = {}
    for side, act in sides.items():
        found = act()
        if isinstance(found, np.ndarray):
            sums[side] = (found.size, int(found.astype(np.int64).sum()))
    assert len(set(sums.values())) <= 1, sums


def dcm2niix_version() -> dict[str, str]:
    """Its version, where it is installed."""
    program = shutil.which("dcm2niix")
    if program is None:
        return {}
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v\d+\.\d+\.\d+", said)
    return {"dcm2niix": match[0]} if match else {}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    rows = []
    for task in TASKS:
        with tempfile.TemporaryDirectory() as name:
            what, sides = task(Path(name))
            check(sides)
            seconds = {side: spread(values) for side, values in measure(sides, arguments.runs).items()}
        rows.append({"what": what, "seconds": seconds})
        print(what)
        for side, values in seconds.items():
            ratio = values["median"] / seconds["segtool"]["median"]
            print(
                f"  {side:38} {values['median']:.3f} s ({values['min']:.3f} to {values['max']:.3f}) {ratio:5.2f} times",
                flush=True,
            )
    result = {
        "what": "reading and writing files, seconds",
        "machine": machine(),
        "versions": versions(*PACKAGES) | dcm2niix_version(),
        "runs": arguments.runs,
        "rows": rows,
        "memory_of_a_mapped_volume": codecs_volumes.mapped_memory(),
        "goal": "a DICOM series within 1.5 times of reading its bytes and decoding its pixels",
    }
    print(save("codecs", result))


if __name__ == "__main__":
    main()
