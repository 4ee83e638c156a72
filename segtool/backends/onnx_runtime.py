"""ONNX Runtime on a CPU or, through its CUDA provider, on a GPU."""

from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from segtool.errors import DeviceError, MissingDependencyError, ModelError

_INPUT, _OUTPUT = "image", "logits"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FATAL_ONLY = 4  # ORT's log level; its own lines would otherwise reach the terminal beside our error


class OnnxRuntimeBackend:
    """One session. Which provider it really got is read back, because ORT falls back to the CPU in silence."""

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, model: Path, device: str = "auto", threads: int | None = None) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError(
                "onnxruntime is not installed, which runs the model",
                "Install it with: pip install 'segtool[cpu]' (or 'segtool[gpu]' on a CUDA machine)",
            ) from error
        self.version: str = ort.__version__
        available = ort.get_available_providers()
        if device == "cuda" and _PROVIDERS["cuda"] not in available:
            raise DeviceError(
                f"--device cuda: onnxruntime {self.version} here has no CUDA provider (it has: {', '.join(available)})",
                "Install it with: pip uninstall -y onnxruntime && pip install 'segtool[gpu]', or pass --device cpu.",
            )
        wanted = "cuda" if device != "cpu" and _PROVIDERS["cuda"] in available else "cpu"
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = threads or 0
        try:
            self._session: Any = ort.InferenceSession(
                str(model), options, providers=[_PROVIDERS[name] for name in dict.fromkeys((wanted, "cpu"))]
            )
        except Exception as error:
            raise ModelError(
                f"{model}: onnxruntime {self.version} cannot load it ({error})", "Export the model again."
            ) from error
        self.device = "cuda" if _PROVIDERS["cuda"] in self._session.get_providers() else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise DeviceError(
                f"--device cuda: onnxruntime {self.version} has the CUDA provider but could not start it "
                "(no GPU, or its driver or the CUDA libraries are missing)",
                "Run `segtool doctor` for what is missing, or pass --device cpu.",
            )
        self.precision = "fp32"
        self.xp: ModuleType = np
        names = (
            [node.name for node in self._session.get_inputs()],
            [node.name for node in self._session.get_outputs()],
        )
        if names != ([_INPUT], [_OUTPUT]):
            raise ModelError(
                f"{model}: inputs {names[0]} and outputs {names[1]}, "
                f"wanted one input {_INPUT!r} and one output {_OUTPUT!r}",
                "Export the model with `segtool export`.",
            )

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32."""
        return cast("npt.NDArray[Any]", self._session.run([_OUTPUT], {_INPUT: batch})[0])
