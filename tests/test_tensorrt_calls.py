"""Every call of our TensorRT path, in the versions from 8.6 to 11.4 and TensorRT-RTX.

Names, and the order of calls: `tensorrt_stand_in` has exactly the names of each version and computes with ONNX
Runtime. What the libraries do with them, and a GPU, is not tried here.
"""

import ast
from pathlib import Path
from typing import Any

import device_arrays
import numpy as np
import pytest
from onnx import load, save
from quantised import halve, quantise
from tensorrt_names import names_of
from tensorrt_stand_in import RECORDED, Module, install
from tiny import bright_spec, volume_spec, write_model

from segtool.backends import load_backend, tensorrt_build, tensorrt_engine
from segtool.backends.base import EngineOptions
from segtool.backends.engine_cache import EngineCache
from segtool.backends.graph import read_graph
from segtool.backends.tensorrt_build import Bindings, build_plan, load_bindings, shape_profile
from segtool.backends.tensorrt_engine import TensorRtBackend
from segtool.errors import DeviceError, MissingDependencyError, ModelError
from segtool.model_file import write_spec

ENGINES = list(RECORDED)


@pytest.fixture(params=ENGINES)
def trt(request: pytest.FixtureRequest) -> Module:
    return Module(request.param)


@pytest.fixture
def newest() -> Module:
    return Module("tensorrt 11.4.0.106")


def model_of(folder: Path, precision: str) -> Path:
    """A 2D model of one channel."""
    spec = bright_spec()
    model = write_model(folder / "m.onnx", spec)
    if precision == "int8":
        model = quantise(model, folder / "int8.onnx")
        write_spec(model, spec, model)
    elif precision == "fp16":
        halve(model)
    assert read_graph(model).precision == precision
    return model


def build(trt: Module, model: Path, **options: Any) -> bytes:
    graph = read_graph(model)
    return build_plan(Bindings(trt), model, graph, shape_profile(model, graph), **options)


# The record and the stand-in


def test_the_record_has_the_versions_that_are_promised() -> None:
    versions = {engine.removeprefix("tensorrt ").rsplit(".", engine.count(".") - 1)[0] for engine in ENGINES}
    assert {"8.6", "10.0", "10.16", "11.0", "11.4"} <= versions


def test_the_record_is_what_the_installed_version_has() -> None:
    try:
        bindings = load_bindings()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    if bindings.engine not in RECORDED:
        pytest.skip(f"{bindings.engine} is not recorded")
    assert RECORDED[bindings.engine] == names_of(bindings.module)


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        ("tensorrt 8.6.1", ("IProgressMonitor",)),
        ("tensorrt 10.0.1", ("ICudaEngine.num_bindings", "IExecutionContext.execute_async_v2")),
        ("tensorrt 11.0.0.114", ("BuilderFlag.FP16", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH")),
    ],
)
def test_the_stand_in_lacks_what_the_version_lacks(engine: str, names: tuple[str, ...]) -> None:
    trt = Module(engine)
    for name in names:
        owner, _, attribute = name.partition(".")
        with pytest.raises(AttributeError, match=rf"{engine}.* has no"):
            trt.take(owner, attribute) if attribute else getattr(trt, owner)


def test_every_name_that_our_source_calls_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a call added behind a branch that no test takes does not go unchecked."""
    tried: set[str] = set()
    for engine in ENGINES:
        trt = Module(engine)
        with pytest.raises(ModelError):
            build(trt, with_an_unknown_operator(model_of(tmp_path, "fp32")))
        for precision in ("fp32", "fp16", "int8"):
            start(trt, model_of(tmp_path, precision), tmp_path / engine, monkeypatch).run(noise(1))
        tried |= {name.rsplit(".", 1)[1] for name in trt.used}
    known = {name for classes in RECORDED.values() for names in classes.values() for name in names}
    ours = {"engine", "log", "logger", "name"}  # attributes of our own objects, whose names the bindings have too
    sources = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (tensorrt_build, tensorrt_engine)]
    called = {
        node.attr for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)
    }
    assert (called & known) - ours - tried == set()
    assert len(called & tried) > 15


# Building


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_of_every_precision_builds_in_every_version(trt: Module, tmp_path: Path, precision: str) -> None:
    assert build(trt, model_of(tmp_path, precision))
    (config,), (network,) = trt.configs, trt.networks
    flags = {name for name in trt.names["BuilderFlag"] if trt.names["BuilderFlag"].index(name) in config._flags}
    old = trt.engine.startswith("tensorrt 8")
    assert flags == ({precision.upper()} if old and precision != "fp32" else set())  # and TF32 is off
    kinds = trt.names["NetworkDefinitionCreationFlag"]
    wanted = "EXPLICIT_BATCH" if old else "STRONGLY_TYPED"
    assert network.flags == 1 << kinds.index(wanted)
    assert list(config._limits.values()) == [tensorrt_build.WORKSPACE_BYTES]


def with_an_unknown_operator(model: Path) -> Path:
    loaded = load(model)
    loaded.graph.node[0].op_type = "Frobnicate"
    save(loaded, model)
    return model


def test_what_the_parser_says_is_in_the_error(trt: Module, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the graph \(.*Frobnicate.*another --opset"):
        build(trt, with_an_unknown_operator(model_of(tmp_path, "fp32")))


def test_what_the_builder_says_is_in_the_error(trt: Module, tmp_path: Path) -> None:
    trt.no_kernel = "no kernel for this GPU"
    with pytest.raises(ModelError, match=r"cannot build an engine \(no kernel for this GPU\)\. Use --device cuda\."):
        build(trt, model_of(tmp_path, "fp32"))


def test_a_build_tells_how_far_it_is_where_the_version_says(
    trt: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_build, "_PROGRESS_S", 0)
    said: list[str] = []
    build(trt, model_of(tmp_path, "fp32"), log=said.append)
    assert said == ([] if trt.engine.startswith("tensorrt 8") else ["building engine: building 1/1, 0 s"])


def test_kernel_times_are_kept_and_used_again(trt: Module, tmp_path: Path) -> None:
    times = tmp_path / "times.cache"
    for _ in range(2):
        build(trt, model_of(tmp_path, "fp32"), timing_cache=times)
    if trt.engine.startswith("tensorrt-rtx"):
        assert not times.exists()  # it measures as it runs
    else:
        assert times.read_bytes() == b"measured measured "


# Running


def start(trt: Module, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRtBackend:
    """The engine on a stand-in for the GPU, with arrays to match."""
    install(trt, cache, monkeypatch)
    return TensorRtBackend(model, read_graph(model), EngineOptions())


def noise(count: int, seed: int = 0, shape: tuple[int, ...] = (1, 32, 32)) -> Any:
    random = np.random.default_rng(seed)
    return device_arrays.asarray(random.standard_normal((count, *shape)).astype(np.float32))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_batches_of_any_size_come_back_as_from_onnxruntime(
    trt: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    model = model_of(tmp_path, precision)
    backend, reference = start(trt, model, tmp_path, monkeypatch), load_backend(model, "cpu", 1)
    assert (backend.name, backend.version) == (trt.engine.split()[0], trt.__version__)
    # 11 and 20 are more than an engine takes at once; every shape comes again, which is when graphs are run.
    for seed, count in enumerate((1, 8, 3, 11, 8, 1, 20, 3)):
        batch = noise(count, seed)
        assert np.array_equal(device_arrays.asnumpy(backend.run(batch)), reference.run(device_arrays.asnumpy(batch)))
    assert not backend._stream.busy  # whoever takes the answer need not wait


def test_a_graph_of_a_fixed_batch_is_filled_up(newest: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path, "fp32")
    loaded = load(model)
    for value in (*loaded.graph.input, *loaded.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    save(loaded, model)
    backend, reference = start(newest, model, tmp_path, monkeypatch), load_backend(model, "cpu", 1)
    batch = noise(3)
    assert np.array_equal(device_arrays.asnumpy(backend.run(batch)), reference.run(device_arrays.asnumpy(batch)))


def test_windows_of_a_volume_run_one_by_one(newest: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model(tmp_path / "m.onnx", volume_spec())
    backend, reference = start(newest, model, tmp_path, monkeypatch), load_backend(model, "cpu", 1)
    batch = noise(3, shape=(1, 16, 16, 16))
    assert np.array_equal(device_arrays.asnumpy(backend.run(batch)), reference.run(device_arrays.asnumpy(batch)))
    with pytest.raises(DeviceError, match=r"takes no input of shape \(1, 1, 8, 16, 16\)"):
        backend.run(noise(1, shape=(1, 8, 16, 16)))


def test_an_answer_stays_when_its_graph_runs_again(
    newest: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start(newest, model_of(tmp_path, "fp32"), tmp_path, monkeypatch)
    answers = [backend.run(noise(2, seed)) for seed in range(4)]
    kept = [device_arrays.asnumpy(answer).copy() for answer in answers]
    backend.run(noise(2, 9))
    for answer, copy in zip(answers, kept, strict=True):
        assert np.array_equal(device_arrays.asnumpy(answer), copy)
    assert len({copy.tobytes() for copy in kept}) == 4


def test_an_engine_that_cannot_be_recorded_runs_without_and_says_so(
    newest: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest.no_recording = "operation not permitted when stream is capturing"
    model = model_of(tmp_path, "fp32")
    backend, reference = start(newest, model, tmp_path, monkeypatch), load_backend(model, "cpu", 1)
    for seed in range(3):
        batch = noise(2, seed)
        assert np.array_equal(device_arrays.asnumpy(backend.run(batch)), reference.run(device_arrays.asnumpy(batch)))
    assert backend.note == f"tensorrt runs without CUDA graphs: {newest.no_recording}"


def test_an_engine_is_built_once_and_found_again(trt: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path, "fp32")
    for _ in range(2):
        start(trt, model, tmp_path, monkeypatch).close()
    assert len(trt.configs) == 1
    (engine,) = (entry for entry in EngineCache().entries() if entry.facts)
    assert engine.facts["engine"] == trt.engine


def test_an_engine_of_another_version_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path, "fp32")
    for engine in ENGINES:
        assert start(Module(engine), model, tmp_path, monkeypatch).version == engine.split()[1]
    assert len([entry for entry in EngineCache().entries() if entry.facts]) == len(ENGINES)


def test_an_engine_that_is_refused_once_is_built_again(
    newest: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest.refuses = 1
    start(newest, model_of(tmp_path, "fp32"), tmp_path, monkeypatch).run(noise(1))
    assert len(newest.configs) == 2


def test_an_engine_that_is_refused_twice_is_an_error_with_its_reason(
    newest: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest.refuses = 2
    with pytest.raises(DeviceError, match=r"does not run on the Card \(the plan is of another machine.*--device cuda"):
        start(newest, model_of(tmp_path, "fp32"), tmp_path, monkeypatch)
