"""What happens to each finished case of a prediction: written, scored, measured, recorded."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segtool.case import CaseSource, LabelMap
from segtool.case_files import CaseFiles
from segtool.errors import CaseError, UserError
from segtool.job import Job
from segtool.loading import load_case, load_reference
from segtool.measurements import Measurements, measure
from segtool.overlay import overlay_case
from segtool.predict_options import PredictOptions, Progress
from segtool.report import CaseResult, Scores, score, structures_of
from segtool.scores import with_soft
from segtool.spec import ModelSpec

_Scored = tuple[Mapping[str, Scores], Mapping[int, Mapping[str, Scores]]]


class CaseFinisher:
    """Writes, scores, measures and records the cases of one run.

    Args:
        spec: Of the model.
        files: Where results lie.
        options: Of the run.
        progress: Told of every case.
        plain: Takes what headers say of a patient out of a text, before it is recorded.

    Attributes:
        results: By name of the case.
    """

    def __init__(
        self,
        spec: ModelSpec,
        files: CaseFiles,
        options: PredictOptions,
        progress: Progress,
        plain: Callable[[str], str] = str,
    ) -> None:
        self._spec, self._files, self._options, self._progress = spec, files, options, progress
        self._plain = plain
        self._structures = structures_of(spec)
        self._lock = threading.Lock()
        self.results: dict[str, CaseResult] = {}

    def _add(self, result: CaseResult) -> None:
        with self._lock:
            self.results[result.name] = result
        self._progress.on_case(result)

    def already_done(self, source: CaseSource) -> bool:
        """With ``resume``: True where the result exists, whose scores and measurements then join the report."""
        # Soft metrics need probabilities, which only the network can give.
        if not self._options.resume or self._options.soft_metrics or not self._files.are_there(source):
            return False
        try:
            written = self._files.read_back(source)
            reference = load_reference(source, written.geometry, strict=self._options.strict)
            scores, slices = self._score(written, reference, None)
            picture = self._files.picture(source)
            if self._options.overlay and not picture.is_file():
                case = load_case(source, self._spec, strict=self._options.strict)
                overlay_case(picture, case, written)
            outputs = tuple(map(self._relative, self._files.targets(source).values()))
        except CaseError:
            return False  # not readable as a result, so not finished: it is made again
        self._add(
            CaseResult(
                source.name,
                "skipped",
                outputs[0],
                scores=scores,
                slices=slices,
                measurements=self._measure(written),
                outputs=outputs,
            )
        )
        return True

    def finish(self, job: Job) -> None:
        """Write, score and record one case."""
        source = job.source
        try:
            if job.error is not None:
                raise job.error
            assert job.case is not None
            assert job.label_map is not None
            with job.timed("write"):
                outputs = tuple(map(self._relative, self._files.write(job)))
            probabilities = job.probabilities if self._options.soft_metrics else None
            scores, slices = self._score(job.label_map, job.case.reference, probabilities)
            with job.timed("measure"):
                measured = self._measure(job.label_map)
        except UserError as error:
            self._add(CaseResult(source.name, "failed", error=self._plain(str(error)), seconds=dict(job.seconds)))
            return
        self._add(
            CaseResult(
                source.name,
                "done",
                outputs[0],
                scores=scores,
                slices=slices,
                measurements=measured,
                notes=tuple(map(self._plain, job.case.notes)),
                warnings=tuple(map(self._plain, job.warnings)),
                confidence=dict(job.confidence),
                seconds=dict(job.seconds),
                geometry=job.case.geometry.describe(),
                outputs=outputs,
            )
        )

    def _score(
        self, label_map: LabelMap, reference: LabelMap | None, probabilities: npt.NDArray[np.float16] | None
    ) -> _Scored:
        if reference is None:
            return score(label_map.labels, None, label_map.geometry, self._structures)
        scores, slices = score(label_map.labels, reference.labels, label_map.geometry, self._structures)
        if probabilities is None:
            return scores, slices
        return with_soft(scores, slices, probabilities, reference.labels, self._spec)

    def _measure(self, label_map: LabelMap) -> Mapping[str, Measurements]:
        """Nothing of pictures: their sizes stand among the scores, and nobody knows their pixels in millimetres."""
        if not label_map.geometry.is_physical:
            return {}
        return measure(label_map.labels, label_map.geometry, self._spec)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._options.output).as_posix()
