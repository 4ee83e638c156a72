"""What the benchmarks of the bundled model share: the slices of the Cheng set, and predicting them."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import REAL_DATA
from segtool.bundled import default_model
from segtool.pipeline import PredictOptions, predict_folder
from segtool.report import Report
from segtool.scan import ScanOptions
from segtool_train.data import list_items
from segtool_train.data.base import Item
from segtool_train.data.split import Split, split_items
from segtool_train.recipe import find_recipe, read_recipe

RECIPE = "cheng-lite0"


def cheng_split() -> tuple[Sequence[Item], Split]:
    """All slices, and which are on which side of the bundled model's split."""
    recipe = read_recipe(find_recipe(RECIPE))
    items = list_items(recipe.data.layout, REAL_DATA / "cheng", recipe.spec).items
    return items, split_items(items, recipe.data.split)


def cheng_items() -> dict[str, list[Item]]:
    """The slices by side of the split, those of a patient one after the other."""
    items, split = cheng_split()
    return {
        side: sorted((item for item in items if item.name in set(names)), key=lambda item: item.patient)
        for side, names in (("train", split.train), ("validation", split.validation), ("test", split.test))
    }


def predict_cheng(items: Sequence[Item], model: Path, **options: Any) -> Report:  # noqa: ANN401 - of PredictOptions
    """The report of ``segtool predict`` on the slices, against their references; none may fail."""
    with tempfile.TemporaryDirectory() as folder:
        report = predict_folder(
            [item.source.first.path for item in items],
            PredictOptions(
                model=model,
                output=Path(folder),
                device="cpu",
                scan=ScanOptions(masks=REAL_DATA / "cheng" / "masks"),
                **options,
            ),
        )
    assert not report.failures, report.failures[0].error
    return report


def model_and_output(description: str | None) -> tuple[Path, Path]:
    """From the command line: the model to learn for, the bundled one by default, and the file to write, itself."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    model = arguments.model or default_model()
    return model, arguments.output or model
