"""Adds to the bundled model what its training slices are like, so that `segtool predict` names scans unlike them.

The training part is that of the recipe's split by patient; no slice of the validation and test patients is read.

Run: ``python -m benchmarks.bundled_statistics [--model M.onnx] [--output N.onnx]`` (default: the bundled file itself)
"""

from pathlib import Path

from benchmarks.cheng import cheng_items, model_and_output
from segtool.model_file import read_spec, write_spec
from segtool.spec_statistics import StatisticsSpec
from segtool_export.statistics import statistics_of


def learnt(model: Path) -> StatisticsSpec:
    """Statistics of the training slices, as the model sees them."""
    return statistics_of([item.source for item in cheng_items()["train"]], read_spec(model), print)


def main() -> None:
    """Learn and write."""
    model, output = model_and_output(__doc__)
    statistics = learnt(model)
    write_spec(model, read_spec(model).model_copy(update={"statistics": statistics}), output)
    print(f"{output}   statistics of {statistics.cases} slices")


if __name__ == "__main__":
    main()
