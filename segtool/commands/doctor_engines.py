"""The engines' part of ``segtool doctor``: which are here, whether they work, and what installs them."""

import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from segtool.commands.finding import Finding
from segtool.machine import version_of

if TYPE_CHECKING:
    from segtool.backends import Device
    from segtool.backends.base import Precision
    from segtool.spec import ModelSpec


def engines() -> Iterator[Finding]:
    """ONNX Runtime with its providers, OpenVINO, TensorRT, cupy."""
    yield from _onnxruntime()
    yield _openvino()
    yield _tensorrt()
    yield _cupy()


def _onnxruntime() -> Iterator[Finding]:
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if version_of(name)]
    if len(builds) == 2:
        yield Finding(
            "onnxruntime",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
            "note",
            "Keep one: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'segtool[gpu]' (or [cpu])",
        )
    try:
        import onnxruntime
    except ImportError as error:
        reason = "not installed" if util.find_spec("onnxruntime") is None else f"cannot be imported ({error})"
        yield Finding(
            "onnxruntime",
            reason,
            "missing" if util.find_spec("openvino") else "failed",
            "Install it with: pip install 'segtool[cpu]' (CUDA: 'segtool[gpu]')",
        )
    else:
        providers = (name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
        yield Finding("onnxruntime", f"{onnxruntime.__version__}, providers: {', '.join(providers)}")


def _openvino() -> Finding:
    from segtool.backends.openvino_engine import import_openvino, the_core
    from segtool.errors import MissingDependencyError

    install = "Install it with: pip install 'segtool[openvino]'"
    if util.find_spec("openvino") is None:
        return Finding("openvino", "not installed; the quickest engine of most CPUs", "missing", install)
    try:
        openvino = import_openvino()
    except MissingDependencyError as error:
        return Finding("openvino", error.problem, "note", install)
    able = the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    kinds = [ours for ours, theirs in (("fp32", "FP32"), ("bf16", "BF16")) if theirs in able]
    return Finding("openvino", f"{openvino.__version__.partition('-')[0]}, cpu: {', '.join(kinds)}")


def _tensorrt() -> Finding:
    from segtool.backends.tensorrt_build import load_bindings
    from segtool.errors import MissingDependencyError

    install = "Install it with: pip install 'segtool[tensorrt]'"
    if util.find_spec("tensorrt") is None and util.find_spec("tensorrt_rtx") is None:
        return Finding(
            "tensorrt", "not installed; the quickest engine of NVIDIA GPUs", "ok" if _no_gpu() else "missing", install
        )
    try:
        bindings = load_bindings()
    except MissingDependencyError as error:
        return Finding("tensorrt", error.problem, "note", install)
    reason = _no_gpu()
    return Finding("tensorrt", bindings.engine + (f", nothing to run on ({reason})" if reason else ""))


def _cupy() -> Finding:
    from segtool.backends.arrays import gpu_arrays

    install = "Install it with: pip install 'segtool[gpu]'"
    if util.find_spec("cupy") is None:
        return Finding(
            "cupy", "not installed; keeps arrays on a GPU between the steps", "ok" if _no_gpu() else "missing", install
        )
    if (reason := _no_gpu()) is not None:
        return Finding("cupy", f"{version_of('cupy-cuda13x') or 'installed'}, nothing to run on ({reason})")
    arrays = gpu_arrays()
    if arrays is None:
        return Finding("cupy", "cannot use the GPU: made for another CUDA than the driver's", "note", install)
    return Finding("cupy", arrays.__version__)


def _no_gpu() -> str | None:
    """Why there is no GPU, None where there is one."""
    from segtool.backends.nvidia import driver

    try:
        driver()
    except OSError as error:
        return str(error)
    return None


def gpu() -> Iterator[Finding]:
    """CUDA GPUs as the driver lists them, and whether ONNX Runtime can use them."""
    from segtool.backends.nvidia import driver

    try:
        found = driver()
    except OSError as error:
        yield Finding("gpu", f"no CUDA ({error})")
        return
    names = ", ".join(f"{one} (compute {one.capability})" for one in found.gpus)
    yield Finding("gpu", f"{names}; the driver supports CUDA {found.cuda}")
    if util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        yield Finding(
            "gpu",
            "onnxruntime here cannot use it",
            "note",
            "Replace it with: pip uninstall -y onnxruntime && pip install 'segtool[gpu]'",
        )


def trial_run() -> Iterator[Finding]:
    """Load the bundled model as ``segtool predict`` does and run it twice on one small input."""
    from segtool.bundled import default_model
    from segtool.errors import UserError
    from segtool.model_file import read_spec

    try:
        path = default_model()
        yield _trial("trial run", path, read_spec(path), "auto")
    except UserError as error:
        yield Finding("trial run", error.problem, "failed", error.remedy)


def other_trials() -> Iterator[Finding]:
    """The same on every further engine that is installed and starts at once; TensorRT builds for minutes first."""
    from segtool.bundled import default_model
    from segtool.errors import UserError
    from segtool.model_file import read_spec

    further: list[tuple[Device, Precision]] = []
    if util.find_spec("openvino") is not None:
        further += [("openvino", "fp32"), ("openvino", "bf16")]
    if _no_gpu() is None:
        further += [("cpu", "fp32")]
    for device, precision in further:
        try:
            path = default_model()
            yield _trial(f"trial {device}", path, read_spec(path), device, precision)
        except UserError as error:
            yield Finding(f"trial {device}", error.problem, "note", error.remedy)


def _trial(
    about: str, path: Path, spec: "ModelSpec", device: "Device", precision: "Precision | None" = None
) -> Finding:
    import numpy as np

    from segtool.backends import load_backend

    backend = load_backend(path, device, precision=precision)
    xp = backend.xp
    extent = spec.extent
    batch = np.random.default_rng(0).standard_normal((1, len(spec.channels), *extent)).astype(np.float32)
    backend.run(xp.asarray(batch))  # the first run also plans memory
    start = time.perf_counter()
    logits = backend.run(xp.asarray(batch))
    finite = bool(xp.isfinite(logits).all())  # read back, so that a GPU has finished
    elapsed_s = time.perf_counter() - start
    shape = logits.shape
    backend.close()
    what = f"{spec.name} on {backend.device}"
    wanted = (1, spec.output_channels, *extent)
    if shape != wanted or not finite:
        return Finding(
            about,
            f"{what} gives {shape} with numbers that are not finite or of another shape than {wanted}",
            "failed",
            "Install again with: pip install --force-reinstall segtool",
        )
    engine = f"{backend.name} {backend.precision}"
    return Finding(about, f"{what}, {engine}, {elapsed_s * 1e3:.0f} ms for {'x'.join(str(n) for n in extent)}")
