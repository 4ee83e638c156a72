"""Whatever is wrong with a model file: one line that names it and the remedy, from every command that takes one."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper, load, save
from shell import files_below, segtool
from tiny import bright_spec, volume_spec, write_model, write_pictures

from segtool.model_file import write_spec


def changed(change: Callable[[ModelProto], None]) -> Callable[[Path], None]:
    """Another graph, with the spec as it was."""

    def write(path: Path) -> None:
        model = load(path)
        change(model)
        save(model, path)

    return write


def another_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"


def operator_of_a_library(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.somebody"


def newer_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 99


def weights_at(location: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return change


MODELS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "truncated or not an ONNX", "segtool export"),
    "empty": (lambda path: path.write_bytes(b""), "", "segtool export"),
    "no onnx": (lambda path: path.write_bytes(b"a text, no model\n" * 9), "not an ONNX file", "segtool export"),
    "no such file": (Path.unlink, "no such file|cannot be read", "Check the path"),
    "weights outside": (changed(weights_at("../w.bin")), "outside its folder", "Put the weights beside the model"),
    "weights missing": (changed(weights_at("w.bin")), "'w.bin' are not beside it", "Copy that file along"),
    "unknown operator": (changed(unknown_operator), "Frobnicate", "opset|version_converter"),
    "a library's operator": (changed(operator_of_a_library), "'com.somebody'", "the standard's operators alone"),
    "two inputs": (changed(another_input), "image.*age", "segtool export|Export it again with one input"),
    "opset too new": (changed(newer_opset), "99", "opset|version_converter"),
    "spec of a volume": (lambda path: write_spec(path, volume_spec(), path), "spec", "segtool export|Mend the spec"),
    "spec of two labels": (
        lambda path: write_spec(path, bright_spec(activation="softmax"), path), "spec", "segtool export|Mend the spec",
    ),
}  # fmt: skip
"""What is done to a good file, what the line says, and its remedy."""


@pytest.mark.parametrize("command", ["predict", "export"])
@pytest.mark.parametrize("what", MODELS)
def test_a_bad_model_is_one_line_with_a_remedy(tmp_path: Path, capsys, what: str, command: str) -> None:
    spoil, said, remedy = MODELS[what]
    (tmp_path / "models").mkdir()
    model = write_model(tmp_path / "models" / "bad.onnx", bright_spec())
    spoil(model)
    (tmp_path / "w.bin").write_bytes(bytes(4))
    if command == "predict":
        write_pictures(tmp_path / "scans", 1)
        arguments = ("predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "out")
    else:
        pytest.importorskip("torch", reason="export needs torch")
        arguments = ("export", model, "-o", tmp_path / "out.onnx")
    answer = segtool(capsys, *arguments)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert "bad.onnx" in line
    assert re.search(said, line)
    assert re.search(remedy, line)
    assert files_below(tmp_path / "out") == set()
    assert not (tmp_path / "out.onnx").exists()
