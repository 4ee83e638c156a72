"""The spec inside an ONNX file: exact bytes, other metadata untouched, broken files refused in one line."""

from pathlib import Path

import pytest

from segtool.errors import ModelError
from segtool.model_file import read_metadata, read_spec, write_spec
from segtool.spec import SCHEMA, ChannelSpec, LabelSpec, ModelSpec, SliceSpec

# ModelProto: ir_version (field 1) = 8, graph (field 7) = an empty message.
TINY = bytes([0x08, 0x08, 0x3A, 0x00])


def spec(**changes: object) -> ModelSpec:
    parts = {
        "name": "tiny",
        "channels": (ChannelSpec(name="t1ce", aliases=("t1c",)),),
        "labels": (LabelSpec(name="tumour", value=1),),
        "input": SliceSpec(size=(32, 32)),
    }
    return ModelSpec(**(parts | changes))


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "bare.onnx"
    path.write_bytes(TINY)
    return path


def test_the_spec_is_one_entry_behind_the_graph(bare: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    write_spec(bare, spec(), target)
    text = spec().to_json().encode()
    assert len(text) > 127  # so that its length takes two bytes
    length = bytes([len(text) & 0x7F | 0x80, len(text) >> 7])
    entry = b"\x0a\x07segtool" + b"\x12" + length + text
    outer = bytes([len(entry) & 0x7F | 0x80, len(entry) >> 7])
    assert target.read_bytes() == TINY + b"\x72" + outer + entry


def test_write_then_read_gives_an_equal_spec(bare: Path) -> None:
    wanted = spec(description="Grüße, ×", provenance={"dice": 0.5, "list": [1, 2]})
    write_spec(bare, wanted, bare)
    assert read_spec(bare) == wanted


def test_writing_again_replaces_the_spec_and_keeps_other_entries(bare: Path) -> None:
    bare.write_bytes(TINY + b"\x72\x06\x0a\x01k\x12\x01v")
    write_spec(bare, spec(version="1"), bare)
    write_spec(bare, spec(version="2"), bare)
    assert read_spec(bare).version == "2"
    assert read_metadata(bare)["k"] == b"v"
    assert bare.read_bytes().count(b"segtool") == 1


def test_onnx_itself_reads_what_we_wrote(bare: Path) -> None:
    onnx = pytest.importorskip("onnx")
    write_spec(bare, spec(), bare)
    model = onnx.load(bare)
    assert {p.key: p.value for p in model.metadata_props} == {"segtool": spec().to_json()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no graph"),
        (b"hello world, this is text", "truncated or not an ONNX file"),
        (bytes([0x08, 0x08, 0x3A, 0x20, 0x00]), "truncated or not an ONNX file"),
        (bytes([0x08]), "truncated or not an ONNX file"),
        (TINY, "without a segtool spec"),
        (TINY + b"\x72\x0c\x0a\x07segtool\x12\x01{", "not JSON"),
        (TINY + b"\x72\x0d\x0a\x07segtool\x12\x02{}", "not valid at 'name'"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_spec(path)
    assert "x.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_newer_schema_says_how_to_update(bare: Path) -> None:
    write_spec(bare, spec(), bare)
    bare.write_bytes(bare.read_bytes().replace(b'"schema":1', f'"schema":{SCHEMA + 1}'.encode()))
    with pytest.raises(ModelError, match="pip install -U segtool"):
        read_spec(bare)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx: cannot be read"):
        read_spec(tmp_path / "gone.onnx")
