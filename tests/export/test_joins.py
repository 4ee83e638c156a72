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
