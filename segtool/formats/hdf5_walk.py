"""What an HDF5 file holds, found without following anything that its sender names.

The library's own visitor trusts the counts of links that a file states: one that lies leads it in circles until the
process dies. Here every address is met once, to a depth and a number that are known beforehand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
from h5py import h5d, h5g, h5l, h5o, h5pl

from segtool.errors import UnreadableFileError
from segtool.formats.hdf5_headers import Headers
from segtool.limits import Limits

DEEPEST = 64
"""Groups in groups. MATLAB's structs nest to 3 or 4."""


@dataclass
class Contained:
    """What was found, in the order of the paths.

    Args:
        datasets: By path; all of them hold their values themselves.
        elsewhere: Paths of datasets whose values lie in other files; they were not opened.
        links: Of links to other files.
    """

    datasets: dict[str, h5py.Dataset] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def refuse_plugins() -> None:
    """Take all folders of filter plugins out of the library's search: a filter that a file names would be run."""
    while h5pl.size():
        h5pl.remove(0)


def contained(file: h5py.File, path: Path, limits: Limits) -> Contained:
    """All datasets that hard links reach. Soft and external links are not followed.

    Raises:
        UnreadableFileError: Groups nest too deep, or there are more objects than ``limits`` allow.
    """
    found = Contained()
    with Headers(path, file) as headers:
        _fill(found, file.id, path, limits, headers)
    return found


def _fill(found: Contained, root: h5g.GroupID, path: Path, limits: Limits, headers: Headers) -> None:
    met = {h5o.get_info(root).addr}
    pending = [_children(root, "", found, path, limits)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
            continue
        group, name, whole, address = entry
        if address in met:
            continue
        met.add(address)
        limits.check("objects", len(met), str(path), f"more than {limits.objects} groups and datasets")
        if headers.is_elsewhere(address):
            found.elsewhere.append(whole)
            continue
        item = h5o.open(group, name)
        if isinstance(item, h5d.DatasetID):
            found.datasets[whole] = h5py.Dataset(item)
        elif isinstance(item, h5g.GroupID):
            if len(pending) == DEEPEST:
                raise UnreadableFileError(
                    f"{path}: groups nest deeper than {DEEPEST}", "Copy the image into a file of its own."
                )
            pending.append(_children(item, f"{whole}/", found, path, limits))


def _children(
    group: h5g.GroupID, above: str, found: Contained, path: Path, limits: Limits
) -> Iterator[tuple[h5g.GroupID, bytes, str, int]]:
    """Group, name, path and address of each hard link, in the order of the names."""
    links: list[tuple[bytes, int, int]] = []

    def add(name: bytes, info: h5l.LinkInfo) -> bool | None:
        links.append((bytes(name), info.type, info.u))
        return True if len(links) > limits.objects else None

    group.links.iterate(add, info=True)
    limits.check("objects", len(links), str(path), f"more than {limits.objects} links in one group")
    for name, kind, address in links:
        whole = above + name.decode("utf-8", "surrogateescape")
        if kind == h5l.TYPE_HARD:
            yield group, name, whole, address
        elif kind == h5l.TYPE_EXTERNAL:
            found.links.append(whole)
