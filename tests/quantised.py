"""INT8 and FP16 files for tests of engines."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, load, save
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


def halve(path: Path) -> Path:
    """The tiny model with its arithmetic in FP16, between two casts."""
    loaded = load(path)
    for tensor in loaded.graph.initializer:
        values = np.frombuffer(tensor.raw_data, np.float32).astype(np.float16)
        tensor.raw_data, tensor.data_type = values.tobytes(), TensorProto.FLOAT16
    (conv,) = loaded.graph.node
    conv.input[0], conv.output[0] = "half_in", "half_out"
    nodes = [
        helper.make_node("Cast", ["image"], ["half_in"], to=TensorProto.FLOAT16),
        conv,
        helper.make_node("Cast", ["half_out"], ["logits"], to=TensorProto.FLOAT),
    ]
    loaded.graph.ClearField("node")
    loaded.graph.node.extend(nodes)
    save(loaded, path)
    return path
