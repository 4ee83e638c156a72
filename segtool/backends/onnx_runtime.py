"""ONNX Runtime on a CPU or, through its CUDA or TensorRT provider, on a GPU."""

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from segtool.backends.arrays import gpu_arrays
from segtool.backends.base import INPUT, OUTPUT, EngineOptions
from segtool.backends.graph import Graph
from segtool.backends.nvidia import DRIVER_REMEDY, driver
from segtool.errors import DeviceError, MissingDependencyError, ModelError, UserError

Provider = Literal["cpu", "cuda", "tensorrt"]

_PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_BELOW: dict[Provider, tuple[Provider, ...]] = {"cpu": (), "cuda": ("cpu",), "tensorrt": ("cuda", "cpu")}
"""Who takes the operators that a provider leaves, such as arithmetic on shapes."""
_FATAL_ONLY = 4  # ORT's log level; its own lines would otherwise reach the terminal beside our error
_GPU_INSTALL = "pip uninstall -y onnxruntime && pip install 'segtool[gpu]'"


def providers() -> tuple[str, ...]:
    """Those that this build of ONNX Runtime has, by their names here: ``cpu``, ``cuda``, ``tensorrt``.

    Raises:
        MissingDependencyError: It is not installed.
    """
    available = _import().get_available_providers()
    return tuple(name for name, known in _PROVIDERS.items() if known in available)


def _import() -> Any:  # noqa: ANN401 - the module has no types
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"onnxruntime cannot be imported ({error}), which runs the model",
            "Install it with: pip install 'segtool[cpu]' (or 'segtool[gpu]' on a CUDA machine)",
        ) from error
    # Of no consequence where `segtool` was imported first, which keeps it from beginning.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class OnnxRuntimeBackend:
    """One session. Which provider it really got is read back, because ORT falls back to the CPU in silence."""

    def __init__(self, model: Path, graph: Graph, provider: Provider, options: EngineOptions) -> None:
        ort = _import()
        self.version: str = ort.__version__
        self.name = "onnxruntime-tensorrt" if provider == "tensorrt" else "onnxruntime"
        self.why = self.note = ""
        said = "" if provider == "cpu" else self._prepare(ort, provider)
        settings = ort.SessionOptions()
        settings.log_severity_level = _FATAL_ONLY
        settings.intra_op_num_threads = options.threads or 0
        self.device = "cpu" if provider == "cpu" else "cuda"
        self.precision = graph.precision
        self.xp: ModuleType = np if self.device == "cpu" else gpu_arrays() or np
        # A CUDA graph reads and writes where it was recorded, so that it needs arrays that stay: cupy's.
        self._shapes = _fixed_shapes(graph) if provider == "cuda" and self.xp is not np else None
        self._session: Any = None
        self._arrays: tuple[Any, Any] | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._classes = graph.outputs[OUTPUT][1] if len(graph.outputs[OUTPUT]) > 1 else None
        self._memory = "cuda"
        self._gpu = Lock()
        try:
            self._session = self._start(ort, model, graph, provider, settings)
        except UserError:
            raise
        except Exception as error:
            raise ModelError(
                f"{model}: onnxruntime {self.version} cannot load it ({error})",
                "Export it again with another --opset, or update onnxruntime.",
            ) from error
        got = self._session.get_providers()
        if _PROVIDERS[provider] not in got:
            raise DeviceError(
                f"--device {provider}: onnxruntime {self.version} has the provider but could not start it; it got "
                f"{', '.join(got)} ({said or 'a CUDA, cuDNN or TensorRT library is missing'})",
                f"Install the libraries with: {_GPU_INSTALL}, or pass --device cpu.",
            )

    def _start(self, ort: Any, model: Path, graph: Graph, provider: Provider, settings: Any) -> Any:  # noqa: ANN401 - the module has no types
        """A session; one with a CUDA graph where shapes are fixed and the GPU takes all operators."""
        wanted = [(_PROVIDERS[name], _settings(name, model, graph)) for name in (provider, *_BELOW[provider])]
        if self._shapes is not None:
            (name, options), *below = wanted
            recording = [(name, options | {"enable_cuda_graph": "1"}), *below]
            try:
                self._session = ort.InferenceSession(str(model), settings, providers=recording)
                self._record(self._shapes[0])
            except Exception as error:  # noqa: BLE001 - a fault of the file's own comes again below
                self.close()
                reason = str(error).splitlines()[0]
                self.note, self._shapes = f"onnxruntime runs without a CUDA graph: {reason}", None
            else:
                return self._session
        return ort.InferenceSession(str(model), settings, providers=wanted)

    def _prepare(self, ort: Any, provider: Provider) -> str:  # noqa: ANN401 - the module has no types
        """Check what can be checked before, and load CUDA's libraries; returns what ORT said of those it lacks."""
        if provider not in providers():
            raise DeviceError(
                f"--device {provider}: onnxruntime {self.version} here is a build without that provider "
                f"(it has: {', '.join(providers())})",
                f"Install another with: {_GPU_INSTALL}, or pass --device cpu.",
            )
        try:
            driver()
        except OSError as error:
            raise DeviceError(
                f"--device {provider}: there is no GPU to use ({error})", f"{DRIVER_REMEDY}, or pass --device cpu."
            ) from error
        if not hasattr(ort, "preload_dlls"):  # 1.21 and newer find the libraries of NVIDIA's wheels this way
            return ""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ort.preload_dlls()
        return said.getvalue().strip()

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32."""
        if self._session is None:
            raise RuntimeError("the engine is closed")
        if self.xp is np:
            return cast("npt.NDArray[Any]", self._session.run([OUTPUT], {INPUT: batch})[0])
        return self._run_on_device(batch)

    def _run_on_device(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As :meth:`run`, from and to the GPU's memory."""
        device_batch = cast("Any", self.xp.ascontiguousarray(batch))
        if self._classes is None:
            answer = self._session.run([OUTPUT], {INPUT: device_batch.get()})[0]
            return cast("npt.NDArray[Any]", self.xp.asarray(answer))
        with self._gpu:
            image, logits = self._bound(device_batch)
            # The session computes on a stream of its own.
            stream = self.xp.cuda.get_current_stream()
            stream.synchronize()
            binding = self._session.io_binding()
            for bind, name, array in ((binding.bind_input, INPUT, image), (binding.bind_output, OUTPUT, logits)):
                bind(name, self._memory, 0, np.float32, array.shape, array.data.ptr)
            if self._worker is None:
                self._session.run_with_iobinding(binding)
            else:
                self._worker.submit(self._session.run_with_iobinding, binding).result()
            if self._shapes is not None:
                logits = logits.copy()
                stream.synchronize()
        return cast("npt.NDArray[Any]", logits)

    def _record(self, shape: tuple[int, ...]) -> None:
        """Record the CUDA graph, now and in a thread of its own; what it gains has not been measured.

        ORT keeps one a thread, records it in the first call, and fails where anybody allocates on the GPU meanwhile.
        """
        self._worker = ThreadPoolExecutor(1)
        self.run(cast("Any", self.xp).zeros(shape, self.xp.float32))

    def _bound(self, batch: Any) -> tuple[Any, Any]:  # noqa: ANN401 - arrays of cupy, which has no types
        """Input and output: of this call, or the same in all calls, which a CUDA graph reads and writes."""
        if self._shapes is None:
            return batch, self.xp.empty((len(batch), self._classes, *batch.shape[2:]), self.xp.float32)
        if self._arrays is None:
            image, logits = (self.xp.empty(shape, self.xp.float32) for shape in self._shapes)
            self._arrays = image, logits
        self._arrays[0][...] = batch
        return self._arrays

    def close(self) -> None:
        """Let go of the session."""
        if self._worker is not None:
            self._worker.shutdown()
        self._session = self._arrays = self._worker = None


def _fixed_shapes(graph: Graph) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Of input and output, where the graph fixes every axis."""
    image, logits = (tuple(n for n in dims if n is not None) for dims in (graph.inputs[INPUT], graph.outputs[OUTPUT]))
    fixed = image and (len(image), len(logits)) == (len(graph.inputs[INPUT]), len(graph.outputs[OUTPUT]))
    return (image, logits) if fixed else None


def _settings(provider: Provider, model: Path, graph: Graph) -> dict[str, str]:
    if provider == "cpu":
        return {}
    if provider == "cuda":
        # TF32 keeps 10 bits of each factor: fp32 in name only.
        return {"device_id": "0", "use_tf32": "0"}
    from segtool.backends.engine_cache import EngineCache, model_sha256

    # ONNX Runtime names its engines by the graph alone: with other weights in it, it would load the old ones.
    folder = EngineCache().make_folder(f"onnxruntime-{model_sha256(model, graph.external)[:32]}")
    on = dict.fromkeys(("trt_engine_cache_enable", "trt_timing_cache_enable"), "True")
    # The graph says where it is half precision; without these the builder refuses its types.
    on |= {f"trt_{kind}_enable": str(graph.precision == kind) for kind in ("fp16", "int8")}
    return {"device_id": "0", **on, "trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}
