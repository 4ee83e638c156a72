"""Cases of a run through its model file, on the road that ``segtool predict`` takes."""

from collections.abc import Sequence
from pathlib import Path

from segtool.backends import Device, load_backend, runnable
from segtool.backends.averaging import averaged
from segtool.job import Finish, Job
from segtool.machine import cores
from segtool.postprocess.calibration import Calibrator
from segtool.postprocess.decision import own_thresholds
from segtool.spec import ModelSpec
from segtool.stages import BATCH, Engine, StageOptions, Stages
from segtool_train.data.base import Item


def segment(
    model: Path, spec: ModelSpec, items: Sequence[Item], device: Device, finish: Finish, *, logits: bool = False
) -> str:
    """Segment ``items`` and keep their probabilities.

    Args:
        model: The ``.onnx`` file.
        spec: Decides everything; the file's own, or one to be tried.
        items: Cases with references.
        device: Where to run.
        finish: Told of every case, done or failed, in a writer thread.
        logits: Keep logits too.

    Returns:
        The engine, its version and its device.

    Raises:
        ModelError: The file cannot be used.
        DeviceError: The device is not there.
    """
    slices = spec.input.rank == 2
    # Slices run side by side, one engine thread each; a volume's windows share all cores.
    calls = cores() if slices else 1
    backend = averaged([load_backend(model, device, 1 if slices else None, calls=calls)], [spec])
    engine = Engine(
        backend,
        runnable(backend, spec),
        BATCH[backend.device] if slices else 1,
        calls if backend.device == "cpu" else 1,
    )
    options = StageOptions(threshold=own_thresholds(spec), keep_probabilities=True, keep_logits=logits)
    Stages(spec, options, finish).run([item.source for item in items], lambda: engine)
    return f"{backend.name} {backend.version} {backend.device}"


def gather(calibrator: Calibrator, job: Job) -> None:
    """Add a finished case whose logits were kept, where it has a reference."""
    assert job.case is not None
    assert job.label_map is not None
    assert job.logits is not None
    if job.case.reference is not None:
        calibrator.add(job.source.name, job.logits, job.label_map, job.case.reference)
