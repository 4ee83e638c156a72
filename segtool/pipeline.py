"""The main job: a folder of scans becomes label maps, pictures and a report."""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segtool.atomic import PARTIAL_PREFIX
from segtool.backends import Device, load_backend
from segtool.backends.base import Backend
from segtool.bundled import default_model
from segtool.case import Case, CaseSource, LabelMap, Source
from segtool.errors import CaseError, OutputError, UsageError, UserError
from segtool.formats import SUFFIXES, get_format, suffix_of
from segtool.loading import load_reference
from segtool.model_file import read_spec, sha256
from segtool.overlay import overlay_case
from segtool.report import CaseResult, Report, Scores, score, structures_of
from segtool.scan import Scan, ScanOptions, scan
from segtool.scan.case_names import OVERLAYS
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
        model: The ``.onnx`` file; None for the bundled one.
        output: Folder of the results.
        scan: Where references and channels are looked for.
        threshold: Probability above which a voxel belongs to a label; None for the model's own.
        device: Where to run.
        batch: Slices the network takes at once; None for what suits the device.
        threads: CPU threads of the engine; None for one a core.
        overlay: Also write pictures with the contours.
        save_probabilities: Also write probability maps.
        raw: Skip the post-processing that the model's spec asks for.
        resume: Keep results that an earlier run finished.
        strict: Refuse cases whose images had to be brought onto one grid.
    """

    model: Path | None = None
    output: Path = DEFAULT_OUTPUT
    scan: ScanOptions = field(default_factory=ScanOptions)
    threshold: float | None = None
    device: Device = "auto"
    batch: int | None = None
    threads: int | None = None
    overlay: bool = False
    save_probabilities: bool = False
    raw: bool = False
    resume: bool = False
    strict: bool = False


@dataclass(frozen=True)
class Progress:
    """Told of a run as it goes; every function is called from several threads."""

    on_start: Callable[[ModelSpec, Backend, Scan], None] = lambda _spec, _backend, _scan: None
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
    model = options.model or default_model()
    spec = read_spec(model)
    if options.raw:
        spec = spec.model_copy(update={"postprocess": PostprocessSpec()})
    found = scan(inputs, spec, options.scan)
    check_apart(inputs, options.output)
    check_writable(options.output)
    checksum, settings = sha256(model), _settings(options, spec)
    if options.resume:
        check_resumable(options.output, checksum, settings)
    backend, engines = _load_engine(model, spec, options)
    progress.on_start(spec, backend, found)
    run = _Run(spec, options, progress)
    todo = [source for source in found.cases if not run.already_done(source)]
    stages = Stages(
        backend,
        spec,
        StageOptions(
            threshold=settings["threshold"],
            batch=options.batch or _BATCH[backend.device],
            engines=engines,
            readers=1 + engines // _ENGINES_FED,
            writers=1 + engines // _ENGINES_FED,
            strict=options.strict,
            keep_probabilities=options.save_probabilities,
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
            model=f"{spec.name} {spec.version}",
            model_sha256=checksum,
            device=backend.device,
            engine=f"{backend.name} {backend.version}",
            precision=backend.precision,
            options=settings,
            notes=_notes(found, interrupted),
        )
        report.write_json(options.output / "report.json")
        report.write_csv(options.output / "report.csv")
    return report


def _load_engine(model: Path, spec: ModelSpec, options: PredictOptions) -> tuple[Backend, int]:
    """The engine, and how many threads are to call it at the same time.

    Slices run side by side, one thread each: no thread waits for another inside the network, so that reading and
    writing take from the cores only what they use. A volume's windows are few and large; all threads share each.
    """
    if spec.input.rank == 3:
        return load_backend(model, options.device, options.threads), 1
    backend = load_backend(model, options.device, 1)
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


def _settings(options: PredictOptions, spec: ModelSpec) -> dict[str, Any]:
    """Whatever changes a label map besides scan and model, as the report has it."""
    return {"threshold": options.threshold or spec.threshold, "strict": options.strict, "raw": options.raw}


def check_resumable(folder: Path, model_sha256: str, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with the results of another model or of other settings: the report would mix them.

    Raises:
        UsageError: The report in ``folder`` tells of another model or other settings.
    """
    try:
        earlier = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        known = earlier["model_sha256"], earlier["options"]
    except (OSError, ValueError, TypeError, KeyError):
        return  # no report, so that nothing is known of the earlier run
    if known != (model_sha256, settings):
        raise UsageError(
            f"{folder}: --continue with another model or other options than the earlier run ({earlier.get('model')})",
            "Repeat its options, leave --continue out, or choose another folder with --output.",
        )


def check_apart(inputs: Sequence[Path], output: Path) -> None:
    """Refuse to put results into a folder of scans, where the next run would take them for scans.

    Raises:
        UsageError: The output folder is one of the inputs.
    """
    if any(path.is_dir() and path.resolve() == output.resolve() for path in inputs):
        raise UsageError(f"{output}: both an input and the output folder", "Choose another folder with --output.")


def check_writable(folder: Path) -> None:
    """Make ``folder`` and try a file in it, before any work is done.

    Raises:
        OutputError: It cannot be made or written.
    """
    trial = folder / f"{PARTIAL_PREFIX}trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder cannot be written ({error.strerror or error})",
            "Choose another one with --output.",
        ) from error


def _refuse_to_overwrite(target: Path, source: CaseSource) -> None:
    """Raise OutputError where ``target`` is one of the case's own files."""
    if not target.exists():
        return
    sources = [*source.channels.values(), *([source.reference] if source.reference else [])]
    if any(target.samefile(path) for one in sources for path in one.paths if path.exists()):
        raise OutputError(
            f"case {source.name!r}: the result would overwrite the scan {target}",
            "Choose another folder with --output.",
        )


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
        if not (self._options.resume and target.is_file()):
            return False
        try:
            kind = SUFFIXES[suffix_of(target)]
            written = get_format(kind).read_labels(Source(kind, (target,)))
            assert written is not None
            reference = load_reference(source, written.geometry, strict=self._options.strict)
            scores, slices = self._score(written, reference)
        except CaseError:
            return False  # not readable as a result, so not finished: it is made again
        self._add(CaseResult(source.name, "skipped", self._relative(target), scores=scores, slices=slices))
        return True

    def finish(self, job: Job) -> None:
        """Write, score and record one case."""
        source = job.source
        try:
            if job.error is not None:
                raise job.error
            assert job.case is not None
            assert job.label_map is not None
            target = self._write(job, job.case, job.label_map)
            scores, slices = self._score(job.label_map, job.case.reference)
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
        _refuse_to_overwrite(target, job.source)
        with job.timed("write"):
            if job.probabilities is not None:
                suffix = f"_probabilities{kind.probabilities_suffix(source)}"
                kind.write_probabilities(
                    target.with_name(job.source.output_stem.name + suffix),
                    job.probabilities,
                    case.geometry,
                    source,
                )
            if self._options.overlay:
                picture = self._options.output / OVERLAYS / f"{job.source.output_stem}.png"
                overlay_case(picture, case, label_map)
            # Last, because this file says that the case is finished.
            kind.write_labels(target, label_map, source)
        return target

    def _score(
        self, label_map: LabelMap, reference: LabelMap | None
    ) -> tuple[Mapping[str, Scores], Mapping[int, Mapping[str, Scores]]]:
        labels = None if reference is None else reference.labels
        return score(label_map.labels, labels, label_map.geometry, self._structures)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._options.output).as_posix()
