"""A split given as a file: who trains, validates and tests, by the names of patients or of items."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segtool.errors import UsageError
from segtool_train.data.base import Item

SIDES = ("train", "validation", "test")

_REMEDY = 'Write {"train": [...], "validation": [...], "test": [...]} with names of patients or of cases.'
_WRITTEN = {
    *("train_patients", "validation_patients", "test_patients"),
    *("rule", "left_out", "of_slices", "patients_on_two_sides"),
}
"""What the split.json of a run holds beside the names of its items."""


def read_sides(path: Path, items: Sequence[Item]) -> list[set[str]]:
    """Names of the items that ``path`` puts on each of :data:`SIDES`.

    Args:
        path: JSON: the ``split.json`` of a run, or lists of names under ``train`` and, where there are such
            sides, ``validation`` and ``test``. A name is a patient's, for all items of the patient, or an
            item's.
        items: All items.

    Raises:
        UsageError: Not such a file, a name that nothing bears, or an item on two sides.
    """
    raw = _read(path)
    names = {item.name: {item.name} for item in items}
    if not raw.keys() & _WRITTEN:
        patients: dict[str, set[str]] = {}
        for item in items:
            patients.setdefault(item.patient, set()).add(item.name)
        names |= patients
    unknown = [name for side in SIDES for name in raw.get(side, ()) if name not in names]
    if unknown:
        raise UsageError(
            f"{path}: {len(unknown)} of its names are neither a patient nor a case of the data (first {unknown[0]!r})",
            "Correct the file, or give the --data and --limit that it was written for.",
        )
    sides = [{item for name in raw.get(side, ()) for item in names[name]} for side in SIDES]
    twice = sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    if twice:
        raise UsageError(
            f"{path}: puts {len(twice)} of its cases on two sides (first {min(twice)!r})", "Leave each on one side."
        )
    return sides


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"split file {path}: cannot be read ({error})", _REMEDY) from error
    if not isinstance(raw, dict) or "train" not in raw:
        raise UsageError(f"split file {path}: has no list of names under 'train'", _REMEDY)
    other = sorted(raw.keys() - _WRITTEN - set(SIDES))
    if other:
        raise UsageError(f"split file {path}: {other[0]!r} is none of {', '.join(SIDES)}", _REMEDY)
    for side in raw.keys() & set(SIDES):
        if not isinstance(raw[side], list) or not all(isinstance(name, str) for name in raw[side]):
            raise UsageError(f"split file {path}: {side!r} is no list of names", _REMEDY)
    return raw
