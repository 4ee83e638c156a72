"""Whatever layout a folder is recognised to be in."""

from dataclasses import replace

from segtool.scan.sets import list_tree, recognise_tree
from segtool.scan.sets.base import Listing, Recognition, Tree
from segtool.spec import ModelSpec


def recognise(tree: Tree) -> Recognition | None:  # noqa: ARG001 - Layout
    """Never: it is no layout of its own."""
    return None


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """As the layout that the folder is most likely in; the first note names it.

    Raises:
        UsageError: None, or several that are equally certain.
    """
    found = recognise_tree(tree)
    listing = list_tree(found.layout, tree, spec)
    return replace(listing, notes=(f"layout {found.layout} ({found.certainty}: {found.reason})", *listing.notes))
