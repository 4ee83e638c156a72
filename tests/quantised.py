"""INT8 files for tests of engines."""

from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static


class _Noise(CalibrationDataReader):
    """Three pictures of one channel."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._batches = iter([{"image": rng.random((1, 1, 16, 16), np.float32)} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantise(model: Path, target: Path) -> Path:
    """A 2D model of one channel in INT8, in the form that ONNX Runtime, OpenVINO and TensorRT take."""
    quantize_static(
        model,
        target,
        _Noise(),
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "ConvTranspose"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    return target
