"""Convolutions of joined maps as sums: the same network in a graph without joins."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from segtool.backends import load_backend
from segtool_export.joins import split_joins


class Skips(nn.Module):
    """One join that a convolution alone reads, and one that the logits are as well."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 3, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.shared = shared

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([torch.relu(self.down(image)), image], 1)
        logits: torch.Tensor = self.last(joined)
        return logits + joined if self.shared else logits


def write(path: Path, shared: bool) -> Path:
    torch.manual_seed(0)
    torch.onnx.export(
        Skips(shared).eval(), (torch.zeros(1, 1, 8, 8),), path, input_names=["image"], output_names=["logits"],
        opset_version=17, dynamo=False,
    )  # fmt: skip
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("shared", "count"), [(False, 1), (True, 0)])
def test_a_join_that_a_convolution_alone_reads_is_parted(tmp_path: Path, shared: bool, count: int) -> None:
    path = write(tmp_path / "joined.onnx", shared)
    model = onnx.load(path)
    assert split_joins(model) == count
    onnx.checker.check_model(model, full_check=True)
    assert sum(node.op_type == "Concat" for node in model.graph.node) == 1 - count
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    onnx.save(model, tmp_path / "parted.onnx")
    image = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    before, after = (load_backend(tmp_path / name, "cpu", 1).run(image) for name in ("joined.onnx", "parted.onnx"))
    assert np.abs(after - before).max() < 1e-5


def graph_of(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], outputs: dict[str, int]) -> onnx.ModelProto:
    """A model of ``image`` ``(1, 2, 8, 8)`` with outputs of so many channels."""
    made = onnx.helper.make_graph(
        nodes,
        "joins",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 2, 8, 8])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n, 8, 8]) for name, n in outputs.items()],
        [onnx.numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


CONCAT = onnx.helper.make_node("Concat", ["image", "image"], ["both"], axis=1)
CONV = onnx.helper.make_node("Conv", ["both", "w"], ["logits"])
ONES = {"w": np.ones((1, 4, 1, 1))}


def test_a_join_that_is_an_output_itself_stays() -> None:
    model = graph_of([CONCAT, CONV], ONES, {"logits": 1, "both": 4})
    assert split_joins(model) == 0
    onnx.checker.check_model(model, full_check=True)


def test_a_join_of_one_map_stays() -> None:
    lone = onnx.helper.make_node("Concat", ["image"], ["both"], axis=1)
    assert split_joins(graph_of([lone, CONV], {"w": np.ones((1, 2, 1, 1))}, {"logits": 1})) == 0


def test_weights_that_an_old_file_lists_as_inputs_stay_whole() -> None:
    model = graph_of([CONCAT, CONV], ONES, {"logits": 1})
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1, 4, 1, 1]))
    assert split_joins(model) == 0


def test_convolutions_that_share_weights_get_pieces_of_their_own(tmp_path: Path) -> None:
    relu = onnx.helper.make_node("Relu", ["image"], ["relu"])
    again = onnx.helper.make_node("Concat", ["relu", "image"], ["more"], axis=1)
    second = onnx.helper.make_node("Conv", ["more", "w"], ["second"])
    add = onnx.helper.make_node("Add", ["first", "second"], ["logits"])
    first = onnx.helper.make_node("Conv", ["both", "w"], ["first"])
    weights = {"w": np.arange(4).reshape(1, 4, 1, 1)}
    model = graph_of([CONCAT, first, relu, again, second, add], weights, {"logits": 1})
    before = tmp_path / "before.onnx"
    onnx.save(model, before)
    assert split_joins(model) == 2
    onnx.save(model, tmp_path / "after.onnx")
    image = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
    one, two = (load_backend(path, "cpu", 1).run(image) for path in (before, tmp_path / "after.onnx"))
    assert np.abs(one - two).max() < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_grouped_convolutions_stay() -> None:
    grouped = onnx.helper.make_node("Conv", ["both", "w"], ["logits"], group=2)
    assert split_joins(graph_of([CONCAT, grouped], {"w": np.ones((2, 2, 1, 1))}, {"logits": 2})) == 0


def test_a_join_that_two_convolutions_read_is_parted_for_both(tmp_path: Path) -> None:
    body = onnx.helper.make_node("Conv", ["both", "w"], ["body"])
    shortcut = onnx.helper.make_node("Conv", ["both", "v"], ["shortcut"])
    add = onnx.helper.make_node("Add", ["body", "shortcut"], ["logits"])
    weights = {"w": np.arange(4).reshape(1, 4, 1, 1), "v": np.ones((1, 4, 1, 1))}
    model = graph_of([CONCAT, body, shortcut, add], weights, {"logits": 1})
    onnx.save(model, tmp_path / "before.onnx")
    assert split_joins(model) == 2
    assert not any(node.op_type == "Concat" for node in model.graph.node)
    onnx.save(model, tmp_path / "after.onnx")
    image = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
    one, two = (load_backend(tmp_path / name, "cpu", 1).run(image) for name in ("before.onnx", "after.onnx"))
    assert np.abs(one - two).max() < 1e-5
