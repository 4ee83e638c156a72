"""The main job: a folder of scans becomes label maps, pictures and a report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segtool.backends import runnable
from segtool.bundled import default_model
from segtool.case_files import CaseFiles
from segtool.ensemble import Ensemble, read_models
from segtool.errors import UsageError
from segtool.finishing import CaseFinisher
from segtool.interruption import Interruption
from segtool.machine import cores
from segtool.output_folder import Part, RunIdentity, check_apart, check_writable
from segtool.patients import check_patients
from segtool.postprocess import Thresholds, thresholds_for
from segtool.predict_options import DEFAULT_OUTPUT, FORMATS, SAME, PredictOptions, Progress
from segtool.report import Report
from segtool.run_report import RunReport, lost_in
from segtool.scan import Scan, Unpacked, scan_unpacked, unpacked
from segtool.shared_run import SharedRun
from segtool.signatures import verified_copies
from segtool.spec import ModelSpec, PostprocessSpec
from segtool.stages import BATCH, Engine, StageOptions, Stages
from segtool.version import __version__
from segtool.worklist import Worklist

__all__ = ["DEFAULT_OUTPUT", "PredictOptions", "Progress", "predict_folder"]

_ENGINES_FED = 4  # engine threads that one reading and one writing thread keep busy, with room to spare
_GPU_ENGINES = 2  # one copies its batch to the GPU or its logits back while the other's are computed


def predict_folder(
    inputs: Sequence[Path],
    options: PredictOptions,
    progress: Progress | None = None,
    interruption: Interruption | None = None,
) -> Report:
    """Segment all cases below ``inputs``; write results and ``report.json`` and ``report.csv``.

    One bad case becomes a failed row of the report and never stops the others.

    Args:
        inputs: Folders and files.
        options: What to do with them.
        progress: Told of the run as it goes.
        interruption: What signals may ask for meanwhile; see there.

    Raises:
        UsageError: Nothing to do, or an option out of its range.
        ModelError: The model cannot be used.
        DeviceError: The device asked for is not there.
        OutputError: The output folder cannot be written.
        KeyboardInterrupt: After the report of what was finished has been written.
    """
    start = time.perf_counter()
    with (
        unpacked(inputs, options.scan.limits) as folders,
        verified_copies(_model_files(options), options.require_signature) as models,
    ):
        check_apart(inputs, options.output)
        options = replace(options, model=models)
        return _predict(folders, options, progress or Progress(), interruption or Interruption(), start)


def _predict(
    folders: Unpacked, options: PredictOptions, progress: Progress, interruption: Interruption, start: float
) -> Report:
    part = Part(*options.part)
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
    found = _share(found, part)
    check_writable(options.output)
    checksums, settings = [member.sha256 for member in models.members], _settings(options, models, thresholds)
    identity = RunIdentity(__version__, models.name, tuple(checksums), settings, _files_besides(options))
    run = SharedRun(options.output, identity, part, options.resume)
    report = RunReport(options, settings, models, found, run, start, scan_s)
    is_told = False
    try:
        for note in run.notes:
            progress.on_wait(f"note    {note}")
        run.lose(lost_in(found))
        files = CaseFiles(spec, "+".join(checksums), options)
        finisher = CaseFinisher(spec, files, options, progress, run, found.privacy.plain, tuple(folders.shown))
        calls = _calls(spec, options)
        how = _stage_options(options, thresholds, calls)
        stages = Stages(spec, how, finisher.finish, progress.on_units, finisher.kept)
        starting = _EngineStart(models, spec, options, calls, progress.on_wait)

        def loaded() -> Engine:
            report.engine = engine = starting()
            progress.on_start(models, engine.backend, found)
            interruption.finish_with(stages.finish_up)
            return engine

        # A volume is read, one is computed and one is written; slices fill the next calls of every thread.
        most = 4 if spec.input.rank == 3 else 8 + 4 * calls * (options.batch or 2)
        work = Worklist(found.cases, run, finisher, lambda: stages.is_ending, progress, most)
        try:
            if found.cases:
                stages.run(work, loaded)
            report.interrupted = interruption.signal is not None
        except KeyboardInterrupt:
            report.interrupted = True
            raise
        finally:
            interruption.close()
            finisher.check_results()
            report.load_s, report.remarks = starting.seconds, stages.notes
            is_told = report.engine is not None or report.interrupted or not found.cases
    finally:
        run.leave(report.write if is_told else None, all(source.name in run.results for source in found.cases))
    assert report.written is not None
    return report.written


def _files_besides(options: PredictOptions) -> tuple[str, ...]:
    """What is written or scored besides label maps."""
    asked = {
        "--overlay": options.overlay,
        "--save-probabilities": options.save_probabilities,
        "--soft-metrics": options.soft_metrics,
    }
    return tuple(flag for flag, is_asked in asked.items() if is_asked)


def _stage_options(options: PredictOptions, thresholds: Thresholds, calls: int) -> StageOptions:
    return StageOptions(
        threshold=thresholds,
        readers=1 + calls // _ENGINES_FED,
        writers=1 + calls // _ENGINES_FED,
        strict=options.strict,
        keep_probabilities=options.save_probabilities or options.soft_metrics,
        case_timeout_s=options.case_timeout_s,
    )


def _check_formats(options: PredictOptions) -> None:
    unknown = [name for name in options.formats if name not in FORMATS]
    if unknown or not options.formats:
        what = f"--format {unknown[0]}: not a kind of result" if unknown else "no kind of result"
        raise UsageError(what, f"Choose of: {', '.join(FORMATS)}.")


def _model_files(options: PredictOptions) -> list[Path]:
    paths = options.model or default_model()
    return [paths] if isinstance(paths, Path) else list(paths)


def _models(options: PredictOptions) -> Ensemble:
    return read_models(_model_files(options), options.tta)


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


def _share(found: Scan, part: Part) -> Scan:
    """A part of the cases, and of what did not become one."""
    lost = [problem for problem in found.problems if problem.loses_case]
    kept = [problem for problem in found.problems if not problem.loses_case]
    return replace(found, cases=found.cases[part.index :: part.of], problems=(*lost[part.index :: part.of], *kept))


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
