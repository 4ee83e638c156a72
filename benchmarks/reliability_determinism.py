"""Determinism: the same input, model and device give the same bytes, however the work is divided.

``python -m benchmarks.reliability_determinism [--scale 0.1]``. A folder of slices and one of volumes are segmented many
times: in batches of 1, 2, 3 and 8; with 1, 2 and 4 threads of the engine; with 1, 2 and 4 threads that read and write;
with the inputs in another order; each case alone; once more; and after an interruption. Of every result the
SHA-256 is held against the first run's: label maps, probability maps and the report without its times. Where an engine
chooses other arithmetic by itself, the largest difference of a probability and the number of other labels are given.
"""

import argparse
import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.common import machine, save, versions
from benchmarks.reliability_soak import write_slices, write_volumes
from segtool import pipeline
from segtool.backends import Device
from segtool.backends.base import Precision
from segtool.bundled import default_model
from segtool.ensemble import read_models
from segtool.errors import DeviceError, UserError
from segtool.formats import suffix_of
from segtool.pipeline import PredictOptions, predict_folder
from segtool.scan import scan
from segtool.version import __version__
from tests.tiny import volume_spec, write_model

SLICES, VOLUMES = 16, 3
BATCHES, THREADS, WORKERS = (1, 2, 3, 8), (1, 2, 4), (1, 2, 4)
ENGINES: Mapping[str, tuple[Device, Precision]] = {
    "onnxruntime fp32": ("cpu", "fp32"),
    "openvino fp32": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
}
_TIMES = frozenset({"elapsed_s", "setup_seconds", "stage_seconds", "seconds", "started", "finished", "output_folder"})
"""What a report says of time and place."""

Sums = Mapping[str, str]
"""SHA-256 by the file's path below the output."""


@dataclass(frozen=True)
class Setting:
    """One engine and model to hold against itself."""

    name: str
    inputs: Path
    model: Path | None
    device: Device
    precision: Precision | None = None

    def options(self, output: Path, **changes: Any) -> PredictOptions:  # noqa: ANN401 - fields of PredictOptions
        """Of a run into ``output``."""
        plain = PredictOptions(model=self.model, output=output, device=self.device, precision=self.precision, threads=1)
        return replace(plain, save_probabilities=True, **changes)


def sums(output: Path) -> Sums:
    """Of all files of a run; of reports without their times."""
    return {path.relative_to(output).as_posix(): _digest(path) for path in sorted(output.rglob("*")) if path.is_file()}


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "report.json":
        content = json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _timeless(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in _TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


@contextlib.contextmanager
def workers(count: int) -> Iterator[None]:
    """Let so many threads read, and so many write, whatever the machine has."""
    usual = pipeline._stage_options
    crowded = lambda *given: replace(usual(*given), readers=count, writers=count)  # noqa: E731
    with mock.patch.object(pipeline, "_stage_options", crowded):
        yield


def variants(setting: Setting) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Name and run of every way to divide the same work."""

    def run(inputs: Sequence[Path], output: Path, **changes: Any) -> None:  # noqa: ANN401 - fields of PredictOptions
        predict_folder(inputs, setting.options(output, **changes))

    files = [case.first.path for case in scan([setting.inputs]).cases]
    inputs = [path.parent if suffix_of(path) == ".dcm" else path for path in files]
    for batch in BATCHES:
        yield f"batch {batch}", lambda output, batch=batch: run([setting.inputs], output, batch=batch)
    for threads in THREADS:
        yield f"threads {threads}", lambda output, threads=threads: run([setting.inputs], output, threads=threads)
    for count in WORKERS:

        def crowded(output: Path, count: int = count) -> None:
            with workers(count):
                run([setting.inputs], output)

        yield f"workers {count}", crowded
    yield "other order", lambda output: run(inputs[::-1], output)
    yield "each alone", lambda output: [run([one], output) for one in inputs][-1]
    yield "again", lambda output: run([setting.inputs], output)

    def resumed(output: Path) -> None:
        run([setting.inputs], output)
        done = sorted(path for path in output.rglob("*") if path.is_file() and not path.name.startswith("report"))
        for path in done[::2]:
            path.unlink()
        run([setting.inputs], output, resume=True)

    yield "resumed", resumed


def hold(setting: Setting, folder: Path) -> dict[str, Any]:
    """All variants of one setting against its first run."""
    first = folder / "first"
    predict_folder([setting.inputs], setting.options(first))
    wanted = sums(first)
    rows: dict[str, Any] = {}
    for name, run in variants(setting):
        output = folder / name.replace(" ", "-")
        run(output)
        found = sums(output)
        # A case alone writes a report of its own, and options and order are told in reports.
        told = {path for path in wanted if path.startswith("report")}
        other = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
        results = [path for path in other if path not in told]
        rows[name] = {"files": len(wanted), "other_results": len(results), **_apart(first, output, results)}
        if name in ("again", "resumed"):
            rows[name]["other_reports"] = [path for path in other if path in told]
    same = not any(row["other_results"] or row.get("other_reports") for row in rows.values())
    return {"device": setting.device, "precision": setting.precision, "identical": same, "variants": rows}


def _apart(first: Path, output: Path, results: Sequence[str]) -> dict[str, Any]:
    """How far results lie apart."""
    if not results:
        return {}
    largest, labels = 0.0, 0
    for name in results:
        one, other = (_array(folder / name) for folder in (first, output))
        if one is None or other is None or one.shape != other.shape:
            return {"missing": name}
        if "_probabilities" in name:
            largest = max(largest, float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()))
        else:
            labels += int((one != other).sum())
    return {"largest_difference_of_a_probability": largest, "other_labels": labels}


def _array(path: Path) -> Any:  # noqa: ANN401 - an array of any kind
    import h5py
    import nibabel
    from PIL import Image

    if not path.exists():
        return None
    if path.suffix == ".npz":
        return np.load(path)["probabilities"]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return next(iter(file.values()))[()]
    if path.suffix == ".gz":
        return np.asarray(nibabel.load(path).dataobj)
    return np.asarray(Image.open(path))


def logits_apart(device: Device, precision: Precision) -> float:
    """The largest difference of a logit of the bundled model between batches of 1 and larger ones, 1 thread and 2."""
    models = read_models([default_model()])
    inputs = np.random.default_rng(0).random((8, 1, *models.spec.input.size), np.float32)
    answers = []
    for threads in THREADS[:2]:
        backend = models.load(device, threads, precision=precision)
        for batch in BATCHES:
            parts = [np.array(backend.run(inputs[n : n + batch])) for n in range(0, len(inputs), batch)]
            answers.append(np.concatenate(parts))
    return max(float(np.abs(one - answers[0]).max()) for one in answers)


def settings(folder: Path, scale: float) -> list[Setting]:
    """The engines that are here, on slices with the bundled model and on volumes with a small network."""
    write_slices(folder / "slices", max(4, round(SLICES * scale)))
    write_volumes(folder / "volumes", max(3, round(VOLUMES * scale)))
    solid = write_model(folder / "solid.onnx", volume_spec(32))
    kinds: list[tuple[str, Path, Path | None]] = [
        ("slices", folder / "slices", None), ("volumes", folder / "volumes", solid),
    ]  # fmt: skip
    return [Setting(f"{kind}, {engine}", inputs, model, device, precision)
            for kind, inputs, model in kinds for engine, (device, precision) in ENGINES.items()]  # fmt: skip


def run(scale: float = 1.0) -> dict[str, Any]:
    """All settings, as plain JSON."""
    start = time.perf_counter()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="determinism-") as name:
        folder = Path(name)
        for number, setting in enumerate(settings(folder, scale)):
            try:
                found[setting.name] = hold(setting, folder / f"out{number}")
            except UserError as error:
                found[setting.name] = {"not_here": error.problem}
    apart: dict[str, Any] = {}
    for device, precision in ENGINES.values():
        with contextlib.suppress(DeviceError):
            apart[f"{device} {precision}"] = logits_apart(device, precision)
    return {
        "machine": machine(),
        "versions": versions("segtool", "numpy", "onnxruntime", "openvino", "h5py"),
        "largest_difference_of_a_logit": apart,
        "segtool": __version__,
        "settings": {"batches": BATCHES, "threads": THREADS, "workers": WORKERS},
        "seconds": round(time.perf_counter() - start, 1),
        "held": found,
    }


def main() -> None:
    """Run it and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    result = run(parser.parse_args().scale)
    print(json.dumps(result, indent=2))
    print(save("reliability_determinism", result))


if __name__ == "__main__":
    main()
