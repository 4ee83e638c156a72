"""A folder of 500 PNG slices through ``predict`` beside the bare ONNX session on ready tensors.

Both use the bundled model, the same batch size, all cores and the same slices, in one process and in turn.
``predict`` includes finding, reading, resizing, normalising, loading the model, restoring, writing and reporting.

Run: ``python -m benchmarks.folder`` (real T1-CE slices of ``cheng/`` where they are at hand, else phantoms)
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.common import REAL_DATA, machine, save, spread, versions
from segtool.bundled import default_model, find_model
from segtool.loading import load_case
from segtool.model_file import read_spec
from segtool.phantom import phantom_slice
from segtool.pipeline import PredictOptions, predict_folder
from segtool.preprocess import SlicedCase
from segtool.scan import scan

CASES, SIZES, BATCHES, RUNS = 500, (256, 512), (2, 8), 3


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


def measure(model: Path, size: int, cases: int, runs: int) -> list[dict[str, Any]]:
    """One row a batch size, for slices of one size."""
    spec = read_spec(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scans"
        what = write_slices(folder, cases, size)
        sources = scan([folder], spec).cases
        tensors = np.stack([SlicedCase(load_case(source, spec), spec).tensor(0) for source in sources])
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

        def bare(batch: int) -> float:
            start = time.perf_counter()
            for first in range(0, len(tensors), batch):
                session.run(["logits"], {"image": tensors[first : first + batch]})
            return time.perf_counter() - start

        def whole(batch: int) -> float:
            options = PredictOptions(model=model, output=Path(name) / "out", device="cpu", batch=batch)
            report = predict_folder([folder], options)
            assert report.counts["done"] == cases
            return report.elapsed_s

        bare(BATCHES[0])
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(runs):
            for batch in BATCHES:
                for side, run in (("bare session", bare), ("segtool predict", whole)):
                    times.setdefault((side, batch), []).append(run(batch))
    rows = []
    for batch in BATCHES:
        both = times["bare session", batch], times["segtool predict", batch]
        ratio = statistics.median(a / b for a, b in zip(*both, strict=True))
        rows.append(
            {
                "what": f"{cases} PNG files ({what}, {size}x{size}, 8 bit)",
                "batch": batch,
                "bare_session_s": spread(both[0]),
                "segtool_predict_s": spread(both[1]),
                "rate_of_predict_to_bare_session": ratio,
            }
        )
        medians = [statistics.median(values) for values in both]
        print(
            f"{size}x{size}  batch {batch}   bare {medians[0]:.2f} s   predict {medians[1]:.2f} s   "
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
    result = {
        "what": "a folder of PNG slices, segtool predict beside the bare session, seconds",
        "machine": machine(),
        "versions": versions("segtool", "onnxruntime", "numpy", "pillow"),
        "model": f"{spec.name} {spec.version}",
        "peer": f"onnxruntime.InferenceSession({spec.name}.onnx, CPUExecutionProvider).run on ready float32 tensors",
        "rows": [row for size in SIZES for row in measure(model, size, arguments.cases, arguments.runs)],
        "goal": "0.85 or more",
    }
    print(save("folder", result))


if __name__ == "__main__":
    main()
