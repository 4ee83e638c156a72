"""Folders of PNG, NIfTI and DICOM through ``predict`` beside the bare engine on ready tensors.

Both use the bundled model in fp32, the same engine, batch size and slices and all cores, in one process and in turn.
The bare engines are an ONNX Runtime session and a compiled OpenVINO model with their own settings, called as their
documentation says.
``predict`` includes finding, reading, resizing, normalising, loading the model, restoring, writing and reporting.

500 PNG slices, 200 NIfTI volumes of five slices, one DICOM series of 384 slices.

Run: ``python -m benchmarks.folder`` (real T1-CE slices of ``cheng/`` where they are at hand, else phantoms)
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.common import REAL_DATA, machine, save, spread, versions
from segtool.backends.openvino_engine import the_core
from segtool.bundled import default_model, find_model
from segtool.demo_folder import write_dicom
from segtool.loading import load_case
from segtool.model_file import read_spec
from segtool.phantom import phantom_slice, phantom_volume
from segtool.pipeline import PredictOptions, predict_folder
from segtool.preprocess import SlicedCase
from segtool.scan import scan
from segtool.spec import ModelSpec

CASES, SIZES, RUNS = 500, (256, 512), 3
WAYS = (("openvino", 2), ("openvino", 8), ("cpu", 2))
"""Engine, as ``--device`` names it, and batch."""
PEERS = {
    "cpu": "onnxruntime.InferenceSession(model, CPUExecutionProvider).run",
    "openvino": "openvino.Core().compile_model(model, 'CPU', INFERENCE_PRECISION_HINT=f32)",
}
Run = Callable[[Any], Any]
VOLUMES, SLICES, HEADS = 200, 384, 8
Nifti: Any = nibabel.Nifti1Image  # nibabel does not type it


def write_slices(folder: Path, count: int, size: int) -> str:
    """Write ``count`` PNG slices of ``size`` and say what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    real = sorted((REAL_DATA / "cheng" / "images").glob("*.webp"))[:count]
    for index in range(count):
        if real:
            with Image.open(real[index % len(real)]) as opened:
                picture = opened.convert("L")
        else:
            picture = Image.fromarray((phantom_slice(index)[0] >> 4).astype(np.uint8))
        picture.resize((size, size)).save(folder / f"slice_{index:04d}.png")
    return f"{'real T1-CE' if real else 'phantom'} slices"


def write_pngs(folder: Path, cases: int, size: int) -> str:
    """As :func:`write_slices`; says what the row is about."""
    return f"{cases} PNG files ({write_slices(folder, cases, size)}, {size}x{size}, 8 bit)"


def write_volumes(folder: Path) -> str:
    """NIfTI volumes of a few slices, int16, gzipped; the heads come round again."""
    folder.mkdir()
    for head in range(HEADS):
        voxels, _, affine = phantom_volume(head, (192, 192, 5), (1.2, 1.2, 6.0))
        for index in range(head, VOLUMES, HEADS):
            nibabel.save(Nifti(voxels, affine), folder / f"case_{index:04d}.nii.gz")
    return f"{VOLUMES} NIfTI volumes (phantoms, 192x192x5, 16 bit)"


def write_series(folder: Path) -> str:
    """One DICOM series of many slices, uncompressed: a volume that is repeated."""
    folder.mkdir()
    voxels, labels, affine = phantom_volume(0, (256, 256, SLICES // HEADS), (0.9, 0.9, 3.0))
    longer = tuple(np.concatenate([part] * HEADS, axis=2) for part in (voxels, labels))
    write_dicom(folder / "series", (longer[0].astype(np.int16), longer[1].astype(np.uint8), affine), 0)
    return f"1 DICOM series (phantom, {SLICES} slices of 256x256, 16 bit)"


def inputs_of(folder: Path, spec: ModelSpec) -> Any:  # noqa: ANN401 - an array (N, C, H, W)
    """What the network is given for a folder: the tensors of all slices that show anything."""
    cases = [SlicedCase(load_case(source, spec), spec) for source in scan([folder], spec).cases]
    return np.stack([
        case.tensor(index) for case in cases for index in range(case.count) if not case.is_blank(index)
    ])  # fmt: skip


def bare_engine(model: Path, device: str) -> Run:
    """The engine by itself: ``(N, C, H, W)`` to logits."""
    if device == "cpu":
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        return lambda batch: session.run(["logits"], {"image": batch})
    compiled = the_core().compile_model(str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled({"image": batch})


def measure(model: Path, write: Callable[[Path], str], runs: int) -> list[dict[str, Any]]:
    """One row a batch size, for one folder."""
    spec = read_spec(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scans"
        what = write(folder)
        cases = len(scan([folder], spec).cases)
        tensors = inputs_of(folder, spec)
        engines = {device: bare_engine(model, device) for device in PEERS}

        def bare(device: str, batch: int) -> float:
            start = time.perf_counter()
            for first in range(0, len(tensors), batch):
                engines[device](tensors[first : first + batch])
            return time.perf_counter() - start

        def whole(device: Any, batch: int) -> float:  # noqa: ANN401 - one of the known names
            options = PredictOptions(
                model=model, output=Path(name) / "out", device=device, precision="fp32", batch=batch
            )
            report = predict_folder([folder], options)
            assert report.counts["done"] == cases
            return report.elapsed_s

        for device, batch in WAYS:
            bare(device, batch)
        times: dict[tuple[str, int], list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(runs):
            for way in WAYS:
                times[way].append((bare(*way), whole(*way)))
    rows = []
    for (device, batch), pairs in times.items():
        ratio = statistics.median(a / b for a, b in pairs)
        both = [list(side) for side in zip(*pairs, strict=True)]
        rows.append(
            {
                "what": what,
                "slices": len(tensors),
                "device": device,
                "batch": batch,
                "peer": PEERS[device],
                "bare_session_s": spread(both[0]),
                "segtool_predict_s": spread(both[1]),
                "rate_of_predict_to_bare_session": ratio,
            }
        )
        medians = [statistics.median(values) for values in both]
        print(
            f"{what}  {device} batch {batch}   bare {medians[0]:.2f} s   predict {medians[1]:.2f} s   "
            f"ratio of rates {ratio:.3f}",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    model = default_model() if arguments.model is None else find_model(arguments.model)
    spec = read_spec(model)
    folders: list[Callable[[Path], str]] = [
        *(partial(write_pngs, cases=arguments.cases, size=size) for size in SIZES),
        write_volumes,
        write_series,
    ]
    result = {
        "what": "a folder of scans, segtool predict beside the bare engine, seconds",
        "machine": machine(),
        "versions": versions("segtool", "onnxruntime", "openvino", "numpy", "pillow", "nibabel", "pydicom", "isal"),
        "model": f"{spec.name} {spec.version}",
        "peer": "the engine on ready float32 tensors, one call after the other",
        "rows": [row for write in folders for row in measure(model, write, arguments.runs)],
        "goal": "0.85 or more",
    }
    print(save("folder", result))


if __name__ == "__main__":
    main()
