"""A whole BraTS-like case, from four NIfTI files to a label map, by nnU-Net, MONAI and segtool with one network.

Run: ``python -m benchmarks.whole_case RUN CASE`` with a 3D run of ``segtool train`` and a folder of one case, in an
environment that holds ``segtool[cpu,openvino,export]`` and nnunetv2; whatever is not installed is left out.

Every contender has a process of its own and keeps its network loaded, but segtool, whose command loads the model
anew for each case. They take turns. All use the same weights, windows of the same size and overlap, Gaussian
blending, no mirroring and all cores. Rows with ``malloc`` set glibc's allocator so that it keeps its memory, which
makes torch on a CPU up to twice as fast and which no tool sets by itself.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import machine, save, spread, versions
from segtool.bench.memory import peak_mb
from segtool.bench.run import agreement
from segtool.bench.worker import own_stdout
from segtool.model_file import read_spec
from segtool.scan import scan
from segtool.scores import Structure
from segtool.spec import ModelSpec

KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**33), "MALLOC_MMAP_THRESHOLD_": str(2**32 - 1)}
CONTENDERS = {
    "nnunet": "nnU-Net, nnUNetPredictor.predict_from_files_sequential, tile_step_size 0.5, no mirroring",
    "nnunet-malloc": "the same, with glibc's allocator set",
    "monai": "MONAI, sliding_window_inference on the whole volume, overlap 0.5, gaussian",
    "monai-crop": "MONAI, cropped to the foreground first",
    "monai-crop-bf16": "MONAI, cropped first, autocast to bf16",
    "monai-crop-bf16-malloc": "the same, with glibc's allocator set",
    "segtool-cpu": "segtool predict --device cpu (ONNX Runtime, fp32)",
    "segtool-openvino": "segtool predict, as it chooses by itself for volumes (OpenVINO, fp32)",
    "segtool-openvino-bf16": "segtool predict --precision bf16 (OpenVINO)",
}
NEEDS = {"nnunet": "nnunetv2", "monai": "monai", "segtool-openvino": "openvino"}


def files_of(case: Path, spec: ModelSpec) -> list[Path]:
    """The case's files in the order of the model's channels, as segtool finds them."""
    (found,) = scan([case], spec).cases
    return [found.channels[name].path for name in spec.channel_names]


def network(run: Path) -> Any:  # noqa: ANN401 - a torch module
    """The run's trained network in torch."""
    from segtool_export.weights import RunWeights

    return RunWeights.at(run).network().eval()


def nnunet(run: Path, files: list[Path], spec: ModelSpec, out: Path) -> Callable[[], None]:
    """nnU-Net's predictor around the run's network."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    assert spec.input.rank == 3
    channels = len(files)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "bench", "preprocessor_name": "DefaultPreprocessor", "batch_size": 1,
        "patch_size": list(spec.input.patch), "spacing": [1.0, 1.0, 1.0], "batch_dice": False,
        "median_image_size_in_voxels": [155, 240, 240],
        "normalization_schemes": ["ZScoreNormalization"] * channels, "use_mask_for_norm": [True] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
        "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
    }  # fmt: skip
    plans = PlansManager({
        "dataset_name": "bench", "plans_name": "bench", "image_reader_writer": "NibabelIOWithReorient",
        # It reads (z, y, x); the network was trained on (x, y, z).
        "transpose_forward": [2, 1, 0], "transpose_backward": [2, 1, 0], "label_manager": "LabelManager",
        "experiment_planner_used": "bench", "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [155, 240, 240],
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(channels)},
        "configurations": {"3d_fullres": configuration},
    })  # fmt: skip
    dataset = {
        "channel_names": {str(i): name for i, name in enumerate(spec.channel_names)},
        "labels": {"background": 0, **{label.name: label.value for label in spec.labels}},
        "file_ending": ".nii.gz",
    }
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    predictor = nnUNetPredictor(tile_step_size=0.5, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    module = network(run)
    predictor.manual_initialization(
        module, plans, plans.get_configuration("3d_fullres"), [module.state_dict()], dataset, "none", None
    )
    names = [str(file) for file in files]

    def segment() -> None:
        # Its file name is that of the case without suffix.
        predictor.predict_from_files_sequential([names], [str(out / "case")], overwrite=True)

    return segment


def monai(
    run: Path, files: list[Path], spec: ModelSpec, out: Path, *, crop: bool = False, half: bool = False
) -> Callable[[], None]:
    """MONAI's transforms and sliding window around the run's network."""
    import nibabel
    import torch
    from monai import transforms
    from monai.inferers.utils import sliding_window_inference

    # Neither package types what is used here.
    t: Any = transforms
    nifti: Any = nibabel
    assert spec.input.rank == 3
    patch, overlap = spec.input.patch, spec.input.overlap
    module = network(run)
    names = [str(file) for file in files]
    read = t.Compose([
        t.LoadImage(reader="NibabelReader", ensure_channel_first=True),
        t.Orientation(spec.input.orientation, labels=None),
    ])  # fmt: skip
    normalise = t.NormalizeIntensity(nonzero=True, channel_wise=True)
    foreground = t.CropForeground(select_fn=lambda x: (x != 0).any(0, keepdim=True), return_coords=True)

    def segment() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            image = torch.cat([read(name) for name in names])
            start, end = [0, 0, 0], list(image.shape[1:])
            if crop:
                _, start, end = foreground(image)
            box = tuple(slice(int(a), int(b)) for a, b in zip(start, end, strict=True))
            tensor = normalise(image[(slice(None), *box)])[None]
            logits = sliding_window_inference(tensor.as_tensor(), patch, 1, module, overlap=overlap, mode="gaussian")
            whole = torch.zeros(image.shape[1:], dtype=torch.uint8)
            whole[box] = logits[0].argmax(0).to(torch.uint8)
            labels = image[:1].clone()
            labels[0] = whole
            back = t.Orientation(as_closest_canonical=False, axcodes=original_axes, labels=None)(labels)
            saved = nifti.Nifti1Image(np.asarray(back[0], np.uint8), affine)
            nifti.save(saved, out / "case.nii.gz")

    first = nifti.load(names[0])
    affine = first.affine
    original_axes = "".join(nifti.aff2axcodes(affine))
    return segment


def segtool(run: Path, case: Path, out: Path, device: str, precision: str | None) -> Callable[[], None]:
    """``segtool predict`` as the Python interface runs it; the model is loaded each time."""
    from segtool.pipeline import PredictOptions, predict_folder

    def segment() -> None:
        report = predict_folder(
            [case],
            PredictOptions(model=run / "model.onnx", output=out, device=device, precision=precision),  # type: ignore[arg-type]
        )
        assert not report.failures, report.failures

    return segment


def build(name: str, run: Path, case: Path, out: Path) -> Callable[[], None]:
    """A function that segments the case once."""
    spec = read_spec(run / "model.onnx")
    if name == "nnunet":
        return nnunet(run, files_of(case, spec), spec, out)
    if name.startswith("monai"):
        return monai(run, files_of(case, spec), spec, out, crop="crop" in name, half="bf16" in name)
    device = "cpu" if name == "segtool-cpu" else "openvino"
    return segtool(run, case, out, device, "bf16" if "bf16" in name else None)


def serve(name: str, run: Path, case: Path, out: Path) -> None:
    """A contender's process: segments once for every line it reads."""
    channel = own_stdout()
    segment = build(name, run, case, out)
    for _ in sys.stdin:
        start = time.perf_counter()
        segment()
        channel.write(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}) + "\n")


def installed(name: str) -> bool:
    """Whether what a contender needs is here."""
    return all(find_spec(package) is not None for key, package in NEEDS.items() if name.startswith(key))


def label_map(folder: Path) -> Path:
    """The one label map in a contender's folder."""
    (found,) = sorted(folder.rglob("*.nii.gz"))
    return found


def measure(run: Path, case: Path, names: list[str], rounds: int, top: Path) -> dict[str, dict[str, Any]]:
    """Seconds and memory of every contender, in turns; the first round warms up and does not count."""
    processes = {}
    for name in names:
        (top / name).mkdir()
        environment = os.environ | (KEEPS_MEMORY if name.endswith("malloc") else {})
        command = [sys.executable, "-m", "benchmarks.whole_case", str(run), str(case), "--child", name, str(top / name)]
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            stderr=(top / f"{name}.log").open("w"),
        )  # fmt: skip
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, process in processes.items():
            assert process.stdin is not None and process.stdout is not None
            if name.startswith("segtool"):
                # Nothing is kept of an earlier round.
                shutil.rmtree(top / name)
            process.stdin.write("go\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{name} ended:\n{(top / f'{name}.log').read_text()[-2000:]}")
            answers[name].append(json.loads(line))
            print(f"round {turn}  {name:24} {answers[name][-1]['seconds']:7.2f} s", flush=True)
    for process in processes.values():
        process.communicate()
    return {
        name: {
            "seconds": spread([one["seconds"] for one in found[1:]]),
            "peak_mb": max(one["peak_mb"] for one in found),
        }
        for name, found in answers.items()
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("case", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="contenders, with commas between")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        serve(asked.child[0], asked.run, asked.case, Path(asked.child[1]))
        return
    names = [name for name in (asked.only.split(",") if asked.only else CONTENDERS) if installed(name)]
    spec = read_spec(asked.run / "model.onnx")
    assert spec.input.rank == 3
    patch = spec.input.patch
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        found = measure(asked.run, asked.case, names, asked.rounds, top)
        structures = tuple(Structure(label.name, (label.value,), (label.value,)) for label in spec.labels)
        for name in names:
            found[name]["dice_to_first"] = agreement(label_map(top / name), label_map(top / names[0]), structures)
    for name, one in found.items():
        one["what"] = CONTENDERS[name]
        one["times_the_first"] = found[names[0]]["seconds"]["median"] / one["seconds"]["median"]
        print(
            f"{name:24} {one['seconds']['median']:7.2f} s  {one['peak_mb']:6.0f} MB  "
            f"{one['times_the_first']:5.2f}x  mask Dice {one['dice_to_first']:.4f}"
        )
    result = {
        "what": "one case of four NIfTI files to a label map, the same 3D network; seconds of whole cases in turn",
        "machine": machine(),
        "versions": versions("segtool", "torch", "nnunetv2", "monai", "onnxruntime", "openvino", "nibabel"),
        "network": {"spec": spec.name, "patch": list(patch), "channels": list(spec.channel_names)},
        "malloc": KEEPS_MEMORY,
        "rounds": asked.rounds,
        "median_of": statistics.median.__name__,
        "rows": found,
    }
    print(save("whole_case", result))


if __name__ == "__main__":
    main()
