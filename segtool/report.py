"""What became of every case of a run, as JSON, CSV and a table.

Which means the report gives, and of what, is said in :mod:`segtool.summary`.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segtool.atomic import atomic_path, write_text
from segtool.case_result import CONFIDENCE, CaseResult, Status, plain
from segtool.measurements import MEASURED
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

_FORMULA = re.compile(r"(^|[;\t\r\n|]\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20\t\r])")
"""Where a cell begins that a spreadsheet runs: many part cells at semicolons, and some know the signs of East Asia."""

SCHEMA = 1
"""Of the JSON report; raised when a reader of older reports would misread a newer one."""


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
        elsewhere: How many cases other processes did, and ``left`` how many an interruption left undone; those are
            not among ``cases``.
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
    left: int = 0
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
            **({"left": self.left} if self.left else {}),
            "intervals": self.intervals,
            "summary": self.summary,
            **({"review": [dict(one) for one in self.review]} if self.review else {}),
            "cases": [case.as_dict() for case in self.cases],
        }
        content: dict[str, Any] = plain(head)
        return content

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


def _cell(value: object) -> str:
    """One cell of a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return _FORMULA.sub(r"\1'", str(value)) if isinstance(value, str) else str(value)
