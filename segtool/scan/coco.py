"""References of pictures in the COCO file that lies among them."""

from pathlib import Path

from segtool.case import Source
from segtool.scan.found import Entry
from segtool.scan.links import stays

FILE_NAME = "_annotations.coco.json"
"""As in :mod:`segtool.formats.coco`, without importing it."""


def coco_reference(entry: Entry, follow_links: bool = False) -> Source | None:
    """Where the reference of a picture lies; None without a COCO file beside it.

    The file is not opened: one that does not list the picture holds no reference of it. Nor is it followed where it is
    a link out of the input, unless that is asked for.
    """
    if entry.format != "png":
        return None
    file = entry.paths[0].with_name(FILE_NAME)
    if not file.is_file() or (file.is_symlink() and not (follow_links or stays(file, Path(entry.root)))):
        return None
    return Source("coco", (file,), dataset=entry.paths[0].name)
