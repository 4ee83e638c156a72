"""Small changes of an ONNX graph."""

from collections.abc import Iterator, Mapping

import onnx
from onnx import ModelProto, NodeProto

_STANDARD = ("", "ai.onnx")
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Softmax": "softmax"}
_CHANNELS = 1


def known_operators(model: ModelProto) -> str | None:
    """What is wrong with the operators, in words; None where the installed onnx knows all of the standard's."""
    newest = onnx.defs.onnx_opset_version()
    opset = max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)
    if opset > newest:
        return f"operator set {opset} is newer than what onnx {onnx.__version__} knows ({newest})"
    functions = {function.name for function in model.functions}
    for node in all_nodes(model.graph):
        if node.domain in _STANDARD and node.op_type not in functions and not onnx.defs.has(node.op_type, opset):
            return f"operator {node.op_type!r} is not in operator set {opset}"
    return None


def without_activation(model: ModelProto) -> str | None:
    """Take off a last sigmoid, or a last softmax over the channels; returns which, None where there is none."""
    output = model.graph.output[0]
    last = next((node for node in model.graph.node if output.name in node.output), None)
    if last is None or last.op_type not in _ACTIVATIONS:
        return None
    rank = len(output.type.tensor_type.shape.dim)
    if last.op_type == "Softmax" and _axis(last) not in (_CHANNELS, _CHANNELS - rank):
        return None
    before = last.input[0]
    model.graph.node.remove(last)
    output.name = before
    for value in [value for value in model.graph.value_info if value.name == before]:
        model.graph.value_info.remove(value)
    return _ACTIVATIONS[last.op_type]


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)


def rename(model: ModelProto, old: str, new: str) -> None:
    """Call a tensor otherwise wherever it stands; one that has the new name already makes room."""
    if old == new:
        return
    taken = {name for node in all_nodes(model.graph) for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in model.graph.initializer}
    names = {old: new}
    if new in taken:
        free = f"{new}_inner"
        while free in taken:
            free += "_"
        names[new] = free
    for node in all_nodes(model.graph):
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


def own_weights(model: ModelProto) -> None:
    """Give every node weights of its own, where it shares them or reads them through an Identity.

    Torch writes weights that are equal once, and such an Identity for each of the others.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    aliases: dict[str, str] = {}
    used: set[str] = set()
    for node in model.graph.node:
        source = aliases.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "Identity" and source in weights:
            aliases[node.output[0]] = source
            continue
        for position, name in enumerate(node.input):
            weight = aliases.get(name, name)
            if weight in weights and (name in aliases or name in used):
                node.input[position] = f"{weight}-{len(model.graph.initializer)}"
                copy = model.graph.initializer.add()
                copy.CopyFrom(weights[weight])
                copy.name = node.input[position]
            used.add(name)
    needed = {name for node in all_nodes(model.graph) for name in node.input}
    needed |= {value.name for value in model.graph.output}
    for node in [node for node in model.graph.node if node.output[0] in aliases.keys() - needed]:
        model.graph.node.remove(node)


def set_dims(model: ModelProto, dims: Mapping[int, int | str]) -> None:
    """Fix or free axes of input and output; shapes recorded in between are forgotten, engines infer them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for value in (*inputs, *model.graph.output):
        shape = value.type.tensor_type.shape
        for axis, size in dims.items():
            if axis >= len(shape.dim):
                continue
            shape.dim[axis].Clear()
            if isinstance(size, str):
                shape.dim[axis].dim_param = size
            else:
                shape.dim[axis].dim_value = size
    del model.graph.value_info[:]


def all_nodes(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """All nodes, those of graphs within the graph included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)
