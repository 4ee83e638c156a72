"""What happens to each finished case of a prediction: written, scored, measured, recorded."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segtool.case import CaseSource, LabelMap
from segtool.case_files import CaseFiles, stamp_of
from segtool.errors import FaultError, OutputError, UserError
from segtool.job import Job
from segtool.loading import load_case, load_reference
from segtool.measurements import Measurements, measure
from segtool.overlay import overlay_case
from segtool.predict_options import PredictOptions, Progress
from segtool.report import CaseResult, Scores, score, structures_of
from segtool.scores import with_soft
from segtool.shared_run import SharedRun
from segtool.spec import ModelSpec

_Scored = tuple[Mapping[str, Scores], Mapping[int, Mapping[str, Scores]]]


class CaseFinisher:
    """Writes, scores, measures and records the cases of one run.

    Args:
        spec: Of the model.
        files: Where results lie.
        options: Of the run.
        progress: Told of every case.
        run: Where results are recorded.
        plain: Takes what headers say of a patient out of a text, before it is recorded.
        fleeting: Folders whose files are made for this run, as archives are unpacked.
    """

    def __init__(
        self,
        spec: ModelSpec,
        files: CaseFiles,
        options: PredictOptions,
        progress: Progress,
        run: SharedRun,
        plain: Callable[[str], str] = str,
        fleeting: Collection[Path] = (),
    ) -> None:
        self._spec, self._files, self._options, self._progress = spec, files, options, progress
        self._run, self._plain, self._fleeting = run, plain, fleeting
        self._structures = structures_of(spec)
        self._stamps: dict[str, str] = {}

    def _add(self, result: CaseResult) -> None:
        result = replace(result, stamp=self._stamps.pop(result.name, None))
        self._run.add(result)
        self._progress.on_case(result)

    def is_of(self, result: CaseResult, source: CaseSource) -> bool:
        """True where a result was made of the very files of ``source``, or nobody can tell any more."""
        if result.stamp is None or result.stamp == stamp_of(source, self._fleeting):
            return True
        return not all(path.exists() for one in source.channels.values() for path in one.paths)

    def kept(self, source: CaseSource) -> CaseResult | None:
        """An earlier run's result that is gone on with, scored and measured again; None where there is none.

        There is where the run before recorded it as finished, its scan is the same since (names, sizes and times of its
        files), every kind of file that is asked for now is there, and the label map can be read back.
        """
        stamp = self._stamps[source.name] = stamp_of(source, self._fleeting)
        earlier = self._run.earlier(source.name, stamp)
        # Soft metrics need probabilities, which only the network can give.
        if earlier is None or self._options.soft_metrics or not self._files.are_there(source):
            return None
        try:
            written = self._files.read_back(source)
            reference = load_reference(source, written.geometry, strict=self._options.strict)
            scores, slices = self._score(written, reference, None)
            picture = self._files.picture(source)
            if self._options.overlay and not picture.is_file():
                case = load_case(source, self._spec, strict=self._options.strict)
                overlay_case(picture, case, written)
            outputs = tuple(map(self._relative, self._files.targets(source).values()))
            measurements = self._measure(written)
        except UserError:
            return None  # not readable as a result, so not finished: it is made again
        return replace(
            earlier,
            status="skipped",
            output=outputs[0],
            scores=scores,
            slices=slices,
            measurements=measurements,
            outputs=outputs,
            seconds={},
        )

    def give_up(self, source: CaseSource, deaths: int) -> None:
        """Record a case that kills whoever does it."""
        error = FaultError(
            f"case {source.name!r}: {deaths} processes died while it was all they had in hand",
            "Look at its files with `segtool inspect`; a run without --continue tries it again.",
        )
        self._add(CaseResult(source.name, "failed", error=self._plain(str(error))))

    def check_results(self) -> None:
        """Make failed rows of what this process finished and somebody has removed since."""
        for name in sorted(self._run.mine):
            result = self._run.results[name]
            gone = [path for path in result.outputs if not (self._options.output / path).exists()]
            if result.status == "done" and gone:
                error = OutputError(
                    f"{self._options.output / gone[0]}: was written and is not there any more",
                    "Leave the output folder alone until the run has ended; --continue does the case again.",
                )
                self._add(CaseResult(name, "failed", error=self._plain(str(error)), seconds=result.seconds))

    def finish(self, job: Job) -> None:
        """Write, score and record one case; of a kept one, record it."""
        source = job.source
        if job.kept is not None:
            self._add(job.kept)
            return
        try:
            if job.error is not None:
                raise job.error
            assert job.case is not None
            assert job.label_map is not None
            with job.timed("measure"):
                measured = self._measure(job.label_map)
            with job.timed("write"):
                outputs = tuple(map(self._relative, self._files.write(job, measured)))
            probabilities = job.probabilities if self._options.soft_metrics else None
            scores, slices = self._score(job.label_map, job.case.reference, probabilities)
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
                slice_confidence=dict(job.slice_confidence),
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
