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

from segtool.backends.base import INPUT, OUTPUT, EngineOptions
from segtool.backends.graph import Graph
from segtool.backends.openvino_check import check_int8
from segtool.errors import DeviceError, MissingDependencyError, ModelError

_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""Our names of the arithmetic it is asked for, and OpenVINO's."""
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


class OpenVinoBackend:
    """One compiled model and as many requests as calls are made at the same time.

    OpenVINO computes in bf16 wherever the processor has it, unless told otherwise; so it is told, and what it then
    does is read back.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, model: Path, graph: Graph, options: EngineOptions) -> None:
        openvino = import_openvino()
        self.version: str = openvino.__version__.partition("-")[0]
        self.device = "cpu"
        self.why = self.note = ""
        self.xp: ModuleType = np
        core = the_core()
        asked = "bf16" if options.precision == "bf16" else "fp32"
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if asked == "bf16" and "BF16" not in able:
            raise DeviceError(
                f"--precision bf16: this processor ({core.get_property('CPU', 'FULL_DEVICE_NAME')}) does not compute "
                "in bf16",
                "Leave --precision out.",
            )
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[asked],
            "NUM_STREAMS": options.calls,
            # Pinned threads of two processes would share the first cores and leave the others idle.
            "ENABLE_CPU_PINNING": False,
        }
        if options.threads is not None:
            settings["INFERENCE_NUM_THREADS"] = options.threads * options.calls
        try:
            compiled = core.compile_model(core.read_model(model), "CPU", settings)
        except Exception as error:
            raise ModelError(
                f"{model}: openvino {self.version} cannot load it ({error})", "Pass --device cpu, or export it again."
            ) from error
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != _HINTS[asked]:
            raise DeviceError(
                f"--device openvino: asked for {asked}, openvino {self.version} computes in {used}",
                "Pass --device cpu.",
            )
        # Integer layers stay what they are; the precision is that of the others.
        self.precision = asked if graph.precision != "int8" else "int8" if asked == "fp32" else f"int8+{asked}"
        self._tensor = openvino.Tensor
        self._compiled: Any = compiled
        self._calls = options.calls
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(options.calls):
            self._idle.put(compiled.create_infer_request())
        if graph.precision == "int8":
            check_int8(model, graph, self)

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32; a call beyond those announced waits for its turn."""
        request = self._idle.get()
        if request is None:
            self._idle.put(None)  # for whoever else waits
            raise RuntimeError("the engine is closed")
        try:
            # Copied: a request that shares the array keeps its address and not the array.
            image = np.ascontiguousarray(batch, np.float32)
            request.set_tensor(INPUT, self._tensor(image, shared_memory=False))
            request.infer()
            # The request writes its next answer over this one.
            return np.array(request.get_tensor(OUTPUT).data, np.float32)
        finally:
            self._idle.put(request)

    def close(self) -> None:
        """Let go of the requests, once their calls have ended, and of the compiled model."""
        if self._compiled is None:
            return
        for _ in range(self._calls):
            self._idle.get()
        self._idle.put(None)
        self._compiled = None
