"""Labelled sets in the layouts in which they are published, by name.

One file a layout, with the functions of :class:`~segtool.scan.sets.base.Layout`; it is imported when its name is
asked for. Training lists its items here, and `segtool inspect --layout` shows what it would find.
"""

from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

from segtool.errors import UsageError
from segtool.scan.sets.base import Item, Layout, Listing, Recognition, Tree
from segtool.spec import ModelSpec

__all__ = ["LAYOUTS", "Item", "Listing", "Recognition", "Tree", "list_items", "recognise"]

LAYOUTS: dict[str, str] = {
    "cheng": "segtool.scan.sets.cheng",
    "cheng_mat": "segtool.scan.sets.cheng_mat",
    "coco": "segtool.scan.sets.coco",
    "brats_h5": "segtool.scan.sets.brats_h5",
    "hdf5_xy": "segtool.scan.sets.hdf5_xy",
    "decathlon": "segtool.scan.sets.decathlon",
    "nnunet": "segtool.scan.sets.nnunet",
    "brats": "segtool.scan.sets.brats",
    "kaggle_3m": "segtool.scan.sets.kaggle_3m",
    "images_masks": "segtool.scan.sets.images_masks",
    "folder": "segtool.scan.sets.folder",
    "auto": "segtool.scan.sets.auto",
}

_CERTAINTIES = ("certain", "likely", "possible")


def get_layout(name: str) -> Layout:
    """The layout called ``name``.

    Raises:
        UsageError: There is none.
    """
    if name not in LAYOUTS:
        raise UsageError(f"layout {name!r} is not known", f"Name one of: {', '.join(LAYOUTS)}.")
    return cast("Layout", import_module(LAYOUTS[name]))


def list_items(layout: str, folder: Path, spec: ModelSpec | None = None) -> Listing:
    """The labelled cases below ``folder``, sorted by name.

    Args:
        layout: Key of :data:`LAYOUTS`; ``auto`` takes the one that the folder is recognised to be in.
        folder: The set.
        spec: What the cases are for: its channels, and the values of its labels. None to look only.

    Raises:
        UsageError: No such layout, or the folder is not of this layout, or it holds no labelled case.
    """
    get_layout(layout)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", "Give the folder of the training set.")
    return list_tree(layout, Tree(folder), spec)


def list_tree(layout: str, tree: Tree, spec: ModelSpec | None) -> Listing:
    """As :func:`list_items`, of a folder whose files are known."""
    listing = get_layout(layout).list_items(tree, spec)
    if not listing.items and listing.broken:
        more = f" (and {len(listing.broken) - 1} more such lines)" if len(listing.broken) > 1 else ""
        raise UsageError(f"{tree.root}: no labelled image in layout {layout!r}{more}", listing.broken[0])
    if not listing.items:
        raise UsageError(f"{tree.root}: no images in layout {layout!r}", "Give the folder of the training set.")
    name, count = Counter(item.name for item in listing.items).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{tree.root}: {count} items would be called {name!r}", "Rename all but one of their files.")
    return replace(listing, items=tuple(sorted(listing.items, key=lambda item: item.name)))


def recognise(folder: Path) -> tuple[Recognition, ...]:
    """The layouts that a folder may be in, the most certain first; where equal, in the order of the table."""
    return _candidates(Tree(folder))


def recognise_tree(tree: Tree) -> Recognition:
    """The layout that a folder is most likely in.

    Raises:
        UsageError: None, or several that are equally certain.
    """
    found = _candidates(tree)
    if not found:
        raise UsageError(
            f"{tree.root}: nothing in it looks like a set of scans",
            "Give the folder of the set, or name its layout.",
        )
    rivals = [one for one in found if one.certainty == found[0].certainty == "certain"]
    if len(rivals) > 1:
        both = " and ".join(f"{one.layout} ({one.reason})" for one in rivals)
        raise UsageError(
            f"{tree.root}: it could be {both}",
            f'Name the layout: [data] layout = "{rivals[0].layout}" in the recipe, or --layout {rivals[0].layout}.',
        )
    return found[0]


def _candidates(tree: Tree) -> tuple[Recognition, ...]:
    found = [one for name in LAYOUTS if (one := get_layout(name).recognise(tree))]
    return tuple(sorted(found, key=lambda one: _CERTAINTIES.index(one.certainty)))
