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
        UsageError: No index, a column is missing, or a row lacks its image or its mask.
    """
    index = folder / "index.csv"
    if not index.is_file():
        raise UsageError(
            f"--data {folder}: layout 'cheng' wants images/, masks/ and index.csv, and index.csv is missing",
            'Give the folder that holds it, or take [data] layout = "folder" in the recipe.',
        )
    with index.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise UsageError(f"{index}: lacks the column {missing[0]!r}", f"It wants: {', '.join(_COLUMNS)}.")
        images, masks = _pictures(folder / "images"), _pictures(folder / "masks")
        items = [_item(row, folder, spec.channel_names[0], images, masks) for row in rows]
    return Listing(tuple(items))


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
