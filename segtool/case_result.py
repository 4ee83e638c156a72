"""What became of one case of a run, in memory and as a row of JSON."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from segtool.measurements import Measurements
from segtool.scores import Scores

_Numbers = TypeVar("_Numbers", Scores, Measurements)

Status = Literal["done", "failed", "skipped"]

CONFIDENCE = ("expected_dice", "mean_entropy", "disagreement")
"""Measures of :meth:`segtool.postprocess.confidence.Tally.numbers`, in the order of a table."""

_TEXTS = ("plane",)
"""Measurements that are no numbers."""
_ENDLESS = 1e300


@dataclass(frozen=True)
class CaseResult:
    """What became of one case.

    Args:
        name: Of the case, free of patient data.
        status: ``skipped`` cases were finished by an earlier run.
        output: The result, relative to the output folder.
        error: For a failed case the one line that says why, remedy included.
        scores: By structure, of an image or volume.
        slices: By index and structure, of a stack.
        measurements: What a reader would measure, by structure, of a volume.
        notes: What the reader must know, such as "t2 resampled onto t1".
        warnings: What makes the result doubtful, such as intensities unlike those of the training.
        confidence: How sure the model is, by measure: see :meth:`segtool.postprocess.confidence.Tally.numbers`.
        slice_confidence: The same by index, of a stack.
        seconds: Time spent, by stage.
        geometry: Of the grid, as ``Geometry.describe`` puts it.
        outputs: All label maps, where several kinds were asked for; ``output`` is the first.
        stamp: Digest of names, sizes and times of the files it was made of.
    """

    name: str
    status: Status
    output: str | None = None
    error: str | None = None
    scores: Mapping[str, Scores] = field(default_factory=dict)
    slices: Mapping[int, Mapping[str, Scores]] = field(default_factory=dict)
    measurements: Mapping[str, Measurements] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    confidence: Mapping[str, float] = field(default_factory=dict)
    slice_confidence: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    geometry: str | None = None
    outputs: tuple[str, ...] = ()
    stamp: str | None = None

    def rows(self) -> Iterator[tuple[str, Mapping[str, Scores]]]:
        """Name and scores of everything that was scored: the case, or ``name[17]`` for a slice of a stack."""
        if self.scores:
            yield self.name, self.scores
        for index, scores in self.slices.items():
            yield f"{self.name}[{index}]", scores

    def confidence_of(self, row: str) -> Mapping[str, float]:
        """Of the case or the picture that :meth:`rows` names so; empty where nothing is known."""
        if not self.slice_confidence:
            return self.confidence
        by_name = {f"{self.name}[{index}]": one for index, one in self.slice_confidence.items()}
        return by_name.get(row, {})

    def found(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Name as :meth:`rows` gives it, structure, and by their names all scores and measurements of it."""
        measured = {self.name: self.measurements} if self.measurements else {}
        scored = dict(self.rows())
        for row in {**scored, **measured}:
            parts = (scored.get(row, {}), measured.get(row, {}))
            for structure in {**parts[0], **parts[1]}:
                numbers: dict[str, Any] = {}
                for part in parts:
                    numbers |= part[structure].as_dict() if structure in part else {}
                yield row, structure, numbers

    def as_dict(self) -> dict[str, Any]:
        """For JSON; empty parts are left out."""
        parts: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "output": self.output,
            "outputs": list(self.outputs) if len(self.outputs) > 1 else [],
            "error": self.error,
            "geometry": self.geometry,
            "scores": _by_name(self.scores),
            "slices": {str(index): _by_name(by_name) for index, by_name in self.slices.items()},
            "measurements": _by_name(self.measurements),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "confidence": dict(self.confidence),
            "slice_confidence": {str(index): dict(one) for index, one in self.slice_confidence.items()},
            "seconds": dict(self.seconds),
            "stamp": self.stamp,
        }
        return {key: value for key, value in parts.items() if value not in (None, {}, [])}

    def to_plain(self) -> dict[str, Any]:
        """:meth:`as_dict`, ready for JSON; NaN has become None."""
        row: dict[str, Any] = plain(self.as_dict())
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "CaseResult":
        """The case of which :meth:`to_plain` gave ``row``; what a newer version may have added is passed over.

        Raises:
            ValueError: It is no such row.
        """
        try:
            found = cls._of(row)
            texts = (found.name, *found.notes, *found.warnings, *found.outputs)
            maybe = (found.output, found.error, found.geometry, found.stamp)
            numbers = (found.seconds, found.confidence, *found.slice_confidence.values())
            if (
                found.status in get_args(Status)
                and all(isinstance(text, str) for text in texts)
                and all(isinstance(text, str | None) for text in maybe)
                and all(isinstance(value, int | float) for one in numbers for value in one.values())
            ):
                return found
        except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
            # Anybody may have written into a results folder.
            raise ValueError("not a case of a report") from error
        raise ValueError("not a case of a report")

    @classmethod
    def _of(cls, row: Mapping[str, Any]) -> "CaseResult":
        known = {one.name: row[one.name] for one in fields(cls) if one.name in row}
        outputs = tuple(known.get("outputs", ())) or ((known["output"],) if "output" in known else ())
        structured = {
            "scores": _from_plain(Scores, row.get("scores", {})),
            "slices": {int(index): _from_plain(Scores, one) for index, one in row.get("slices", {}).items()},
            "measurements": _from_plain(Measurements, row.get("measurements", {})),
            "slice_confidence": {int(index): _known(one) for index, one in row.get("slice_confidence", {}).items()},
            "confidence": _known(row.get("confidence", {})),
            "notes": tuple(row.get("notes", ())),
            "warnings": tuple(row.get("warnings", ())),
            "outputs": outputs,
        }
        return cls(**(known | structured))


def _from_plain(kind: type[_Numbers], parts: Mapping[str, Mapping[str, Any]]) -> dict[str, _Numbers]:
    """What :func:`_by_name` and :func:`plain` made a dictionary of: None was an undefined number."""
    known = {one.name for one in fields(kind)}
    return {
        name: kind(**{key: _exact(value, key) for key, value in numbers.items() if key in known})
        for name, numbers in parts.items()
    }


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(_exact(value, name)) for name, value in numbers.items() if name in CONFIDENCE}


def _exact(value: object, name: str) -> Any:  # noqa: ANN401 - whatever a dataclass of numbers holds
    """A number as it was, by whatever name.

    Raises:
        ValueError: It is none, or larger than any that is measured.
    """
    if value is None:
        return math.nan
    if isinstance(value, list):
        return tuple(_exact(one, name) for one in value)
    if isinstance(value, str) if name in _TEXTS else isinstance(value, int | float) and abs(value) < _ENDLESS:
        return value
    raise ValueError(f"no number as {name}")


def _by_name(parts: Mapping[str, Scores] | Mapping[str, Measurements]) -> dict[str, Any]:
    return {name: one.as_dict() for name, one in parts.items()}


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """What JSON can say: NaN and infinity become None, numpy's numbers Python's, anything else text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
