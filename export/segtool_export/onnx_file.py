"""A torch network as one ONNX file that holds its spec."""

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from segtool.model_file import write_spec
from segtool.spec import ModelSpec
from segtool_export.external_data import gather
from segtool_export.folding import fold_norms
from segtool_export.instance_norms import split_norms
from segtool_export.precision import HalfNetwork, Kept, kept_modules

INPUT, OUTPUT = "image", "logits"
OLDEST_OPSET, NEWEST_OPSET = 14, 20
"""The oldest that has every operator of our networks, and the newest that the exporter writes."""

_AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}


def write_onnx(
    network: nn.Module, spec: ModelSpec, path: Path, opset: int, *, half: Kept | None = None, static: bool = False
) -> None:
    """Write ``network`` in inference mode with ``spec`` inside.

    Channels are fixed; batch and space are dynamic, unless ``static`` fixes them at one window or slice of the
    spec's size. The graph takes ``image`` ``(N, C, *S)`` and gives ``logits`` ``(N, K, *S)``, both float32. Weights
    that one file cannot hold lie beside it, see :mod:`segtool_export.external_data`.

    Args:
        network: As trained.
        spec: Goes into the file.
        path: Where to write.
        opset: ONNX operator set.
        half: Compute in FP16, and keep so much of it in FP32; None computes all of it in FP32.
        static: Fix batch and extent.

    Raises:
        OutputError: The file cannot be written.
    """
    extent = spec.extent
    if not static and spec.input.rank == 3:
        extent = (smallest_extent(spec),) * 3
    example = torch.zeros(1, len(spec.channels), *extent)
    names = {0: "batch", **dict(enumerate(_AXES[spec.input.rank], start=2))}
    network = network.eval().float().cpu()
    if half is not None:
        network = fold_norms(network, example)
        network = HalfNetwork(network, kept_modules(network, half, example)).eval()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
        _ignore_exporter_warnings()
        # The exporter that records a run, not the newer one that follows torch.export: it writes opset 17,
        # which TensorRT 8.5 still reads, directly; the newer one writes 18 and converts the file downwards.
        torch.onnx.export(
            network,
            (example,),
            str(Path(folder) / path.name),  # a text: only so does the exporter know where weights past 2 GB go
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=None if static else {INPUT: names, OUTPUT: names},
            opset_version=opset,
            dynamo=False,
        )
        if half is None:
            _sum_exactly(Path(folder) / path.name, spec.input.rank)
        gather(Path(folder), path.name, path)
    write_spec(path, spec, path)


def _sum_exactly(path: Path, rank: int) -> None:
    """In place; weights that lie beside the file stay there."""
    model = onnx.load(path, load_external_data=False)
    if split_norms(model, rank):
        onnx.save(model, path)


def smallest_extent(spec: ModelSpec) -> int:
    """Twice the divisor and no less than 16: the bottom of a network then has more than one voxel."""
    return max(16, 2 * spec.divisor)


def _ignore_exporter_warnings() -> None:
    exporter = r"torch\.onnx\..*"
    for category, message, module in (
        (DeprecationWarning, r"You are using the legacy TorchScript-based ONNX export", ""),  # see write_onnx
        (DeprecationWarning, r"The feature will be removed", exporter),  # the exporter about its own parts
        # Instance norm computes its statistics at inference as well; that is no training mode.
        (
            UserWarning,
            r"ONNX export mode is set to TrainingMode.EVAL, but operator 'instance_norm'",
            exporter,
        ),
        # Paddings are recorded as reversed lists, which the exporter leaves to the engine to fold.
        (UserWarning, r"Constant folding - Only steps=1 can be constant folded", ""),
        # Layers look at their input's extent while it is recorded; those looks guard, they compute nothing.
        (TracerWarning, r"Converting a tensor to a Python boolean", ""),
    ):
        warnings.filterwarnings("ignore", message, category, module)
