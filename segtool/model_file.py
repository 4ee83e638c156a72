"""Reads and writes the spec inside an ``.onnx`` file without the onnx package.

An ONNX file is a protocol buffer, ``ModelProto``. Its field 14, ``metadata_props``, is a repeated message of
key (field 1) and value (field 2). Only the top-level fields are walked; the graph (field 7) is stepped over.

Source: onnx.proto3.
"""

import hashlib
from pathlib import Path

from segtool.atomic import atomic_path
from segtool.errors import ModelError
from segtool.protobuf import MalformedError, Reader, encode, entry, fields, mapped
from segtool.spec import ModelSpec

_GRAPH, _METADATA = 7, 14
_REMEDY = "Give an .onnx file that `segtool export` wrote."


def read_metadata(path: Path) -> dict[str, bytes]:
    """All metadata entries of an ONNX file.

    Raises:
        ModelError: No such file, or not an ONNX file, or truncated, or with more in it than a model has.
    """
    entries: dict[str, bytes] = {}
    has_graph = False
    try:
        reader = Reader()
        for number, value, _, _ in reader.fields(mapped(path)):
            has_graph |= number == _GRAPH
            if number == _METADATA and isinstance(value, memoryview):
                reader.add_entry(entries, value)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    except MalformedError as error:
        raise ModelError(f"{path}: {error}", _REMEDY) from error
    if not has_graph:
        raise ModelError(f"{path}: not an ONNX file (it holds no graph)", _REMEDY)
    return entries


def read_spec(path: Path) -> ModelSpec:
    """The spec inside a model file.

    Raises:
        ModelError: Not an ONNX file, no spec in it, or one that this version cannot read.
    """
    value = read_metadata(path).get(ModelSpec.KEY)
    if value is None:
        raise ModelError(f"{path}: an ONNX file without a segtool spec", _REMEDY)
    return ModelSpec.from_json(value, str(path))


def write_spec(source: Path, spec: ModelSpec, target: Path) -> None:
    """Copy the ONNX file ``source`` to ``target`` with ``spec`` inside, in place of any earlier one.

    ``source`` and ``target`` may be the same file.

    Raises:
        ModelError: ``source`` is not an ONNX file.
        OutputError: ``target`` cannot be written.
    """
    read_metadata(source)
    data = source.read_bytes()  # not mapped: a file that is mapped cannot be replaced on every system
    kept = bytearray()
    for number, value, start, stop in fields(memoryview(data)):
        if number == _METADATA and isinstance(value, memoryview) and entry(value)[0] == ModelSpec.KEY:
            continue
        kept += data[start:stop]
    one = encode(1, ModelSpec.KEY.encode()) + encode(2, spec.to_json().encode())
    kept += encode(_METADATA, one)
    with atomic_path(target) as temporary:
        temporary.write_bytes(kept)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
