"""Time and peak memory of ``segtool predict`` against the number of cases: memory must not grow with the folder.

Run: ``python -m benchmarks.memory``
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.common import machine, save, versions
from benchmarks.folder import write_slices
from segtool.phantom import phantom_volume

SLICES, VOLUMES = (10, 200, 2000), (10, 200)


def predict(folder: Path, output: Path, *more: str) -> tuple[float, float]:
    """Seconds of a whole ``segtool predict`` process, and its largest resident memory in MB."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "segtool", "predict", str(folder), "-o", str(output)]
    process = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Measure, print, save."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        voxels, _, affine = phantom_volume(0)
        nib.save(nib.Nifti1Image(np.asarray(voxels), affine), top / "volume.nii.gz")
        for kind, counts in (("PNG slices of 512x512", SLICES), ("volumes of 160x160x24", VOLUMES)):
            for count in counts:
                folder = top / "scans"
                folder.mkdir()
                if kind.startswith("PNG"):
                    write_slices(folder, count, 512)
                else:
                    for index in range(count):
                        shutil.copy(top / "volume.nii.gz", folder / f"case_{index:03d}.nii.gz")
                seconds, peak = predict(folder, top / "out")
                rows.append({"cases": count, "what": kind, "peak_mb": peak, "seconds": seconds})
                print(f"{count:5} {kind:24} {seconds:7.1f} s {peak:7.0f} MB", flush=True)
                shutil.rmtree(folder)
                shutil.rmtree(top / "out")
    result = {
        "what": "seconds and peak resident memory (MB) of segtool predict, whole process",
        "machine": machine(),
        "versions": versions("segtool", "onnxruntime", "openvino", "numpy"),
        "rows": rows,
    }
    print(save("memory", result))


if __name__ == "__main__":
    main()
