"""Instance norms of a graph in steps that sum exactly, and back.

Engines take the mean and the variance of a channel in one running sum of float32. Over the two million voxels of a
128^3 window that sum is off in its fourth digit: with a trained 3D U-Net, logits of ONNX Runtime 1.31 then differ from
those in float64 by 0.004, of OpenVINO 2026.4 by 0.04, where torch's differ by 0.00001. Sums of sums do not have that
fault. Rows come first and then their means, with a reshape between the two, since OpenVINO puts neighbouring reductions
together again. It takes no longer.

In FP16 the operator is the better one: engines take its sums in float32, those of a reduction in what it is given.
"""

from collections.abc import Iterator
from typing import Any

from onnx import ModelProto, NodeProto, helper, shape_inference

_OPERATOR = "InstanceNormalization"
_PREFIX = "exact-norm"
_AXES_AS_INPUT = 18  # operator set from which ReduceMean takes its axes as an input
_EPSILON = 1e-5  # of the operator, where a node names none


def split_norms(model: ModelProto, rank: int) -> int:
    """Write every instance norm of images ``(N, C, *S)`` as means of means, in place; how many there were.

    Those of other inputs stay, such as the norms of groups, which see all of a group in one row.

    Args:
        model: Its weights may lie outside the file.
        rank: Number of axes in ``S``, 2 or more.
    """
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes: list[NodeProto] = []
    count = 0
    known = shape_inference.infer_shapes(model).graph.value_info if _has_norms(model) else ()
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*known, *model.graph.input)}
    for node in model.graph.node:
        if node.op_type == _OPERATOR and ranks.get(node.input[0]) == 2 + rank:
            nodes += _steps(node, f"{_PREFIX}-{count}", rank, opset)
            count += 1
        else:
            nodes.append(node)
    _replace(model, nodes)
    return count


def join_norms(model: ModelProto) -> int:
    """The inverse of :func:`split_norms`; how many there were."""
    groups: dict[str, dict[str, NodeProto]] = {}
    for node in model.graph.node:
        prefix, _, step = node.name.partition("/")
        if prefix.startswith(_PREFIX) and step:
            groups.setdefault(prefix, {})[step] = node
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        prefix, _, step = node.name.partition("/")
        if prefix not in groups:
            nodes.append(node)
        elif step == "shifted":
            steps = groups[prefix]
            inputs = [steps["centred"].input[0], steps["scale"].input[0], steps["bias"].input[0]]
            (epsilon,) = steps["epsilon"].attribute[0].t.float_data
            nodes.append(helper.make_node(_OPERATOR, inputs, list(node.output), prefix, epsilon=epsilon))
    _replace(model, nodes)
    return len(groups)


def _has_norms(model: ModelProto) -> bool:
    return any(node.op_type == _OPERATOR for node in model.graph.node)


def _replace(model: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _steps(norm: NodeProto, prefix: str, rank: int, opset: int) -> Iterator[NodeProto]:
    """The nodes that stand for one norm; the last gives its output.

    With ``x`` of shape ``(N, C, *S)``: ``c = x - mean(x)``, then ``c scale / sqrt(mean(c c) + epsilon) + bias``.
    """
    image, scale, bias = norm.input

    def node(operator: str, inputs: list[str], step: str, **attributes: Any) -> NodeProto:  # noqa: ANN401 - onnx's own
        return helper.make_node(operator, inputs, [f"{prefix}/{step}"], f"{prefix}/{step}", **attributes)

    def constant(step: str, values: list[int]) -> NodeProto:
        return node("Constant", [], step, value_ints=values)

    def mean_of(source: str, step: str) -> Iterator[NodeProto]:
        def reduce(inputs: str, axis: str, number: int, to: str) -> NodeProto:
            if opset >= _AXES_AS_INPUT:
                return node("ReduceMean", [inputs, f"{prefix}/{axis}"], to, keepdims=0)
            return node("ReduceMean", [inputs], to, axes=[number], keepdims=0)

        yield reduce(source, "last", -1, f"{step}-rows")
        yield node("Reshape", [f"{prefix}/{step}-rows", f"{prefix}/flat"], f"{step}-flat")
        yield reduce(f"{prefix}/{step}-flat", "last", -1, f"{step}-all")
        yield node("Reshape", [f"{prefix}/{step}-all", f"{prefix}/whole"], step)

    epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), _EPSILON)
    # 0 keeps an axis as it is; one row a channel, then one number a channel.
    yield constant("flat", [0, 0, -1])
    yield constant("whole", [0, 0, *[1] * rank])
    yield constant("channels", [1, -1, *[1] * rank])
    if opset >= _AXES_AS_INPUT:
        yield constant("last", [-1])
    yield node("Constant", [], "epsilon", value=helper.make_tensor("epsilon", 1, (), [epsilon]))
    yield node("Reshape", [scale, f"{prefix}/channels"], "scale")
    yield node("Reshape", [bias, f"{prefix}/channels"], "bias")
    yield from mean_of(image, "mean")
    yield node("Sub", [image, f"{prefix}/mean"], "centred")
    yield node("Mul", [f"{prefix}/centred"] * 2, "squared")
    yield from mean_of(f"{prefix}/squared", "variance")
    yield node("Add", [f"{prefix}/variance", f"{prefix}/epsilon"], "floored")
    yield node("Sqrt", [f"{prefix}/floored"], "deviation")
    yield node("Div", [f"{prefix}/scale", f"{prefix}/deviation"], "factor")
    yield node("Mul", [f"{prefix}/centred", f"{prefix}/factor"], "scaled")
    yield helper.make_node("Add", [f"{prefix}/scaled", f"{prefix}/bias"], [norm.output[0]], f"{prefix}/shifted")
