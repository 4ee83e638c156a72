"""The main job: a folder of scans becomes label maps, pictures and a report."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.backends import Device
from segtool.backends.base import Backend
from segtool.bundled import default_model
from segtool.case import Case, CaseSource, LabelMap, Source
from segtool.ensemble import Ensemble, read_models
from segtool.errors import CaseError, UserError
from segtool.formats import SUFFIXES, get_format, suffix_of
from segtool.loading import load_case, load_reference
from segtool.output_folder import check_apart, check_resumable, check_writable, refuse_to_overwrite
from segtool.overlay import overlay_case
from segtool.patients import check_patients
from segtool.postprocess import Thresholds, own_thresholds
from segtool.report import CaseResult, Report, Scores, score, structures_of
from segtool.scan import Scan, ScanOptions, scan
from segtool.scan.case_names import OVERLAYS, PROBABILITIES
from segtool.scores import with_soft
from segtool.spec import ModelSpec, PostprocessSpec
from segtool.stages import Job, StageOptions, Stages
from segtool.version import __version__

DEFAULT_OUTPUT = Path("segtool-output")
_BATCH = {"cpu": 2, "cuda": 8}
"""Slices a call: on a CPU two keep a thread's working set in its cache, a GPU wants more to do."""
_ENGINES_FED = 4  # engine threads that one reading and one writing thread keep busy, with room to spare


@dataclass(frozen=True)
class PredictOptions:
    """What ``segtool predict`` can be told.

    Args:
        model: The ``.onnx`` file, or several whose probabilities are averaged; None for the bundled one.
        output: Folder of the results.
        scan: Where references and channels are looked for.
        threshold: Probability above which a voxel belongs to a label; None for the model's own.
        tta: Test-time augmentation: ``none``, ``flips``, or axes such as ``horizontal,vertical``; None for the
            model's own.
        device: Where to run.
        batch: Slices the network takes at once; None for what suits the device.
        threads: CPU threads of the engine; None for one a core.
        overlay: Also write pictures with the contours.
        save_probabilities: Also write probability maps.
        soft_metrics: Also score the probabilities, without a threshold, where there are references.
        patients: Of each case, or of each slice such as ``name[17]``: intervals of means then draw whole patients.
        raw: Skip the post-processing that the model's spec asks for.
        resume: Keep results that an earlier run finished.
        strict: Refuse cases whose images had to be brought onto one grid.
    """

    model: Path | Sequence[Path] | None = None
    output: Path = DEFAULT_OUTPUT
    scan: ScanOptions = field(default_factory=ScanOptions)
    threshold: float | None = None
    tta: str | None = None
    device: Device = "auto"
    batch: int | None = None
    threads: int | None = None
    overlay: bool = False
    save_probabilities: bool = False
    soft_metrics: bool = False
    patients: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False
    resume: bool = False
    strict: bool = False


@dataclass(frozen=True)
class Progress:
    """Told of a run as it goes; every function is called from several threads."""

    on_start: Callable[[Ensemble, Backend, Scan], None] = lambda _models, _backend, _scan: None
    on_case: Callable[[CaseResult], None] = lambda _result: None
    on_units: Callable[[int], None] = lambda _count: None


def predict_folder(inputs: Sequence[Path], options: PredictOptions, progress: Progress | None = None) -> Report:
    """Segment all cases below ``inputs``; write results and ``report.json`` and ``report.csv``.

    One bad case becomes a failed row of the report and never stops the others.

    Raises:
        UsageError: Nothing to do.
        ModelError: The model cannot be used.
        DeviceError: The device asked for is not there.
        OutputError: The output folder cannot be written.
        KeyboardInterrupt: After the report of what was finished has been written.
    """
    start = time.perf_counter()
    progress = progress or Progress()
    models = _models(options)
    spec = models.spec
    if options.raw:
        spec = spec.model_copy(update={"postprocess": PostprocessSpec()})
    found = scan(inputs, spec, options.scan)
    check_apart(inputs, options.output)
    check_patients(options.patients, [source.name for source in found.cases])
    check_writable(options.output)
    checksums, settings = [member.sha256 for member in models.members], _settings(options, models)
    if options.resume:
        check_resumable(options.output, checksums, settings)
    backend, engines = _load_engine(models, options)
    progress.on_start(models, backend, found)
    run = _Run(spec, options, progress)
    todo = [source for source in found.cases if not run.already_done(source)]
    stages = Stages(
        backend,
        spec,
        StageOptions(
            threshold=_thresholds(options, spec),
            batch=options.batch or _BATCH[backend.device],
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
            notes=(*models.notes, *_notes(found, interrupted)),
            patients=options.patients,
        )
        report.write_json(options.output / "report.json")
        report.write_csv(options.output / "report.csv")
    return report


def _models(options: PredictOptions) -> Ensemble:
    paths = options.model or default_model()
    return read_models([paths] if isinstance(paths, Path) else list(paths), options.tta)


def _load_engine(models: Ensemble, options: PredictOptions) -> tuple[Backend, int]:
    """The engine, and how many threads are to call it at the same time.

    Slices run side by side, one thread each: no thread waits for another inside the network, so that reading and
    writing take from the cores only what they use. A volume's windows are few and large; all threads share each.
    """
    if models.spec.input.rank == 3:
        return models.load(options.device, options.threads), 1
    backend = models.load(options.device, 1)
    return backend, options.threads or _cores() if backend.device == "cpu" else 1


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


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _thresholds(options: PredictOptions, spec: ModelSpec) -> Thresholds:
    return options.threshold or own_thresholds(spec)


def _settings(options: PredictOptions, models: Ensemble) -> dict[str, Any]:
    """Whatever changes a label map besides scan and models, as the report has it."""
    threshold: Any = _thresholds(options, models.spec)
    if not isinstance(threshold, (int, float)):
        threshold = {label.name: own for label, own in zip(models.spec.labels, threshold, strict=True)}
    flips = {name: list(axes) for name, axes in models.flips.items()}
    settings = {"threshold": threshold, "strict": options.strict, "raw": options.raw}
    return settings | ({"test_time_flips": flips} if flips else {})


class _Run:
    """What happens to each finished case of one run."""

    def __init__(self, spec: ModelSpec, options: PredictOptions, progress: Progress) -> None:
        self._spec, self._options, self._progress = spec, options, progress
        self._structures = structures_of(spec)
        self._lock = threading.Lock()
        self.results: dict[str, CaseResult] = {}

    def _target(self, source: CaseSource) -> Path:
        suffix = get_format(source.first.format).output_suffix(source.first)
        return self._options.output / f"{source.output_stem}{suffix}"

    def _add(self, result: CaseResult) -> None:
        with self._lock:
            self.results[result.name] = result
        self._progress.on_case(result)

    def already_done(self, source: CaseSource) -> bool:
        """With ``resume``: True where the result exists, whose scores then join the report."""
        target = self._target(source)
        if not (self._options.resume and target.is_file()) or self._lacks_probabilities(source, target):
            return False
        try:
            kind = SUFFIXES[suffix_of(target)]
            written = get_format(kind).read_labels(Source(kind, (target,)))
            assert written is not None
            reference = load_reference(source, written.geometry, strict=self._options.strict)
            scores, slices = self._score(written, reference, None)
            if self._options.overlay and not self._picture(source).is_file():
                case = load_case(source, self._spec, strict=self._options.strict)
                overlay_case(self._picture(source), case, written)
        except CaseError:
            return False  # not readable as a result, so not finished: it is made again
        self._add(CaseResult(source.name, "skipped", self._relative(target), scores=scores, slices=slices))
        return True

    def _lacks_probabilities(self, source: CaseSource, target: Path) -> bool:
        """True where only the network can give what is asked for."""
        if self._options.soft_metrics:
            return True
        return self._options.save_probabilities and not self._probabilities_file(source, target).is_file()

    def _probabilities_file(self, source: CaseSource, target: Path) -> Path:
        suffix = get_format(source.first.format).probabilities_suffix(source.first)
        return target.with_name(f"{source.output_stem.name}{PROBABILITIES}{suffix}")

    def _picture(self, source: CaseSource) -> Path:
        return self._options.output / OVERLAYS / f"{source.output_stem}.png"

    def finish(self, job: Job) -> None:
        """Write, score and record one case."""
        source = job.source
        try:
            if job.error is not None:
                raise job.error
            assert job.case is not None
            assert job.label_map is not None
            target = self._write(job, job.case, job.label_map)
            probabilities = job.probabilities if self._options.soft_metrics else None
            scores, slices = self._score(job.label_map, job.case.reference, probabilities)
        except UserError as error:
            self._add(CaseResult(source.name, "failed", error=str(error), seconds=dict(job.seconds)))
            return
        self._add(
            CaseResult(
                source.name,
                "done",
                self._relative(target),
                scores=scores,
                slices=slices,
                notes=job.case.notes,
                seconds=dict(job.seconds),
                geometry=job.case.geometry.describe(),
            )
        )

    def _write(self, job: Job, case: Case, label_map: LabelMap) -> Path:
        source = job.source.first
        kind, target = get_format(source.format), self._target(job.source)
        refuse_to_overwrite(target, job.source)
        with job.timed("write"):
            if self._options.save_probabilities:
                assert job.probabilities is not None
                file = self._probabilities_file(job.source, target)
                kind.write_probabilities(file, job.probabilities, case.geometry, source)
            if self._options.overlay:
                overlay_case(self._picture(job.source), case, label_map)
            # Last, because this file says that the case is finished.
            kind.write_labels(target, label_map, source)
        return target

    def _score(
        self, label_map: LabelMap, reference: LabelMap | None, probabilities: npt.NDArray[np.float16] | None
    ) -> tuple[Mapping[str, Scores], Mapping[int, Mapping[str, Scores]]]:
        if reference is None:
            return score(label_map.labels, None, label_map.geometry, self._structures)
        scores, slices = score(label_map.labels, reference.labels, label_map.geometry, self._structures)
        if probabilities is None:
            return scores, slices
        return with_soft(scores, slices, probabilities, reference.labels, self._spec)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._options.output).as_posix()
