"""Small ONNX files as other tools make them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SPEC = """
name = "foreign"
divisor = 4
channels = [{ name = "t1ce" }, { name = "flair" }]
labels = [{ name = "tumour", value = 1 }]
input = { rank = 2, size = [32, 32] }
intensity = { kind = "minmax" }
"""


def write_foreign(
    path: Path,
    *,
    last: str | None = None,
    dims: tuple[int | str, ...] = ("N", 2, "H", "W"),
    outputs: int = 1,
    operator: str | None = None,
    inputs: int = 1,
    opset: int = 17,
    reshape: bool = False,
) -> Path:
    """A 3x3 convolution, a pooling by 4 and back, under the names ``x`` and ``y``.

    Args:
        path: Where to write.
        last: An operator at the end, such as ``Sigmoid``.
        dims: Of the input.
        outputs: Channels.
        operator: A node of this type beside the others.
        inputs: One or two.
        opset: To be declared.
        reshape: Hold the batch as a number in the graph.
    """
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.3, (outputs, 2, 3, 3)).astype(np.float32)
    end = "y" if last is None else "before"
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["image"], pads=[1, 1, 1, 1]),  # the name that ours will have
        helper.make_node("AveragePool", ["image"], ["low"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Resize", ["low", "", "scales"], ["high"], mode="nearest"),
        helper.make_node("Add", ["image", "high"], ["sum" if reshape else end]),
    ]
    weights = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"),
    ]
    if reshape:
        nodes.append(helper.make_node("Reshape", ["sum", "shape"], [end]))
        weights.append(numpy_helper.from_array(np.array([1, outputs, 32, 32]), "shape"))
    if last is not None:
        nodes.append(helper.make_node(last, [end], ["y"], **({"axis": 1} if last == "Softmax" else {})))
    if operator is not None:
        nodes.append(helper.make_node(operator, ["x"], ["beside"]))
    names = ["x", "z"][:inputs]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [dims[0], outputs, *dims[2:]])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path
