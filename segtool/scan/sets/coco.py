"""COCO annotations with their pictures, in one folder, in folds, or in ``annotations/`` beside the pictures."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from segtool.case import CaseSource, Source
from segtool.errors import UnreadableFileError
from segtool.formats import SUFFIXES, suffix_of
from segtool.formats.coco import FILE_NAME, Annotations, NotCocoError, Picture, read_annotations
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
    unique_stems,
)
from segtool.spec import ModelSpec

_MOST_FILES = 12
"""JSON files looked into; more of them are something else, such as one file a picture."""
_COPY = ".rf."
"""An exporter's mark between the name of a picture and the number of an augmented copy of it."""


def recognise(tree: Tree) -> Recognition | None:
    """Certain where a file is called as exporters do, or holds COCO's tables."""
    files = _json_files(tree)
    named = [file for file in files if file.rpartition("/")[2] == FILE_NAME]
    if named:
        return Recognition("coco", "certain", ", ".join(named))
    for file in files:
        try:
            read_annotations(tree.root / file)
        except UnreadableFileError:
            continue
        return Recognition("coco", "certain", f"{file} holds COCO's tables")
    return None


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a picture that a file lists; a picture without objects has an empty mask.

    Copies of one picture that an exporter made count as one patient. ``train``, ``valid`` and ``test``, as folders
    or in the names of the files, are the official folds.

    Raises:
        UsageError: No COCO file.
    """
    files = _json_files(tree)
    broken: list[str] = []
    notes: list[str] = []
    found: dict[str, tuple[str, Picture]] = {}  # path of the pixels to COCO file and entry
    for file in files:
        try:
            content = read_annotations(tree.root / file)
        except NotCocoError as error:
            # Of several files one may be about something else; the only one, or one of this name, is meant.
            is_meant = len(files) == 1 or file.endswith(FILE_NAME)
            (broken if is_meant else notes).append(str(error))
            continue
        except UnreadableFileError as error:
            broken.append(str(error))
            continue
        notes += _of_categories(file, content, spec)
        broken += _collect(tree, file, content, found)
    if not found and not broken:
        raise not_in(
            "coco",
            tree,
            f"{FILE_NAME}, or a COCO file in annotations/, none is there",
            "Export the annotations as COCO JSON.",
        )
    if broken and tree.links:
        # Most likely the pictures lie there; in front, where a single line is shown.
        broken.insert(0, line(tree.links[0], "a link to a folder is not followed", "Put the folder in its place."))
    notes += _of_pictures(tree, found)
    return Listing(tuple(_items(tree, found, spec)), tuple(notes), tuple(broken), patients_known=False)


def _collect(tree: Tree, file: str, content: Annotations, found: dict[str, tuple[str, Picture]]) -> Iterator[str]:
    """Add the pictures of a COCO file to ``found``; yields a line for what is amiss."""
    if content.lost:
        yield content.lost
    bases, twice = _bases(file), []
    for picture in content.pictures.values():
        path = _find(tree, bases, picture.name)
        if path is None or SUFFIXES.get(suffix_of(Path(path))) != "png":
            yield line(file, f"the picture {picture.name!r} is not there", "Add it, or take it out of the file.")
        elif path in found:
            twice.append(path)
        else:
            found[path] = file, picture
    if twice:
        both = f"{len(twice)} pictures stand in {found[twice[0]][0]} too, such as {twice[0]}"
        yield line(file, both, "Take one of the two files out of the folder.")


def _items(tree: Tree, found: dict[str, tuple[str, Picture]], spec: ModelSpec | None) -> Iterator[Item]:
    channel = only_channel(spec)
    for name, (path, (file, picture)) in zip(unique_stems(list(found)), found.items(), strict=True):
        image = Source("png", (tree.root / path,))
        reference = Source("coco", (tree.root / file,), dataset=picture.name)
        group = _group(read_annotations(tree.root / file), picture)
        yield Item(CaseSource(name, {channel: image}, reference), _original(path), group, _fold(file, _folder(path)))


def _group(content: Annotations, picture: Picture) -> str:
    """The categories in a picture, where the file knows several."""
    if len(content.values) < 2:
        return ""
    return " ".join(content.categories.get(one, str(one)) for one in picture.categories) or "none"


def _original(path: str) -> str:
    """The picture of which ``path`` is a copy: one patient whatever the fold, since all copies show the same."""
    name = path.rpartition("/")[2]
    return name.partition(_COPY)[0] if _COPY in name else path


# Thousands of pictures share a folder.
@lru_cache(maxsize=4096)
def _fold(file: str, folder: str) -> str:
    """By folder of the picture, else by a word of the COCO file's name, such as ``instances_train2017.json``."""
    parts = (*PurePosixPath(folder).parts, *PurePosixPath(file).parts[:-1])
    words = PurePosixPath(file).stem.replace("-", "_").split("_")
    return next(filter(None, (fold_of(part.rstrip("0123456789")) for part in (*parts, *words))), "")


def _json_files(tree: Tree) -> list[str]:
    """JSON files at the top, in ``annotations/`` and beside pictures of folds; those with the usual name anywhere."""
    everything = tree.ending(".json")
    named = [file for file in everything if file.rpartition("/")[2] == FILE_NAME]
    if named:
        return named
    near = [file for file in everything if all(p == "annotations" or fold_of(p) for p in file.split("/")[:-1])]
    return near if len(near) <= _MOST_FILES else []


def _bases(file: str) -> list[str]:
    """Where the pictures of a COCO file may lie: beside it, in ``images/``, or in the folder of its fold."""
    above = PurePosixPath(_folder(file))
    fold = _fold(file, "")
    below = ("", "images", *((fold, f"images/{fold}", f"{fold}/images") if fold else ()))
    folders = ((base / part).as_posix() for base in (above, above.parent) for part in below)
    return list(dict.fromkeys("" if folder == "." else f"{folder}/" for folder in folders))


def _find(tree: Tree, bases: list[str], name: str) -> str | None:
    """The path of a picture; None where it is not there, or there twice."""
    name = name.removeprefix("./")
    for base in bases:
        if f"{base}{name}" in tree.known:
            return f"{base}{name}"
    # Such as train2017/: the only file of that name.
    same = tree.named.get(name.rpartition("/")[2], [])
    return same[0] if len(same) == 1 else None


def _folder(file: str) -> str:
    return file.rpartition("/")[0] or "."


def _of_categories(file: str, content: Annotations, spec: ModelSpec | None) -> Iterator[str]:
    """Which category became which value, where a recipe has to tell them apart or reads some as background."""
    if spec is None or all(not label.reference_values for label in spec.labels) or not content.values:
        return
    named = ", ".join(f"{content.categories.get(one, one)!r} {value}" for one, value in content.values.items())
    read = {value for label in spec.labels for value in label.reference_values}
    missed = [str(content.categories.get(one, one)) for one, value in content.values.items() if value not in read]
    yield f"{file}: values of the categories are {named}" + (
        f"; no label reads {', '.join(missed)}: add them to reference_values, or to [data] background_values"
        if missed
        else ""
    )


def _of_pictures(tree: Tree, found: dict[str, tuple[str, Picture]]) -> Iterator[str]:
    yield f"{tree.root}: {UNKNOWN_PATIENTS.format(what='pictures')}"
    empty = sum(not picture.annotations for _, picture in found.values())
    if empty:
        yield f"{empty} of {len(found)} pictures have no object: their masks are empty"
    pictures = [path for path in tree.files if SUFFIXES.get(suffix_of(Path(path))) == "png"]
    left_out = len(set(pictures) - found.keys())
    if left_out:
        yield f"{left_out} of {len(pictures)} pictures below {tree.root} stand in no COCO file: left out"
