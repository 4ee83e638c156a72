"""An ONNX graph as OpenVINO computes it fastest: what is changed in memory between reading a file and compiling it.

Every change leaves the network what it is, up to the order in which numbers are added:

* A convolution of joined feature maps, as behind every skip of a U-Net, becomes the sum of one convolution a part.
  OpenVINO adds in place, where it would otherwise copy both parts first.
* Norms that an export wrote as means of means become one operator again for bf16, which rounds the parts to 8 bits
  and sums inside the operator in float32. In fp32 they stay, for the reason that `segtool_export.instance_norms` gives.
"""

from typing import Any

import numpy as np

_JOINS_CHANNELS = 1  # axis of a concatenation ``(N, C, *S)``
_NORM = "exact-norm"  # first part of the names of an export's steps, as in `segtool_export.instance_norms`


def without_joins(model: Any) -> int:  # noqa: ANN401 - the class has no types
    """Part every convolution whose input is a concatenation that nothing else reads; how many there were.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    from openvino import opset13 as operators
    from openvino.utils import replace_node

    count = 0
    for node in model.get_ordered_ops():
        parts = _joined_parts(node) if node.get_type_name() == "Convolution" else None
        if parts is None:
            continue
        weights, given = node.input_value(1).get_node(), node.get_attributes()
        ends = np.cumsum([part.get_partial_shape()[_JOINS_CHANNELS].get_length() for part in parts])
        sums = [
            operators.convolution(
                part,
                operators.constant(np.ascontiguousarray(own)),
                given["strides"],
                given["pads_begin"],
                given["pads_end"],
                given["dilations"],
                given["auto_pad"],
            )
            for part, own in zip(parts, np.split(weights.data, ends[:-1], axis=1), strict=True)
        ]
        total = sums[0]
        for other in sums[1:]:
            total = operators.add(total, other)
        total.set_friendly_name(node.get_friendly_name())
        replace_node(node, total)
        count += 1
    return count


def _joined_parts(convolution: Any) -> list[Any] | None:  # noqa: ANN401 - the class has no types
    """What the convolution's input joins, where it can be parted: float weights and known numbers of channels."""
    source, weights = (convolution.input_value(index) for index in (0, 1))
    joined = source.get_node()
    if joined.get_type_name() != "Concat" or joined.get_attributes()["axis"] != _JOINS_CHANNELS:
        return None
    # Of an FP16 file weights are constants behind a conversion, of an INT8 file behind a scale: those stay.
    if weights.get_node().get_type_name() != "Constant" or len(source.get_target_inputs()) > 1:
        return None
    parts = joined.input_values()
    known = all(part.get_partial_shape()[_JOINS_CHANNELS].is_static for part in parts)
    return parts if known else None


def join_norms(model: Any) -> int:  # noqa: ANN401 - the class has no types
    """Make one operator of the steps of every norm of instances; how many there were.

    Those of groups stay, whose steps go through other shapes, and those that another tool has changed.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    from openvino import opset13 as operators
    from openvino.utils import replace_node

    steps: dict[str, dict[str, Any]] = {}
    for node in model.get_ordered_ops():
        prefix, _, step = node.get_friendly_name().partition("/")
        if prefix.startswith(_NORM) and step:
            steps.setdefault(prefix, {})[step] = node
    count = 0
    for prefix, own in steps.items():
        if "shape" in own or not {"centred", "epsilon", "scale", "bias", "shifted"} <= own.keys():
            continue
        image = own["centred"].input_value(0)
        axes = np.arange(2, image.get_partial_shape().rank.get_length())
        epsilon = float(own["epsilon"].data)
        normed = operators.mvn(image, axes, True, epsilon, "inside_sqrt")
        scaled = operators.multiply(normed, own["scale"].output(0))
        shifted = operators.add(scaled, own["bias"].output(0))
        shifted.set_friendly_name(prefix)
        replace_node(own["shifted"], shifted)
        count += 1
    return count
