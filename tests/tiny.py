"""Small real ONNX models and scans for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from segtool.model_file import write_spec
from segtool.spec import ChannelSpec, IntensitySpec, LabelSpec, ModelSpec, SliceSpec, VolumeSpec

T1CE = ChannelSpec(name="t1ce", aliases=("t1c", "t1gd"))


def spec_of(*channels: str | ChannelSpec) -> ModelSpec:
    """A 2D model of these channels and one label."""
    return ModelSpec(
        name="test",
        channels=tuple(ChannelSpec(name=c) if isinstance(c, str) else c for c in channels),
        labels=(LabelSpec(name="tumour", value=1),),
        input=SliceSpec(size=(16, 16)),
    )


def write_model(path: Path, spec: ModelSpec, logits: np.ndarray | None = None) -> Path:
    """An ONNX model whose logits are a 1x1 convolution of its input.

    Args:
        path: Where to write.
        spec: Its spec.
        logits: ``(K, C)`` weights; None for the first channel alone. The bias is -0.5.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rank, outputs = spec.input.rank, spec.output_channels
    if logits is None:
        logits = np.zeros((outputs, len(spec.channels)))
        logits[:, 0] = 1
    weight = logits.astype(np.float32).reshape(outputs, -1, *[1] * rank)
    axes = ["h", "w"] if rank == 2 else ["d", "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", len(spec.channels), *axes])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs, *axes])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.full(outputs, -0.5, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)
    write_spec(path, spec, path)
    return path


def bright_spec(size: int = 32, **changes: object) -> ModelSpec:
    """A 2D spec under which the tiny model labels what is brighter than half the slice's range."""
    parts = {
        "name": "bright",
        "channels": (T1CE,),
        "labels": (LabelSpec(name="tumour", value=1),),
        "input": SliceSpec(size=(size, size)),
        "intensity": IntensitySpec(kind="minmax"),
    }
    return ModelSpec(**(parts | changes))


def volume_spec(patch: int = 16, channels: tuple[str, ...] = ("t1ce",), **changes: object) -> ModelSpec:
    """A 3D spec under which the tiny model labels what is brighter than half the volume's range."""
    parts = {
        "name": "bright3d",
        "channels": tuple(ChannelSpec(name=name) for name in channels),
        "labels": (LabelSpec(name="tumour", value=1),),
        "input": VolumeSpec(patch=(patch, patch, patch), crop_to_nonzero=False),
        "intensity": IntensitySpec(kind="minmax"),
    }
    return ModelSpec(**(parts | changes))


def disc(size: int = 32, centre: tuple[int, int] = (12, 18), radius: int = 6) -> np.ndarray:
    """A boolean disc ``(size, size)``."""
    rows, columns = np.ogrid[:size, :size]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def write_pictures(folder: Path, count: int = 3, size: int = 32, masks: bool = True) -> list[np.ndarray]:
    """``count`` PNG slices with a bright disc each, and their masks beside them; returns the masks."""
    folder.mkdir(parents=True, exist_ok=True)
    discs = [disc(size, (8 + i % 16, 16), 5) for i in range(count)]
    for i, mask in enumerate(discs):
        Image.fromarray(np.where(mask, 200, 30).astype(np.uint8)).save(folder / f"slice_{i}.png")
        if masks:
            Image.fromarray((mask * 255).astype(np.uint8)).save(folder / f"slice_{i}_mask.png")
    return discs
