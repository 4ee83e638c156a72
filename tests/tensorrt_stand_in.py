"""A TensorRT of a given version without one: strict about names, with ONNX Runtime for its arithmetic.

Objects have the names that `tensorrt_names.json` records of the version, and no others. Of behaviour there is what
the versions differ in and our calls depend on: who wants to be told of the batch axis, of types and of precisions,
and which plans are taken. It proves that what we call exists and in which order it is called; of real kernels, of
memory and of a GPU it proves nothing.
"""

import json
from pathlib import Path
from typing import Any

import device_arrays
import onnxruntime as ort
import pytest
from device_arrays import Stream, at
from tensorrt_names import recorded

from segtool.backends import nvidia, tensorrt_engine
from segtool.backends.graph import read_graph
from segtool.backends.tensorrt_build import Bindings

RECORDED = recorded()
_FLAGS = {"fp16": "FP16", "int8": "INT8"}


class Module:
    """The module; ``used`` holds the names that were asked of it, as ``Class.name``."""

    def __init__(self, engine: str) -> None:
        name, _, self.__version__ = engine.partition(" ")
        self.__name__ = name.replace("-", "_")
        self.engine, self.names, self.used = engine, RECORDED[engine], set[str]()
        self.strongly_typed = name == "tensorrt-rtx" or self.major >= 11
        self.refuses = 0  # plans that will not be taken, as after an update of the driver
        self.no_kernel = ""  # why a build fails
        self.no_recording = ""  # why CUDA graphs cannot be made
        self.error = 0.0  # added to all logits
        self.configs: list[_Config] = []
        self.networks: list[_Network] = []

    @property
    def major(self) -> int:
        return int(self.__version__.split(".")[0])

    def take(self, owner: str, name: str) -> None:
        if name not in self.names[owner]:
            raise AttributeError(f"{self.engine}: {owner!r} has no attribute {name!r}")
        self.used.add(f"{owner}.{name}")

    def __getattr__(self, name: str) -> Any:
        if name not in self.names:
            raise AttributeError(f"{self.engine} has no {name!r}")
        if name in ("ILogger", "IProgressMonitor"):
            if name == "IProgressMonitor":
                return type(name, (), {})
            self.take(name, "Severity")
            return type(name, (), {"Severity": _Enumeration(self, "ILogger.Severity")})
        if name in _MADE:
            return lambda *arguments: _MADE[name](self, *arguments)
        return _Enumeration(self, name)


class _Enumeration:
    """Members are numbers in the order of their names."""

    def __init__(self, trt: Module, owner: str) -> None:
        self._trt, self._owner = trt, owner

    def __getattr__(self, name: str) -> int:
        self._trt.take(self._owner, name)
        return self._trt.names[self._owner].index(name)


class _Strict:
    """An object of the class ``_owner``."""

    _owner = ""

    def __init__(self, trt: Module) -> None:
        self._trt = trt

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._trt.take(self._owner, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._trt.take(self._owner, name)
        object.__setattr__(self, name, value)

    def _number(self, owner: str, name: str) -> int:
        """Of a member; -1 in a version without it."""
        names = self._trt.names[owner]
        return names.index(name) if name in names else -1


CARD = nvidia.Gpu("Card", 2**30, "9.0")


def install(trt: Module, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our code find this version, a GPU, arrays to match, and a cache of its own."""
    monkeypatch.setenv("SEGTOOL_CACHE", str(cache))
    monkeypatch.setattr(tensorrt_engine, "load_bindings", lambda: Bindings(trt))
    monkeypatch.setattr(tensorrt_engine, "driver", lambda: nvidia.Driver((CARD,), "13.0"))
    monkeypatch.setattr(tensorrt_engine, "gpu_arrays", lambda: device_arrays)


# Building


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.model = flags, Path()


class _Builder(_Strict):
    _owner = "Builder"

    def __init__(self, trt: Module, logger: Any) -> None:
        super().__init__(trt)
        self._logger = logger

    def create_network(self, flags: int) -> _Network:
        self._trt.networks.append(_Network(flags))
        return self._trt.networks[-1]

    def create_builder_config(self) -> "_Config":
        self._trt.configs.append(_Config(self._trt))
        return self._trt.configs[-1]

    def create_optimization_profile(self) -> "_Profile":
        return _Profile(self._trt)

    def build_serialized_network(self, network: _Network, config: "_Config") -> bytes | None:
        fault = self._fault(network, config)
        if fault:
            severity = _Enumeration(self._trt, "ILogger.Severity")
            self._logger.log(severity.WARNING, "a warning that nobody need see")
            self._logger.log(severity.ERROR, fault)
            return None
        monitor = vars(config).get("progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building", None, 1)
            monitor.step_complete("Building", 0)
            monitor.phase_finish("Building")
        plan = {"engine": self._trt.engine, "model": str(network.model), "shapes": config._profiles[0]._shapes}
        return json.dumps(plan).encode()

    def _fault(self, network: _Network, config: "_Config") -> str | None:
        typed = self._trt.strongly_typed or self._has(network, "STRONGLY_TYPED")
        wanted = _FLAGS.get(read_graph(network.model).precision)
        flags = {name for name in _FLAGS.values() if self._number("BuilderFlag", name) in config._flags}
        if self._trt.no_kernel:
            return self._trt.no_kernel
        if typed and flags:
            return f"{flags} of a strongly typed network"
        if not typed and flags != ({wanted} if wanted else set()):
            return f"{wanted} is not allowed by {flags}"
        return None if config._profiles else "no profile for a dynamic shape"

    def _has(self, network: _Network, flag: str) -> bool:
        bit = self._number("NetworkDefinitionCreationFlag", flag)
        return bit >= 0 and bool(network.flags >> bit & 1)


class _Config(_Strict):
    _owner = "IBuilderConfig"

    def __init__(self, trt: Module) -> None:
        super().__init__(trt)
        self._flags = {self._number("BuilderFlag", "TF32")}
        self._profiles: list[_Profile] = []
        self._limits: dict[int, int] = {}
        self._times: bytes | None = None

    def set_memory_pool_limit(self, pool: int, size: int) -> None:
        self._limits[pool] = size

    def set_flag(self, flag: int) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: int) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: "_Profile") -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    progress_monitor = None

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, _ignore_mismatch: bool) -> bool:
        self._times = cache
        return True

    def get_timing_cache(self) -> "_Times":
        return _Times(self._trt, (self._times or b"") + b"measured ")


class _Times(_Strict):
    _owner = "ITimingCache"

    def __init__(self, trt: Module, content: bytes) -> None:
        super().__init__(trt)
        self._content = content

    def serialize(self) -> bytes:
        return self._content


class _Profile(_Strict):
    _owner = "IOptimizationProfile"

    def set_shape(self, _name: str, *shapes: tuple[int, ...]) -> None:
        self._shapes = shapes


class _Parser(_Strict):
    _owner = "OnnxParser"

    def __init__(self, trt: Module, network: _Network, _logger: Any) -> None:
        super().__init__(trt)
        self._network, self._faults = network, list[str]()

    def parse_from_file(self, path: str) -> bool:
        bit = self._number("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")
        if self._trt.major < 10 and not self._trt.strongly_typed and not self._network.flags >> bit & 1:
            self._faults = ["the batch axis is not explicit"]
        try:
            ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - whatever it finds, the parser says
            self._faults.append(str(error))
        self._network.model = Path(path)
        return not self._faults

    @property
    def num_errors(self) -> int:
        return len(self._faults)

    def get_error(self, index: int) -> "_Fault":
        return _Fault(self._trt, self._faults[index])


class _Fault(_Strict):
    _owner = "ParserError"

    def __init__(self, trt: Module, text: str) -> None:
        super().__init__(trt)
        self._text = text

    def desc(self) -> str:
        return self._text


# Running


class _Runtime(_Strict):
    _owner = "Runtime"

    def __init__(self, trt: Module, logger: Any) -> None:
        super().__init__(trt)
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> "_Engine | None":
        facts = json.loads(plan)
        if self._trt.refuses or facts["engine"] != self._trt.engine:
            self._trt.refuses -= 1
            self._logger.log(_Enumeration(self._trt, "ILogger.Severity").ERROR, "the plan is of another machine")
            return None
        return _Engine(self._trt, facts)


class _Engine(_Strict):
    _owner = "ICudaEngine"

    def __init__(self, trt: Module, facts: dict[str, Any]) -> None:
        super().__init__(trt)
        self._facts = facts

    def create_execution_context(self) -> "_Context":
        return _Context(self._trt, self._facts)


class _Context(_Strict):
    _owner = "IExecutionContext"

    def __init__(self, trt: Module, facts: dict[str, Any]) -> None:
        super().__init__(trt)
        self._session = ort.InferenceSession(facts["model"], providers=["CPUExecutionProvider"])
        self._smallest, _, self._largest = facts["shapes"]
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        bounds = zip(self._smallest, shape, self._largest, strict=True)
        return all(low <= n <= high for low, n, high in bounds)

    def get_tensor_shape(self, _name: str) -> tuple[int, ...]:
        return self._answers()

    def _answers(self) -> tuple[int, ...]:
        (output,) = self._session.get_outputs()
        return (self._shape[0], output.shape[1], *self._shape[2:])

    def set_tensor_address(self, name: str, pointer: int) -> None:
        self._addresses[name] = pointer

    def execute_async_v3(self, stream: int) -> bool:
        if Stream.by_pointer[stream].recording is not None and self._trt.no_recording:
            raise RuntimeError(self._trt.no_recording)
        shapes = {"image": self._shape, "logits": self._answers()}
        places = {name: at(self._addresses[name], shape) for name, shape in shapes.items()}

        def work() -> None:
            places["logits"][...] = self._session.run(None, {"image": places["image"].copy()})[0] + self._trt.error

        Stream.by_pointer[stream].launch(work)
        return True


_MADE: dict[str, Any] = {"Builder": _Builder, "OnnxParser": _Parser, "Runtime": _Runtime}
