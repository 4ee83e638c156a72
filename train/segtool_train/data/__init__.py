"""Data layouts, by name. One file a layout; it is imported when its name is asked for."""

from importlib import import_module
from pathlib import Path

from segtool.errors import UsageError
from segtool.spec import ModelSpec
from segtool_train.data.base import Layout, Listing

LAYOUTS: dict[str, str] = {
    "cheng": "segtool_train.data.cheng:list_items",
    "brats": "segtool_train.data.brats:list_items",
    "folder": "segtool_train.data.folder:list_items",
}


def list_items(layout: str, folder: Path, spec: ModelSpec) -> Listing:
    """The labelled cases below ``folder``, sorted by name.

    Raises:
        UsageError: No such layout, or the folder is not of this layout, or it holds no labelled case.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r} is not known", f"Name one of: {', '.join(LAYOUTS)}.")
    if not folder.is_dir():
        raise UsageError(f"--data {folder}: no such folder", "Give the folder of the training set.")
    module, _, attribute = LAYOUTS[layout].partition(":")
    list_layout: Layout = getattr(import_module(module), attribute)
    listing = list_layout(folder, spec)
    if not listing.items:
        raise UsageError(f"--data {folder}: no images in layout {layout!r}", "Give the folder of the training set.")
    return Listing(tuple(sorted(listing.items, key=lambda item: item.name)), listing.notes)
