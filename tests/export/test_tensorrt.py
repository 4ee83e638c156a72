"""TensorRT engines.

Without a GPU TensorRT-RTX still parses a graph and builds an engine of it; nothing can be run. What these tests then
prove is that our files parse and build; that an engine segments like ONNX Runtime needs a GPU. The calls that we make,
version by version, are in `test_tensorrt_calls`.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import load, save
from openvino_here import openvino_or_skip
from quantised import halve, quantise
from tensorrt_stand_in import Module, install
from tiny import bright_spec, volume_spec, write_model, write_pictures
from torch import nn

from segtool import backends
from segtool.backends import load_backend, nvidia, tensorrt_build, tensorrt_engine
from segtool.backends.engine_cache import EngineCache
from segtool.backends.graph import read_graph
from segtool.backends.tensorrt_build import Bindings, build_plan, load_bindings, shape_profile
from segtool.errors import DeviceError, MissingDependencyError, ModelError, UsageError
from segtool.model_file import write_spec
from segtool.spec import LabelSpec
from segtool_export.cases import Sample
from segtool_export.onnx_file import write_onnx
from segtool_export.tensorrt import build_engine, compare_backends

CARD = nvidia.Gpu("Card", 2**30, "9.0")


@pytest.fixture(scope="module")
def bindings() -> Bindings:
    try:
        return load_bindings()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def rtx(bindings: Bindings) -> Bindings:
    if not bindings.rtx and not has_gpu():
        pytest.skip("without a GPU only TensorRT-RTX builds engines")
    return bindings


def has_gpu() -> bool:
    try:
        nvidia.driver()
    except OSError:
        return False
    return True


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="needs an NVIDIA GPU: would prove that engines run and agree")


# Parsing and building


@pytest.mark.parametrize(
    ("spec", "profile"),
    [
        (bright_spec(), "1x1x32x32 8x1x32x32 8x1x32x32"),
        (volume_spec(channels=("t1", "flair")), "1x2x16x16x16 1x2x16x16x16 1x2x16x16x16"),
    ],
    ids=["2d", "3d"],
)
def test_a_model_parses_and_builds_for_its_specs_shapes(rtx: Bindings, tmp_path: Path, spec, profile: str) -> None:
    model = write_model(tmp_path / "m.onnx", spec)
    graph = read_graph(model)
    shapes = shape_profile(model, graph)
    assert str(shapes) == profile
    assert len(build_plan(rtx, model, graph, shapes)) > 1000


def test_a_half_precision_graph_builds_as_it_is(rtx: Bindings, tmp_path: Path) -> None:
    model = halve(write_model(tmp_path / "m.onnx", bright_spec()))
    graph = read_graph(model)
    assert graph.precision == "fp16"
    assert build_plan(rtx, model, graph, shape_profile(model, graph))


def test_a_quantised_graph_builds_as_it_is(rtx: Bindings, tmp_path: Path) -> None:
    spec = bright_spec()
    model = quantise(write_model(tmp_path / "m.onnx", spec), tmp_path / "int8.onnx")
    write_spec(model, spec, model)
    graph = read_graph(model)
    assert graph.precision == "int8"
    assert build_plan(rtx, model, graph, shape_profile(model, graph))


@pytest.mark.parametrize("precision", [None, "norms"], ids=["fp32", "fp16 with norms in fp32"])
def test_a_volume_network_with_instance_norm_builds(rtx: Bindings, tmp_path: Path, precision: str | None) -> None:
    spec = volume_spec(labels=(LabelSpec(name="core", value=1), LabelSpec(name="rim", value=2)))
    network = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8, affine=True), nn.LeakyReLU(), nn.MaxPool3d(2),
        nn.ConvTranspose3d(8, 8, 2, stride=2), nn.Conv3d(8, 2, 1),
    )  # fmt: skip
    write_onnx(network, spec, tmp_path / "m.onnx", 17, half=precision)
    graph = read_graph(tmp_path / "m.onnx")
    assert graph.precision == ("fp32" if precision is None else "fp16")
    assert build_plan(rtx, tmp_path / "m.onnx", graph, shape_profile(tmp_path / "m.onnx", graph))


def test_an_operator_that_tensorrt_has_not_is_named(rtx: Bindings, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    loaded = load(model)
    loaded.graph.node[0].op_type = "StringNormalizer"
    save(loaded, model)
    graph = read_graph(model)
    with pytest.raises(ModelError, match=r"cannot read the graph \(.*Export it with another --opset"):
        build_plan(rtx, model, graph, shape_profile(model, graph))


def test_a_model_without_a_spec_gives_no_shapes(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    loaded = load(model)
    loaded.ClearField("metadata_props")
    save(loaded, model)
    with pytest.raises(ModelError, match="segtool export"):
        shape_profile(model, read_graph(model))


def test_a_build_tells_how_far_it_is(rtx: Bindings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "_PROGRESS_S", 0)
    model = write_model(tmp_path / "m.onnx", bright_spec())
    graph, said = read_graph(model), []
    build_plan(rtx, model, graph, shape_profile(model, graph), said.append)
    assert re.fullmatch(r"building engine: [\w ,-]+ \d+/\d+, \d+ s", said[0])


# The key


def test_the_key_follows_the_files_bytes_and_the_gpu(bindings: Bindings, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    key = tensorrt_engine.engine_key(bindings, model, read_graph(model), CARD)
    again = write_model(tmp_path / "again.onnx", bright_spec())
    assert tensorrt_engine.engine_key(bindings, again, read_graph(again), CARD) == key
    other = write_model(tmp_path / "other.onnx", bright_spec(), np.array([[2.0]]))
    assert tensorrt_engine.engine_key(bindings, other, read_graph(other), CARD).onnx_sha256 != key.onnx_sha256
    newer = nvidia.Gpu("Card 2", 2**30, "12.0")
    assert tensorrt_engine.engine_key(bindings, model, read_graph(model), newer).digest != key.digest


# The command


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here")
def test_without_a_gpu_no_engine_is_built(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    with pytest.raises(DeviceError, match=r"--tensorrt: .*there is none here \(no NVIDIA driver\)"):
        build_engine(model, None, print)


def test_an_engine_is_not_trusted_without_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segtool_export.tensorrt.driver", lambda: nvidia.Driver((CARD,), "13.0"))
    model = write_model(tmp_path / "m.onnx", bright_spec())
    with pytest.raises(UsageError, match=r"Name a folder with --cases\."):
        build_engine(model, None, print)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_engines_are_compared_on_masks(tmp_path: Path, device) -> None:
    if device == "openvino":
        openvino_or_skip()
    spec = bright_spec()
    model = write_model(tmp_path / "m.onnx", spec)
    other = write_model(tmp_path / "n.onnx", spec, np.array([[0.5]]))
    image = np.random.default_rng(0).random((1, 32, 32), np.float32)
    samples = [Sample("noise", image)]
    reference = load_backend(model, "cpu")
    same = compare_backends(reference, load_backend(model, device), spec, samples, "fp32")
    assert same.failure() is None
    assert same.against.startswith("onnxruntime")
    differs = compare_backends(reference, load_backend(other, device), spec, samples, "fp32")
    assert differs.failure() is not None


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """TensorRT 11 in name alone, so that the steps of the command can be seen."""
    trt = Module("tensorrt 11.4.0.106")
    install(trt, tmp_path / "cache", monkeypatch)
    monkeypatch.setitem(backends._LOADERS, "tensorrt", tensorrt_engine.TensorRtBackend)
    monkeypatch.setattr("segtool_export.tensorrt.load_bindings", lambda: Bindings(trt))
    monkeypatch.setattr("segtool_export.tensorrt.driver", lambda: nvidia.Driver((CARD,), "13.0"))
    return trt


def test_the_command_builds_proves_and_keeps_an_engine(tmp_path: Path, stand_in: Module) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    write_pictures(tmp_path / "scans", 3)
    said: list[str] = []
    built = build_engine(model, tmp_path / "scans", said.append)
    assert said[0].startswith("building a tensorrt 11.4.0.106 engine of ")
    assert (built.parity.failure(), len(built.parity.cases)) == (None, 3)
    assert built.facts()["gpu"] == "Card"
    assert f"done    {built.path}" in built.table()
    assert [entry.path for entry in EngineCache().entries() if entry.facts] == [built.path]
    said.clear()
    assert build_engine(model, tmp_path / "scans", said.append).path == built.path
    assert said == []  # it was there


def test_the_engine_itself_is_served_and_not_the_caches_words_about_it(tmp_path: Path, stand_in: Module) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    write_pictures(tmp_path / "scans", 3)
    built = build_engine(model, tmp_path / "scans", print, tmp_path / "repository")
    assert built.served == tmp_path / "repository" / "bright" / "1"
    assert (built.served / "model.plan").read_bytes() == EngineCache().get(built.key)
    assert f"triton  {built.served}" in built.table()


def test_an_engine_that_segments_otherwise_is_not_kept(tmp_path: Path, stand_in: Module) -> None:
    stand_in.error = -0.6  # the disc is at 0.5
    write_pictures(tmp_path / "scans", 3)
    with pytest.raises(ModelError, match=r"the engine is not kept, gate fp32 .*Use --device cuda"):
        build_engine(write_model(tmp_path / "m.onnx", bright_spec()), tmp_path / "scans", print)
    assert not [entry for entry in EngineCache().entries() if entry.facts]


@needs_gpu
def test_an_engine_is_built_once_proved_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cupy", reason="cupy is not installed")
    monkeypatch.setenv("SEGTOOL_CACHE", str(tmp_path / "cache"))
    model = write_model(tmp_path / "m.onnx", bright_spec())
    write_pictures(tmp_path / "scans", 3)
    built = build_engine(model, tmp_path / "scans", print)
    assert built.parity.failure() is None
    assert [entry.path for entry in EngineCache().entries() if entry.facts] == [built.path]
    before = built.path.stat().st_mtime_ns
    assert build_engine(model, tmp_path / "scans", print).path.stat().st_mtime_ns == before
