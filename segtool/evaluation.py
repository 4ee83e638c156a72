"""Scores pairs of label maps: read, map values, bring onto one grid, measure."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap, Source
from segtool.errors import CaseError, UnreadableFileError, UsageError
from segtool.faults import Faults
from segtool.formats import is_placed, label_reader, read_labels_on
from segtool.geometry import Geometry
from segtool.interruption import Interruption
from segtool.pairing import Pair, Pairing
from segtool.patients import check_patients
from segtool.probability_maps import probabilities_beside, read_probabilities
from segtool.regrid import around, fit_labels
from segtool.report import CaseResult, Report, Scores, Structure, score
from segtool.scores import with_soft
from segtool.spec import ModelSpec
from segtool.version import __version__

T = TypeVar("T")
LabelArray = npt.NDArray[Any]

_MOST_WORKERS = 4  # the volumes of this many cases are in memory at once
_MOST_VALUES = 128  # atlases of the whole body have about 120 structures
_FLAGGED = 2**16


@dataclass(frozen=True)
class EvaluateOptions:
    """What ``segtool evaluate`` can be told.

    Args:
        structures: What to score; None to find out from the values of all label maps.
        label_map: Value in predictions to the value that it is read as.
        surface: Measure distances between surfaces, which takes most of the time.
        strict: Refuse predictions that would have to be resampled.
        patients: Of each case, or of each slice such as ``name[17]``: intervals of means then draw whole patients.
        soft: The model that made the predictions: its probability maps beside them are scored too. Then
            ``structures`` are those of this model.
    """

    structures: tuple[Structure, ...] | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)
    surface: bool = True
    strict: bool = False
    patients: Mapping[str, str] = field(default_factory=dict)
    soft: ModelSpec | None = None


def _silent(results: Iterator[T], _what: str, _total: int) -> Iterator[T]:
    return results


@dataclass(frozen=True)
class EvaluateProgress:
    """Told of a run as it goes.

    Args:
        on_case: Told of each result, in order.
        track: Wraps an iterator of results, with what is being done and how many there will be.
    """

    on_case: Callable[[CaseResult], None] = lambda _result: None
    track: Callable[[Iterator[Any], str, int], Iterator[Any]] = _silent


def evaluate_pairs(
    pairing: Pairing,
    options: EvaluateOptions,
    progress: EvaluateProgress | None = None,
    interruption: Interruption | None = None,
) -> Report:
    """Score all pairs; a pair that cannot be scored becomes a failed row and never stops the others.

    Args:
        pairing: As :func:`segtool.pairing.pair_files` gives it.
        options: What to score and how.
        progress: Told of the run as it goes.
        interruption: What signals may ask for meanwhile: pairs that have not begun are then left out, and the report
            says so.

    Raises:
        UsageError: No structures are given and the files do not hold label maps; a case is without its patient.
    """
    start = time.perf_counter()
    progress = progress or EvaluateProgress()
    check_patients(options.patients, [pair.name for pair in pairing.pairs])
    structures = options.structures or _structures_found(pairing.pairs, options, progress)
    cases = []
    interruption = interruption or Interruption()
    scoring = _Scoring(pairing.pairs, structures, options)
    interruption.finish_with(scoring.finish_up)
    results = _in_threads(scoring.evaluate, pairing.pairs)
    plain = pairing.privacy.plain
    for scored in progress.track(results, "score", len(pairing.pairs)):
        error = scored.error and plain(scored.error)
        result = replace(scored, error=error, notes=tuple(map(plain, scored.notes)))
        cases.append(result)
        progress.on_case(result)
    interruption.close()
    left = [pair.name for pair in pairing.pairs[len(cases) :]]
    return Report(
        command="evaluate",
        tool_version=__version__,
        cases=tuple(cases),
        elapsed_s=time.perf_counter() - start,
        options={
            "structures": {s.name: [s.prediction_values, s.reference_values] for s in structures},
            "label_map": options.label_map,
            "surface": options.surface,
            "strict": options.strict,
            **({"soft": True} if options.soft else {}),
        },
        notes=(
            *pairing.remarks,
            *([f"interrupted: not all cases were scored; {len(left)} left: {', '.join(left)}"] if left else []),
        ),
        patients=options.patients,
        left=len(left),
    )


class _Scoring:
    """Scores pairs in several threads, until it is told to come to an end."""

    def __init__(self, pairs: Sequence[Pair], structures: Sequence[Structure], options: EvaluateOptions) -> None:
        self._structures, self._options, self._faults = structures, options, Faults()
        self._count, self._ending = len(pairs), False
        self._begun = self._done = 0
        self._lock = threading.Lock()

    def finish_up(self) -> int:
        """Begin no more; the number of those in hand. Takes no lock, so that a handler of signals may call it."""
        self._ending = True
        return self._begun - self._done

    def evaluate(self, pair: Pair) -> CaseResult | None:
        """The row of a pair; None for one that is not begun any more."""
        with self._lock:
            if self._ending:
                return None
            self._begun += 1
        try:
            return _evaluate(pair, self._structures, self._options, self._faults)
        finally:
            with self._lock:
                self._done += 1


def _in_threads(work: Callable[[Pair], T | None], pairs: Sequence[Pair]) -> Iterator[T]:
    """Results in the order of ``pairs``, up to the first None; reading and measuring mostly release Python's lock.

    The threads are daemons: one that hangs in a read keeps nobody from ending.
    """
    answers: list[Future[T | None]] = [Future() for _ in pairs]
    todo, lock = iter(list(zip(pairs, answers, strict=True))), threading.Lock()
    given_up = threading.Event()

    def serve() -> None:
        while not given_up.is_set():
            with lock:
                pair, answer = next(todo, (None, None))
            if pair is None or answer is None:
                return
            try:
                answer.set_result(work(pair))
            except BaseException as error:  # noqa: BLE001 - whoever waits for the answer raises it
                answer.set_exception(error)

    for _ in range(min(_MOST_WORKERS, os.cpu_count() or 1)):
        threading.Thread(target=serve, name="segtool-pair", daemon=True).start()
    try:
        for answer in answers:
            if (result := answer.result()) is None:
                return
            yield result
    finally:
        given_up.set()


def _read(source: Source, geometry: Geometry | None = None) -> LabelMap:
    """A label map; what lies in the patient without a grid of its own on that of the other side."""
    reader = label_reader(source.format)
    label_map = reader.read_labels(source) if geometry is None else read_labels_on(source, geometry)
    if label_map is None:
        raise UnreadableFileError(f"{source.path}: holds an image and no label map", "Give the file of the label map.")
    return label_map


def _read_both(prediction: Source, reference: Source) -> tuple[LabelMap, LabelMap, Geometry]:
    """Prediction, reference and the grid on which to compare them.

    That is the reference's, but for one that has only the slices which hold something, or none: beyond them the
    prediction may be wrong. Where both are such, it is what covers both.
    """
    if not is_placed(reference.format):
        read = _read(reference)
        return _read(prediction, read.geometry), read, read.geometry
    if not is_placed(prediction.format):
        read = _read(prediction)
        return read, _read(reference, read.geometry), read.geometry
    predicted, read = _read(prediction), _read(reference)
    return predicted, read, around(read.geometry, predicted.geometry)


def _mapped(labels: LabelArray, values: Mapping[int, int]) -> LabelArray:
    """``labels`` with every value of ``values`` replaced at once, so that values can be swapped."""
    if not values:
        return labels
    mapped = labels.astype(np.promote_types(labels.dtype, np.min_scalar_type(max(values.values()))))
    for old, new in values.items():
        mapped[labels == old] = new
    return mapped


def _values(labels: LabelArray) -> set[int]:
    """The values that are not zero."""
    highest = int(labels.max())
    if highest > _FLAGGED:
        return set(np.unique(labels).tolist()) - {0}
    # A table of flags is many times quicker than sorting the voxels.
    seen = np.zeros(highest + 1, np.bool_)
    seen[labels] = True
    return set(np.flatnonzero(seen).tolist()) - {0}


def _structures_found(
    pairs: Sequence[Pair], options: EvaluateOptions, progress: EvaluateProgress
) -> tuple[Structure, ...]:
    """One structure a value, or "foreground" where either side knows one value at most."""

    def look(pair: Pair) -> tuple[set[int], set[int]]:
        if pair.prediction is None:
            return set(), set()
        try:
            predicted, reference, _ = _read_both(pair.prediction, pair.reference)
            return _values(_mapped(predicted.labels, options.label_map)), _values(reference.labels)
        except Exception:  # noqa: BLE001 - reported when the pair is scored
            return set(), set()

    seen = list(progress.track(_in_threads(look, pairs), "look", len(pairs)))
    predicted, referenced = (set[int]().union(*(side[i] for side in seen)) for i in (0, 1))
    if len(predicted) <= 1 and len(referenced) <= 1:
        return (Structure("foreground"),)
    values = sorted(predicted | referenced)
    if len(values) > _MOST_VALUES:
        raise UsageError(
            f"the files hold {len(values)} different values, which looks like scans and not like label maps",
            "Give folders of label maps, or say with --labels which values to score.",
        )
    return tuple(Structure(str(value), (value,), (value,)) for value in values)


def _evaluate(pair: Pair, structures: Sequence[Structure], options: EvaluateOptions, faults: Faults) -> CaseResult:
    """Read and score one pair; whatever is wrong with it stands in the result."""
    seconds = {}
    try:
        if pair.prediction is None:
            raise CaseError(
                f"no prediction for the reference {pair.reference.path.name}",
                "Predict it, or take the reference out of the folder.",
            )
        start = time.perf_counter()
        read, marked, grid = _read_both(pair.prediction, pair.reference)
        said = [*(f"prediction: {note}" for note in read.notes), *(f"reference: {note}" for note in marked.notes)]
        mapped = LabelMap(_mapped(read.labels, options.label_map), read.geometry)
        prediction, notes = _fitted(mapped, grid, ("prediction", "reference"), pair.prediction, options)
        reference, others = _fitted(marked, grid, ("reference", "prediction"), pair.reference, options)
        notes = (*notes, *others)
        seconds["read"] = time.perf_counter() - start
        start = time.perf_counter()
        scores, slices = score(
            prediction.labels, reference.labels, reference.geometry, structures, surface=options.surface
        )
        if options.soft is not None:
            scored = scores, slices
            scores, slices, missing = _soft(pair.prediction, reference, scored, options.soft, aligned=not notes)
            notes = (*notes, *missing)
        seconds["score"] = time.perf_counter() - start
    except Exception as error:  # noqa: BLE001 - one bad pair never stops the others; a bug shows its traceback
        named = faults.error_of(error, pair.name, "scoring")
        return CaseResult(pair.name, "failed", error=str(named), seconds=seconds)
    return CaseResult(
        pair.name,
        "done",
        scores=scores,
        slices=slices,
        notes=(*said, *notes),
        seconds=seconds,
        geometry=reference.geometry.describe(),
    )


def _fitted(
    label_map: LabelMap, grid: Geometry, names: tuple[str, str], source: Source, options: EvaluateOptions
) -> tuple[LabelMap, tuple[str, ...]]:
    is_part = is_placed(source.format)
    return fit_labels(label_map, grid, names=names, where=source.path.name, strict=options.strict, is_part=is_part)


_Scored = tuple[dict[str, Scores], dict[int, dict[str, Scores]]]


def _soft(
    prediction: Source, reference: LabelMap, scored: _Scored, spec: ModelSpec, *, aligned: bool
) -> tuple[dict[str, Scores], dict[int, dict[str, Scores]], tuple[str, ...]]:
    """The scores with soft measures, or a note why there are none.

    Raises:
        CaseError: The probability map cannot be read or has another shape.
    """
    path = probabilities_beside(prediction)
    if path is None or not aligned:
        why = "no probability map beside it" if aligned else "its grid had to be changed"
        return *scored, (f"no soft measures: {why}",)
    shares = read_probabilities(path, reference.geometry, spec)
    return *with_soft(*scored, shares, reference.labels, spec), ()
