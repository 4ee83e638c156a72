"""BraTS slices as HDF5: ``volume_V_slice_S.h5`` with ``image`` (H, W, 4) and a one-hot ``mask`` (H, W, 3)."""

import re

from segtool.case import UNNAMED, CaseSource, Source
from segtool.scan.sets.base import Item, Listing, Recognition, Tree, not_in, unique_stems
from segtool.spec import ModelSpec

_SLICE = re.compile(r"(?:.*/)?(volume_\d+)_slice_\d+\.h5", re.IGNORECASE)


def recognise(tree: Tree) -> Recognition | None:
    """Certain by the set's names."""
    found = _slices(tree)
    if not found:
        return None
    return Recognition("brats_h5", "certain", f"{len(found)} files volume_V_slice_S.h5")


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:  # noqa: ARG001 - Layout
    """One item a slice; the patient is the volume.

    Raises:
        UsageError: No such file.
    """
    found = _slices(tree)
    if not found:
        raise not_in("brats_h5", tree, "files volume_V_slice_S.h5, none is there", "Give the folder that holds them.")
    names = unique_stems(list(found))
    items = []
    for name, (file, volume) in zip(names, found.items(), strict=True):
        both = Source("hdf5", (tree.root / file,))
        items.append(Item(CaseSource(name, {UNNAMED: both}, both), volume))
    return Listing(tuple(items), ("the files do not name their channels: the recipe's order is taken",))


def _slices(tree: Tree) -> dict[str, str]:
    """File to volume."""
    matches = ((file, _SLICE.fullmatch(file)) for file in tree.ending(".h5"))
    return {file: match[1].lower() for file, match in matches if match}
