"""COCO annotations: one JSON file with the outlines of many pictures, read as label maps."""

import json
import reprlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, TypeGuard

import numpy as np

from segtool.case import LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import MAX_LABEL, narrow
from segtool.formats.coco_claims import check_claims
from segtool.formats.coco_shapes import Mask, box_mask, polygon_mask, read_runs, runs_mask
from segtool.geometry import Geometry
from segtool.limits import DEFAULT_LIMITS, Limits

FILE_NAME = "_annotations.coco.json"
"""What the common exporters call the file, which then lies among its pictures."""

_FARTHEST = 1e9
"""Coordinates beyond it are damage, and drawing them would overflow."""

_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 200, 100, 60
_short = _SHORT.repr
"""Values of a file as messages show them, which may be of any length there."""

_PARSING = Lock()
_FILES_KEPT = 16


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that a file lists: its name there, ``(H, W)`` where the file says, and its annotations."""

    name: str
    shape: tuple[int, int] | None
    annotations: tuple[Mapping[str, Any], ...]

    @property
    def categories(self) -> tuple[int, ...]:
        """Ids of the categories that occur, each once."""
        return tuple(sorted({annotation["category_id"] for annotation in self.annotations}))


@dataclass(frozen=True, eq=False)
class Annotations:
    """What a COCO file holds.

    Args:
        pictures: By their names in the file.
        categories: Id to name.
        values: Id of each category in use to its value in label maps: the id itself, or one more where a category
            in use has the id 0, which is background in a label map.
        lost: One line about annotations of pictures that the file does not list; empty without such.
    """

    pictures: Mapping[str, Picture]
    categories: Mapping[int, str]
    values: Mapping[int, int]
    lost: str


class NotCocoError(UnreadableFileError):
    """JSON without the tables of COCO, or with others, such as captions: perhaps about something else."""


class CocoFormat:
    """The reference of one picture out of a COCO file; ``Source.dataset`` is the picture's ``file_name``.

    Polygons, boxes without an outline and run lengths in both spellings become the value of their category (see
    :class:`Annotations`); where objects overlap the later one wins. It reads no images and writes nothing.
    """

    name: ClassVar[str] = "coco"

    def read_labels(self, source: Source) -> LabelMap | None:
        """The label map of a picture on its own pixels; None where the file does not list the picture.

        Raises:
            UnreadableFileError: Not such a file, or an outline that cannot be drawn.
            LimitError: Larger, or more to draw, than the limits allow.
        """
        content = read_annotations(source.path, source.limits)
        picture = content.pictures.get(source.dataset or "")
        if picture is None:
            return None
        if picture.shape is None:
            raise UnreadableFileError(
                f"{source.path}: the picture {_short(picture.name)} has no height and width", "Add both to its entry."
            )
        check_claims(f"{source.path}: {_short(picture.name)}", picture.shape, picture.annotations, source.limits)
        labels = np.zeros(picture.shape, np.uint16)  # holds MAX_LABEL
        for annotation in picture.annotations:
            try:
                mask = _mask(annotation, picture.shape)
            except (ValueError, TypeError, OverflowError) as error:
                which = f"annotation {_short(annotation.get('id'))} of {_short(picture.name)}"
                raise UnreadableFileError(
                    f"{source.path}: {which} cannot be drawn ({error})",
                    "Mend it, or export the annotations again.",
                ) from error
            labels[mask] = content.values[annotation["category_id"]]
        return LabelMap(narrow(labels), Geometry.of_pixels(picture.shape))


def read_annotations(path: Path, limits: Limits = DEFAULT_LIMITS) -> Annotations:
    """The content of a COCO file, parsed once however often it is asked for.

    Raises:
        NotCocoError: JSON without COCO's tables.
        LimitError: More text than the limits allow.
        UnreadableFileError: Missing, not JSON, or with values that contradict each other.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be read ({error.strerror})", "Check the path.") from error
    if not stat.S_ISREG(found.st_mode):  # a pipe would keep its reader waiting
        raise UnreadableFileError(f"{path}: no file, but a pipe, a device or a folder", "Take it away.")
    limits.check("text_bytes", found.st_size, str(path), f"{found.st_size} bytes of JSON")
    # Threads that read references at once shall not each parse the file.
    with _PARSING:
        content = _parsed(path, found.st_mtime_ns, found.st_size)
    if isinstance(content, UnreadableFileError):
        raise type(content)(content.problem, content.remedy)
    return content


@lru_cache(maxsize=_FILES_KEPT)
def _parsed(path: Path, _changed: int, _size: int) -> Annotations | UnreadableFileError:
    """The content, or why there is none: a thousand pictures shall not each try a broken file again."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        return UnreadableFileError(
            f"{path}: cannot be read as JSON ({error})", "It is truncated or corrupt: copy or export it again."
        )
    try:
        return _checked(raw, path.name)
    except (KeyError, TypeError) as error:
        what = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        return NotCocoError(
            f"{path}: not a COCO file ({what}; wanted the lists images, annotations and categories)",
            "Export the annotations as COCO JSON again.",
        )
    except ValueError as error:
        return UnreadableFileError(f"{path}: {error}", "Mend it, or export the annotations again.")


def _checked(raw: Any, name: str) -> Annotations:  # noqa: ANN401 - whatever JSON holds
    """The tables of a file, each row with what reading needs.

    Raises:
        KeyError: A table or a value is missing.
        TypeError: A table is of another kind.
        ValueError: A value is of another kind, a picture is listed twice, or an id that no label can be.
    """
    if not isinstance(raw, dict):
        raise TypeError("it is no object")
    rows = {table: [_row(table, row) for row in _list(raw[table], table)] for table in ("images", "annotations")}
    categories = {_whole(row["id"]): str(row["name"]) for row in _list(raw.get("categories", []), "categories")}
    by_picture: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows["images"]:
        if row["id"] in by_picture:
            raise ValueError(
                f"two pictures have the id {_short(row['id'])}, the second of them is {_short(row['file_name'])}"
            )
        by_picture[row["id"]] = []
    lost = [row for row in rows["annotations"] if row["image_id"] not in by_picture]
    for row in rows["annotations"]:
        if row["image_id"] in by_picture:
            by_picture[row["image_id"]].append(row)
    pictures: dict[str, Picture] = {}
    for row in rows["images"]:
        if row["file_name"] in pictures:
            raise ValueError(f"the picture {_short(row['file_name'])} is listed twice")
        pictures[row["file_name"]] = Picture(row["file_name"], _shape(row), tuple(by_picture[row["id"]]))
    used = sorted({_whole(row["category_id"]) for row in rows["annotations"]})
    shift = 1 if used and used[0] == 0 else 0
    if used and not 0 <= used[0] <= used[-1] < MAX_LABEL:
        raise ValueError(f"category ids from {_short(used[0])} to {_short(used[-1])}, wanted 0 to {MAX_LABEL - 1}")
    said = ""
    if lost:
        said = (
            f"{name}: {len(lost)} of {len(rows['annotations'])} annotations belong to no picture that it lists "
            f"(first: annotation {_short(lost[0].get('id'))}, picture {_short(lost[0]['image_id'])}). "
            "Add the pictures to the file, or take the annotations out."
        )
    return Annotations(pictures, categories, {one: one + shift for one in used}, said)


def _list(value: Any, table: str) -> list[Any]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, list):
        raise TypeError(f"{table} is no list")
    return value


def _row(table: str, row: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """A row with all that its table needs.

    Raises:
        KeyError: A value is missing.
        TypeError: No row.
        ValueError: A value of another kind.
    """
    if not isinstance(row, dict):
        raise TypeError(f"a row of {table} is no object")
    wanted = ("id", "file_name") if table == "images" else ("image_id", "category_id")
    for key in wanted:
        if key not in row:
            raise KeyError(f"{key} in a row of {table}")
        if not isinstance(row[key], str if key == "file_name" else (int, str)):
            raise ValueError(f"{key} of a row of {table} is {_short(row[key])}")
    return row


def _whole(value: Any) -> int:  # noqa: ANN401 - whatever JSON holds
    if not _is_whole(value):
        raise ValueError(f"the id of a category is {_short(value)}, wanted a whole number")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    """True for whole numbers; JSON's true and false count as such in Python."""
    return isinstance(value, int) and not isinstance(value, bool)


def _shape(row: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = row.get("height"), row.get("width")
    if not _is_whole(height) or not _is_whole(width) or min(height, width) < 1:
        return None
    return height, width


def _mask(annotation: Mapping[str, Any], shape: tuple[int, int]) -> Mask:
    """``(H, W)`` of one object.

    Raises:
        ValueError: No outline, or one that makes no sense.
        TypeError: Values of another kind.
    """
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        return _runs(outline, shape)
    if outline:
        parts = [_polygon(corners, shape) for corners in _list(outline, "segmentation")]
        whole: Mask = np.logical_or.reduce(parts)
        return whole
    box = annotation.get("bbox")
    if not box:
        raise ValueError("it has neither an outline nor a box")
    sizes_known = len(_list(box, "bbox")) == 4 and all(abs(value) <= _FARTHEST for value in box)  # no NaN either
    if not sizes_known or min(box[2:]) < 0:
        raise ValueError(f"its box is {_short(box)}, wanted x, y, width, height")
    return box_mask(box, shape)


def _polygon(corners: Any, shape: tuple[int, int]) -> Mask:  # noqa: ANN401 - whatever JSON holds
    points = np.array(_list(corners, "a polygon"), np.float64)
    if points.ndim != 1 or points.size % 2 or points.size < 6:
        raise ValueError(f"a polygon has {points.size} numbers, wanted a flat list of at least three x, y pairs")
    if not (np.abs(points) <= _FARTHEST).all():  # NaN is not
        raise ValueError("a polygon has corners that are no number, or that lie outside any picture")
    return polygon_mask(points.reshape(-1, 2), shape)


def _runs(outline: Mapping[str, Any], shape: tuple[int, int]) -> Mask:
    counts, size = outline.get("counts"), outline.get("size")
    if size is not None and size != list(shape):
        raise ValueError(f"its run lengths are for {_short(size)} pixels, the picture has {list(shape)}")
    if isinstance(counts, str):
        return runs_mask(read_runs(counts), shape)
    lengths = _list(counts, "counts")
    if not all(_is_whole(length) for length in lengths):
        raise ValueError("its run lengths are no whole numbers")
    return runs_mask(lengths, shape)
