"""Whether OpenVINO computes an INT8 model as ONNX Runtime does, on which it was proved when it was exported.

OpenVINO 2026.4 does not where quantised features meet others in a concatenation, as in every network with skips: masks
of such a model have nothing in common with the right ones, and nothing is said.
"""

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segtool.backends.base import INPUT, EngineOptions, spec_of
from segtool.backends.graph import Graph
from segtool.errors import DeviceError, MissingDependencyError

_EXTENT = 32
"""Of the noise that both are given, or the next larger one that the network takes: faults show in any."""
_MOST_APART = 0.1
"""Of the logits' spread, as a root mean square: rounding otherwise moves them by a few hundredths."""
_REMEDY = "Pass --device cpu, or the model in fp32 with --precision bf16."


class _Runs(Protocol):
    version: str

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...


def check_int8(model: Path, graph: Graph, engine: _Runs) -> None:
    """Run noise through both.

    Args:
        model: An INT8 file.
        graph: Its facts.
        engine: OpenVINO with that file loaded.

    Raises:
        DeviceError: They differ by more than rounding does.
        MissingDependencyError: ONNX Runtime is not installed, so that nobody can tell.
    """
    from segtool.backends.onnx_runtime import OnnxRuntimeBackend

    noise = np.random.default_rng(0).standard_normal(_shape(model, graph)).astype(np.float32)
    try:
        reference = OnnxRuntimeBackend(model, graph, "cpu", EngineOptions())
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"--device openvino: an int8 model is checked against ONNX Runtime first ({error.problem})", error.remedy
        ) from error
    wanted, found = reference.run(noise), engine.run(noise)
    reference.close()
    apart = float(np.sqrt(np.square(found - wanted).mean()))
    spread = float(wanted.std())
    if not apart <= _MOST_APART * spread + np.finfo(np.float32).eps:
        raise DeviceError(
            f"--device openvino: openvino {engine.version} computes {model} wrongly: its logits differ from those of "
            f"ONNX Runtime by {apart / max(spread, 1e-9):.2f} of their spread, wanted {_MOST_APART} at most",
            _REMEDY,
        )


def _shape(model: Path, graph: Graph) -> tuple[int, ...]:
    """Of a small input that the graph takes, as far as it or its spec says."""
    dims, channels, divisor = graph.inputs[INPUT], 1, 1
    spec = spec_of(model, graph)
    if spec is not None:
        channels, divisor = len(spec.channels), spec.divisor
        dims = dims or (None,) * (2 + spec.input.rank)
    extent = max(2, math.ceil(_EXTENT / divisor)) * divisor  # of one voxel at its bottom a network makes no norm
    free = (1, channels, *[extent] * (len(dims) - 2))
    return tuple(size if n is None else n for n, size in zip(dims, free, strict=True))
