"""Slices in HDF5 with an image and a mask: ``x`` and ``y`` in one file a slice, in stacks, or in two files."""

import re
from dataclasses import dataclass

from segtool.case import CaseSource, Source
from segtool.errors import UnreadableFileError
from segtool.formats import suffix_of
from segtool.formats.hdf5 import Hdf5Format
from segtool.formats.hdf5_find import IMAGE_NAMES, MASK_NAMES
from segtool.formats.hdf5_layout import layout_of, mask_layout
from segtool.formats.hdf5_slice import slice_name
from segtool.scan.sets.base import (
    UNKNOWN_PATIENTS,
    Item,
    Listing,
    Recognition,
    Tree,
    fold_of,
    line,
    not_in,
    only_channel,
    place_of,
    unique_stems,
)
from segtool.spec import ModelSpec

_SUFFIXES = (".h5", ".hdf5")
_BRATS = re.compile(r"(?:.*/)?volume_\d+_slice_\d+\.h5", re.IGNORECASE)
_SLICE = re.compile(r"(?P<base>.*?)[_\-. ]*(?:slices?|z)?[_\-. ]*\d+", re.IGNORECASE)
_WORDS = re.compile(r"[_\-. ]+")
_IMAGE_WORDS, _MASK_WORDS = ({name.lower() for name in names} for names in (IMAGE_NAMES, MASK_NAMES))
_REMEDY = "Give each image a mask: datasets x and y in one file, or a file of images and one of masks."


@dataclass(frozen=True)
class _File:
    """A file, or two, with images and masks.

    Args:
        path: Of the file of images, below the set.
        sources: Of images and of masks, whole.
        slices: Number of slices of a stack; None for one picture.
    """

    path: str
    sources: tuple[Source, Source]
    slices: int | None


def recognise(tree: Tree) -> Recognition | None:
    """Certain where the first file holds image and mask, likely where two files are called after them.

    Among scans of other kinds HDF5 is one kind of scan more.
    """
    files = _files(tree)
    if not files or any(suffix_of(tree.root / file) not in ("", *_SUFFIXES) for file in tree.files):
        return None
    pairs = _pairs(files)
    if pairs:
        return Recognition("hdf5_xy", "likely", "{} beside {}".format(*pairs[0]))
    try:
        first = Hdf5Format().contents(tree.root / files[0])
    except UnreadableFileError:
        return None
    if first.image is None or first.mask is None or first.image == first.mask:
        return None
    return Recognition("hdf5_xy", "certain", f"{len(files)} HDF5 files, datasets {first.image} and {first.mask}")


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a slice. Its patient is the file name up to the slice number, where there are several such names.

    Raises:
        UsageError: No HDF5 file.
    """
    files = _files(tree)
    if not files:
        raise not_in(
            "hdf5_xy", tree, "HDF5 files with images and masks, none is there", "Give the folder that holds them."
        )
    broken: list[str] = []
    pairs = _pairs(files)
    paired = {file for pair in pairs for file in pair}
    found = [_joined(tree, *pair, broken) for pair in pairs]
    found += [_single(tree, file, broken) for file in files if file not in paired]
    whole = [one for one in found if one is not None]
    patients, rule = _patients(whole)
    names = unique_stems([one.path for one in whole])
    items = []
    for one, name, patient in zip(whole, names, patients, strict=True):
        stem = one.path.rpartition("/")[2].rpartition(".")[0]
        fold = place_of(one.path).fold or next(filter(None, map(fold_of, _WORDS.split(stem))), "")
        items += _items(one, name, patient, fold, only_channel(spec))
    note = f"{tree.root}: {rule or UNKNOWN_PATIENTS.format(what='slices')}"
    return Listing(tuple(items), (note,), tuple(broken), patients_known=bool(rule))


def _files(tree: Tree) -> list[str]:
    return [file for file in tree.ending(*_SUFFIXES) if not _BRATS.fullmatch(file)]


def _pairs(files: list[str]) -> list[tuple[str, str]]:
    """A file of images and one of masks, whose names differ in that word alone: ``train_x`` and ``train_y``."""
    sides: dict[tuple[str, ...], dict[str, str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        words = [word.lower() for word in _WORDS.split(name.rpartition(".")[0])]
        for side, known in (("image", _IMAGE_WORDS), ("mask", _MASK_WORDS)):
            rest = [word for word in words if word not in known]
            if len(rest) == len(words) - 1:
                sides.setdefault((folder, *rest), {}).setdefault(side, file)
    return [(pair["image"], pair["mask"]) for pair in sides.values() if len(pair) == 2]


def _single(tree: Tree, file: str, broken: list[str]) -> _File | None:
    """A file with image and mask; None, and a line, for any other."""
    path = tree.root / file
    try:
        held = Hdf5Format().contents(path)
    except UnreadableFileError as error:
        broken.append(str(error))
        return None
    if held.image is None or held.mask is None or held.image == held.mask:
        what = "images and no masks" if held.mask is None else "masks and no images"
        broken.append(line(file, f"holds {what}" if held.image != held.mask else "holds one dataset", _REMEDY))
        return None
    image, mask = (Source("hdf5", (path,), name) for name in (held.image, held.mask))
    return _File(file, (image, mask), held.grid[0] if len(held.grid) == 3 else None)


def _joined(tree: Tree, images: str, masks: str, broken: list[str]) -> _File | None:
    """A file of images and one of masks; None, and a line, where they do not fit."""
    paths = tree.root / images, tree.root / masks
    try:
        first, second = (Hdf5Format().contents(path) for path in paths)
        # Alone, a few slices would pass for channels; the masks beside them tell.
        grid = layout_of(first.shape, second.shape, paths[0]).grid
        other = mask_layout(second.shape, grid, paths[1]).grid
    except UnreadableFileError as error:
        broken.append(str(error))
        return None
    if grid != other:
        sizes = ["x".join(map(str, extent)) for extent in (grid, other)]
        broken.append(
            line(images, f"holds {sizes[0]} pixels, {masks} holds {sizes[1]}", "Give both files the same slices.")
        )
        return None
    image = Source("hdf5", (paths[0],), first.image or first.mask)
    mask = Source("hdf5", (paths[1],), second.mask or second.image)
    return _File(images, (image, mask), grid[0] if len(grid) == 3 else None)


def _items(one: _File, name: str, patient: str, fold: str, channel: str) -> list[Item]:
    if one.slices is None:
        return [Item(CaseSource(name, {channel: one.sources[0]}, one.sources[1]), patient, fold=fold)]
    digits = len(str(one.slices - 1))
    items = []
    for number in range(one.slices):
        # Zeros in front keep the order of the stack where names are sorted as text.
        called = f"{name}-{number:0{digits}d}"
        image, mask = (Source("hdf5", part.paths, slice_name(part.dataset or "", number)) for part in one.sources)
        items.append(Item(CaseSource(called, {channel: image}, mask), patient or called, fold=fold))
    return items


def _patients(files: list[_File]) -> tuple[list[str], str]:
    """The patient of each file, and the rule; both are empty where each slice must count as a patient."""
    if any(one.slices is not None for one in files):
        # train.h5 and test.h5 hold many patients, P001.h5 holds one: the names of folds tell.
        stems = [one.path.rpartition("/")[2].rpartition(".")[0] for one in files]
        folds = any(fold_of(word) for stem in stems for word in _WORDS.split(stem))
        if len(files) > 1 and not folds:
            return [one.path for one in files], f"each of {len(files)} files is taken for one patient"
        return [""] * len(files), ""
    patients = [_patient(one.path) for one in files]
    count = len(set(patients))
    if "" in patients or (len(files) > 1 and count == 1):
        return [one.path for one in files], ""
    return patients, f"the patient is the file name up to the slice number: {count} patients"


def _patient(path: str) -> str:
    """Folders, where they say more than the fold, and the name up to its number; empty where neither is there."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    match = _SLICE.fullmatch(stem)
    return "/".join(filter(None, (*place_of(path).folders, match["base"] if match else stem)))
