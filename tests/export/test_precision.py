"""FP16 and INT8: what lies in the graph, how near it stays, and what is kept when it does not."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from finished_run import Finished
from onnx import TensorProto
from tiny import volume_spec
from torch import nn

from segtool.backends import load_backend
from segtool.errors import ModelError, UsageError
from segtool.model_file import read_spec
from segtool_export import exporting, parity
from segtool_export.exporting import Conversion, export_run
from segtool_export.folding import fold_norms
from segtool_export.onnx_file import write_onnx
from segtool_export.parity import Gate
from segtool_export.precision import KEPT, HalfNetwork, Kept, kept_modules
from segtool_export.precision_onnx import halve
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    kept = shutil.ignore_patterns("evaluation", "model.onnx", "card.md")
    shutil.copytree(finished.run, tmp_path / "run", ignore=kept)
    return tmp_path / "run"


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def weight_types(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_takes_and_gives_fp32_and_says_what_it_is(run: Path, tmp_path: Path, precision: str):
    path = tmp_path / f"{precision}.onnx"
    exported = export_run(run, path, None, 17, None, Conversion(precision, calibration="minmax"))
    inputs = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()
    assert [node.type for node in inputs] == ["tensor(float)"]
    assert load_backend(path, "cpu").precision == precision
    export = read_spec(path).provenance["export"]
    assert export["precision"] == export["parity"]["precision"] == precision
    assert exported.parity.failure() is None
    assert exported.parity.by_label()["tumour"].before is not None


def test_fp16_is_in_the_graph_with_one_cast_at_each_end(run: Path, tmp_path: Path):
    export_run(run, tmp_path / "half.onnx", None, 17, None, Conversion("fp16"))
    assert weight_types(tmp_path / "half.onnx") == {TensorProto.FLOAT16}
    assert operators(tmp_path / "half.onnx")["Cast"] == 2


def test_int8_has_the_form_that_tensorrt_takes(run: Path, tmp_path: Path):
    export_run(run, tmp_path / "int8.onnx", None, 17, None, Conversion("int8", calibration="entropy"))
    graph = onnx.load(tmp_path / "int8.onnx").graph
    zeros = [one for one in graph.initializer if "zero_point" in one.name]
    assert zeros
    assert all(not onnx.numpy_helper.to_array(one).any() and one.data_type == TensorProto.INT8 for one in zeros)


def test_calibrations_are_compared_and_the_best_one_is_taken(run: Path, tmp_path: Path):
    exported = export_run(run, tmp_path / "int8.onnx", None, 17, None, Conversion("int8"))
    names = [one.candidate.name for one in exported.tried]
    assert names[:3] == ["int8 entropy", "int8 percentile", "int8 minmax"]
    passing = [one.parity.mean_dice for one in exported.tried if one.parity.failure() is None]
    assert exported.parity.mean_dice == max(passing)
    assert read_spec(exported.path).provenance["export"]["calibration"] in {"entropy", "percentile", "minmax"}


def test_a_gate_that_no_precision_passes_keeps_more_and_more_and_then_refuses(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(parity.GATES, "fp16", Gate(1.5, 1.5, -1))
    tried = r"best of: fp16; fp16, norms in fp32; fp16, norms, first and last layers in fp32.*--precision fp32"
    with pytest.raises(ModelError, match=tried):
        export_run(run, tmp_path / "half.onnx", None, 17, None, Conversion("fp16"))
    monkeypatch.setitem(parity.GATES, "int8", Gate(1.5, 1.5, -1))
    with pytest.raises(ModelError, match=r"int8 minmax, 8 of 15 convolutions and sums in fp32.*--calibrate"):
        export_run(run, tmp_path / "int8.onnx", None, 17, None, Conversion("int8", calibration="minmax"))
    assert not list(tmp_path.glob("*.onnx"))


def test_what_is_kept_is_said_in_the_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "KEPT", ("norms, first and last layers",))
    exported = export_run(run, tmp_path / "half.onnx", None, 17, None, Conversion("fp16"))
    assert exported.spec.provenance["export"]["kept_in_fp32"] == "norms, first and last layers"
    assert weight_types(exported.path) == {TensorProto.FLOAT16, TensorProto.FLOAT}


def network(norm: str, rank: int = 2) -> nn.Module:
    torch.manual_seed(0)
    module = get_network("unet", {"width": 8, "depth": 3, "norm": norm}).build(Interface(rank, 1, 1))
    with torch.no_grad():
        module.train()(torch.randn(2, 1, *(16,) * rank) * 3 + 1)
    return module.eval()


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_norms_and_ends_stay_in_fp32_where_asked(norm: str):
    module, image = network(norm), torch.randn(1, 1, 16, 16)
    names = kept_modules(module, "norms, first and last layers", image)
    assert {"down.0.0", "head"} <= set(names)
    half = HalfNetwork(module, names).eval()
    kinds = {name: weight.dtype for name, weight in half.named_parameters()}
    assert kinds["network.head.module.weight"] == kinds["network.down.0.1.module.weight"] == torch.float32
    assert kinds["network.down.0.3.weight"] == torch.float16
    with torch.inference_mode():
        assert half(image).dtype == torch.float32
        torch.testing.assert_close(half(image), module(image), atol=0.02, rtol=0.02)
    assert all(weight.dtype == torch.float32 for weight in module.parameters())  # the original is as it was


def test_a_weight_that_fp16_cannot_hold_survives_where_it_is_kept():
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval()
    assert isinstance(module[1], nn.BatchNorm2d)
    module[1].running_var = torch.full((1,), 1e6)  # the largest FP16 is 65504
    half = HalfNetwork(module, ["1"]).eval()
    assert half.network[1].module.running_var.item() == 1e6


@pytest.mark.parametrize("rank", [2, 3])
def test_batch_norms_are_folded_before_they_are_rounded(rank: int):
    module, image = network("batch", rank), torch.randn(1, 1, *(16,) * rank)
    folded = fold_norms(module, image)
    assert not any(isinstance(one, nn.BatchNorm2d | nn.BatchNorm3d) for one in folded.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), module(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kept", KEPT)
def test_weights_that_are_equal_survive_what_is_kept_of_a_file(tmp_path: Path, kept: Kept):
    pytest.importorskip("onnxconverter_common")
    module, image = network("instance", 3), np.random.default_rng(0).normal(1, 2, (1, 1, 16, 16, 16))
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)  # torch then writes one of them, and the others as its aliases
    spec = volume_spec()
    write_onnx(module, spec, tmp_path / "full.onnx", 17)
    halve(tmp_path / "full.onnx", tmp_path / "half.onnx", kept=kept)
    wanted, found = (
        load_backend(tmp_path / f"{name}.onnx", "cpu").run(image.astype(np.float32)) for name in ("full", "half")
    )
    np.testing.assert_allclose(found, wanted, atol=0.05)


class Shared(nn.Module):
    """A convolution whose output goes past its norm too, so that folding would change the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.norm.running_var = torch.full((2,), 4.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.convolution(image)
        return features + self.norm(features)


def test_a_norm_that_cannot_be_folded_stays():
    module = Shared().eval()
    assert fold_norms(module, torch.randn(1, 1, 8, 8)) is module


def test_scans_to_calibrate_on_are_for_int8_alone(tmp_path: Path):
    with pytest.raises(UsageError, match="leave --calibrate out"):
        Conversion("fp16", calibrate=tmp_path)


def test_a_fixed_shape_is_one_sample_of_the_specs_size(run: Path, tmp_path: Path):
    export_run(run, tmp_path / "static.onnx", None, 17, None, Conversion(static=True))
    session = ort.InferenceSession(str(tmp_path / "static.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 1, 64, 64]
    assert session.get_outputs()[0].shape == [1, 1, 64, 64]
    assert np.isfinite(session.run(None, {"image": np.zeros((1, 1, 64, 64), np.float32)})[0]).all()
