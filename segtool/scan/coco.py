"""References of pictures in the COCO file that lies among them."""

from segtool.case import Source
from segtool.scan.found import Entry

FILE_NAME = "_annotations.coco.json"
"""As in :mod:`segtool.formats.coco`, without importing it."""


def coco_reference(entry: Entry) -> Source | None:
    """Where the reference of a picture lies; None without a COCO file beside it.

    The file is not opened: one that does not list the picture holds no reference of it.
    """
    if entry.format != "png":
        return None
    file = entry.paths[0].with_name(FILE_NAME)
    return Source("coco", (file,), dataset=entry.paths[0].name) if file.is_file() else None
