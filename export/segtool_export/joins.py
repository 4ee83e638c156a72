"""Convolutions of joined feature maps, as behind every skip of a U-Net, as sums of one convolution a part.

The sum is the same but for the order in which it is added up. In INT8 that matters: a concatenation of quantised maps
has one scale for all its parts, which is wrong for some of them, and OpenVINO 2026.4 takes the first one's for both,
so that its masks have nothing in common with the right ones. Parts that are never joined keep their own.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from segtool_export.onnx_graph import all_nodes

_CHANNELS = 1


def split_joins(model: ModelProto) -> int:
    """Part the convolutions that alone read a concatenation of channels; how many there were.

    Args:
        model: Its weights lie in it. Changed in place.
    """
    joins = {node.output[0]: node for node in model.graph.node if node.op_type == "Concat" and _axis(node) == _CHANNELS}
    uses = Counter(name for node in all_nodes(model.graph) for name in node.input)
    uses.update(value.name for value in model.graph.output)
    given = {value.name for value in model.graph.input}  # old files list their weights there
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in given}
    channels = _channels(model)
    parted: dict[str, tuple[NodeProto, list[int]]] = {}
    for node in model.graph.node:
        join = joins.get(node.input[0]) if node.op_type == "Conv" else None
        grouped = any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
        if join is None or len(join.input) < 2 or grouped or node.input[1] not in weights:
            continue
        own = _parts([channels.get(name) for name in join.input], weights[node.input[1]].dims[1])
        if own is not None:
            parted[node.output[0]] = join, own
    readers = Counter(join.output[0] for join, _ in parted.values())
    parted = {name: found for name, found in parted.items() if uses[found[0].output[0]] == readers[found[0].output[0]]}
    gone = {join.output[0] for join, _ in parted.values()}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        found = parted.get(node.output[0]) if node.output else None
        if found is not None:
            join, own = found
            nodes += _sum(node, join, own, weights[node.input[1]], model)
        elif not (node.output and node.output[0] in gone):
            nodes.append(node)
    gone_weights = {node.input[1] for node in model.graph.node if node.output and node.output[0] in parted}
    gone_weights -= {name for node in nodes for name in node.input}
    gone_weights -= {value.name for value in model.graph.output}
    for name in sorted(gone_weights):
        model.graph.initializer.remove(weights[name])
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return len(parted)


def _sum(
    convolution: NodeProto, join: NodeProto, channels: list[int], weights: TensorProto, model: ModelProto
) -> Iterator[NodeProto]:
    """One convolution a part, the first with the bias, and their sum; new weights go into the model."""
    output, values = convolution.output[0], numpy_helper.to_array(weights)
    ends = [0, *np.cumsum(channels)]
    total = ""
    for number, (part, (start, end)) in enumerate(zip(join.input, pairwise(ends), strict=True)):
        own = numpy_helper.from_array(np.ascontiguousarray(values[:, start:end]), f"{output}/weights-{number}")
        model.graph.initializer.append(own)
        piece = NodeProto()
        piece.CopyFrom(convolution)
        piece.name = f"{convolution.name or output}/{number}"
        bias = list(convolution.input[2:]) if number == 0 else []
        piece.input[:] = [part, own.name, *bias]
        piece.output[:] = [f"{output}/{number}"]
        yield piece
        if number:
            last = number == len(channels) - 1
            both = [total, piece.output[0]]
            total = output if last else f"{output}/sum-{number}"
            yield helper.make_node("Add", both, [total], f"{convolution.name or output}/sum-{number}")
        else:
            total = piece.output[0]


def _parts(known: list[int | None], total: int) -> list[int] | None:
    """Channels of each part, of which one may be unknown, as behind a resizing; None where they cannot be told."""
    left = total - sum(count for count in known if count is not None)
    if known.count(None) == 1 and left > 0:
        return [left if count is None else count for count in known]
    return [count for count in known if count is not None] if None not in known and left == 0 else None


def _axis(node: NodeProto) -> int:
    return int(next(attribute.i for attribute in node.attribute if attribute.name == "axis"))


def _channels(model: ModelProto) -> dict[str, int]:
    """Of every tensor ``(N, C, *S)`` whose number of channels is known."""
    graph = shape_inference.infer_shapes(model).graph
    found = {}
    for value in (*graph.value_info, *graph.input):
        dims = value.type.tensor_type.shape.dim
        if len(dims) > _CHANNELS and dims[_CHANNELS].HasField("dim_value"):
            found[value.name] = dims[_CHANNELS].dim_value
    return found
