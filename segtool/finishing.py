"""What happens to each finished case of a prediction: written, scored, recorded."""

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segtool.case import Case, CaseSource, LabelMap, Source
from segtool.errors import CaseError, UserError
from segtool.formats import SUFFIXES, get_format, suffix_of
from segtool.job import Job
from segtool.loading import load_case, load_reference
from segtool.output_folder import refuse_to_overwrite
from segtool.overlay import overlay_case
from segtool.predict_options import PredictOptions, Progress
from segtool.report import CaseResult, Scores, score, structures_of
from segtool.scan.case_names import OVERLAYS, PROBABILITIES
from segtool.scores import with_soft
from segtool.spec import ModelSpec


class CaseFinisher:
    """Writes, scores and records the cases of one run.

    Attributes:
        results: By name of the case.
    """

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
