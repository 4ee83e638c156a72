"""What became of every case of a run, as JSON, CSV and a table.

Which means the report gives, and of what, is said in :mod:`segtool.summary`.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np

from segtool.atomic import atomic_path, write_text
from segtool.measurements import MEASURED, Measurements
from segtool.scores import (
    FLAGS,
    MEASURES,
    Scores,
    Structure,
    score,
    score_case,
    score_slices,
    structures_of,
)
from segtool.summary import print_summary, summarise

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "CaseResult",
    "Report",
    "Scores",
    "Status",
    "Structure",
    "score",
    "score_case",
    "score_slices",
    "structures_of",
]

SCHEMA = 1
"""Of the JSON report; raised when a reader of older reports would misread a newer one."""

_Numbers = TypeVar("_Numbers", Scores, Measurements)

CONFIDENCE = ("expected_dice", "mean_entropy", "disagreement")
"""Measures of :meth:`segtool.postprocess.confidence.Tally.numbers`, in the order of a table."""

Status = Literal["done", "failed", "skipped"]


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
        plain: dict[str, Any] = _plain(self.as_dict())
        return plain

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
        except (TypeError, KeyError, AttributeError) as error:  # anybody may have written into a results folder
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


@dataclass(frozen=True)
class Report:
    """A run: its cases and how they were made.

    Args:
        command: Such as ``predict``.
        tool_version: Of segtool.
        cases: In the order of the run.
        elapsed_s: Wall-clock time of the run.
        model: Name and version of the model, and ``model_sha256`` of its file; None for several models.
        models: Name and version, and SHA-256, of every model.
        device: As the engine reports it; likewise ``engine`` and ``precision``.
        options: Whatever changes the result, by name.
        notes: About the run as a whole.
        setup_seconds: Time before the first case, by what it went into.
        seed: Of the bootstrap.
        patients: Of each case, or of each slice such as ``name[17]``, where they are known: intervals then draw
            whole patients. They are counted and never written.
        review: What to look at first, the most doubtful first, where asked for: ``name`` and ``reason``.
    """

    command: str
    tool_version: str
    cases: tuple[CaseResult, ...]
    elapsed_s: float
    model: str | None = None
    model_sha256: str | None = None
    models: tuple[tuple[str, str], ...] = ()
    device: str | None = None
    engine: str | None = None
    precision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    setup_seconds: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    patients: Mapping[str, str] = field(default_factory=dict)
    elsewhere: int = 0
    review: tuple[Mapping[str, str], ...] = ()

    @property
    def failures(self) -> tuple[CaseResult, ...]:
        """The cases that failed."""
        return tuple(case for case in self.cases if case.status == "failed")

    @property
    def counts(self) -> dict[str, int]:
        """Cases by status; they add up to ``cases``."""
        by_status = {
            status: sum(case.status == status for case in self.cases) for status in ("done", "failed", "skipped")
        }
        return {"cases": len(self.cases), **by_status}

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Time by stage, added up over the cases; stages overlap, so the sum may exceed ``elapsed_s``."""
        totals: dict[str, float] = {}
        for case in self.cases:
            for stage, seconds in case.seconds.items():
                totals[stage] = totals.get(stage, 0.0) + seconds
        return totals

    @cached_property
    def summary(self) -> dict[str, dict[str, Any]]:
        """Means, intervals, medians and standard deviations by structure, of everything scored.

        A slice of a stack counts like a case. Keys are those of the module's docstring, such as
        ``dice_mean_all``, ``dice_ci95_with_reference`` or ``hd95_mm_median``.
        """
        by_structure: dict[str, list[Scores]] = {}
        groups: dict[str, list[str]] = {}
        for case in self.cases:
            for row, scores in case.rows():
                for name, one in scores.items():
                    by_structure.setdefault(name, []).append(one)
                    groups.setdefault(name, []).append(self._patient(row, case.name))
        return {
            name: summarise(scores, self.seed, groups[name] if self.patients else None)
            for name, scores in by_structure.items()
        }

    def _patient(self, row: str, case: str) -> str:
        return self.patients.get(row) or self.patients.get(case) or row

    @property
    def intervals(self) -> dict[str, Any]:
        """What the bootstrap of the confidence intervals draws, and from how many."""
        rows = [(row, case.name) for case in self.cases for row, _ in case.rows()]
        if not self.patients:
            return {"draw": "cases", "from": len(rows)}
        return {"draw": "patients", "from": len({self._patient(row, case) for row, case in rows})}

    def as_dict(self) -> dict[str, Any]:
        """The whole report, ready for JSON; NaN has become None."""
        head = {
            "schema": SCHEMA,
            "tool": "segtool",
            "tool_version": self.tool_version,
            "command": self.command,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "models": [{"model": model, "sha256": checksum} for model, checksum in self.models],
            "device": self.device,
            "engine": self.engine,
            "precision": self.precision,
            "options": dict(self.options),
            "notes": list(self.notes),
            "elapsed_s": self.elapsed_s,
            "setup_seconds": dict(self.setup_seconds),
            "stage_seconds": self.stage_seconds,
            "counts": self.counts,
            **({"done_by_other_processes": self.elsewhere} if self.elsewhere else {}),
            "intervals": self.intervals,
            "summary": self.summary,
            **({"review": [dict(one) for one in self.review]} if self.review else {}),
            "cases": [case.as_dict() for case in self.cases],
        }
        plain: dict[str, Any] = _plain(head)
        return plain

    def to_json(self) -> str:
        """:meth:`as_dict` as JSON text without NaN: the head indented, then one line a case."""
        head = self.as_dict()
        cases = [json.dumps(case, ensure_ascii=False, allow_nan=False) for case in head.pop("cases")]
        text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        return text + ',\n  "cases": [\n    ' + ",\n    ".join(cases) + "\n  ]\n}"

    def write_json(self, path: Path) -> None:
        """Write :meth:`to_json`, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        write_text(path, self.to_json() + "\n")

    def write_csv(self, path: Path) -> None:
        """Write one row a case and structure, whole or not at all.

        Undefined numbers are empty cells, and text that a spreadsheet would run as a formula starts with
        ``'``.

        Raises:
            OutputError: The file cannot be written.
        """
        text = io.StringIO()
        rows = list(self._csv_rows())
        used = {key for row in rows for key in row}
        columns = ["case", "structure", "status"]
        columns += [name for name in dict.fromkeys((*MEASURES, *FLAGS, *MEASURED, *CONFIDENCE)) if name in used]
        columns += ["output", "geometry", "warnings", "notes", "error"]
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        with atomic_path(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")

    def _csv_rows(self) -> Iterator[dict[str, Any]]:
        for case in self.cases:
            common = {
                "status": case.status,
                "output": case.output,
                "geometry": case.geometry,
                "warnings": "; ".join(case.warnings),
                "notes": "; ".join(case.notes),
                "error": case.error,
            }
            found = list(case.found())
            if not found:
                yield {"case": case.name, **common}
            for name, structure, numbers in found:
                known = {key: value for key, value in numbers.items() if not isinstance(value, tuple)}
                yield {"case": name, "structure": structure, **known, **case.confidence_of(name), **common}

    def print_table(self, console: "Console") -> None:
        """Print the means by structure; fits 80 columns. Prints nothing where nothing was scored."""
        print_summary(console, self.summary)
        if self.summary and self.patients:
            console.print(f"note    confidence intervals draw whole patients, of {self.intervals['from']}")


def _from_plain(kind: type[_Numbers], parts: Mapping[str, Mapping[str, Any]]) -> dict[str, _Numbers]:
    """What :func:`_by_name` and :func:`_plain` made a dictionary of: None was an undefined number."""
    known = {one.name for one in fields(kind)}
    return {
        name: kind(**{key: _exact(value) for key, value in numbers.items() if key in known})
        for name, numbers in parts.items()
    }


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in numbers.items()}


def _exact(value: object) -> Any:  # noqa: ANN401 - whatever a dataclass of numbers holds
    if isinstance(value, list):
        return tuple(map(_exact, value))
    return math.nan if value is None else value


def _by_name(parts: Mapping[str, Scores] | Mapping[str, Measurements]) -> dict[str, Any]:
    return {name: one.as_dict() for name, one in parts.items()}


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """What JSON can say: NaN and infinity become None, numpy's numbers Python's, anything else text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _cell(value: object) -> str:
    """One cell of a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return str(value)
