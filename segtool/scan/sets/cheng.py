"""The Cheng (figshare) T1-CE set as pictures: ``images/``, ``masks/`` and ``index.csv``."""

import csv
from pathlib import Path

from segtool.case import CaseSource, Source
from segtool.errors import UsageError
from segtool.formats import SUFFIXES, suffix_of
from segtool.scan.sets.base import Item, Listing, Recognition, Tree, line, not_in, only_channel
from segtool.spec import ModelSpec

_INDEX = "index.csv"
_LONGEST_LINE = 2**16
_COLUMNS = ("id", "label_name", "patient_group", "official_fold")


def recognise(tree: Tree) -> Recognition | None:
    """Certain where an index with the set's columns lies beside ``images/``."""
    if _INDEX not in tree.known or not (tree.root / _INDEX).is_file() or not (tree.root / "images").is_dir():
        return None
    try:
        with (tree.root / _INDEX).open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(_LONGEST_LINE).strip().split(",")
    except OSError:
        return None
    if not set(_COLUMNS) <= set(header):
        return None
    return Recognition("cheng", "certain", f"{_INDEX} with {', '.join(_COLUMNS)} beside images/")


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a row of ``index.csv``; its ``patient_group`` is the patient.

    Raises:
        UsageError: No index, a column is missing, or a row is short or repeated.
    """
    folder, index = tree.root, tree.root / _INDEX
    if not index.is_file():
        raise not_in(
            "cheng",
            tree,
            "images/, masks/ and index.csv, and index.csv is missing",
            'Give the folder that holds it, or take [data] layout = "folder" in the recipe.',
        )
    images, masks = _pictures(folder / "images"), _pictures(folder / "masks")
    rows = _rows(index)
    named, both = {row["id"] for row in rows}, images.keys() & masks.keys()
    broken = [_gap(index, row["id"], images, masks) for row in rows if row["id"] not in both]
    broken += (
        line(str(masks[name]), "matches no file in images/", "Add its image, or take the mask out.")
        for name in sorted(masks.keys() - images.keys() - named)
    )
    channel = only_channel(spec)
    items = tuple(
        Item(
            CaseSource(row["id"], {channel: _picture(images[row["id"]])}, _picture(masks[row["id"]])),
            patient=row["patient_group"],
            group=row["label_name"],
            fold=row["official_fold"],
        )
        for row in rows
        if row["id"] in both
    )
    left_out = len(images.keys() - named)
    notes = (f"{left_out} of {len(images)} pictures in {folder / 'images'} have no row in index.csv: left out",)
    return Listing(items, notes if left_out else (), tuple(broken))


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


def _gap(index: Path, name: str, images: dict[str, Path], masks: dict[str, Path]) -> str:
    """The line about a row without image or mask."""
    missing = [f"{kind}/" for kind, found in (("images", images), ("masks", masks)) if name not in found]
    place = index.parent / missing[0] / name
    return line(
        str(index),
        f"row {name!r} has no file in {' and '.join(missing)}",
        f"Add {place} with a picture's suffix, or remove the row.",
    )


def _picture(path: Path) -> Source:
    return Source(SUFFIXES[suffix_of(path)], (path,))
