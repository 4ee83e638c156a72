"""The main job: a folder of scans becomes label maps, pictures and a report."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segtool.backends.base import Backend
from segtool.bundled import default_model
from segtool.ensemble import Ensemble, read_models
from segtool.finishing import CaseFinisher
from segtool.machine import cores
from segtool.output_folder import check_apart, check_resumable, check_writable
from segtool.patients import check_patients
from segtool.postprocess import Thresholds, thresholds_for
from segtool.predict_options import DEFAULT_OUTPUT, PredictOptions, Progress
from segtool.report import CaseResult, Report
from segtool.scan import Scan, scan
from segtool.spec import PostprocessSpec
from segtool.stages import BATCH, StageOptions, Stages
from segtool.version import __version__

__all__ = ["DEFAULT_OUTPUT", "PredictOptions", "Progress", "predict_folder"]

_ENGINES_FED = 4  # engine threads that one reading and one writing thread keep busy, with room to spare
_CUT = "cases are cut into windows, where the model would take them whole: a TensorRT engine has one extent"
_GPU_ENGINES = 2  # one copies its batch to the GPU or its logits back while the other's are computed


def predict_folder(inputs: Sequence[Path], options: PredictOptions, progress: Progress | None = None) -> Report:
    """Segment all cases below ``inputs``; write results and ``report.json`` and ``report.csv``.

    One bad case becomes a failed row of the report and never stops the others.

    Raises:
        UsageError: Nothing to do, or an option out of its range.
        ModelError: The model cannot be used.
        DeviceError: The device asked for is not there.
        OutputError: The output folder cannot be written.
        KeyboardInterrupt: After the report of what was finished has been written.
    """
    start = time.perf_counter()
    progress = progress or Progress()
    models = _models(options)
    spec = models.spec
    thresholds = thresholds_for(spec, options.threshold)
    if options.raw:
        spec = spec.model_copy(update={"postprocess": PostprocessSpec()})
    before_scan = time.perf_counter()
    found = scan(inputs, spec, options.scan)
    scan_s = time.perf_counter() - before_scan
    check_apart(inputs, options.output)
    check_patients(options.patients, [source.name for source in found.cases])
    check_writable(options.output)
    checksums, settings = [member.sha256 for member in models.members], _settings(options, models, thresholds)
    if options.resume:
        check_resumable(options.output, checksums, settings)
    before_load = time.perf_counter()
    backend, engines = _load_engine(models, options, progress.on_wait)
    load_s = time.perf_counter() - before_load
    windowed = spec.in_windows() if "tensorrt" in backend.name else spec  # its engines take one extent
    progress.on_start(models, backend, found)
    run = CaseFinisher(spec, options, progress)
    todo = [source for source in found.cases if not run.already_done(source)]
    stages = Stages(
        backend,
        windowed,
        StageOptions(
            threshold=thresholds,
            batch=options.batch or BATCH[backend.device],
            engines=engines,
            readers=1 + engines // _ENGINES_FED,
            writers=1 + engines // _ENGINES_FED,
            strict=options.strict,
            keep_probabilities=options.save_probabilities or options.soft_metrics,
        ),
        run.finish,
        progress.on_units,
    )
    interrupted = False
    try:
        stages.run(todo)
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        report = Report(
            command="predict",
            tool_version=__version__,
            cases=(*_lost(found), *(run.results[s.name] for s in found.cases if s.name in run.results)),
            elapsed_s=time.perf_counter() - start,
            model=models.name,
            model_sha256=checksums[0] if len(checksums) == 1 else None,
            models=tuple((member.name, member.sha256) for member in models.members),
            device=backend.device,
            engine=f"{backend.name} {backend.version}",
            precision=backend.precision,
            options=settings,
            notes=(
                *models.notes,
                *([backend.note] if backend.note else []),
                *([_CUT] if windowed is not spec else []),
                *_notes(found, interrupted),
            ),
            patients=options.patients,
            setup_seconds={"find cases": scan_s, "load model": load_s},
        )
        report.write_json(options.output / "report.json")
        report.write_csv(options.output / "report.csv")
    return report


def _models(options: PredictOptions) -> Ensemble:
    paths = options.model or default_model()
    return read_models([paths] if isinstance(paths, Path) else list(paths), options.tta)


def _load_engine(models: Ensemble, options: PredictOptions, on_wait: Callable[[str], None]) -> tuple[Backend, int]:
    """The engine, and how many threads are to call it at the same time.

    Slices run side by side, one thread each: no thread waits for another inside the network, so that reading and
    writing take from the cores only what they use. A volume's windows are few and large; all threads share each.
    """
    slices = models.spec.input.rank == 2
    calls = (options.threads or cores()) if slices else 1
    threads = 1 if slices else options.threads
    backend = models.load(options.device, threads, calls=calls, precision=options.precision, log=on_wait)
    on_gpu = _GPU_ENGINES if slices else 1
    return backend, calls if backend.device == "cpu" else on_gpu


def _lost(found: Scan) -> list[CaseResult]:
    """What the scan could not make a case of, as failed rows."""
    return [
        CaseResult(problem.where, "failed", error=f"{problem.problem}. {problem.remedy}")
        for problem in found.problems
        if problem.loses_case
    ]


def _notes(found: Scan, interrupted: bool) -> tuple[str, ...]:
    """What the report must say of the run as a whole."""
    remarks = [str(problem) for problem in found.problems if not problem.loses_case]
    return (*remarks, *(["interrupted: not all cases were done"] if interrupted else []))


def _settings(options: PredictOptions, models: Ensemble, thresholds: Thresholds) -> dict[str, Any]:
    """Whatever changes a label map besides scan and models, as the report has it."""
    threshold: Any = thresholds
    if not isinstance(thresholds, (int, float)):
        threshold = {label.name: own for label, own in zip(models.spec.labels, thresholds, strict=True)}
    flips = {name: list(axes) for name, axes in models.flips.items()}
    settings = {"threshold": threshold, "strict": options.strict, "raw": options.raw}
    # Only where asked for, so that results of earlier versions can be gone on with.
    asked = {"test_time_flips": flips, "precision": options.precision}
    return settings | {name: value for name, value in asked.items() if value}
