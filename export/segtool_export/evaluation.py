"""A model file on labelled cases of its run: label maps and scores on the scans' own grids."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segtool.backends import Device
from segtool.errors import CaseError, OutputError, UsageError
from segtool.formats import get_format
from segtool.job import Job
from segtool.model_file import read_spec, sha256
from segtool.postprocess.calibration import Calibration, Calibrator
from segtool.report import CaseResult, Report
from segtool.scores import score, structures_of, with_soft
from segtool.spec import ModelSpec
from segtool.version import __version__
from segtool_export.segmenting import gather, segment
from segtool_export.summary import Row
from segtool_train.data.base import Item


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches on some cases.

    Args:
        cases: What became of each, in the order of the items.
        rows: Everything that was scored, in the same order.
        labels: Folder of the label maps.
        engine: What ran the model.
        elapsed_s: Wall-clock time.
        calibration: What the spec's temperature does to probabilities; None without one, or where no case has a label.
    """

    cases: tuple[CaseResult, ...]
    rows: tuple[Row, ...]
    labels: Path
    engine: str
    elapsed_s: float
    calibration: Calibration | None = None

    @property
    def failures(self) -> tuple[CaseResult, ...]:
        """Cases that could not be segmented or scored."""
        return tuple(case for case in self.cases if case.status == "failed")

    def report(self, model: Path, side: str) -> Report:
        """As ``segtool evaluate`` reports; ``model`` is the file that was run, its provenance aside."""
        spec = read_spec(model)
        return Report(
            command="evaluate",
            tool_version=__version__,
            cases=self.cases,
            elapsed_s=self.elapsed_s,
            model=f"{spec.name} {spec.version}",
            model_sha256=sha256(model),
            engine=self.engine,
            options={"side": side},
            patients={row.name: row.patient for row in self.rows},
        )


def evaluate_items(
    model: Path, items: Sequence[Item], labels: Path, device: Device, log: Callable[[str], None]
) -> Evaluation:
    """Segment and score ``items``; a case that fails becomes a failed row and never stops the others.

    Args:
        model: The ``.onnx`` file.
        items: Cases with references.
        labels: Folder that takes the label maps.
        device: Where to run.
        log: Told of every tenth of the cases.

    Raises:
        ModelError: The file cannot be used.
        DeviceError: The device is not there.
        OutputError: A label map cannot be written.
        UsageError: No case could be scored.
    """
    start = time.perf_counter()
    spec = read_spec(model)
    scoring = _Scoring(spec, items, labels, log)
    engine = segment(model, spec, items, device, scoring.finish, logits=spec.confidence is not None)
    if scoring.stopped is not None:
        raise scoring.stopped
    done = [scoring.done[item.name] for item in items]
    cases = tuple(case for case, _ in done)
    rows = tuple(row for _, rows in done for row in rows)
    if not rows:
        raise UsageError(f"none of {len(items)} cases could be scored ({cases[0].error})", "Mend the scans.")
    return Evaluation(cases, rows, labels, engine, time.perf_counter() - start, scoring.calibration)


class _Scoring:
    """Writes and scores every case as it is finished."""

    def __init__(self, spec: ModelSpec, items: Sequence[Item], labels: Path, log: Callable[[str], None]) -> None:
        self._spec, self._labels, self._log = spec, labels, log
        self._items = {item.name: item for item in items}
        self._structures = structures_of(spec)
        self._lock = threading.Lock()
        self._calibrator = Calibrator(spec)
        self.done: dict[str, tuple[CaseResult, tuple[Row, ...]]] = {}
        self.stopped: OutputError | None = None

    @property
    def calibration(self) -> Calibration | None:
        """Of all cases so far."""
        if self._spec.confidence is None or not self._calibrator.cases:
            return None
        return self._calibrator.judge(self._spec.confidence.temperature)

    def finish(self, job: Job) -> None:
        """As :class:`segtool.stages.Finish`."""
        try:
            result = self._score(job)
        except CaseError as error:
            result = CaseResult(job.source.name, "failed", error=str(error), seconds=dict(job.seconds)), ()
        except OutputError as error:
            self.stopped = error  # the disk's trouble and no case's
            return
        with self._lock:
            self.done[job.source.name] = result
            done, total = len(self.done), len(self._items)
            if done * 10 // total > (done - 1) * 10 // total:
                self._log(f"test    {done} of {total} cases")

    def _score(self, job: Job) -> tuple[CaseResult, tuple[Row, ...]]:
        if job.error is not None:
            raise job.error
        assert job.case is not None
        assert job.label_map is not None
        assert job.probabilities is not None
        reference, source = job.case.reference, job.source
        if reference is None:
            raise CaseError(f"{source.name}: has no reference mask", "Add its mask, or take the case out of the set.")
        kind = get_format(source.first.format)
        target = self._labels / f"{source.output_stem}{kind.output_suffix(source.first)}"
        with job.timed("write"):
            kind.write_labels(target, job.label_map, source.first)
        with job.timed("score"):
            hard = score(job.label_map.labels, reference.labels, reference.geometry, self._structures, surface=True)
            scores, slices = with_soft(*hard, job.probabilities, reference.labels, self._spec)
        if job.logits is not None:
            gather(self._calibrator, job)
        result = CaseResult(
            source.name,
            "done",
            target.relative_to(self._labels).as_posix(),
            scores=scores,
            slices=slices,
            notes=job.case.notes,
            confidence=dict(job.confidence),
            slice_confidence=dict(job.slice_confidence),
            seconds=dict(job.seconds),
            geometry=reference.geometry.describe(),
        )
        item = self._items[source.name]
        by_slice = [(None, scores)] if scores else list(slices.items())
        return result, tuple(Row(item.name, index, item.patient, item.group, one) for index, one in by_slice)
