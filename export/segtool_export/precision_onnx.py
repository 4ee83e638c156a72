"""FP16 inside an ONNX graph, FP32 around it, for models of which only the file is at hand."""

import warnings
from pathlib import Path

import onnx

from segtool.errors import MissingDependencyError
from segtool_export.instance_norms import join_norms
from segtool_export.onnx_graph import own_weights
from segtool_export.precision import Kept

_NORMS = ("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def halve(full: Path, path: Path, *, kept: Kept) -> None:
    """Write the model with FP16 inside.

    Args:
        full: The model in FP32.
        path: Where to write.
        kept: What stays in FP32.

    Raises:
        MissingDependencyError: The converter is not installed.
    """
    try:
        from onnxconverter_common import float16
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "onnxconverter-common is not installed, which turns ONNX files into FP16",
            "Install it with: pip install 'segtool[export]'",
        ) from error
    model = onnx.load(full)
    join_norms(model)
    own_weights(model)  # one that is read in FP16 and in FP32 becomes a graph that no engine loads
    _name_nodes(model.graph)
    # The list is of operators that lacked FP16 in engines of the past; Resize has it everywhere today, and its scales
    # must stay as they are, which the converter sees to.
    blocked = [operator for operator in float16.DEFAULT_OP_BLOCK_LIST if operator != "Resize"]
    kept_nodes: list[str] = []
    if kept != "nothing":
        blocked += _NORMS
    if kept == "norms, first and last layers":
        names = [node.name for node in model.graph.node if node.op_type in _CONVOLUTIONS]
        kept_nodes = names[:1] + names[-1:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the float32 number .* will be truncated")  # parity is the judge of that
        half = float16.convert_float_to_float16(
            model, keep_io_types=True, op_block_list=blocked, node_block_list=kept_nodes
        )
    onnx.save(half, path)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """The converter tells nodes apart by name."""
    taken = {node.name for node in graph.node}
    for number, node in enumerate(graph.node):
        if not node.name:
            name = f"node-{number}"
            while name in taken:
                name += "-"
            node.name = name
            taken.add(name)
