"""Instance norms as means of means: the same numbers, nearer to the truth, and back again."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import bright_spec, volume_spec
from torch import nn

from segtool_export.instance_norms import join_norms, split_norms
from segtool_export.onnx_file import write_onnx
from segtool_export.precision_onnx import halve


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def network(rank: int, groups: int | None = None) -> nn.Module:
    """A norm of instances or groups with weights of its own between two convolutions."""
    torch.manual_seed(0)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    instance = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[rank]
    norm = instance(4, affine=True, eps=1e-3) if groups is None else nn.GroupNorm(groups, 4, eps=1e-3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    return nn.Sequential(convolution(1, 4, 3, padding=1), norm, nn.ReLU(), convolution(4, 1, 1)).eval()


def answer(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("groups", [None, 1, 2])
@pytest.mark.parametrize("rank", [2, 3])
def test_an_exported_norm_is_split_and_answers_as_torch_does(
    tmp_path: Path, rank: int, groups: int | None, opset: int
) -> None:
    spec = bright_spec(16) if rank == 2 else volume_spec(16)
    made = network(rank, groups)
    write_onnx(made, spec, tmp_path / "model.onnx", opset)
    model = onnx.load(tmp_path / "model.onnx")
    assert operators(model)["InstanceNormalization"] == 0
    # Of rows, then of channels, then of groups; for the mean and for the variance.
    assert operators(model)["ReduceMean"] == (4 if groups is None else 6)
    # Extents that differ from each other and from those of the export.
    image = np.random.default_rng(0).normal(3, 2, (2, 1, 19, 16, 21)[: rank + 2]).astype(np.float32)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(answer(model, image), wanted, atol=2e-5)


@pytest.mark.parametrize("groups", [None, 1])
def test_sums_over_a_large_volume_stay_near_those_in_float64(tmp_path: Path, groups: int | None) -> None:
    made = network(3, groups)
    write_onnx(made, volume_spec(16), tmp_path / "model.onnx", 17)
    # A few bright voxels in a dark volume: a long running sum forgets its small terms.
    image = np.random.default_rng(0).exponential(0.5, (1, 1, 96, 96, 96)).astype(np.float32) ** 4
    with torch.inference_mode():
        wanted = made.double()(torch.from_numpy(image).double()).numpy()
    found = answer(onnx.load(tmp_path / "model.onnx"), image)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("groups", [None, 2])
def test_joining_undoes_splitting(tmp_path: Path, groups: int | None, opset: int) -> None:
    write_onnx(network(3, groups), volume_spec(16), tmp_path / "model.onnx", opset)
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


@pytest.mark.parametrize("groups", [None, 2])
def test_half_precision_has_the_norm_in_one_piece(tmp_path: Path, groups: int | None) -> None:
    pytest.importorskip("onnxconverter_common")
    write_onnx(network(3, groups), volume_spec(16), tmp_path / "model.onnx", 17)
    halve(tmp_path / "model.onnx", tmp_path / "half.onnx", kept="nothing")
    assert operators(onnx.load(tmp_path / "half.onnx"))["InstanceNormalization"] == 1
    write_onnx(network(3, groups), volume_spec(16), tmp_path / "from-torch.onnx", 17, half="nothing")
    assert operators(onnx.load(tmp_path / "from-torch.onnx"))["InstanceNormalization"] == 1


def test_a_fixed_shape_is_split_too(tmp_path: Path) -> None:
    made = network(3, groups=2)
    write_onnx(made, volume_spec(16), tmp_path / "model.onnx", 17, static=True)
    model = onnx.load(tmp_path / "model.onnx")
    assert operators(model)["InstanceNormalization"] == 0
    image = np.random.default_rng(0).normal(3, 2, (1, 1, 16, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(answer(model, image), wanted, atol=2e-5)


def test_a_norm_of_what_is_no_image_stays_as_it_is() -> None:
    values = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 4, 9])
    ones = onnx.helper.make_node("Constant", [], ["ones"], value_floats=[1.0] * 4)
    norm = onnx.helper.make_node("InstanceNormalization", ["image", "ones", "ones"], ["logits"])
    made = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 4, 9])
    graph = onnx.helper.make_graph([ones, norm], "rows", [values], [made])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    assert split_norms(model, 3) == 0
    assert operators(model)["InstanceNormalization"] == 1
