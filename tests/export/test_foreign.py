"""ONNX files of any origin: what is adopted, and what is refused with which line."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from foreign_onnx import SPEC, write_foreign
from tiny import bright_spec, write_model, write_pictures

from segtool.backends import load_backend
from segtool.errors import ModelError, UsageError
from segtool.model_file import read_spec
from segtool_export.exporting import PLAIN, Conversion, Exported
from segtool_export.foreign import read_spec_file
from segtool_export.from_onnx import export_onnx


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def adopt(source: Path, spec_file: Path | None, conversion: Conversion = PLAIN, cases: Path | None = None) -> Exported:
    return export_onnx(source, source.with_name("ours.onnx"), spec_file, cases, None, conversion)


def noise(batch: int = 1, size: int = 32) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((batch, 2, size, size)).astype(np.float32)


def answer(path: Path, batch: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": batch})[0]


def test_a_foreign_file_becomes_ours_and_answers_as_before(tmp_path: Path, spec_file: Path):
    source = write_foreign(tmp_path / "other.onnx")
    exported = adopt(source, spec_file)
    assert read_spec(exported.path) == exported.spec
    assert exported.spec.name == "foreign"
    export = exported.spec.provenance["export"]
    assert (export["precision"], export["opset"], len(export["source_sha256"])) == ("fp32", 17, 64)
    np.testing.assert_allclose(load_backend(exported.path, "cpu").run(noise(3)), answer(source, noise(3)), atol=1e-5)


def test_a_spec_may_stand_in_a_table_as_in_a_recipe(tmp_path: Path, spec_file: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[spec]\n" + SPEC, encoding="utf-8")
    assert read_spec_file(recipe) == read_spec_file(spec_file)


@pytest.mark.parametrize(("last", "activation", "labels"), [("Sigmoid", "sigmoid", 1), ("Softmax", "softmax", 2)])
def test_an_activation_at_the_end_is_taken_off(
    tmp_path: Path, spec_file: Path, last: str, activation: str, labels: int
):
    source = write_foreign(tmp_path / "other.onnx", last=last, outputs=labels)
    spec_file.write_text(f'activation = "{activation}"\n{SPEC}', encoding="utf-8")
    exported = adopt(source, spec_file)
    assert any("taken off" in note for note in exported.notes)
    logits = load_backend(exported.path, "cpu").run(noise())
    wanted = answer(source, noise())
    if last == "Sigmoid":
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), wanted, atol=1e-5)
    else:
        np.testing.assert_allclose((logits[:, 1] > logits[:, 0]), wanted[:, 1] > 0.5)


def test_a_batch_of_one_becomes_any_batch_where_the_graph_bears_it(tmp_path: Path, spec_file: Path):
    exported = adopt(write_foreign(tmp_path / "other.onnx", dims=(1, 2, 32, 32)), spec_file)
    assert exported.notes == ("the extent is fixed at 32x32",)
    assert load_backend(exported.path, "cpu").run(noise(3)).shape == (3, 1, 32, 32)


def test_a_batch_that_must_stay_is_said(tmp_path: Path, spec_file: Path):
    exported = adopt(write_foreign(tmp_path / "other.onnx", dims=(1, 2, 32, 32), reshape=True), spec_file)
    assert exported.notes[0] == "the batch stays fixed at 1: the graph does not bear another"


def test_weights_beside_the_file_come_into_it(tmp_path: Path, spec_file: Path):
    source = write_foreign(tmp_path / "other.onnx")
    onnx.save(onnx.load(source), source, save_as_external_data=True, location="w.data", size_threshold=64)
    exported = adopt(source, spec_file)
    (tmp_path / "w.data").unlink()
    assert load_backend(exported.path, "cpu").run(noise()).shape == (1, 1, 32, 32)


CONTRADICTIONS = [
    ({}, ('{ name = "t1ce" }, ', ""), "its input has 2 channels, the spec 1"),
    ({"dims": ("N", "C", "H", "W")}, ('{ name = "t1ce" }, ', ""), "it fails on an input of 1 channels and 32x32"),
    ({}, ("rank = 2, size = [32, 32]", "rank = 3, patch = [32, 32, 32]"), "its input has 2 spatial axes"),
    ({"outputs": 2}, ("", ""), "it makes 1x2x32x32, the spec 1x1x32x32"),
    ({}, ("divisor = 4", "divisor = 2"), "divisor 2"),
    ({"dims": (1, 2, 32, 32)}, ("[32, 32]", "[64, 64]"), "its input has extent 32x32, the spec 64x64"),
    ({"last": "Softmax"}, ("", ""), "it ends in softmax, the spec says sigmoid"),
]


@pytest.mark.parametrize(("graph", "change", "says"), CONTRADICTIONS)
def test_a_spec_that_contradicts_the_graph_is_refused(
    tmp_path: Path, spec_file: Path, graph: dict, change: tuple[str, str], says: str
):
    spec_file.write_text(SPEC.replace(*change) if change[0] else SPEC, encoding="utf-8")
    with pytest.raises(ModelError, match=r"the spec contradicts the graph.*Mend the spec") as raised:
        adopt(write_foreign(tmp_path / "other.onnx", **graph), spec_file)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ours.onnx").exists()


BAD_GRAPHS = [
    ({"inputs": 2}, "2 inputs (x, z), wanted one"),
    ({"operator": "FourierMystery"}, "operator 'FourierMystery' is not in operator set 17"),
    ({"opset": 99}, "operator set 99 is newer than what onnx"),
    ({"dims": (4, 2, 32, 32)}, "its batch is fixed at 4"),
]


@pytest.mark.parametrize(("graph", "says"), BAD_GRAPHS)
def test_a_graph_that_cannot_be_used_is_refused(tmp_path: Path, spec_file: Path, graph: dict, says: str):
    with pytest.raises(ModelError) as raised:
        adopt(write_foreign(tmp_path / "other.onnx", **graph), spec_file)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_no_onnx_or_is_cut_short_is_refused(tmp_path: Path, spec_file: Path, content: bytes | None):
    source = write_foreign(tmp_path / "other.onnx")
    source.write_bytes(source.read_bytes()[:-40] if content is None else content)
    with pytest.raises(ModelError, match="truncated or not an ONNX file"):
        adopt(source, spec_file)


def test_weights_outside_the_files_folder_are_refused(tmp_path: Path, spec_file: Path):
    source = write_foreign(tmp_path / "other.onnx")
    model = onnx.load(source)
    onnx.save(model, source, save_as_external_data=True, location="w.data", size_threshold=64)
    (tmp_path / "in").mkdir()
    inside = tmp_path / "in" / "other.onnx"
    inside.write_bytes(source.read_bytes().replace(b"w.data", b"../w.d"))
    with pytest.raises(ModelError, match=r"outside its folder\. Put the weights beside"):
        adopt(inside, spec_file)


def test_a_file_without_a_spec_asks_for_one(tmp_path: Path):
    with pytest.raises(UsageError, match=r"give that with --spec"):
        adopt(write_foreign(tmp_path / "other.onnx"), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [("name = ", "not TOML"), (SPEC.replace("divisor = 4", "divisor = 5"), "does not divide by 5")],
)
def test_a_bad_spec_is_refused(tmp_path: Path, text: str, says: str):
    (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        read_spec_file(tmp_path / "spec.toml")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_another_precision_of_a_file_is_proved_on_cases(tmp_path: Path, precision: str):
    model = write_model(tmp_path / "bright.onnx", bright_spec())
    write_pictures(tmp_path / "scans")
    exported = adopt(model, None, Conversion(precision, calibration="minmax"), tmp_path / "scans")
    assert load_backend(exported.path, "cpu").precision == precision
    assert exported.spec.provenance["export"]["parity"]["samples"] == 3
    with pytest.raises(UsageError, match="Name them with --cases"):
        adopt(model, None, Conversion(precision))
    if precision == "fp16":
        with pytest.raises(ModelError, match=r"is fp16 already\. Start from the model in FP32"):
            adopt(exported.path.rename(tmp_path / "half.onnx"), None)


def test_a_fixed_shape_is_one_sample_of_the_specs_extent(tmp_path: Path, spec_file: Path):
    exported = adopt(write_foreign(tmp_path / "other.onnx"), spec_file, Conversion(static=True))
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 2, 32, 32]
    assert exported.spec.provenance["export"]["static_shape"] is True
