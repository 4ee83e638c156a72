"""What is changed in a graph before OpenVINO compiles it: fewer copies and operators, the same logits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from openvino_here import openvino_or_skip
from torch import nn

from segtool.backends import load_backend
from segtool.backends.openvino_engine import computes_bf16, the_core
from segtool.backends.openvino_graph import join_norms, without_joins
from segtool.model_file import write_spec
from segtool.spec import ChannelSpec, LabelSpec, ModelSpec, VolumeSpec
from segtool_export.onnx_file import write_onnx


class Skip(nn.Module):
    """A convolution of three joined maps, of 4, 4 and 1 channels, behind norms of instances."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU())
        self.two = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU())
        self.last = nn.Conv3d(9, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one = self.one(image)
        logits: torch.Tensor = self.last(torch.cat([one, self.two(one), image], 1))
        return logits


def spec() -> ModelSpec:
    return ModelSpec(
        name="skip",
        channels=(ChannelSpec(name="t1"),),
        labels=(LabelSpec(name="tumour", value=1),),
        activation="softmax",
        input=VolumeSpec(patch=(16, 16, 16)),
        divisor=1,
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    openvino_or_skip()
    torch.manual_seed(0)
    path = tmp_path / "skip.onnx"
    write_onnx(Skip().eval(), spec(), path, 17)
    write_spec(path, spec(), path)
    return path


def kinds(graph: object) -> list[str]:
    return [node.get_type_name() for node in graph.get_ordered_ops()]  # type: ignore[attr-defined]


def test_joined_maps_are_parted_and_norms_are_one_operator(model: Path) -> None:
    graph = the_core().read_model(model)
    joins = kinds(graph).count("Concat")
    assert (without_joins(graph), join_norms(graph)) == (1, 2)
    assert kinds(graph).count("Concat") == joins - 1
    assert kinds(graph).count("Convolution") == 2 + 3
    assert (kinds(graph).count("MVN"), kinds(graph).count("ReduceMean")) == (2, 0)


def test_the_changed_graph_computes_the_same(model: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    answers = []
    for changes in ((), (without_joins,), (without_joins, join_norms)):
        graph = the_core().read_model(model)
        for change in changes:
            change(graph)
        compiled = the_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answers.append(compiled({"image": image})[0])
    assert np.abs(answers[1] - answers[0]).max() < 1e-5
    assert np.abs(answers[2] - answers[0]).max() < 1e-4


def test_another_extent_than_the_window_is_computed_too(model: Path) -> None:
    engine, reference = load_backend(model, "openvino", 1), load_backend(model, "cpu", 1)
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 16, 16, 16), (2, 1, 16, 16, 16), (1, 1, 24, 16, 8)):
        image = rng.standard_normal(shape).astype(np.float32)
        assert np.abs(engine.run(image) - reference.run(image)).max() < 1e-4
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.run(image)


def test_bf16_stays_near_fp32(model: Path) -> None:
    openvino_or_skip()
    if not computes_bf16():
        pytest.skip("this processor does not compute in bf16")
    image = np.random.default_rng(0).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    exact = load_backend(model, "cpu", 1).run(image)
    assert np.abs(load_backend(model, "openvino", 1, precision="bf16").run(image) - exact).max() < 0.05 * exact.std()
