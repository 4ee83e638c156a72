"""Models whose graph fixes the batch run wherever others do."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import bright_spec, write_model

from segtool.backends import load_backend


@pytest.mark.parametrize("fixed", [1, 2, 4])
def test_any_batch_goes_through_a_graph_that_fixes_it(tmp_path: Path, fixed: int):
    path = write_model(tmp_path / "free.onnx", bright_spec())
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = fixed
    onnx.save(model, tmp_path / "fixed.onnx")
    batch = np.random.default_rng(0).standard_normal((3, 1, 32, 32)).astype(np.float32)
    wanted = load_backend(path, "cpu").run(batch)
    backend = load_backend(tmp_path / "fixed.onnx", "cpu")
    np.testing.assert_array_equal(backend.run(batch), wanted)
    assert (backend.name, backend.device, backend.precision) == ("onnxruntime", "cpu", "fp32")
    backend.close()
