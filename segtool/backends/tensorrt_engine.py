"""TensorRT itself, on a GPU, with engines from the cache."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, cast

import numpy.typing as npt

from segtool.backends.arrays import gpu_arrays
from segtool.backends.base import INPUT, OUTPUT, EngineOptions
from segtool.backends.engine_cache import EngineCache, EngineKey, model_sha256
from segtool.backends.graph import Graph
from segtool.backends.nvidia import DRIVER_REMEDY, Gpu, driver
from segtool.backends.tensorrt_build import Bindings, build_plan, load_bindings, shape_profile, timing_cache_name
from segtool.errors import DeviceError, MissingDependencyError
from segtool.spec import ModelSpec


def engine_key(bindings: Bindings, model: Path, graph: Graph, gpu: Gpu) -> EngineKey:
    """The key of the engine that this machine needs for the model."""
    profile = shape_profile(model, graph)
    text = graph.metadata.get(ModelSpec.KEY)
    name = model.stem if text is None else ModelSpec.from_json(text, str(model)).name
    checksum = model_sha256(model, graph.external)
    return EngineKey(name, checksum, bindings.engine, gpu.name, gpu.capability, graph.precision, profile)


@dataclass(frozen=True)
class _Replay:
    """One shape's arrays on the GPU, and the CUDA graph of a run from one to the other."""

    image: Any
    logits: Any
    graph: Any


class TensorRtBackend:
    """One engine, one execution context, one stream.

    An engine's shapes are few: each is run as a CUDA graph, recorded when it first comes, which spares the launch of
    every kernel. What that gains has not been measured.
    """

    def __init__(self, model: Path, graph: Graph, options: EngineOptions) -> None:
        bindings, gpu, self.xp = self._needs()
        self.name, self.version, self.device = bindings.name, bindings.version, "cuda"
        self.precision, self.why, self.note = graph.precision, "", ""
        key = engine_key(bindings, model, graph, gpu)
        self._largest = key.profile.largest[0]
        self._smallest = key.profile.smallest[0]
        cache = EngineCache()

        def build() -> bytes:
            options.log(f"building a {bindings.engine} engine of {model} for {gpu.name}; it is kept for the next time")
            timings = cache.folder / timing_cache_name(bindings, gpu.name)
            return build_plan(bindings, model, graph, key.profile, options.log, timings)

        self._logger = bindings.logger()
        self._runtime = bindings.module.Runtime(self._logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(cache.get_or_build(key, build, options.log))
        if self._engine is None:
            # A new driver may refuse what an older one took: once more from the model itself.
            cache.drop(key)
            self._engine = self._runtime.deserialize_cuda_engine(cache.get_or_build(key, build, options.log))
        if self._engine is None:
            raise DeviceError(
                f"--device tensorrt: {bindings.engine} does not run on the {gpu.name} "
                f"({'; '.join(self._logger.errors) or 'it gives no reason'})",
                "Install a version for this GPU and driver, or pass --device cuda.",
            )
        self._context: Any = self._engine.create_execution_context()
        self._stream: Any = cast("Any", self.xp).cuda.Stream(non_blocking=True)
        self._replays: dict[tuple[int, ...], _Replay] = {}
        # RTX compiles kernels as it runs, which a graph would have to wait for.
        self._records = not bindings.rtx
        self._gpu = Lock()

    @staticmethod
    def _needs() -> tuple[Bindings, Gpu, ModuleType]:
        try:
            gpu = driver().gpus[0]
        except OSError as error:
            raise DeviceError(
                f"--device tensorrt: there is no GPU to use ({error})", f"{DRIVER_REMEDY}, or pass --device cpu."
            ) from error
        bindings, arrays = load_bindings(), gpu_arrays()
        if arrays is None:
            raise MissingDependencyError(
                "--device tensorrt: cupy is not installed or does not fit the driver, which holds arrays on the GPU",
                "Install it with: pip install 'segtool[tensorrt]'",
            )
        return bindings, gpu, arrays

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32, both on the GPU; large batches in parts."""
        xp = cast("Any", self.xp)
        if self._context is None:
            raise RuntimeError("the engine is closed")
        parts = [self._run(batch[start : start + self._largest]) for start in range(0, len(batch), self._largest)]
        return cast("npt.NDArray[Any]", parts[0] if len(parts) == 1 else xp.concatenate(parts))

    def _run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        xp, count = cast("Any", self.xp), len(batch)
        if count < self._smallest:  # a graph of fixed batch
            batch = xp.concatenate([batch, xp.zeros((self._smallest - count, *batch.shape[1:]), xp.float32)])
        batch = xp.ascontiguousarray(batch)
        with self._gpu:
            made = xp.cuda.get_current_stream().record()
            with self._stream:
                self._stream.wait_event(made)
                logits = self._answer(batch)
                self._stream.synchronize()
        return cast("npt.NDArray[Any]", logits[:count])

    def _answer(self, batch: npt.NDArray[Any]) -> Any:  # noqa: ANN401 - an array of cupy, which has no types
        """Logits in an array of their own; to be called with the stream current, which must then be waited for."""
        replay = self._replays.get(batch.shape)
        if replay is not None:
            replay.image[...] = batch
            replay.graph.launch(self._stream)
            return replay.logits.copy()
        image = cast("Any", batch).copy()  # where a graph will find its input
        logits = self._enqueue(image)
        graph = self._recorded() if self._records else None
        if graph is None:
            return logits
        self._replays[batch.shape] = _Replay(image, logits, graph)
        return logits.copy()

    def _enqueue(self, image: Any) -> Any:  # noqa: ANN401 - arrays of cupy
        if not self._context.set_input_shape(INPUT, image.shape):
            raise DeviceError(
                f"--device tensorrt: the engine takes no input of shape {image.shape}",
                "Pass --device cuda for inputs other than the model's own.",
            )
        xp = cast("Any", self.xp)
        logits = xp.empty(tuple(self._context.get_tensor_shape(OUTPUT)), xp.float32)
        for name, array in ((INPUT, image), (OUTPUT, logits)):
            self._context.set_tensor_address(name, array.data.ptr)
        if not self._context.execute_async_v3(self._stream.ptr):
            raise DeviceError(
                f"--device tensorrt: the engine failed ({'; '.join(self._logger.errors)})",
                "Pass a smaller --batch, or --device cuda.",
            )
        return logits

    def _recorded(self) -> Any:  # noqa: ANN401 - a graph of cupy, or None
        """What was just enqueued as a CUDA graph; None where the engine cannot be recorded, which ``note`` then says.

        TensorRT wants a shape to be run once before it is recorded.
        """
        try:
            self._stream.begin_capture()
            try:
                taken = self._context.execute_async_v3(self._stream.ptr)
            finally:
                graph = self._stream.end_capture()
        except RuntimeError as error:  # as cupy passes on what CUDA says
            taken, reason = False, str(error)
        else:
            reason = "; ".join(self._logger.errors)
        if taken:
            return graph
        self._records = False
        self.note = f"tensorrt runs without CUDA graphs: {reason or 'it gives no reason'}"
        return None

    def close(self) -> None:
        """Give the engine's memory back."""
        self._replays.clear()
        self._context = self._engine = None
