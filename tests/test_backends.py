"""Which engine is taken for a device, what it says of itself, and what no engine is given."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load, numpy_helper, save
from openvino_here import openvino_or_skip
from quantised import quantise
from tiny import bright_spec, volume_spec, write_model

from segtool.backends import DEVICES, load_backend, nvidia
from segtool.backends.base import Backend
from segtool.backends.graph import read_graph
from segtool.backends.openvino_check import check_int8
from segtool.backends.openvino_engine import computes_bf16
from segtool.errors import DeviceError, ModelError, UserError
from segtool.model_file import read_spec, write_spec
from segtool.spec import ModelSpec, VolumeSpec


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "bright.onnx", bright_spec())


def has_gpu() -> bool:
    try:
        nvidia.driver()
    except OSError:
        return False
    return True


# What is asked for is used, or an error


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_is_used_or_refused_in_one_line_with_a_remedy(model: Path, device: str) -> None:
    try:
        backend = load_backend(model, device)
    except UserError as error:
        assert device != "auto"
        assert f"--device {device}" in error.problem
        assert "pip install" in error.remedy or "--device cpu" in error.remedy
    else:
        assert backend.device == ("cuda" if device in ("cuda", "tensorrt") else "cpu") or device == "auto"
        assert backend.version
        assert backend.precision == "fp32"


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_without_a_gpu_its_engines_are_refused(model: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=f"--device {device}: .*(without that provider|no GPU to use)"):
        load_backend(model, device)


def test_auto_says_what_it_chose_and_why(model: Path) -> None:
    backend = load_backend(model, "auto")
    if has_gpu():
        assert nvidia.driver().gpus[0].name in backend.why
    else:
        assert (backend.device, backend.why, backend.note) == ("cpu", "auto: no NVIDIA driver", "")


def test_a_gpu_that_is_left_idle_is_noted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = nvidia.Driver((nvidia.Gpu("Card", 2**30, "9.0"),), "13.0")
    monkeypatch.setattr(nvidia, "driver", lambda: card)
    if "CUDAExecutionProvider" in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("onnxruntime here can use GPUs")
    backend = load_backend(model, "auto")
    assert backend.device == "cpu"
    assert "the Card 1 GiB is not used" in backend.note
    assert "pip install 'segtool[gpu]'" in backend.note


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_that_the_file_has_not_is_refused(model: Path, precision: str) -> None:
    with pytest.raises(DeviceError, match=f"--precision {precision}: onnxruntime on cpu computes .* in fp32"):
        load_backend(model, "cpu", precision=precision)


def test_bf16_on_onnxruntime_points_to_openvino(model: Path) -> None:
    with pytest.raises(DeviceError, match=r"Pass --device openvino\."):
        load_backend(model, "cpu", precision="bf16")


def test_openvino_computes_in_fp32_unless_told_otherwise(model: Path) -> None:
    openvino_or_skip()
    assert load_backend(model, "openvino").precision == "fp32"


@pytest.mark.parametrize("spec", [bright_spec(), volume_spec()], ids=["slices", "volumes"])
def test_auto_takes_openvino_for_files_in_fp32(tmp_path: Path, spec: ModelSpec) -> None:
    openvino_or_skip()
    backend = load_backend(write_model(tmp_path / "model.onnx", spec), "auto")
    if backend.device == "cpu":
        assert (backend.name, backend.precision) == ("openvino", "fp32")


def test_auto_leaves_int8_files_to_onnxruntime_unless_they_were_proved_on_openvino(
    quantised: Path, tmp_path: Path
) -> None:
    openvino_or_skip()
    proved = proved_on_openvino(quantised, tmp_path / "proved.onnx", "int8")
    taken = [load_backend(file, "auto") for file in (quantised, proved)]
    if taken[0].device == "cpu":
        assert [(backend.name, backend.precision) for backend in taken] == [
            ("onnxruntime", "int8"),
            ("openvino", "int8"),
        ]


def proved_on_openvino(
    model: Path, path: Path, computing: str, passed: bool = True, version: str | None = None
) -> Path:
    """A copy of the model whose spec says so."""
    spec = read_spec(model)
    version = openvino_or_skip().__version__.partition("-")[0] if version is None else version
    row = {"engine": "openvino", "version": version, "computing": computing, "passed": passed}
    write_spec(model, spec.model_copy(update={"provenance": {"export": {"proved_on": [row]}}}), path)
    return path


@pytest.mark.parametrize("device", ["auto", "openvino"])
@pytest.mark.parametrize(("passed", "expected"), [(True, "bf16"), (False, "fp32")])
def test_bf16_is_taken_unasked_where_the_export_proved_it(
    model: Path, tmp_path: Path, device: str, passed: bool, expected: str
) -> None:
    openvino_or_skip()
    if not computes_bf16():
        pytest.skip("this processor does not compute in bf16")
    if has_gpu():
        pytest.skip("there is a GPU here")
    proved = proved_on_openvino(model, tmp_path / "proved.onnx", "bf16", passed)
    backend = load_backend(proved, device)
    assert backend.precision == expected
    assert ("bf16 as its export proved" in backend.why) == passed
    assert load_backend(proved, device, precision="fp32").precision == "fp32"


def test_a_proof_on_another_openvino_counts_for_nothing_and_is_noted(model: Path, tmp_path: Path) -> None:
    openvino_or_skip()
    if not computes_bf16():
        pytest.skip("this processor does not compute in bf16")
    backend = load_backend(proved_on_openvino(model, tmp_path / "old.onnx", "bf16", version="2019.1.0"), "openvino")
    assert backend.precision == "fp32"
    assert "bf16 was proved on another openvino" in backend.note


def test_an_answer_of_another_extent_is_refused(tmp_path: Path) -> None:
    openvino_or_skip()
    strided = write_model(tmp_path / "model.onnx", bright_spec())
    graph = load(strided)
    graph.graph.node[0].attribute.append(helper.make_attribute("strides", [2, 2]))
    save(graph, strided)
    with pytest.raises(ModelError, match=r"answers \(1, 1, 8, 8\).*segtool export"):
        load_backend(strided, "openvino", 1).run(np.zeros((1, 1, 16, 16), np.float32))


@pytest.mark.parametrize("rows", [None, "openvino", [None], [{"engine": "openvino"}], {"engine": "openvino"}])
def test_provenance_of_any_other_form_proves_nothing(rows: object) -> None:
    spec = bright_spec().model_copy(update={"provenance": {"export": {"proved_on": rows}}})
    assert not spec.is_proved("openvino", "bf16")
    assert not bright_spec().model_copy(update={"provenance": {"export": rows}}).is_proved("openvino", "bf16")


def test_importing_openvino_tells_nobody() -> None:
    openvino_or_skip()
    code = (
        "import sys; from segtool.backends.openvino_engine import import_openvino; import_openvino();"
        "print([m for m in sys.modules if 'telemetry' in m or 'tools.ovc' in m])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


# What a graph says of itself


def test_shapes_are_read_with_dynamic_axes_open(model: Path) -> None:
    graph = read_graph(model)
    assert graph.inputs == {"image": (None, 1, None, None)}
    assert graph.outputs == {"logits": (None, 1, None, None)}
    assert "segtool" in graph.metadata


@pytest.mark.parametrize(
    ("kind", "expected"), [(TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")]
)
def test_precision_is_that_of_most_weights(tmp_path: Path, kind: int, expected: str) -> None:
    weights = [
        helper.make_tensor("large", kind, [4], [1.0] * 4),
        numpy_helper.from_array(np.ones(3, np.float32), "small"),
    ]
    graph = helper.make_graph([], "g", [], [], weights)
    save(helper.make_model(graph), tmp_path / "m.onnx")
    assert read_graph(tmp_path / "m.onnx").precision == expected


def test_a_graph_that_quantises_is_int8(tmp_path: Path) -> None:
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"])
    save(helper.make_model(helper.make_graph([node], "g", [], [])), tmp_path / "m.onnx")
    assert read_graph(tmp_path / "m.onnx").precision == "int8"


def test_weights_that_old_files_list_as_inputs_are_none(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", volume_spec())
    loaded = load(path)
    loaded.graph.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [1]))
    save(loaded, path)
    assert list(read_graph(path).inputs) == ["image"]


# What no engine is given


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "truncated or not an ONNX file"), (b"\x3a\xff\xff", "truncated"), (b"plain text" * 9, "not an ONNX file")],
)
def test_what_is_no_model_is_refused_before_any_engine(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for device in ("cpu", "openvino"):
        with pytest.raises(ModelError, match=said):
            load_backend(path, device)


def test_a_model_cut_short_at_any_byte_is_refused(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    for end in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.onnx").write_bytes(whole[:end])
        with pytest.raises(ModelError):
            load_backend(tmp_path / "cut.onnx", "cpu")


def with_external_weights(path: Path, location: str) -> Path:
    loaded = load(path)
    tensor = loaded.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    save(loaded, path)
    return path


@pytest.mark.parametrize("where", ["../secret.bin", "folder/../../secret.bin", "{absolute}", "link.bin"])
def test_weights_outside_the_models_folder_are_refused(tmp_path: Path, where: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(1, np.float32).tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    path = write_model(folder / "m.onnx", bright_spec())
    with_external_weights(path, where.format(absolute=secret))
    for device in ("cpu", "openvino", "tensorrt"):
        with pytest.raises(ModelError, match="outside its folder"):
            load_backend(path, device)


def test_weights_beside_the_model_are_read(model: Path) -> None:
    with_external_weights(model, "weights.bin")
    with pytest.raises(ModelError, match="Copy that file along"):
        load_backend(model, "cpu")
    (model.parent / "weights.bin").write_bytes(np.full(1, 2, np.float32).tobytes())
    image = np.ones((1, 1, 8, 8), np.float32)
    assert load_backend(model, "cpu").run(image)[0, 0, 0, 0] == 1.5


def test_operators_of_a_library_are_refused(model: Path) -> None:
    loaded = load(model)
    loaded.graph.node[0].domain = "com.somebody"
    save(loaded, model)
    with pytest.raises(ModelError, match=r"operators of 'com\.somebody'.*loads no code that belongs to a model"):
        load_backend(model, "cpu")


def test_compiled_engines_inside_a_model_are_refused(model: Path) -> None:
    loaded = load(model)
    loaded.graph.node[0].domain, loaded.graph.node[0].op_type = "com.microsoft", "EPContext"
    save(loaded, model)
    with pytest.raises(ModelError, match="loads no code that belongs to a model"):
        load_backend(model, "tensorrt")


def test_a_graph_of_two_inputs_is_refused(model: Path) -> None:
    loaded = load(model)
    loaded.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))
    save(loaded, model)
    with pytest.raises(ModelError, match=r"inputs \['image', 'age'\]"):
        load_backend(model, "openvino")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (volume_spec(), r"image is \(any, 1, any, any\) in the graph and \(any, 1, 16, 16, 16\) in the spec"),
        (bright_spec(channels=volume_spec(channels=("t1", "t2")).channels), r"image is .* and \(any, 2, 32, 32\)"),
        (bright_spec(activation="softmax"), r"logits is \(any, 1, any, any\) .* and \(any, 2, 32, 32\)"),
    ],
)
def test_a_spec_that_contradicts_the_graph_is_refused(model: Path, spec: ModelSpec, said: str) -> None:
    write_spec(model, spec, model)
    with pytest.raises(ModelError, match=said):
        load_backend(model, "cpu")


@pytest.mark.parametrize("change", ["operator", "opset"])
def test_what_an_engine_does_not_know_is_one_line_with_a_remedy(model: Path, change: str) -> None:
    loaded = load(model)
    if change == "operator":
        loaded.graph.node[0].op_type = "Frobnicate"
    else:
        loaded.opset_import[0].version = 99
    save(loaded, model)
    with pytest.raises(ModelError) as caught:
        load_backend(model, "cpu")
    assert "another --opset" in caught.value.remedy
    assert "\n" not in str(caught.value)


# Quantised files


@pytest.fixture
def quantised(model: Path, tmp_path: Path) -> Path:
    return quantise(model, tmp_path / "int8.onnx")


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [("cpu", None, "int8"), ("cpu", "int8", "int8"), ("openvino", "int8", "int8"), ("openvino", "bf16", "int8+bf16")],
)
def test_a_quantised_file_runs_and_says_so(quantised: Path, model: Path, device, precision, expected: str) -> None:
    if device == "openvino":
        openvino_or_skip()
    try:
        backend = load_backend(quantised, device, 1, precision=precision)
    except DeviceError as error:
        pytest.skip(error.problem)  # a processor without bf16
    assert backend.precision == expected
    image = np.random.default_rng(1).random((2, 1, 16, 16), np.float32)
    # 256 steps over a range of 1 on the way in and of 1 on the way out.
    assert np.abs(backend.run(image) - load_backend(model, "cpu").run(image)).max() < 0.02


class _Off:
    """An engine whose answers lie beside those of another."""

    version = "0"

    def __init__(self, engine: Backend, by: float) -> None:
        self._engine, self._by = engine, by

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = self._engine.run(batch)
        return logits + self._by * logits.std()


def test_openvino_is_refused_where_it_computes_a_quantised_file_wrongly(quantised: Path) -> None:
    engine, graph = load_backend(quantised, "cpu"), read_graph(quantised)
    check_int8(quantised, graph, _Off(engine, 0.05))
    for wrong in (0.5, float("nan")):
        with pytest.raises(DeviceError, match=r"--device openvino: openvino 0 computes .* wrongly.*Pass --device cpu"):
            check_int8(quantised, graph, _Off(engine, wrong))


def test_a_quantised_file_is_not_taken_for_fp32(quantised: Path) -> None:
    with pytest.raises(DeviceError, match=r"computes .* in int8"):
        load_backend(quantised, "cpu", precision="fp32")


def test_a_graph_of_one_extent_cannot_serve_whole_cases(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx", volume_spec())
    whole = VolumeSpec(patch=(16, 16, 16), crop_to_nonzero=False, whole_case_voxels=10**6)
    write_spec(model, volume_spec(input=whole), model)
    load_backend(model, "cpu").close()
    graph = load(model)
    for value in (*graph.graph.input, *graph.graph.output):
        for axis in (2, 3, 4):
            value.type.tensor_type.shape.dim[axis].dim_value = 16
    save(graph, model)
    with pytest.raises(ModelError, match=r"one extent, and its spec serves whole cases.*segtool export"):
        load_backend(model, "cpu")
