"""Which dataset of an HDF5 file is the image and which the mask."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import h5py

from segtool.case import Source
from segtool.errors import UnreadableFileError
from segtool.formats.hdf5_slice import StackSlice, parse_slice_name
from segtool.formats.hdf5_texts import channel_texts
from segtool.formats.hdf5_walk import contained

Values: TypeAlias = h5py.Dataset | StackSlice

IMAGE_NAMES = ("image", "images", "x", "X", "data", "img", "scan", "slice")
MASK_NAMES = ("mask", "masks", "y", "Y", "label", "labels", "seg", "segmentation", "target", "tumorMask")
"""Last part of a dataset's path, in the order in which they are looked for."""


def find_image(file: h5py.File, source: Source) -> tuple[Values, Values | None]:
    """The image and, where there is one, the mask beside it; both cut where ``source`` names one slice."""
    path, found = source.path, _Found(file, source)
    wanted, number = _wanted(source, found)
    mask = _named(found, MASK_NAMES, path)
    image = _at(found, wanted, path) if wanted else _named(found, IMAGE_NAMES, path)
    if not wanted:
        _refuse_elsewhere(found, IMAGE_NAMES, path)
    if image is None:
        rest = [name for name in found if mask is None or found[name] != mask]
        if len(rest) == 1:
            image = found[rest[0]]
    if image is None:
        raise UnreadableFileError(
            f"{path}: no image found{_passed_over(found)} (looked for: {', '.join(IMAGE_NAMES)}; "
            f"the file holds: {_some(found, 'nothing of two axes')})",
            f"Rename the dataset to {IMAGE_NAMES[0]!r}, or name it to `segtool predict` with --image-dataset.",
        )
    return _cut(image, number, path), _companion(None if mask == image else mask, image, number)


def find_mask(file: h5py.File, source: Source) -> tuple[Values | None, Values | None]:
    """The mask, and the image beside it; a file of one unnamed dataset is a mask."""
    path, found = source.path, _Found(file, source)
    wanted, number = _wanted(source, found)
    mask = _at(found, wanted, path) if wanted else _named(found, MASK_NAMES, path)
    if not wanted:
        _refuse_elsewhere(found, MASK_NAMES, path)
    image = _named(found, IMAGE_NAMES, path)
    if mask is None and image is None and len(found) == 1:
        mask = next(iter(found.values()))
    if mask is None:
        return None, image
    return _cut(mask, number, path), _companion(None if image == mask else image, mask, number)


def _wanted(source: Source, found: "_Found") -> tuple[str | None, int | None]:
    """The dataset and the slice that ``source`` names."""
    if source.dataset is None or source.dataset.strip("/") in found:
        return source.dataset, None
    return parse_slice_name(source.dataset)


def _cut(dataset: h5py.Dataset, number: int | None, path: Path) -> Values:
    if number is None:
        return dataset
    if len(dataset.shape) < 3 or number >= dataset.shape[0]:
        raise UnreadableFileError(
            f"{path}: {dataset.name} has no slice {number} (its shape is {'x'.join(map(str, dataset.shape))})",
            "Name a slice that is there, counted from 0.",
        )
    return StackSlice(dataset, number)


def _companion(other: h5py.Dataset | None, dataset: h5py.Dataset, number: int | None) -> Values | None:
    """The dataset beside ``dataset``, cut like it; None where it is another number of slices."""
    if other is None or number is None:
        return other
    return StackSlice(other, number) if len(other.shape) > 2 and len(other) == len(dataset) else None


def channel_names_of(image: Values, channels: int, path: Path) -> tuple[str, ...]:
    """The attribute ``channels`` as texts, where it holds one text a channel."""
    texts = channel_texts(image.attrs, path)
    return texts if len(texts) == channels else ()


class _Found(dict[str, h5py.Dataset]):
    """Numeric datasets with rows and columns, by path, the shallowest first.

    Attributes:
        elsewhere: Paths of datasets whose values lie in other files.
        links: Of links to other files.
    """

    def __init__(self, file: h5py.File, source: Source) -> None:
        held = contained(file, source.path, source.limits)
        # The references of MATLAB's cell arrays are not meant for readers.
        own = [(name, dataset) for name, dataset in held.datasets.items() if not name.startswith("#")]
        pictures = [(name, dataset) for name, dataset in own if _is_picture(dataset)]
        super().__init__(sorted(pictures, key=lambda entry: (entry[0].count("/"), entry[0])))
        self.elsewhere, self.links = held.elsewhere, held.links


def _some(names: Iterable[str], none: str) -> str:
    """The first names: a file may hold thousands."""
    first = list(itertools.islice(names, _SHOWN + 1))
    return ", ".join(first[:_SHOWN]) + (", ..." if len(first) > _SHOWN else "") or none


_SHOWN = 8


def _is_picture(dataset: h5py.Dataset) -> bool:
    shape = dataset.shape or ()
    if len(shape) < 2 or 0 in shape or dataset.dtype.kind not in "biuf":
        return False
    # Two axes, one of them 1, are MATLAB's way to store a number, a text or a list.
    return len(shape) > 2 or min(shape) > 1


def _named(found: "_Found", names: tuple[str, ...], path: Path) -> h5py.Dataset | None:
    """The shallowest dataset with the first of ``names`` that occurs."""
    for wanted in names:
        same = [name for name in found if name.rsplit("/", 1)[-1] == wanted]
        level = [name for name in same if name.count("/") == same[0].count("/")]
        if len(level) > 1:
            raise UnreadableFileError(
                f"{path}: several datasets called {wanted!r} ({', '.join(level[:3])})",
                "Rename all but one, or name one to `segtool predict` with --image-dataset or --mask-dataset.",
            )
        if level:
            return found[level[0]]
    return None


def _at(found: "_Found", name: str, path: Path) -> h5py.Dataset:
    """The dataset that the user named."""
    dataset = found.get(name.strip("/"))
    if dataset is None:
        _refuse_elsewhere(found, (name.rsplit("/", 1)[-1],), path)
        raise UnreadableFileError(
            f"{path}: no image or mask {name!r} (found: {_some(found, 'none')})",
            "Name one that is there.",
        )
    return dataset


def _refuse_elsewhere(found: _Found, names: Iterable[str], path: Path) -> None:
    """Refuse to go without what is called as wanted and lies in files that the sender names."""
    for name in (*found.elsewhere, *found.links):
        if name.rsplit("/", 1)[-1] in names:
            raise UnreadableFileError(
                f"{path}: the values of {name} lie in other files, which are never opened",
                "Copy them into one file (h5repack), or rename it if it is not wanted.",
            )


def _passed_over(found: _Found) -> str:
    """A hint for the message where links lead out of the file."""
    away = (*found.links, *found.elsewhere)
    return f", links to other files are not followed ({_some(away, '')})" if away else ""
