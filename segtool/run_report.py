"""What a run has to tell: its report, of all that is known of its cases, whoever did them."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from segtool.ensemble import Ensemble
from segtool.errors import OutputError
from segtool.output_folder import Part
from segtool.predict_options import PredictOptions
from segtool.report import CaseResult, Report
from segtool.review import review_order
from segtool.scan import Scan, natural_key
from segtool.shared_run import SharedRun
from segtool.stages import Engine
from segtool.version import __version__

_CUT = "cases are cut into windows, where the model would take them whole: a TensorRT engine has one extent"


class RunReport:
    """Puts the report together and writes it.

    Args:
        options: Of the run.
        settings: Whatever changes a label map besides scan and models.
        models: That were asked.
        found: The cases, and what did not become one.
        run: Knows the results.
        started: When, as ``time.perf_counter`` tells it.
        scan_s: How long the scan took.

    Attributes:
        engine: None until it is loaded, and ``load_s`` how long that took.
        remarks: What else the report must say of the run as a whole.
        interrupted: True where cases may be left.
        written: The report, once there is one.
    """

    def __init__(
        self,
        options: PredictOptions,
        settings: Mapping[str, Any],
        models: Ensemble,
        found: Scan,
        run: SharedRun,
        started: float,
        scan_s: float,
    ) -> None:
        self._options, self._settings, self._models = options, settings, models
        self._found, self._run, self._started, self._scan_s = found, run, started, scan_s
        self.engine: Engine | None = None
        self.load_s = 0.0
        self.remarks: tuple[str, ...] = ()
        self.interrupted = False
        self.written: Report | None = None

    def write(self) -> None:
        """Write ``report.json`` and ``report.csv``, or those of a part.

        Raises:
            OutputError: One cannot be written.
        """
        self.written = self._report()
        path = self._options.output / Part(*self._options.part).report
        try:
            self.written.write_json(path.with_suffix(".json"))
            self.written.write_csv(path.with_suffix(".csv"))
        except OutputError as error:
            done = self.written.counts["done"] + self.written.counts["skipped"]
            raise OutputError(
                f"{error.problem}; the results of {done} cases lie in {self._options.output}",
                "Make room or way for the report and run again with --continue.",
            ) from error

    def _report(self) -> Report:
        members = [(member.name, member.sha256) for member in self._models.members]
        backend = None if self.engine is None else self.engine.backend
        cases = (*self._run.lost, *self._in_order())
        return Report(
            command="predict",
            tool_version=__version__,
            cases=cases,
            elapsed_s=time.perf_counter() - self._started,
            model=self._models.name,
            model_sha256=members[0][1] if len(members) == 1 else None,
            models=tuple(members),
            device=None if backend is None else backend.device,
            engine=None if backend is None else f"{backend.name} {backend.version}",
            precision=None if backend is None else backend.precision,
            options=self._settings,
            notes=tuple(self._notes()),
            patients=self._options.patients,
            review=review_order(cases, self._options.review_worst),
            setup_seconds={"find cases": self._scan_s, "load model": self.load_s},
            elsewhere=len(self._run.results.keys() - self._run.mine),
            left=len(self._left()) if self.interrupted else 0,
        )

    def _in_order(self) -> Iterator[CaseResult]:
        """All results: of this process's cases as they were found, then those of which only others knew."""
        results = self._run.results
        names = dict.fromkeys(source.name for source in self._found.cases)
        yield from (results[name] for name in names if name in results)
        yield from (results[name] for name in sorted(results.keys() - names.keys(), key=natural_key))

    def _notes(self) -> Iterator[str]:
        """What the report must say of the run as a whole."""
        yield from self._models.notes
        if self.engine is not None and self.engine.backend.note:
            yield self.engine.backend.note
        if self.engine is not None and self.engine.spec.input != self._models.spec.input:
            yield _CUT
        yield from self.remarks
        yield from (str(problem) for problem in self._found.problems if not problem.loses_case)
        yield from self._run.notes
        if self.interrupted:
            left = self._left()
            what = f"not all cases were done; {len(left)} left: {', '.join(left)}" if left else "when all were done"
            yield f"interrupted: {what}"

    def _left(self) -> list[str]:
        """Cases without a result."""
        return [source.name for source in self._found.cases if source.name not in self._run.results]


def lost_in(found: Scan) -> list[CaseResult]:
    """What the scan could not make a case of, as failed rows."""
    return [
        CaseResult(problem.where, "failed", error=f"{problem.problem}. {problem.remedy}")
        for problem in found.problems
        if problem.loses_case
    ]
