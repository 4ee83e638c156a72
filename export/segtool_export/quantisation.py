"""INT8 with ranges from real scans, in the one form that ONNX Runtime and TensorRT both take.

Signed, symmetric, a scale a channel of the weights, biases left in FP32, and only convolutions: everything else costs
little time and much accuracy. Norms are one operator, and joined feature maps are parted, see
:mod:`segtool_export.joins`, so that OpenVINO computes the file rightly and fast.
"""

import contextlib
import io
import math
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from segtool.backends import load_backend
from segtool_export.instance_norms import join_norms
from segtool_export.joins import split_joins
from segtool_export.proving import Candidate

AnyArray = npt.NDArray[Any]
Calibration = Literal["entropy", "percentile", "minmax", "best"]
Method = Literal["entropy", "percentile", "minmax"]

CALIBRATION_SAMPLES = {2: 32, 3: 4}
"""By rank, spread over the cases: more of them move the ranges by less than a step of INT8."""
CALIBRATION_EXTENT = 96
"""Longest side of a window of a volume: all activations of one are in memory at once."""

_METHODS: dict[Method, CalibrationMethod] = {
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
    "minmax": CalibrationMethod.MinMax,
}
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_FORM = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
_KEPT_SHARES = (0.125, 0.25, 0.5)
"""Of the convolutions, that stay in FP32 where all of them in INT8 fail."""
_SENSITIVITY_SAMPLES = {2: 4, 3: 1}


def int8_candidates(full: Path, images: Sequence[AnyArray], calibration: Calibration) -> Iterator[Sequence[Candidate]]:
    """Rounds of candidates, see :func:`segtool_export.proving.prove`.

    First all that convolutions take and give is INT8, which is the quickest in ONNX Runtime; then only what they take,
    which keeps sums in FP32 up to the next convolution and is the quickest in OpenVINO; then more and more of those
    that err most stay in FP32.

    Args:
        full: The model in FP32.
        images: ``(C, *S)`` inputs to take the ranges from.
        calibration: One way to take them, or all; the last rounds go on with the first.
    """
    methods: Sequence[Method] = tuple(_METHODS) if calibration == "best" else (calibration,)
    network = _Network(parted(full), images)
    for outputs in (True, False):
        where = "" if outputs else ", sums in fp32"
        facts = {} if outputs else {"kept_in_fp32": "sums of convolutions"}
        yield [
            Candidate(
                f"int8 {method}{where}",
                partial(network.write, method, outputs, 0.0),
                {"calibration": method, **facts},
            )
            for method in methods
        ]
    for share in _KEPT_SHARES:
        kept = f"{network.count(share)} of {len(network.convolutions)} convolutions"
        yield [
            Candidate(
                f"int8 {methods[0]}, {kept} and sums in fp32",
                partial(network.write, methods[0], False, share),
                {"calibration": methods[0], "kept_in_fp32": f"{kept}, sums of the others"},
            )
        ]


def parted(full: Path) -> Path:
    """The model in the form that is made INT8, beside it."""
    model = onnx.load(full)
    join_norms(model)
    split_joins(model)
    path = full.with_name("parted.onnx")
    onnx.save(model, path)
    return path


class _Network:
    """A model in FP32, and its INT8 forms; ranges and order of its convolutions are found once.

    Args:
        full: The model.
        images: To take ranges from.
    """

    def __init__(self, full: Path, images: Sequence[AnyArray]) -> None:
        self._full, self._images = full, images
        self._ranges: dict[Method, TensorsData] = {}
        self._order: list[str] = []
        self.convolutions = [node.name for node in onnx.load(full).graph.node if node.op_type in _CONVOLUTIONS]

    def count(self, share: float) -> int:
        """How many convolutions that share is, rounded up."""
        return math.ceil(share * len(self.convolutions))

    def write(self, method: Method, outputs: bool, share: float, path: Path) -> None:
        """Write it with that share of the convolutions, those that err most, in FP32."""
        if method not in self._ranges:
            self._ranges[method] = calibrate(self._full, self._images, method)
        ranges = self._ranges[method]
        if share and not self._order:
            self._order = most_sensitive(self._full, ranges, self._images)
        kept = self._order[: math.ceil(share * len(self._order))]
        quantise(self._full, ranges, path, kept=kept, outputs=outputs)


def most_sensitive(full: Path, ranges: TensorsData, images: Sequence[AnyArray]) -> list[str]:
    """Names of the convolutions, the one first that in INT8 alone moves the logits most.

    Args:
        full: The model in FP32.
        ranges: From :func:`calibrate`.
        images: ``(C, *S)`` inputs, of which a few are run.
    """
    batches = [_batch(image) for image in images[: _SENSITIVITY_SAMPLES[images[0].ndim - 1]]]
    with tempfile.TemporaryDirectory(prefix="segtool-sensitivity-") as folder:
        path = Path(folder) / "one.onnx"
        prepared = _prepared(full, Path(folder))
        wanted = [load_backend(prepared, "cpu").run(batch) for batch in batches]
        errors = {}
        for node in onnx.load(prepared).graph.node:
            if node.op_type in _CONVOLUTIONS:
                quantise(prepared, ranges, path, only=[node.name])
                backend = load_backend(path, "cpu")
                found = [backend.run(batch) for batch in batches]
                errors[node.name] = sum(
                    float(np.square(one - two).mean()) for one, two in zip(wanted, found, strict=True)
                )
    return sorted(errors, key=lambda name: -errors[name])


def calibrate(full: Path, images: Sequence[AnyArray], method: Method) -> TensorsData:
    """Ranges of all that convolutions take and give.

    Args:
        full: The model in FP32.
        images: ``(C, *S)`` inputs.
        method: ``minmax`` covers every value, ``percentile`` 99.999 % of them, ``entropy`` what loses least
            information (Migacz, 8-bit Inference with TensorRT, 2017).
    """
    with tempfile.TemporaryDirectory(prefix="segtool-calibration-") as folder:
        prepared = _prepared(full, Path(folder))
        calibrator = create_calibrator(
            prepared,
            list(_CONVOLUTIONS),
            str(Path(folder) / "augmented.onnx"),
            _METHODS[method],
            extra_options={"symmetric": True},
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it is at
            for image in images:  # one at a time: it keeps every activation of what it is given
                calibrator.collect_data(_One(_batch(image)))
            ranges: TensorsData = calibrator.compute_data()
    return ranges


def quantise(
    full: Path,
    ranges: TensorsData,
    path: Path,
    *,
    kept: Sequence[str] = (),
    only: Sequence[str] = (),
    outputs: bool = False,
) -> None:
    """Write the model with INT8 convolutions.

    Args:
        full: The model in FP32.
        ranges: From :func:`calibrate`.
        path: Where to write.
        kept: Names of the convolutions that stay in FP32.
        only: Names of those that do not; empty means all.
        outputs: Round what convolutions give as well as what they take.
    """
    with tempfile.TemporaryDirectory(prefix="segtool-quantise-") as folder:
        quantiser = QDQQuantizer(
            onnx.load(_prepared(full, Path(folder))),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=ranges,
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(kept),
            op_types_to_quantize=list(_CONVOLUTIONS),
            extra_options=_FORM if outputs else {**_FORM, "OpTypesToExcludeOutputQuantization": list(_CONVOLUTIONS)},
        )
        quantiser.quantize_model()
        quantiser.model.save_model_to_file(str(path))


def _prepared(full: Path, folder: Path) -> Path:
    """The model with norms folded into convolutions and all shapes known; made anew, as it is small work."""
    prepared = folder / "prepared.onnx"
    quant_pre_process(full, prepared, skip_symbolic_shape=True)
    return prepared


def _batch(image: AnyArray) -> AnyArray:
    """``(1, C, *S)``."""
    return np.ascontiguousarray(image[None], np.float32)


class _One:
    """A reader of one input, as the calibrators want it."""

    def __init__(self, batch: AnyArray) -> None:
        self._left: list[dict[str, AnyArray]] = [{"image": batch}]

    def get_next(self) -> dict[str, AnyArray] | None:
        return self._left.pop() if self._left else None
