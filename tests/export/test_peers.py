"""The network in torch beside its export."""

import json
from pathlib import Path

import numpy as np
import pytest
from finished_run import Finished

from segtool.backends import load_backend
from segtool.bench.rows import Row
from segtool.errors import UsageError
from segtool.model_file import read_spec
from segtool_export.peers import torch_eager, torch_mixed
from tests.shell import segtool


def test_torch_answers_as_its_export_does(finished: Finished) -> None:
    model = finished.run / "model.onnx"
    spec = read_spec(model)
    assert spec.input.rank == 2
    batch = np.random.default_rng(0).standard_normal((2, len(spec.channels), *spec.input.size), np.float32)
    wanted = load_backend(model, "cpu", threads=1).run(batch)
    eager, mixed = torch_eager(Row(model, "cpu", None, 2, 1, "torch")), torch_mixed(Row(model, "cpu", None, 2, 1))
    assert (eager.precision, mixed.precision) == ("fp32", "bf16")
    assert np.allclose(eager.run(batch), wanted, atol=1e-3)
    found = mixed.run(batch)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_a_model_outside_its_run_is_refused(finished: Finished, tmp_path: Path) -> None:
    alone = tmp_path / "model.onnx"
    alone.write_bytes((finished.run / "model.onnx").read_bytes())
    with pytest.raises(UsageError, match=r"Give the model\.onnx of a folder that `segtool train` wrote"):
        torch_eager(Row(alone, "cpu", None, 1, None, "torch"))


def test_bench_compares_with_torch(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    answer = segtool(
        capsys, "bench", "-m", finished.run / "model.onnx", "--device", "cpu", "--compare", "torch", "--batch", 1,
        "--no-cases", "--duration", 0.01, "--calls", 3, "--rounds", 1, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    names = [row["engine"]["engine"] for row in json.loads(answer.out)["rows"]]
    assert names == ["onnxruntime", "torch"]
