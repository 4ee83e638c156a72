"""TensorRT itself, on a GPU, with engines from the cache."""

from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, cast

import numpy.typing as npt

from segtool.backends.arrays import gpu_arrays
from segtool.backends.base import INPUT, OUTPUT, EngineOptions
from segtool.backends.engine_cache import EngineCache, EngineKey, file_sha256
from segtool.backends.graph import Graph
from segtool.backends.nvidia import DRIVER_REMEDY, Gpu, driver
from segtool.backends.tensorrt_build import Bindings, build_plan, load_bindings, shape_profile, timing_cache_name
from segtool.errors import DeviceError, MissingDependencyError


def engine_key(bindings: Bindings, model: Path, graph: Graph, gpu: Gpu) -> EngineKey:
    """The key of the engine that this machine needs for the model."""
    profile = shape_profile(model, graph)
    return EngineKey(file_sha256(model), bindings.engine, gpu.name, gpu.capability, graph.precision, profile)


class TensorRtBackend:
    """One engine, one execution context, one stream."""

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
                if not self._context.set_input_shape(INPUT, batch.shape):
                    raise DeviceError(
                        f"--device tensorrt: the engine takes no input of shape {batch.shape}",
                        "Pass --device cuda for inputs other than the model's own.",
                    )
                logits = xp.empty(tuple(self._context.get_tensor_shape(OUTPUT)), xp.float32)
                for name, array in ((INPUT, cast("Any", batch)), (OUTPUT, logits)):
                    self._context.set_tensor_address(name, array.data.ptr)
                if not self._context.execute_async_v3(self._stream.ptr):
                    raise DeviceError(
                        f"--device tensorrt: the engine failed ({'; '.join(self._logger.errors)})",
                        "Pass a smaller --batch, or --device cuda.",
                    )
                self._stream.synchronize()
        return cast("npt.NDArray[Any]", logits[:count])

    def close(self) -> None:
        """Give the engine's memory back."""
        self._context = self._engine = None
