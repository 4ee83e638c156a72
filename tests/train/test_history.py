import csv
import math

import pytest

from segtool_train.history import History


def history(*goodness: float | None, min_delta: float = 0.0) -> tuple[History, list[bool]]:
    made = History()
    best = [made.add({"epoch": i, "val_dice": i / 10}, value, min_delta) for i, value in enumerate(goodness, start=1)]
    return made, best


@pytest.mark.parametrize(
    ("goodness", "best", "best_epoch", "stale"),
    [
        ((0.2, 0.5, 0.4), [True, True, False], 2, 1),
        ((0.5, 0.5, 0.5), [True, False, False], 1, 2),
        ((-3.0, -2.0, -2.5), [True, True, False], 2, 1),  # losses, turned round
        ((-math.inf, -math.inf, 0.1), [True, False, True], 3, 0),  # the first is the best even without a number
        ((None, None), [True, True], 2, 0),  # nothing validates: the newest
    ],
)
def test_the_best_epoch(goodness: tuple[float | None, ...], best: list[bool], best_epoch: int, stale: int):
    made, found = history(*goodness)
    assert (found, made.best_epoch, made.stale) == (best, best_epoch, stale)
    assert made.best_row["val_dice"] == best_epoch / 10


def test_small_gains_are_the_best_but_do_not_keep_a_run_alive():
    made, best = history(0.50, 0.505, 0.509, 0.52, min_delta=0.01)
    assert best == [True, True, True, True]
    assert made.stale == 0
    assert history(0.50, 0.505, 0.509, min_delta=0.01)[0].stale == 2


def test_a_column_that_older_rows_lack_is_empty_in_them():
    made = History()
    made.add({"epoch": 1, "val_dice": 0.25}, 0.25)
    made.add({"epoch": 2, "val_dice": math.nan, "val_loss": 0.5}, 0.25)
    rows = list(csv.DictReader(made.to_csv().splitlines()))
    assert rows == [
        {"epoch": "1", "val_dice": "0.25", "val_loss": ""},
        {"epoch": "2", "val_dice": "nan", "val_loss": "0.5"},
    ]
