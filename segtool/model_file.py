"""Reads and writes the spec inside an ``.onnx`` file without the onnx package.

An ONNX file is a protocol buffer, ``ModelProto``. Its field 14, ``metadata_props``, is a repeated message of
key (field 1) and value (field 2). Only the tags and lengths of the top-level fields are walked: the weights
(field 7, the graph) are skipped by seeking, so that a large file is read in milliseconds.

Source: onnx.proto3 and the protocol buffer wire format, https://protobuf.dev/programming-guides/encoding/.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from segtool.atomic import atomic_path
from segtool.errors import ModelError
from segtool.spec import ModelSpec

_GRAPH, _METADATA = 7, 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_SPEC_BYTES = 16 * 2**20
_REMEDY = "Give an .onnx file that `segtool export` wrote."


class _MalformedError(ValueError):
    """The bytes are not a protocol buffer."""


def _varint(file: BinaryIO) -> int:
    """One base-128 number."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _MalformedError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _MalformedError


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int, int]]:
    """``(field number, offset of the tag, offset of the payload, offset behind it)`` of each top-level field."""
    while (start := file.tell()) < end:
        tag = _varint(file)
        if not tag >> 3:
            raise _MalformedError
        wire = tag & 7
        if wire == _VARINT:
            payload = file.tell()
            _varint(file)
            stop = file.tell()
        elif wire == _LENGTH:
            length = _varint(file)
            payload = file.tell()
            stop = payload + length
        elif wire in (_FIXED64, _FIXED32):
            payload = file.tell()
            stop = payload + (8 if wire == _FIXED64 else 4)
        else:
            raise _MalformedError
        if stop > end:
            raise _MalformedError
        yield tag >> 3, start, payload, stop
        file.seek(stop)


def _entry(file: BinaryIO, payload: int, stop: int) -> tuple[str, bytes]:
    """Key and value of one ``metadata_props`` entry."""
    if stop - payload > _MAX_SPEC_BYTES:
        raise _MalformedError
    key, value = b"", b""
    file.seek(payload)
    for number, _, begin, end in _fields(file, stop):
        file.seek(begin)
        content = file.read(end - begin)
        if number == 1:
            key = content
        elif number == 2:
            value = content
    return key.decode(errors="replace"), value


def read_metadata(path: Path) -> dict[str, bytes]:
    """All metadata entries of an ONNX file.

    Raises:
        ModelError: No such file, or not an ONNX file, or truncated.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(0)
            entries: dict[str, bytes] = {}
            has_graph = False
            for number, _, payload, stop in _fields(file, end):
                has_graph |= number == _GRAPH
                if number == _METADATA:
                    key, value = _entry(file, payload, stop)
                    entries[key] = value
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    except _MalformedError as error:
        raise ModelError(f"{path}: truncated or not an ONNX file", _REMEDY) from error
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


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | _LENGTH) + _encode_varint(len(payload)) + payload


def write_spec(source: Path, spec: ModelSpec, target: Path) -> None:
    """Copy the ONNX file ``source`` to ``target`` with ``spec`` inside, in place of any earlier one.

    ``source`` and ``target`` may be the same file.

    Raises:
        ModelError: ``source`` is not an ONNX file.
        OutputError: ``target`` cannot be written.
    """
    read_metadata(source)
    kept = bytearray()
    with source.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        for number, start, payload, stop in _fields(file, end):
            if number == _METADATA and _entry(file, payload, stop)[0] == ModelSpec.KEY:
                continue
            file.seek(start)
            kept += file.read(stop - start)
    entry = _encode(1, ModelSpec.KEY.encode()) + _encode(2, spec.to_json().encode())
    kept += _encode(_METADATA, entry)
    with atomic_path(target) as temporary:
        temporary.write_bytes(kept)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
