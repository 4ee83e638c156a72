"""The main job: a folder of scans becomes label maps, pictures and a report."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segtool.backends import runnable
from segtool.bundled import default_model
from segtool.case_files import CaseFiles
from segtool.ensemble import Ensemble, read_models
from segtool.errors import UsageError
from segtool.finishing import CaseFinisher
from segtool.machine import cores
from segtool.output_folder import check_apart, check_resumable, check_writable
from segtool.patients import check_patients
from segtool.postprocess import Thresholds, thresholds_for
from segtool.predict_options import DEFAULT_OUTPUT, FORMATS, SAME, PredictOptions, Progress
from segtool.report import CaseResult, Report
from segtool.scan import Scan, Unpacked, scan_unpacked, unpacked
from segtool.spec import ModelSpec, PostprocessSpec
from segtool.stages import BATCH, Engine, StageOptions, Stages
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
    with unpacked(inputs) as folders:
        check_apart(inputs, options.output)
        return _predict(folders, options, progress or Progress(), start)


def _predict(folders: Unpacked, options: PredictOptions, progress: Progress, start: float) -> Report:
    models = _models(options)
    spec = models.spec
    thresholds = thresholds_for(spec, options.threshold)
    _check_formats(options)
    if options.raw:
        spec = spec.model_copy(update={"postprocess": PostprocessSpec()})
    before_scan = time.perf_counter()
    found = scan_unpacked(folders, spec, options.scan)
    scan_s = time.perf_counter() - before_scan
    check_patients(options.patients, [source.name for source in found.cases])
    check_writable(options.output)
    checksums, settings = [member.sha256 for member in models.members], _settings(options, models, thresholds)
    if options.resume:
        check_resumable(options.output, checksums, settings)
    files = CaseFiles(spec, "+".join(checksums), options)
    run = CaseFinisher(spec, files, options, progress, found.privacy.plain)
    todo = [source for source in found.cases if not run.already_done(source)]
    calls = _calls(spec, options)
    stages = Stages(
        spec,
        StageOptions(
            threshold=thresholds,
            readers=1 + calls // _ENGINES_FED,
            writers=1 + calls // _ENGINES_FED,
            strict=options.strict,
            keep_probabilities=options.save_probabilities or options.soft_metrics,
        ),
        run.finish,
        progress.on_units,
    )
    starting = _EngineStart(models, spec, options, calls, progress.on_wait)
    interrupted = False

    def loaded() -> Engine:
        engine = starting()
        progress.on_start(models, engine.backend, found)
        return engine

    try:
        stages.run(todo, loaded)
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if starting.engine is not None:
            backend, cut = starting.engine.backend, starting.engine.spec is not spec
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
                    *([_CUT] if cut else []),
                    *_notes(found, interrupted),
                ),
                patients=options.patients,
                setup_seconds={"find cases": scan_s, "load model": starting.seconds},
            )
            report.write_json(options.output / "report.json")
            report.write_csv(options.output / "report.csv")
    return report


def _check_formats(options: PredictOptions) -> None:
    unknown = [name for name in options.formats if name not in FORMATS]
    if unknown or not options.formats:
        what = f"--format {unknown[0]}: not a kind of result" if unknown else "no kind of result"
        raise UsageError(what, f"Choose of: {', '.join(FORMATS)}.")


def _models(options: PredictOptions) -> Ensemble:
    paths = options.model or default_model()
    return read_models([paths] if isinstance(paths, Path) else list(paths), options.tta)


def _calls(spec: ModelSpec, options: PredictOptions) -> int:
    """How many threads call an engine on a CPU at the same time.

    Slices run side by side, one thread each: no thread waits for another inside the network, so that reading and
    writing take from the cores only what they use. A volume's windows are few and large; all threads share each.
    """
    return (options.threads or cores()) if spec.input.rank == 2 else 1


class _EngineStart:
    """Loads the engine when it is called.

    Attributes:
        engine: None until then.
        seconds: It took.
    """

    def __init__(
        self,
        models: Ensemble,
        spec: ModelSpec,
        options: PredictOptions,
        calls: int,
        on_wait: Callable[[str], None],
    ) -> None:
        self._models, self._spec, self._options, self._calls = models, spec, options, calls
        self._on_wait = on_wait
        self.engine: Engine | None = None
        self.seconds = 0.0

    def __call__(self) -> Engine:
        """The engine, once.

        Raises:
            UserError: As :meth:`segtool.ensemble.Ensemble.load`.
        """
        before, options, slices = time.perf_counter(), self._options, self._spec.input.rank == 2
        backend = self._models.load(
            options.device,
            1 if slices else options.threads,
            calls=self._calls,
            precision=options.precision,
            log=self._on_wait,
        )
        on_gpu = _GPU_ENGINES if slices else 1
        self.engine = Engine(
            backend,
            runnable(backend, self._spec),
            options.batch or (BATCH[backend.device] if slices else 1),
            self._calls if backend.device == "cpu" else on_gpu,
        )
        self.seconds = time.perf_counter() - before
        return self.engine


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
    asked = {
        "test_time_flips": flips,
        "precision": options.precision,
        "formats": [] if options.formats == (SAME,) else list(options.formats),
        "anonymise": options.anonymise,
        "lenient": options.scan.lenient,
        "rules": options.scan.rules and options.scan.rules.name,
    }
    return settings | {name: value for name, value in asked.items() if value}
