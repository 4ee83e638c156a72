"""Which patient a case belongs to, where the user says so.

Cases of one patient resemble each other, and intervals that take them as independent are too narrow. File names
rarely tell the patient with certainty, so nothing is guessed.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from segtool.errors import UsageError

_COLUMNS = ("case", "patient")
_FOR_INSTANCE = "Write a CSV file with the columns case,patient and one line a case, cases named as in report.csv."


def read_patients(path: Path) -> dict[str, str]:
    """Patient by case, from a CSV file with the columns ``case`` and ``patient``; further columns are left alone.

    A slice of a stack may have a line of its own, such as ``name[17]``.

    Raises:
        UsageError: The file cannot be read, lacks a column or a value, or gives a case two patients.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise UsageError(f"{path}: columns {found}, wanted {' and '.join(_COLUMNS)}", _FOR_INSTANCE)
            rows = [(reader.line_num, row["case"], row["patient"]) for row in reader]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8 ({error})", _FOR_INSTANCE) from error
    patients: dict[str, str] = {}
    for line, case, patient in rows:
        if not case or not patient:
            raise UsageError(f"{path}, line {line}: no {'patient' if case else 'case'}", _FOR_INSTANCE)
        if patients.setdefault(case, patient) != patient:
            raise UsageError(f"{path}, line {line}: case {case!r} has two patients", "Give every case one patient.")
    return patients


def check_patients(patients: Mapping[str, str], cases: Iterable[str]) -> None:
    """Refuse a table that leaves cases out: alone, they would count as patients of their own.

    Raises:
        UsageError: A case is not in the table; the line names the first.
    """
    known = {*patients, *(name.rpartition("[")[0] for name in patients)}
    missing = [case for case in cases if case not in known]
    if patients and missing:
        raise UsageError(
            f"no patient is given for {len(missing)} of the cases, such as {missing[0]!r}",
            "Add them to the file given with --patients, named as in report.csv.",
        )
