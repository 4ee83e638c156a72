"""Weights in a file beside the model, which ONNX calls external data: for models that one file cannot hold."""

import math
import shutil
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import set_external_data, uses_external_data

from segtool.atomic import atomic_path
from segtool.backends.graph import read_graph
from segtool.errors import UsageError
from segtool.model_file import sha256, write_spec
from segtool.spec import ModelSpec

LARGEST_BYTES = 2_000_000_000
"""Of weights inside a model file: a protocol buffer ends at 2^31 bytes, and graph and spec need some of them."""
SUFFIX = ".data"
_SMALLEST_BYTES = 1024
"""Of a tensor that is worth a place beside the model: shapes and scales stay in the graph, where engines fold them."""


def save_model(model: ModelProto, path: Path) -> None:
    """Write a model, with its weights in ``path`` and :data:`SUFFIX` where they are more than one file holds.

    Weights that lie beside ``path`` already stay there.
    """
    inside = [tensor for tensor in model.graph.initializer if not uses_external_data(tensor)]
    if sum(map(_bytes, inside)) <= LARGEST_BYTES:
        onnx.save(model, path)
        return
    weights = path.with_name(path.name + SUFFIX)
    weights.unlink(missing_ok=True)  # onnx would write behind what is there
    for tensor in inside:
        if tensor.HasField("raw_data") and _bytes(tensor) >= _SMALLEST_BYTES:
            set_external_data(tensor, weights.name)
    onnx.save(model, path)


def _bytes(tensor: TensorProto) -> int:
    count: int = math.prod(tensor.dims)
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def gather(folder: Path, name: str, path: Path) -> None:
    """Move the model ``name``, the only one in ``folder``, to ``path``; weights of many files come into one."""
    if sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST_BYTES:
        shutil.move(folder / name, path)
    else:
        save_model(onnx.load(folder / name), path)


def check_inside(model: Path, precision: str) -> None:
    """Before a file is converted by tools that hold all of it as one protocol buffer.

    Raises:
        UsageError: Its weights lie beside it.
    """
    if read_graph(model).external:
        raise UsageError(
            f"--precision {precision}: the weights are more than {LARGEST_BYTES / 1e9:g} GB, which no converter of "
            "ONNX files takes",
            "Export a run with --precision fp16, or leave --precision out.",
        )


def weights_facts(model: Path, name: str) -> dict[str, Any] | None:
    """What the spec says of the weights beside a model that will be called ``name``; None where there are none."""
    weights = _weights(model)
    if weights is None:
        return None
    return {"file": name + SUFFIX, "size_bytes": weights.stat().st_size, "sha256": sha256(weights)}


def publish(model: Path, spec: ModelSpec, output: Path) -> None:
    """Copy a model to ``output`` with ``spec`` inside, and what lies beside it under the output's name.

    Raises:
        OutputError: A file cannot be written.
    """
    weights = _weights(model)
    if weights is None:
        with atomic_path(output) as temporary:
            write_spec(model, spec, temporary)
        return
    graph, name = onnx.load(model, load_external_data=False), output.name + SUFFIX
    for tensor in filter(uses_external_data, graph.graph.initializer):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    with atomic_path(output.with_name(name)) as temporary:
        shutil.copyfile(weights, temporary)
    with atomic_path(output) as temporary:
        onnx.save(graph, temporary)
        write_spec(temporary, spec, temporary)


def _weights(model: Path) -> Path | None:
    names = read_graph(model).external
    assert len(names) <= 1, "gather and save_model write one"
    return next((model.with_name(name) for name in names), None)
