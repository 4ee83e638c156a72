"""A TensorRT engine of a model file, in this machine's cache, that has proved itself."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from segtool.backends import load_backend
from segtool.backends.base import Backend
from segtool.backends.engine_cache import EngineCache, EngineKey
from segtool.backends.graph import read_graph
from segtool.backends.nvidia import DRIVER_REMEDY, driver
from segtool.backends.tensorrt_build import load_bindings
from segtool.backends.tensorrt_engine import engine_key
from segtool.errors import DeviceError, ModelError, UsageError
from segtool.model_file import read_spec
from segtool.spec import ModelSpec
from segtool_export.cases import Sample, folder_samples, validation_samples
from segtool_export.parity import AnyArray, Original, Parity, compare_case
from segtool_export.precision import Precision
from segtool_export.triton import write_repository
from segtool_train.run_folder import RunFolder

_SAMPLES = {2: 64, 3: 4}  # by rank, as an export is compared on


@dataclass(frozen=True)
class Engine:
    """What was built or found, the proof that it segments as ONNX Runtime does, and where Triton finds it."""

    model: Path
    path: Path
    key: EngineKey
    bytes: int
    elapsed_s: float
    parity: Parity
    served: Path | None = None

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "model": str(self.model),
            "engine": str(self.path),
            "size_bytes": self.bytes,
            "elapsed_s": round(self.elapsed_s, 1),
            **self.key.facts(),
            "triton": None if self.served is None else str(self.served),
            "parity": self.parity.to_provenance(),
        }

    def table(self) -> str:
        """For a reader."""
        parity = self.parity
        return "\n".join(
            (
                f"engine  {self.key.engine}   {self.key.gpu}   {self.key.precision}   {self.key.profile}   "
                f"{self.bytes / 1e6:.1f} MB in {self.elapsed_s:.0f} s",
                f"parity  {parity.against} against {parity.engine} on {len(parity.cases)} samples",
                f"        mask Dice worst {parity.worst.mask_dice:.6f}, mean {parity.mean_dice:.6f}; "
                f"logits differ by up to {parity.max_abs_diff:.2g}",
                *([] if self.served is None else [f"triton  {self.served}"]),
                f"done    {self.path}",
            )
        )


def build_engine(source: Path, cases: Path | None, log: Callable[[str], None], triton: Path | None = None) -> Engine:
    """Build the engine that ``--device tensorrt`` will load here, unless the cache has it, and compare it.

    Args:
        source: A model file, or the folder of a run that has been exported.
        cases: Scans to compare on; None takes the run's validation cases.
        log: Told how far the build is.
        triton: Repository of Triton's to add the engine to.

    Raises:
        OutputError: The repository cannot be written.
        UsageError: No cases to compare on.
        DeviceError: No GPU.
        MissingDependencyError: No TensorRT.
        ModelError: TensorRT cannot build it, or the engine's masks differ; it is then not kept.
    """
    model = source / "model.onnx" if source.is_dir() else source
    spec, graph = read_spec(model), read_graph(model)
    try:
        gpu = driver().gpus[0]
    except OSError as error:
        raise DeviceError(
            f"--tensorrt: an engine is built on the GPU that runs it, and there is none here ({error})",
            f"{DRIVER_REMEDY}, or build it on the machine that has one.",
        ) from error
    samples = _samples(source, spec, cases)
    key, cache = engine_key(load_bindings(), model, graph, gpu), EngineCache()
    start = time.perf_counter()
    backend = load_backend(model, "tensorrt", log=log)
    elapsed_s = time.perf_counter() - start
    parity = compare_backends(load_backend(model, "cpu"), backend, spec, samples, cast("Precision", graph.precision))
    failure = parity.failure()
    if failure is not None:
        cache.drop(key)
        raise ModelError(f"{model}: the engine is not kept, {failure.reason}", "Use --device cuda for this model.")
    path = cache.path(key)
    served = None if triton is None else _serve(model, cache, key, triton)
    return Engine(model, path, key, path.stat().st_size, elapsed_s, parity, served)


def _serve(model: Path, cache: EngineCache, key: EngineKey, folder: Path) -> Path:
    """Put the engine itself, without the cache's words about it, into a repository."""
    plan = cache.get(key)
    assert plan is not None, "it was loaded from there"
    with tempfile.TemporaryDirectory() as name:
        bare = Path(name) / "model.plan"
        bare.write_bytes(plan)
        return write_repository(model, folder, plan=bare)


def _samples(source: Path, spec: ModelSpec, cases: Path | None) -> Sequence[Sample]:
    limit = _SAMPLES[spec.input.rank]
    if cases is not None:
        return folder_samples(cases, spec, limit)
    if source.is_dir():
        return validation_samples(RunFolder(source), limit)
    raise UsageError(
        f"--tensorrt {source}: no scans to compare the engine with ONNX Runtime on", "Name a folder with --cases."
    )


def compare_backends(
    original: Backend, engine: Backend, spec: ModelSpec, samples: Sequence[Sample], precision: Precision
) -> Parity:
    """Two engines on the same samples, in inference's way."""
    with tempfile.TemporaryDirectory() as folder:
        sides = [_side(backend, Path(folder) / str(number)) for number, backend in enumerate((original, engine))]
        rows = []
        for index, sample in enumerate(samples):
            before, after = (side.logits(index, sample, spec) for side in sides)
            rows.append(compare_case(sample, before, after, spec))
    return Parity(precision, sides[1].name, tuple(rows), sides[0].name)


def _side(backend: Backend, folder: Path) -> Original:
    folder.mkdir()

    def run(batch: AnyArray) -> AnyArray:
        xp = cast("Any", backend.xp)
        answer = backend.run(xp.asarray(batch))
        return answer if xp.__name__ == "numpy" else cast("AnyArray", xp.asnumpy(answer))

    return Original(run, f"{backend.name} {backend.version} {backend.device} {backend.precision}", folder)
