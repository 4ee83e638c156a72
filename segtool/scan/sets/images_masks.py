"""Pictures in ``images/`` and their masks in ``masks/``, under equal names or with ``_mask`` behind."""

from segtool.formats import SUFFIXES, suffix_of
from segtool.scan.names import folder_role
from segtool.scan.sets.base import Listing, Recognition, Tree, not_in
from segtool.scan.sets.scanned import by_folders, labelled
from segtool.spec import ModelSpec


def recognise(tree: Tree) -> Recognition | None:
    """Likely where a folder of images and one of references lie side by side and hold pictures."""
    found = _folders(tree)
    if found is None:
        return None
    return Recognition("images_masks", "likely", f"pictures in {found[0]}/ and {found[1]}/")


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item an image; patients are folders below ``images/``, folds ``train/``, ``valid/`` and ``test/``."""
    if _folders(tree) is None:
        raise not_in(
            "images_masks",
            tree,
            "pictures in images/ and masks/ side by side",
            'Name the two folders so, or take [data] layout = "folder".',
        )
    return by_folders(tree.root, *labelled(tree.root, spec))


def _folders(tree: Tree) -> tuple[str, str] | None:
    """Paths of the first two folders that belong together."""
    roles: dict[str, dict[str, str]] = {}
    for file in tree.files:
        suffix = suffix_of(tree.root / file)
        if not suffix or SUFFIXES[suffix] != "png":
            continue
        parts = file.split("/")[:-1]
        for depth, part in enumerate(parts):
            role = folder_role(part)
            if role is None or role[1]:
                continue
            pair = roles.setdefault("/".join(parts[:depth]), {})
            pair.setdefault(role[0], "/".join(parts[: depth + 1]))
            if len(pair) == 2:
                return pair["image"], pair["reference"]
            break
    return None
