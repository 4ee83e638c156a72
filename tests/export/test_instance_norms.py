"""Instance norms as means of means: the same numbers, nearer to the truth, and back again."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from segtool_export.instance_norms import join_norms, split_norms
from segtool_export.onnx_file import write_onnx
from segtool_export.precision_onnx import halve
from tests.tiny import bright_spec, volume_spec


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def network(rank: int) -> nn.Module:
    """A norm with weights of its own between two convolutions."""
    torch.manual_seed(0)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[rank](4, affine=True, eps=1e-3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    return nn.Sequential(convolution(1, 4, 3, padding=1), norm, nn.ReLU(), convolution(4, 1, 1)).eval()


def answer(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("rank", [2, 3])
def test_an_exported_norm_is_split_and_answers_as_torch_does(tmp_path: Path, rank: int, opset: int) -> None:
    spec = bright_spec(16) if rank == 2 else volume_spec(16)
    made = network(rank)
    write_onnx(made, spec, tmp_path / "model.onnx", opset)
    model = onnx.load(tmp_path / "model.onnx")
    assert operators(model)["InstanceNormalization"] == 0
    assert operators(model)["ReduceMean"] == 4
    # Extents that differ from each other and from those of the export.
    image = np.random.default_rng(0).normal(3, 2, (2, 1, 19, 16, 21)[: rank + 2]).astype(np.float32)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(answer(model, image), wanted, atol=2e-5)


def test_sums_over_a_large_volume_stay_near_those_in_float64(tmp_path: Path) -> None:
    made = network(3)
    write_onnx(made, volume_spec(16), tmp_path / "model.onnx", 17)
    # A few bright voxels in a dark volume: a long running sum forgets its small terms.
    image = np.random.default_rng(0).exponential(0.5, (1, 1, 96, 96, 96)).astype(np.float32) ** 4
    with torch.inference_mode():
        wanted = made.double()(torch.from_numpy(image).double()).numpy()
    found = answer(onnx.load(tmp_path / "model.onnx"), image)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("opset", [17, 18])
def test_joining_undoes_splitting(tmp_path: Path, opset: int) -> None:
    write_onnx(network(3), volume_spec(16), tmp_path / "model.onnx", opset)
    model = onnx.load(tmp_path / "model.onnx")
    image = np.random.default_rng(0).normal(3, 2, (1, 1, 9, 8, 7)).astype(np.float32)
    before = answer(model, image)
    assert join_norms(model) == 1
    onnx.checker.check_model(model)
    (norm,) = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert norm.attribute[0].f == pytest.approx(1e-3)
    assert not any("exact-norm" in name for node in model.graph.node for name in node.input)
    np.testing.assert_allclose(answer(model, image), before, atol=2e-5)
    assert join_norms(model) == 0
    assert split_norms(model, 3) == 1


def test_half_precision_has_the_norm_in_one_piece(tmp_path: Path) -> None:
    pytest.importorskip("onnxconverter_common")
    write_onnx(network(3), volume_spec(16), tmp_path / "model.onnx", 17)
    halve(tmp_path / "model.onnx", tmp_path / "half.onnx", kept="nothing")
    assert operators(onnx.load(tmp_path / "half.onnx"))["InstanceNormalization"] == 1
    write_onnx(network(3), volume_spec(16), tmp_path / "from-torch.onnx", 17, half="nothing")
    assert operators(onnx.load(tmp_path / "from-torch.onnx"))["InstanceNormalization"] == 1


def test_a_norm_of_groups_stays_as_it_is(tmp_path: Path) -> None:
    made = nn.Sequential(nn.Conv3d(1, 4, 1), nn.GroupNorm(2, 4), nn.Conv3d(4, 1, 1)).eval()
    write_onnx(made, volume_spec(16), tmp_path / "model.onnx", 17)
    assert operators(onnx.load(tmp_path / "model.onnx"))["ReduceMean"] == 0
    image = np.random.default_rng(0).normal(3, 2, (1, 1, 9, 8, 7)).astype(np.float32)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(answer(onnx.load(tmp_path / "model.onnx"), image), wanted, atol=2e-5)
