"""OpenVINO on a CPU: reads the ONNX file as it is and has the fastest kernels for most processors."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import ModuleType
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from segtool.backends.base import INPUT, OUTPUT, EngineOptions, spec_of
from segtool.backends.graph import Graph
from segtool.backends.openvino_check import check_int8
from segtool.backends.openvino_graph import join_norms, without_joins
from segtool.errors import DeviceError, MissingDependencyError, ModelError
from segtool.spec import ModelSpec

_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""Our names of the arithmetic it is asked for, and OpenVINO's."""
_NEWEST_OPERATORS = 28
"""Operator set of ONNX 1.23. OpenVINO reads a file of any later one without a word, by the rules that it knows."""
_EXTENTS_KEPT = 64
"""Compiled parts that stay for extents seen before: whole cases have as many extents as there are heads."""
_UNWRITTEN = np.array(0x7FC5E601, np.uint32)
"""Bits of a NaN that no arithmetic makes."""
_STARTING = Lock()


@contextmanager
def _without_converter() -> Iterator[None]:
    """Hide OpenVINO's model converter while OpenVINO is imported.

    Importing it reports the use of OpenVINO to its maker over the network and leaves files in the home folder. A
    tool for patients' data does neither; and the import takes half as long.
    """
    converter = "openvino.tools.ovc"
    if converter in sys.modules:
        yield
        return
    sys.modules[converter] = cast("ModuleType", None)  # Python's own way to say that a module is not there
    try:
        yield
    finally:
        del sys.modules[converter]


def import_openvino() -> Any:  # noqa: ANN401 - the module has no types
    """The package, without its converter.

    Raises:
        MissingDependencyError: It is not installed or cannot be imported.
    """
    try:
        with _without_converter():
            return import_module("openvino")
    except ImportError as error:
        raise MissingDependencyError(
            f"--device openvino: OpenVINO cannot be imported ({error})",
            "Install it with: pip install 'segtool[openvino]', or pass --device cpu.",
        ) from error


@cache
def _started() -> Any:  # noqa: ANN401 - the class has no types
    return import_openvino().Core()


def the_core() -> Any:  # noqa: ANN401 - the class has no types
    """OpenVINO's ``Core``, the only one of this process and alive as long as it is.

    Each ``Core`` that uses a CPU gives the calling thread a stack for its signal handlers and frees it once the
    last model of that ``Core`` is gone. Of two that go in the order in which they came, the second gives the thread
    the first one's stack back, which is free by then; one that goes in another thread leaves its own with a free
    one. The next signal that Python handles (an interrupt, the end of a worker of a torch ``DataLoader``) is written
    over whatever lies there by now: the process dies, then or later. A ``Core`` that stays frees nothing.

    Raises:
        MissingDependencyError: OpenVINO is not installed or cannot be imported.
    """
    with _STARTING:  # two threads that start it at once would have two
        return _started()


class _Compiled:
    """A compiled model and a request for every call that is made at the same time."""

    def __init__(self, model: Any, settings: dict[str, Any], calls: int) -> None:  # noqa: ANN401 - the class has no types
        self.model: Any = the_core().compile_model(model, "CPU", settings)
        self._calls = calls
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(calls):
            self._idle.put(self.model.create_infer_request())

    @contextmanager
    def request(self) -> Iterator[Any]:
        """One that nobody else has meanwhile."""
        request = self._idle.get()
        if request is None:
            self._idle.put(None)  # for whoever else waits
            raise RuntimeError("the engine is closed")
        try:
            yield request
        finally:
            self._idle.put(request)

    def close(self) -> None:
        """Let go of all, once the calls that are under way have ended."""
        for _ in range(self._calls):
            self._idle.get()
        self._idle.put(None)
        self.model = None


class OpenVinoBackend:
    """One compiled model and as many requests as calls are made at the same time.

    OpenVINO computes in bf16 wherever the processor has it, unless told otherwise; so it is told, and what it then
    does is read back. Left to choose, it takes bf16 where the export has proved that masks stay. For volumes it is
    compiled for the spec's window, which takes a third less memory than for any extent; another compiles it once more.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, model: Path, graph: Graph, options: EngineOptions) -> None:
        self._openvino = import_openvino()
        self.version: str = self._openvino.__version__.partition("-")[0]
        self.device = "cpu"
        self.why = self.note = ""
        self.xp: ModuleType = np
        core = the_core()
        spec = spec_of(model, graph)
        asked = self._asked(graph, options, spec)
        if graph.opset > _NEWEST_OPERATORS:
            raise ModelError(
                f"{model}: operator set {graph.opset}, which openvino {self.version} has not been tried with (up to "
                f"{_NEWEST_OPERATORS})",
                "Export it again with an older --opset.",
            )
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[asked],
            "NUM_STREAMS": options.calls,
            # Pinned threads of two processes would share the first cores and leave the others idle.
            "ENABLE_CPU_PINNING": False,
        }
        if spec is not None and spec.input.rank == 3 and spec.input.whole_case_voxels is not None:
            self._settings["CPU_RUNTIME_CACHE_CAPACITY"] = _EXTENTS_KEPT
        if options.threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = options.threads * options.calls
        self._calls = options.calls
        self._window = None if spec is None else _window(spec, graph)
        self._lock = Lock()
        self._closed = False
        self._other: _Compiled | None = None
        try:
            self._model: Any = core.read_model(model)
            if asked == "bf16":
                without_joins(self._model)
                join_norms(self._model)
            fixed = self._model
            if self._window is not None:
                fixed = self._model.clone()
                fixed.reshape(list(self._window))
            self._first = _Compiled(fixed, self._settings, self._calls)
        except Exception as error:
            raise ModelError(
                f"{model}: openvino {self.version} cannot load it ({error})", "Pass --device cpu, or export it again."
            ) from error
        used = self._first.model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != _HINTS[asked]:
            raise DeviceError(
                f"--device openvino: asked for {asked}, openvino {self.version} computes in {used}",
                "Pass --device cpu.",
            )
        # Integer layers stay what they are; the precision is that of the others.
        self.precision = asked if graph.precision != "int8" else "int8" if asked == "fp32" else f"int8+{asked}"
        outputs = graph.outputs[OUTPUT]
        self._classes = outputs[1] if len(outputs) > 1 else None
        if graph.precision == "int8":
            check_int8(model, graph, self)
            self._drop_other()  # of the trial's extent

    def _asked(self, graph: Graph, options: EngineOptions, spec: ModelSpec | None) -> str:
        """``bf16`` or ``fp32``: what was asked for, or what the export proved on this OpenVINO.

        Raises:
            DeviceError: bf16 was asked for, which the processor has not.
        """
        if options.precision == "bf16":
            if not computes_bf16():
                processor = the_core().get_property("CPU", "FULL_DEVICE_NAME")
                raise DeviceError(
                    f"--precision bf16: this processor ({processor}) does not compute in bf16", "Leave --precision out."
                )
            return "bf16"
        computing = "int8+bf16" if graph.precision == "int8" else "bf16"
        if options.precision not in (None, "int8") or spec is None or not spec.is_proved(self.name, computing):
            return "fp32"
        if not spec.is_proved(self.name, computing, self.version):
            self.note = f"{computing} was proved on another openvino than {self.version}, and is not used"
            return "fp32"
        if not computes_bf16():
            return "fp32"
        self.why = f"{computing} as its export proved"
        return "bf16"

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32; a call beyond those announced waits for its turn."""
        image = np.require(batch, np.float32, ["C", "W"])
        with self._compiled_for(image.shape).request() as request:
            # Shared: a request keeps the addresses of both arrays beyond this call, and is given others in the next
            # before it reads or writes.
            request.set_tensor(INPUT, self._openvino.Tensor(image, shared_memory=True))
            if self._classes is None:
                request.get_tensor(OUTPUT).data.fill(_UNWRITTEN.view(np.float32))
                request.infer()
                return _written(np.array(request.get_tensor(OUTPUT).data, np.float32))
            logits = np.full((len(image), self._classes, *image.shape[2:]), _UNWRITTEN.view(np.float32))
            request.set_tensor(OUTPUT, self._openvino.Tensor(logits, shared_memory=True))
            request.infer()
            written = tuple(request.get_tensor(OUTPUT).shape)
            if written != logits.shape:
                raise ModelError(
                    f"the graph answers {written} to {image.shape}, wanted {logits.shape}",
                    "Export the model with `segtool export`.",
                )
            return _written(logits)

    def _compiled_for(self, shape: tuple[int, ...]) -> _Compiled:
        if self._window is None or shape == self._window:
            return self._first
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if self._other is None:
                self._other = _Compiled(self._model, self._settings, self._calls)
            return self._other

    def close(self) -> None:
        """Let go of the requests, once their calls have ended, and of the compiled model."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._first.close()
        self._drop_other()
        self._model = None

    def _drop_other(self) -> None:
        with self._lock:
            if self._other is not None:
                self._other.close()
            self._other = None


def computes_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor.

    Raises:
        MissingDependencyError: OpenVINO is not installed or cannot be imported.
    """
    return "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _written(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``logits`` ``(N, ...)``, where all are written: short of memory, OpenVINO leaves them alone and says nothing.

    Raises:
        MemoryError: They were left alone.
    """
    firsts = logits.reshape(len(logits), -1)[:, :1]
    if (np.ascontiguousarray(firsts).view(np.uint32) == _UNWRITTEN).any():
        raise MemoryError("openvino left its output unwritten, as it does where memory does not suffice")
    return logits


def _window(spec: ModelSpec, graph: Graph) -> tuple[int, ...] | None:
    """The shape ``(N, C, *patch)`` of all that a 3D network is given, where its graph leaves any of it open."""
    if spec.input.rank != 3 or None not in graph.inputs[INPUT] or spec.input.whole_case_voxels is not None:
        return None
    return (graph.inputs[INPUT][0] or 1, len(spec.channels), *spec.extent)
