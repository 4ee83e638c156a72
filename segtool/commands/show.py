"""How commands print tables, notes and JSON."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import typer

from segtool.errors import printable

if TYPE_CHECKING:
    from segtool.report import Report

_NOTES_SHOWN = 20
_BRACKETS = re.compile(r" \([^()]*\)")


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, the first as heading: a table on a terminal, plain text in a pipe."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in rows[0]:
            table.add_column(heading, overflow="fold")
        for row in rows[1:]:
            # Text, because a name in brackets is not markup.
            table.add_row(*(Text(cell) for cell in row))
        Console(highlight=False).print(table)
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def case_notes(report: "Report") -> Iterator[str]:
    """What the reader must know of cases, each thing once however many of them it holds for."""
    return _by_text((case.name, case.notes) for case in report.cases)


def case_warnings(report: "Report") -> Iterator[str]:
    """What makes results of cases doubtful: what differs in brackets alone, such as in numbers, once without those."""
    said = [(case.name, text) for case in report.cases for text in case.warnings]
    alike = Counter(_BRACKETS.sub("", text) for text in {text for _, text in said})

    def short(text: str) -> str:
        without = _BRACKETS.sub("", text)
        return without if alike[without] > 1 else text

    return _by_text((name, [short(text)]) for name, text in said)


def _by_text(said: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    cases: dict[str, list[str]] = {}
    for name, notes in said:
        for note in notes:
            cases.setdefault(note, []).append(name)
    for note, names in islice(cases.items(), _NOTES_SHOWN):
        yield f"{names[0] if len(names) == 1 else f'{len(names)} cases'}: {note}"
    if len(cases) > _NOTES_SHOWN:
        yield f"and {len(cases) - _NOTES_SHOWN} more; report.json has them all"


def to_json(value: object) -> str:
    """Indented JSON text."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
