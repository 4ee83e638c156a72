"""Time and peak memory of ``segtool predict`` against the size of one volume, with next to no network.

What is measured is therefore the pipeline: reading, normalising, windows and their blending, deciding, writing. The
network is one convolution with a 1x1x1 kernel and five classes, in windows of 128^3 that overlap by half.

Run: ``python -m benchmarks.sizes``
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx import save as save_onnx

from benchmarks.common import machine, save, versions
from benchmarks.memory import predict as predict_process
from segtool.model_file import write_spec
from segtool.spec import ChannelSpec, IntensitySpec, LabelSpec, ModelSpec, VolumeSpec

SHAPES = ((128, 128, 128), (256, 256, 256), (512, 512, 350), (512, 512, 700))
CLASSES = 5


def write_model(path: Path) -> None:
    """One convolution: class ``k`` has the logit ``k x`` minus half of ``k`` squared."""
    spec = ModelSpec(
        name="pipeline",
        channels=(ChannelSpec(name="ct"),),
        labels=tuple(LabelSpec(name=f"organ{value}", value=value) for value in range(1, CLASSES)),
        activation="softmax",
        input=VolumeSpec(patch=(128, 128, 128)),
        intensity=IntensitySpec(kind="zscore"),
    )
    levels = np.arange(CLASSES, dtype=np.float32)
    space = ("d", "h", "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])],
        "pipeline",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, *space])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES, *space])],
        [
            numpy_helper.from_array(levels.reshape(CLASSES, 1, 1, 1, 1), "weight"),
            numpy_helper.from_array(-(levels**2) / 2, "bias"),
        ],
    )
    save_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_spec(path, spec, path)


def write_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Smooth bumps with noise, int16, gzipped."""
    rng = np.random.default_rng(0)
    waves = [np.sin(np.linspace(0, 9, n, dtype=np.float32)) for n in shape]
    voxels = 400 * waves[0][:, None, None] * waves[1][None, :, None] * waves[2][None, None, :]
    voxels += rng.integers(1, 60, shape, np.int16)
    image: Any = nibabel
    image.save(image.Nifti1Image(voxels.astype(np.int16), np.diag([0.8, 0.8, 0.8, 1])), path)


def predict(model: Path, folder: Path, output: Path) -> dict[str, Any]:
    """The whole process's peak memory, and the report's times."""
    _, peak = predict_process(folder, output, "-m", str(model))
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return {
        "peak_mb": peak,
        "elapsed_s": report["elapsed_s"],
        "stage_seconds": report["stage_seconds"],
    }


def main() -> None:
    """Measure, print, save."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        write_model(top / "model.onnx")
        for shape in SHAPES:
            folder = top / "x".join(map(str, shape))
            folder.mkdir()
            write_volume(folder / "volume.nii.gz", shape)
            row = {
                "shape": shape,
                "classes": CLASSES,
                **predict(top / "model.onnx", folder, top / f"out-{folder.name}"),
            }
            row["mb_of_its_voxels"] = np.prod(shape) * 2 / 1e6
            rows.append(row)
            print(f"{folder.name:14} {row['elapsed_s']:7.1f} s {row['peak_mb']:7.0f} MB", flush=True)
    print(
        save(
            "sizes",
            {
                "what": "segtool predict on one volume with a network of one 1x1x1 convolution",
                "machine": machine(),
                "versions": versions("segtool", "onnxruntime", "numpy", "isal"),
                "rows": rows,
            },
        )
    )


if __name__ == "__main__":
    main()
