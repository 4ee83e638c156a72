"""What the hardware could do at most, and how much work a network is."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from segtool.backends.base import INPUT, OUTPUT
from segtool.spec import ModelSpec

_SIDE = 2048
_TRIALS, _LEAST_S = 3, 0.5


def fp32_limit_gflops(threads: int | None = None) -> float:
    """Billions of fp32 additions and multiplications a second that a large matrix product reaches on the CPU.

    Source: 2 N^3 operations of a product of N x N matrices by the BLAS behind numpy; the best of several trials.
    """
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((_SIDE, _SIDE), np.float32) for _ in range(2))
    best = math.inf
    with threadpool_limits(threads):
        start = time.perf_counter()
        trial = 0
        while trial < _TRIALS or time.perf_counter() - start < _LEAST_S:
            before = time.perf_counter()
            left @ right
            best = min(best, time.perf_counter() - before)
            trial += 1
    return 2 * _SIDE**3 / best / 1e9


def network_gflop(model: Path, spec: ModelSpec) -> float:
    """Billions of additions and multiplications of one slice or window, those of convolutions and matrix products.

    ONNX Runtime runs the graph once as it is written and tells the shapes that each operator saw.

    Args:
        model: The file.
        spec: Its spec; sizes that the graph leaves open are taken from there.
    """
    import onnxruntime

    extent = spec.extent
    with TemporaryDirectory() as folder:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        settings.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
        batch = session.get_inputs()[0].shape[0]
        count = batch if isinstance(batch, int) else 1
        session.run([OUTPUT], {INPUT: np.zeros((count, len(spec.channels), *extent), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return 2 * multiplications(event.get("args", {}) for event in events) / count / 1e9


def multiplications(nodes: Iterable[Mapping[str, Any]]) -> int:
    """Of convolutions and matrix products, from operator names and the shapes of their inputs and outputs.

    A convolution's weights are ``(O, I/groups, *K)`` and every output element takes ``I/groups x prod(K)``; a
    transposed one's are ``(I, O/groups, *K)`` and every input element gives ``O/groups x prod(K)``.
    """
    total = 0
    for node in nodes:
        operator = node.get("op_name")
        if operator not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        image, weights = (_shape(one) for one in node["input_type_shape"][:2])
        answer = _shape(node["output_type_shape"][0])
        if operator == "Conv":
            total += math.prod(answer) * math.prod(weights[1:])
        elif operator == "ConvTranspose":
            total += math.prod(image) * math.prod(weights[1:])
        else:
            # The length that is summed over is the product's third side: (M K)(K N) / (M N) = K^2.
            total += math.prod(answer) * math.isqrt(
                math.prod(image[-2:]) * math.prod(weights[-2:]) // math.prod(answer[-2:])
            )
    return total


def _shape(described: Mapping[str, Sequence[int]]) -> list[int]:
    """Of ``{"float": [1, 3, 64, 64]}``."""
    return list(next(iter(described.values())))
