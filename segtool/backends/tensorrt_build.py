"""Builds TensorRT engines: one code path for TensorRT 8.6 to 11 and TensorRT-RTX.

Where the graph is half precision the engine is too. From version 10 on networks are strongly typed; before, a flag
allows the types that the graph has. TF32, which keeps 10 bits of each factor, is switched off: fp32 means fp32.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from segtool.atomic import atomic_path
from segtool.backends.base import INPUT
from segtool.backends.engine_cache import ShapeProfile
from segtool.backends.graph import Graph
from segtool.errors import MissingDependencyError, ModelError
from segtool.spec import ModelSpec

SLICES = 8
"""Slices that an engine takes at once; a larger batch runs in parts."""
WORKSPACE_BYTES = 4 * 2**30
_MODULES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_PROGRESS_S = 5.0
_FIRST_STRONGLY_TYPED = 10

Log = Callable[[str], None]


class Bindings:
    """TensorRT's Python module, and what it is called and able to.

    Attributes:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        name: ``tensorrt`` or ``tensorrt-rtx``.
        version: Its version.
        typed: Networks keep the graph's types, without flags.
    """

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - the module has no types
        self.module = module
        self.name = _MODULES[module.__name__]
        self.version: str = module.__version__
        self.rtx = self.name == "tensorrt-rtx"
        self.typed = self.rtx or int(self.version.split(".")[0]) >= _FIRST_STRONGLY_TYPED

    @property
    def engine(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    def logger(self) -> Any:  # noqa: ANN401 - a class of the module, which has no types
        """A logger that keeps errors in ``errors`` and prints nothing."""
        trt = self.module
        worst = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

        class Errors(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.errors: list[str] = []

            def log(self, severity: object, message: str) -> None:
                if severity in worst:
                    self.errors.append(message)

        return Errors()


def load_bindings() -> Bindings:
    """TensorRT, or else TensorRT-RTX.

    Raises:
        MissingDependencyError: Neither can be imported; the line has the reasons.
    """
    reasons = []
    for name in _MODULES:
        try:
            return Bindings(import_module(name))
        except ImportError as error:
            # Bindings without the libraries name the library here.
            reasons.append(f"{name}: {error}")
    raise MissingDependencyError(
        f"TensorRT cannot be imported ({'; '.join(reasons)})", "Install it with: pip install 'segtool[tensorrt]'"
    )


def shape_profile(model: Path, graph: Graph) -> ShapeProfile:
    """The shapes that the model's spec asks for: any batch of slices up to :data:`SLICES`, or one window.

    Raises:
        ModelError: The file has neither a spec nor a fixed input.
    """
    text = graph.metadata.get(ModelSpec.KEY)
    if text is None:
        dims = [n for n in graph.inputs[INPUT] if n is not None]
        if not dims or len(dims) < len(graph.inputs[INPUT]):
            raise ModelError(
                f"{model}: no spec says for which input an engine is to be built", "Export it with `segtool export`."
            )
        return ShapeProfile(tuple(dims), tuple(dims), tuple(dims))
    spec = ModelSpec.from_json(text, str(model))
    one = (len(spec.channels), *(spec.extent))
    fixed = next(iter(graph.inputs[INPUT]), None)
    batch = fixed or (SLICES if spec.input.rank == 2 else 1)
    return ShapeProfile((fixed or 1, *one), (batch, *one), (batch, *one))


def build_plan(
    bindings: Bindings,
    model: Path,
    graph: Graph,
    profile: ShapeProfile,
    log: Log = lambda _line: None,
    timing_cache: Path | None = None,
    workspace_bytes: int = WORKSPACE_BYTES,
) -> bytes:
    """Build an engine; TensorRT-RTX does so without a GPU too.

    Args:
        bindings: TensorRT.
        model: The ``.onnx`` file.
        graph: Its facts.
        profile: The shapes it is for.
        log: Told how far it is, every few seconds.
        timing_cache: Measured kernels, read and written; makes the next build quicker.
        workspace_bytes: The most memory that a kernel may use.

    Returns:
        The serialised engine.

    Raises:
        ModelError: TensorRT cannot read the graph or build from it.
    """
    trt, logger = bindings.module, bindings.logger()
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(bindings))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(os.fspath(model)):
        faults = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise ModelError(
            f"{model}: {bindings.engine} cannot read the graph ({faults})",
            "Export it with another --opset, or use --device cuda.",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)
    if not bindings.typed and graph.precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16 if graph.precision == "fp16" else trt.BuilderFlag.INT8)
    shapes = builder.create_optimization_profile()
    shapes.set_shape(INPUT, profile.smallest, profile.usual, profile.largest)
    config.add_optimization_profile(shapes)
    if hasattr(config, "progress_monitor"):  # TensorRT 9 and newer
        config.progress_monitor = _monitor(trt, log)
    with _timing_cache(bindings, config, timing_cache):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        why = "; ".join(logger.errors) or "it gives no reason"
        raise ModelError(f"{model}: {bindings.engine} cannot build an engine ({why})", "Use --device cuda.")
    return bytes(plan)


def _network_flags(bindings: Bindings) -> int:
    """Versions below 10 want to be told of the batch axis, 10 of the graph's types; later ones know both."""
    kinds = bindings.module.NetworkDefinitionCreationFlag
    name = "STRONGLY_TYPED" if bindings.typed else "EXPLICIT_BATCH"
    return 1 << int(getattr(kinds, name)) if hasattr(kinds, name) else 0


def _monitor(trt: Any, log: Log) -> Any:  # noqa: ANN401 - the module has no types
    start = last = time.monotonic()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
            self._steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            nonlocal last
            if (now := time.monotonic()) - last > _PROGRESS_S:
                last = now
                log(f"building engine: {phase.lower()} {step + 1}/{self._steps.get(phase, 0)}, {now - start:.0f} s")
            return True

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()


@contextlib.contextmanager
def _timing_cache(bindings: Bindings, config: Any, path: Path | None) -> Iterator[None]:  # noqa: ANN401 - as above
    """Let the build use the kernel times in ``path``, and keep what it measured."""
    if path is None or bindings.rtx:  # RTX measures on the first run, not in the build
        yield
        return
    # Refused by TensorRT itself where it is another version's or GPU's: it then starts empty.
    config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.is_file() else b""), False)
    yield
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(config.get_timing_cache().serialize()))


def timing_cache_name(bindings: Bindings, gpu: str) -> str:
    """One file a version and GPU."""
    return re.sub(r"[^\w.-]+", "-", f"timing-{bindings.engine}-{gpu}.cache")
