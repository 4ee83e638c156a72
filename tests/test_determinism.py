"""The same input gives the same bytes, however the work is divided."""

from pathlib import Path

import pytest
from tiny import bright_spec, volume_spec, write_model

from benchmarks.reliability_determinism import Setting, hold
from benchmarks.reliability_soak import write_slices, write_volumes


@pytest.mark.parametrize("kind", ["slices", "volumes"])
def test_batch_threads_workers_order_and_resume_change_no_byte(tmp_path: Path, kind: str) -> None:
    if kind == "slices":
        write_slices(tmp_path / "in", 9)
        model = write_model(tmp_path / "m.onnx", bright_spec(32))
    else:
        write_volumes(tmp_path / "in", 3)
        model = write_model(tmp_path / "m.onnx", volume_spec(32))
    found = hold(Setting(kind, tmp_path / "in", model, "cpu", "fp32"), tmp_path / "out")
    assert found["identical"], found["variants"]
    assert {"batch 8", "threads 4", "workers 4", "other order", "each alone", "again", "resumed"} <= set(
        found["variants"]
    )
