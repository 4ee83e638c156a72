"""Adds to the bundled model what its training slices are like, so that `segtool predict` names scans unlike them.

The training part is that of the recipe's split by patient; no slice of the validation and test patients is read.

Run: ``python -m benchmarks.bundled_statistics [--model M.onnx] [--output N.onnx]`` (default: the bundled file itself)
"""

import argparse
from pathlib import Path

from benchmarks.common import REAL_DATA
from segtool.bundled import default_model
from segtool.model_file import read_spec, write_spec
from segtool.spec_statistics import StatisticsSpec
from segtool_export.statistics import statistics_of
from segtool_train.data import list_items
from segtool_train.data.base import Item
from segtool_train.data.split import split_items
from segtool_train.recipe import find_recipe, read_recipe

RECIPE = "cheng-lite0"


def cheng_items() -> dict[str, list[Item]]:
    """The slices by side of the split, those of a patient one after the other."""
    recipe = read_recipe(find_recipe(RECIPE))
    items = list_items(recipe.data.layout, REAL_DATA / "cheng", recipe.spec).items
    split = split_items(items, recipe.data.split)
    return {
        side: sorted((item for item in items if item.name in set(names)), key=lambda item: item.patient)
        for side, names in (("train", split.train), ("validation", split.validation), ("test", split.test))
    }


def learnt(model: Path) -> StatisticsSpec:
    """Statistics of the training slices, as the model sees them."""
    return statistics_of([item.source for item in cheng_items()["train"]], read_spec(model), print)


def main() -> None:
    """Learn and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    model = arguments.model or default_model()
    statistics = learnt(model)
    output = arguments.output or model
    write_spec(model, read_spec(model).model_copy(update={"statistics": statistics}), output)
    print(f"{output}   statistics of {statistics.cases} slices")


if __name__ == "__main__":
    main()
