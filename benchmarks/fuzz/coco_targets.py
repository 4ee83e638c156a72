"""Target: COCO JSON."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.common import REAL_DATA
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import odd_number
from benchmarks.fuzz.target import Target, all_of
from segtool.case import Source
from segtool.formats import coco

_FORM = coco.CocoFormat()
_VALUES: tuple[Any, ...] = (
    None, True, "", "1", [], {}, [[]], [[[]]], -1, 0, 0.5, 1e400, float("nan"), 2**31, 2**64, 10**40, -(10**30),
    "a" * 999,
    [float("nan")] * 6, [1e300] * 8, [0, 0, 1e9, 1e9], list(range(500)), {"counts": "a", "size": [9, 9]},
    {"counts": [10**12], "size": None}, {"counts": "o" * 5000}, "\ud800", "\x00",
)  # fmt: skip
_SHOWN = 4


class Coco(Target):
    """A file with every kind of outline."""

    suffix = ".json"
    fixed = (
        "a height of true was drawn on: TypeError; now a picture without a size",
        "an outline of many corners asked for gigabytes: crossings are worked out in parts, and bounded",
        "a run length of any number of letters took time with its square: refused beyond any picture",
    )

    def seeds(self) -> list[bytes]:
        """One of ours, and the first pictures of a real set."""
        return [_text(one) for one in (_ours(), *_real())]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A value anywhere in the tree, or rows dropped and doubled."""
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            return None
        places = list(_places(tree))
        if not places:
            return None
        inner, key = choices.one(places)
        match choices.whole(0, 4):
            case 0:
                del inner[key]
            case 1:
                inner[key] = copy.deepcopy(choices.one(_VALUES))
            case 2 if isinstance(inner[key], int | float) and abs(inner[key]) < 2**62:
                inner[key] = odd_number(choices, choices.one(("<q", "<d", "<h")), inner[key])
            case 3 if isinstance(inner, list):
                inner[key:key] = [inner[key]] * choices.one((1, 2, 10))
            case _:
                other, name = choices.one(places)
                if name in other if isinstance(other, dict) else name < len(other):
                    inner[key] = copy.deepcopy(other[name])
        return _text(tree)

    def read(self, path: Path) -> object:
        """The table, and the masks of its first pictures."""
        coco._parsed.cache_clear()
        content = coco.read_annotations(path)
        sources = [Source("coco", (path,), name, limits=self.limits) for name in list(content.pictures)[:_SHOWN]]
        return all_of(*[lambda source=source: _FORM.read_labels(source) for source in sources])


def _text(tree: Any) -> bytes:  # noqa: ANN401 - whatever JSON holds
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Any:  # noqa: ANN401
    """Every list and object with every key of it."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


@cache
def _ours() -> dict[str, Any]:
    outlines: list[dict[str, Any]] = [
        {"segmentation": [[2, 2, 9, 2.5, 9, 8, 3, 8]], "bbox": [2, 2, 7, 6]},
        {"segmentation": [[1, 1, 5, 1, 5, 5], [6, 6, 9, 6, 9, 9]]},
        {"bbox": [1.5, 2, 5, 4]},
        {"segmentation": {"counts": [10, 20, 5, 85], "size": [10, 12]}},
        {"segmentation": {"counts": ":d01", "size": [10, 12]}, "iscrowd": 1},
    ]
    rows = [{"id": n, "image_id": 1 + n % 2, "category_id": n % 2, **one} for n, one in enumerate(outlines)]
    return {
        "info": {},
        "images": [{"id": n, "file_name": f"{n}.png", "height": 10, "width": 12} for n in (1, 2)],
        "annotations": rows,
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
    }


@cache
def _real() -> list[dict[str, Any]]:
    path = REAL_DATA / "kaggle_coco" / "test" / coco.FILE_NAME
    if not path.is_file():
        return []
    tree = json.loads(path.read_text(encoding="utf-8"))
    kept = {row["id"] for row in tree["images"][:2]}
    tree["images"] = tree["images"][:2]
    tree["annotations"] = [row for row in tree["annotations"] if row["image_id"] in kept]
    return [tree]
