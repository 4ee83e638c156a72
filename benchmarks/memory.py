"""Peak memory of ``segtool predict`` against the number of cases: it must not grow with the folder.

Run: ``python -m benchmarks.memory``
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.common import machine, save, versions
from benchmarks.folder import write_slices
from segtool.phantom import phantom_volume

SLICES, VOLUMES = (100, 400, 1600), (4, 16, 64)


def peak_mb(folder: Path, output: Path, *more: str) -> float:
    """Largest resident memory of a whole ``segtool predict`` process, in MB."""
    command = [sys.executable, "-m", "segtool", "predict", str(folder), "-o", str(output), "--device", "cpu"]
    process = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024 / 1e6


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
                peak = peak_mb(folder, top / "out")
                rows.append({"cases": count, "what": kind, "peak_mb": peak})
                print(f"{count:5} {kind:24} {peak:7.0f} MB", flush=True)
                shutil.rmtree(folder)
                shutil.rmtree(top / "out")
    result = {
        "what": "peak resident memory of segtool predict, whole process, MB",
        "machine": machine(),
        "versions": versions("segtool", "onnxruntime", "numpy"),
        "rows": rows,
    }
    print(save("memory", result))


if __name__ == "__main__":
    main()
