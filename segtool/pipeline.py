"""The main job: a folder of scans becomes label maps, pictures and a report."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segtool.backends import runnable
from segtool.bundled import default_model
from segtool.case import CaseSource
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
from segtool.report import CaseResult, Report
from segtool.review import review_order
from segtool.scan import Scan, Unpacked, natural_key, scan_unpacked, unpacked
from segtool.shared_run import SharedRun
from segtool.signatures import verified_copies
from segtool.spec import ModelSpec, PostprocessSpec
from segtool.stages import BATCH, Engine, StageOptions, Stages
from segtool.version import __version__
from segtool.worklist import Worklist

__all__ = ["DEFAULT_OUTPUT", "PredictOptions", "Progress", "predict_folder"]

_ENGINES_FED = 4  # engine threads that one reading and one writing thread keep busy, with room to spare
_CUT = "cases are cut into windows, where the model would take them whole: a TensorRT engine has one extent"
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
    identity = RunIdentity(__version__, models.name, tuple(checksums), settings)
    calls = _calls(spec, options)
    starting = _EngineStart(models, spec, options, calls, progress.on_wait)
    run = SharedRun(options.output, identity, part, options.resume)
    interrupted = False
    write: _Writing | None = None
    try:
        for note in run.notes:
            progress.on_wait(f"note    {note}")
        run.lose(_lost(found))
        files = CaseFiles(spec, "+".join(checksums), options)
        finisher = CaseFinisher(spec, files, options, progress, run, found.privacy.plain, tuple(folders.shown))
        stages = Stages(
            spec,
            StageOptions(
                threshold=thresholds,
                readers=1 + calls // _ENGINES_FED,
                writers=1 + calls // _ENGINES_FED,
                strict=options.strict,
                keep_probabilities=options.save_probabilities or options.soft_metrics,
                case_timeout_s=options.case_timeout_s,
            ),
            finisher.finish,
            progress.on_units,
        )

        def loaded() -> Engine:
            engine = starting()
            progress.on_start(models, engine.backend, found)
            interruption.finish_with(stages.finish_up)
            return engine

        def report() -> Report:
            cases = (*run.lost, *_in_order(found, run))
            backend = None if starting.engine is None else starting.engine.backend
            cut = starting.engine is not None and starting.engine.spec is not spec
            return Report(
                command="predict",
                tool_version=__version__,
                cases=cases,
                elapsed_s=time.perf_counter() - start,
                model=models.name,
                model_sha256=checksums[0] if len(checksums) == 1 else None,
                models=tuple((member.name, member.sha256) for member in models.members),
                device=None if backend is None else backend.device,
                engine=None if backend is None else f"{backend.name} {backend.version}",
                precision=None if backend is None else backend.precision,
                options=settings,
                notes=(
                    *models.notes,
                    *([] if backend is None or not backend.note else [backend.note]),
                    *([_CUT] if cut else []),
                    *stages.notes,
                    *_notes(found),
                    *run.notes,
                    *(_not_done(found.cases, run) if interrupted else ()),
                ),
                patients=options.patients,
                review=review_order(cases, options.review_worst),
                setup_seconds={"find cases": scan_s, "load model": starting.seconds},
                elsewhere=len(run.results.keys() - run.mine),
            )

        try:
            if found.cases:
                # A volume is read, one is computed and one is written; slices fill the next calls of every thread.
                most = 4 if spec.input.rank == 3 else 8 + 4 * calls * (options.batch or 2)
                work = Worklist(found.cases, run, finisher, lambda: stages.is_ending, progress.on_elsewhere, most)
                stages.run(work, loaded)
            interrupted = interruption.signal is not None
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            interruption.close()
            finisher.check_results()
            if starting.engine is not None or interrupted or not found.cases:
                write = _Writing(report, options.output / part.report)
    finally:
        run.leave(write, all(source.name in run.results for source in found.cases))
    assert write is not None
    return write.report


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


def _lost(found: Scan) -> list[CaseResult]:
    """What the scan could not make a case of, as failed rows."""
    return [
        CaseResult(problem.where, "failed", error=f"{problem.problem}. {problem.remedy}")
        for problem in found.problems
        if problem.loses_case
    ]


def _notes(found: Scan) -> tuple[str, ...]:
    """What the report must say of the run as a whole."""
    return tuple(str(problem) for problem in found.problems if not problem.loses_case)


def _not_done(cases: Sequence[CaseSource], run: SharedRun) -> tuple[str, ...]:
    """Which cases an interruption left."""
    left = [source.name for source in cases if source.name not in run.results]
    if not left:
        return ("interrupted when all cases were done",)
    return (f"interrupted: not all cases were done; {len(left)} left: {', '.join(left)}",)


def _share(found: Scan, part: Part) -> Scan:
    """A part of the cases, and of what did not become one."""
    lost = [problem for problem in found.problems if problem.loses_case]
    kept = [problem for problem in found.problems if not problem.loses_case]
    return replace(found, cases=found.cases[part.index :: part.of], problems=(*lost[part.index :: part.of], *kept))


def _in_order(found: Scan, run: SharedRun) -> Iterator[CaseResult]:
    """All results: of this process's cases as they were found, then those of which only others knew."""
    names = dict.fromkeys(source.name for source in found.cases)
    yield from (run.results[name] for name in names if name in run.results)
    yield from (run.results[name] for name in sorted(run.results.keys() - names.keys(), key=natural_key))


class _Writing:
    """Makes the report and writes it when it is called."""

    def __init__(self, make: Callable[[], Report], path: Path) -> None:
        self._make, self._path = make, path
        self.report: Report

    def __call__(self) -> None:
        """Write both files.

        Raises:
            OutputError: One cannot be written.
        """
        self.report = self._make()
        self.report.write_json(self._path.with_suffix(".json"))
        self.report.write_csv(self._path.with_suffix(".csv"))


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
