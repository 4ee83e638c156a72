"""Inference engines, by name, each imported when it is first asked for."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from segtool.backends.base import INPUT, Backend, EngineOptions, Precision, check_graph, spec_of
from segtool.backends.fixed_batch import FixedBatchBackend
from segtool.backends.graph import Graph, read_graph
from segtool.errors import DeviceError, MissingDependencyError, ModelError
from segtool.spec import ModelSpec

Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
DEVICES: tuple[str, ...] = get_args(Device)
PRECISIONS: tuple[str, ...] = get_args(Precision)


def load_backend(
    model: Path,
    device: Device = "auto",
    threads: int | None = None,
    *,
    calls: int = 1,
    precision: Precision | None = None,
    log: Callable[[str], None] | None = None,
) -> Backend:
    """Load ``model`` on ``device``.

    ``cpu`` and ``cuda`` are ONNX Runtime's. ``tensorrt`` is TensorRT itself where its Python package is installed,
    else ONNX Runtime's provider. ``auto`` takes CUDA where the engine and the machine have it, else the CPU, and says
    why in the backend's ``why``. On a CPU it takes OpenVINO where that is installed, for files in fp32, and for those
    in int8 that were proved on it; else ONNX Runtime. Any other device is used or refused.

    Args:
        model: An ``.onnx`` file.
        device: Where to run.
        threads: CPU threads of one call; None for one a core.
        calls: Calls that will be made at the same time, on a CPU.
        precision: Refuse to compute in any other; None takes the file's own, or bf16 where OpenVINO has it and the
            export proved that masks stay.
        log: Told of what takes long.

    Raises:
        DeviceError: The device is not there; the line says why and what to install.
        MissingDependencyError: The engine is not installed.
        ModelError: The engine cannot load the file.
    """
    graph = read_graph(model)
    check_graph(model, graph)
    options = EngineOptions(threads, calls, precision)
    if log is not None:
        options = replace(options, log=log)
    backend = _load_any(model, graph, options) if device == "auto" else _LOADERS[device](model, graph, options)
    if precision is not None and precision not in backend.precision.split("+"):
        found = backend.precision
        backend.close()
        raise DeviceError(
            f"--precision {precision}: {backend.name} on {backend.device} computes {model} in {found}",
            "Pass --device openvino."
            if precision == "bf16"
            else f"Export the model with --precision {precision}, or leave --precision out.",
        )
    fixed = next(iter(graph.inputs[INPUT]), None)
    return backend if fixed is None else FixedBatchBackend(backend, fixed)


def _load_any(model: Path, graph: Graph, options: EngineOptions) -> Backend:
    """CUDA, else the CPU; ``why`` says why, and ``note`` where a GPU is left idle."""
    from segtool.backends.nvidia import driver

    try:
        gpu = driver().gpus[0]
    except OSError as error:
        backend = _best_cpu(model, graph, options)
        backend.why = "; ".join(filter(None, (f"auto: {error}", backend.why)))
        return backend
    try:
        backend = _cuda(model, graph, options)
        backend.why = f"auto: {gpu}"
    except (DeviceError, MissingDependencyError) as error:
        backend = _best_cpu(model, graph, options)
        backend.why = "; ".join(filter(None, (f"auto: the {gpu} cannot be used", backend.why)))
        backend.note = "; ".join(filter(None, (f"the {gpu} is not used: {error}", backend.note)))
    return backend


def _best_cpu(model: Path, graph: Graph, options: EngineOptions) -> Backend:
    """OpenVINO for bf16, and for what it computes as ONNX Runtime does and faster; else whichever is there."""
    if find_spec("openvino") is None:
        return _cpu(model, graph, options)
    if find_spec("onnxruntime") is None:
        backend = _openvino(model, graph, options)
        backend.why = "; ".join(filter(None, ("onnxruntime is not installed", backend.why)))
        return backend
    if options.precision == "bf16":
        return _openvino(model, graph, options)
    if options.precision == "fp16" or not _openvino_is_meant(model, graph):
        return _cpu(model, graph, options)
    try:
        return _openvino(model, graph, options)
    except (MissingDependencyError, ModelError, DeviceError) as error:
        backend = _cpu(model, graph, options)
        backend.note = f"openvino is not used: {error}"
        return backend


def _openvino_is_meant(model: Path, graph: Graph) -> bool:
    """For files in fp32, and for those in int8 that their export proved on it."""
    if graph.precision == "fp32":
        return True
    spec = spec_of(model, graph)
    if spec is None or not any(spec.is_proved("openvino", computing) for computing in ("int8", "int8+bf16")):
        return False
    from segtool.backends.openvino_engine import computes_bf16

    try:
        return spec.is_proved("openvino", "int8") or computes_bf16()
    except MissingDependencyError:
        return False


def runnable(backend: Backend, spec: ModelSpec) -> ModelSpec:
    """The spec as the backend can run it: an engine of TensorRT takes one extent, and no whole cases."""
    return spec.in_windows() if "tensorrt" in backend.name else spec


def _cpu(model: Path, graph: Graph, options: EngineOptions) -> Backend:
    from segtool.backends.onnx_runtime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, graph, "cpu", options)


def _cuda(model: Path, graph: Graph, options: EngineOptions) -> Backend:
    from segtool.backends.onnx_runtime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, graph, "cuda", options)


def _openvino(model: Path, graph: Graph, options: EngineOptions) -> Backend:
    from segtool.backends.openvino_engine import OpenVinoBackend

    return OpenVinoBackend(model, graph, options)


def _tensorrt(model: Path, graph: Graph, options: EngineOptions) -> Backend:
    if find_spec("tensorrt") is None and find_spec("tensorrt_rtx") is None:
        from segtool.backends.onnx_runtime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(model, graph, "tensorrt", options)
    from segtool.backends.tensorrt_engine import TensorRtBackend

    return TensorRtBackend(model, graph, options)


_LOADERS: dict[str, Callable[[Path, Graph, EngineOptions], Backend]] = {
    "cpu": _cpu,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "openvino": _openvino,
}
