"""Any folder that :mod:`segtool.scan` understands, with references beside the scans."""

from segtool.formats import suffix_of
from segtool.scan.sets.base import Listing, Recognition, Tree
from segtool.scan.sets.scanned import by_folders, labelled
from segtool.spec import ModelSpec


def recognise(tree: Tree) -> Recognition | None:
    """Possible wherever there is a file that segtool may read; those of DICOM often have no suffix."""
    if any(suffix_of(tree.root / file) or "." not in file.rpartition("/")[2] for file in tree.files):
        return Recognition("folder", "possible", "scans that names pair with their references")
    return None


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a case; the patient is the first folder of its name where cases lie in several folders."""
    return by_folders(tree.root, *labelled(tree.root, spec))
