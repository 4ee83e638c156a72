"""ONNX Runtime between arrays of a GPU: inputs and outputs bound by their addresses.

ONNX Runtime itself runs here, on the CPU and in main memory; `device_arrays` stands in for cupy. That a CUDA graph
is recorded and what it gains needs a GPU.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import device_arrays
import numpy as np
import onnxruntime
import pytest
from onnx import load, save
from tiny import bright_spec, write_model

from segtool.backends import load_backend
from segtool.backends.base import EngineOptions
from segtool.backends.graph import read_graph
from segtool.backends.onnx_runtime import OnnxRuntimeBackend, _fixed_shapes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.onnx", bright_spec())


def fixed(model: Path, shape: tuple[int | None, ...]) -> Path:
    """The model with these axes of input and output, channels apart, where they are not None."""
    loaded = load(model)
    for value in (*loaded.graph.input, *loaded.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if size is not None:
                dim.dim_value = size
    save(loaded, model)
    return model


def bound(model: Path) -> OnnxRuntimeBackend:
    """Loaded as on a GPU."""
    backend = OnnxRuntimeBackend(model, read_graph(model), "cpu", EngineOptions(1))
    backend.xp, backend._memory, backend._shapes = device_arrays, "cpu", _fixed_shapes(read_graph(model))
    if backend._shapes is not None:
        backend._record(backend._shapes[0])
    return backend


def noise(count: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    return device_arrays.asarray(random.standard_normal((count, 1, 32, 32)).astype(np.float32))


def test_any_batch_is_bound_and_answered(model: Path) -> None:
    backend, reference = bound(model), load_backend(model, "cpu", 1)
    for count in (1, 5, 2):
        batch = noise(count, count)
        answer = backend.run(batch)
        assert isinstance(answer, device_arrays.DeviceArray)
        assert np.array_equal(device_arrays.asnumpy(answer), reference.run(device_arrays.asnumpy(batch)))


def test_what_is_no_contiguous_array_is_made_one(model: Path) -> None:
    batch = noise(4)[::2, :, ::-1]
    wanted = load_backend(model, "cpu", 1).run(np.ascontiguousarray(device_arrays.asnumpy(batch)))
    assert np.array_equal(device_arrays.asnumpy(bound(model).run(batch)), wanted)


def test_with_fixed_shapes_one_thread_runs_all_from_the_start(model: Path) -> None:
    threads: list[int] = []
    backend = bound(fixed(model, (2, 1, 32, 32)))
    session, backend._session = backend._session, SimpleNamespace()
    backend._session.io_binding = session.io_binding

    def run(binding: Any) -> None:
        threads.append(threading.get_ident())
        session.run_with_iobinding(binding)

    backend._session.run_with_iobinding = run
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda seed: backend.run(noise(2, seed)), range(6)))
    assert len(threads) == 6
    assert len(set(threads)) == 1
    assert backend._arrays is not None  # and were there before the first of these calls
    backend.close()
    with pytest.raises(RuntimeError, match="the engine is closed"):
        backend.run(noise(2))


def test_with_fixed_shapes_the_same_addresses_are_bound_every_time(model: Path) -> None:
    backend, reference = bound(fixed(model, (2, 1, 32, 32))), load_backend(model, "cpu", 1)
    seen, answers, batches = set(), [], [noise(2, seed) for seed in range(3)]
    for batch in batches:
        answers.append(backend.run(batch))
        assert backend._arrays is not None
        seen.add(tuple(array.data.ptr for array in backend._arrays))
    assert len(seen) == 1
    for batch, answer in zip(batches, answers, strict=True):
        assert np.array_equal(device_arrays.asnumpy(answer), reference.run(device_arrays.asnumpy(batch)))


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ((None, None, None, None), None),
        ((None, 1, 32, 32), None),
        ((1, 1, 32, None), None),
        ((1, 1, 32, 32), ((1, 1, 32, 32), (1, 1, 32, 32))),
    ],
)
def test_shapes_are_fixed_only_where_every_axis_is(model: Path, dims: tuple[int | None, ...], expected) -> None:
    assert _fixed_shapes(read_graph(fixed(model, dims))) == expected


@pytest.mark.parametrize("fails", ["never", "loading", "recording"])
def test_a_graph_that_cannot_be_recorded_runs_without_and_says_so(model: Path, fails: str) -> None:
    asked: list[bool] = []

    def session(path: str, settings: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
        asked.append("enable_cuda_graph" in providers[0][1])
        if fails == "loading" and asked[-1]:
            raise RuntimeError("not all nodes are on the GPU\nmore of it")
        started = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        return Unrecorded(started.io_binding) if fails == "recording" and asked[-1] else started

    backend = bound(fixed(model, (2, 1, 32, 32)))
    module = SimpleNamespace(InferenceSession=session)
    backend._session = backend._start(module, model, read_graph(model), "cuda", onnxruntime.SessionOptions())
    said = {"never": "", "loading": "not all nodes are on the GPU", "recording": "no capture"}[fails]
    assert asked == ([True] if fails == "never" else [True, False])
    assert backend.note == (said and f"onnxruntime runs without a CUDA graph: {said}")
    assert (backend._worker is None) == (fails != "never")
    batch = noise(2)
    wanted = load_backend(model, "cpu", 1).run(device_arrays.asnumpy(batch))
    assert np.array_equal(device_arrays.asnumpy(backend.run(batch)), wanted)


class Unrecorded:
    """A session whose first call fails."""

    def __init__(self, io_binding: Any) -> None:
        self.io_binding = io_binding

    def run_with_iobinding(self, _binding: Any) -> None:
        raise RuntimeError("no capture")
