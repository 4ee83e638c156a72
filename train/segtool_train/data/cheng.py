"""The Cheng (figshare) T1-CE set as pictures: ``images/``, ``masks/`` and ``index.csv``."""

import csv
from pathlib import Path

from segtool.case import CaseSource, Source
from segtool.errors import UsageError
from segtool.formats import SUFFIXES, suffix_of
from segtool.spec import ModelSpec
from segtool_train.data.base import Item, Listing

_COLUMNS = ("id", "label_name", "patient_group", "official_fold")


def list_items(folder: Path, spec: ModelSpec) -> Listing:
    """One item a row of ``index.csv``; its ``patient_group`` is the patient.

    Raises:
        UsageError: No index, a column is missing, or a row is short, repeated or lacks its image or its mask.
    """
    index = folder / "index.csv"
    if not index.is_file():
        raise UsageError(
            f"--data {folder}: layout 'cheng' wants images/, masks/ and index.csv, and index.csv is missing",
            'Give the folder that holds it, or take [data] layout = "folder" in the recipe.',
        )
    images, masks = _pictures(folder / "images"), _pictures(folder / "masks")
    items = [_item(row, folder, spec.channel_names[0], images, masks) for row in _rows(index)]
    left_out = len(images) - len(items)
    notes = (f"{left_out} of {len(images)} pictures in {folder / 'images'} have no row in index.csv: left out",)
    return Listing(tuple(items), notes if left_out else ())


def _rows(index: Path) -> list[dict[str, str]]:
    """Rows of the index, each whole and with an id of its own."""
    try:
        lines = csv.DictReader(index.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{index}: cannot be read ({error})", "Save it as UTF-8.") from error
    missing = [column for column in _COLUMNS if column not in (lines.fieldnames or ())]
    if missing:
        raise UsageError(f"{index}: lacks the column {missing[0]!r}", f"It wants: {', '.join(_COLUMNS)}.")
    rows: dict[str, dict[str, str]] = {}
    for row in lines:
        empty = [column for column in _COLUMNS if row[column] is None]
        if empty:
            raise UsageError(f"{index}: line {lines.line_num} has no {empty[0]}", "Complete the line, or remove it.")
        if row["id"] in rows:
            # Under two patients it could train and validate.
            raise UsageError(f"{index}: row {row['id']!r} is there twice", "Remove one of them.")
        rows[row["id"]] = row
    return list(rows.values())


def _pictures(folder: Path) -> dict[str, Path]:
    """Picture files of a folder by name without suffix."""
    if not folder.is_dir():
        return {}
    return {path.name.removesuffix(path.suffix): path for path in folder.iterdir() if suffix_of(path)}


def _item(row: dict[str, str], folder: Path, channel: str, images: dict[str, Path], masks: dict[str, Path]) -> Item:
    name = row["id"]
    for kind, found in (("images", images), ("masks", masks)):
        if name not in found:
            raise UsageError(
                f"{folder / 'index.csv'}: row {name!r} has no file in {kind}/",
                f"Add {folder / kind / name} with a picture's suffix, or remove the row.",
            )
    return Item(
        CaseSource(name, {channel: _picture(images[name])}, reference=_picture(masks[name])),
        patient=row["patient_group"],
        group=row["label_name"],
        fold=row["official_fold"],
    )


def _picture(path: Path) -> Source:
    return Source(SUFFIXES[suffix_of(path)], (path,))
