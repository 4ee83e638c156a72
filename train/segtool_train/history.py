"""All epochs of a run, as rows of numbers."""

import csv
import io
import math
from dataclasses import dataclass, field

Row = dict[str, float]


@dataclass
class History:
    """All epochs so far. Part of the checkpoint.

    Args:
        rows: One an epoch.
        best: Highest goodness so far, see :meth:`segtool_train.scores.Scores.goodness`.
        best_epoch: Its epoch, from 1.
        stopping_best: Goodness that early stopping compares with.
        stale: Epochs since that was reached.
    """

    rows: list[Row] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = -1
    stopping_best: float = -math.inf
    stale: int = 0

    def add(self, row: Row, goodness: float | None, min_delta: float = 0.0) -> bool:
        """Take an epoch's row; True where it is the best so far.

        Args:
            row: Under ``epoch`` its number.
            goodness: None where nothing validates: then the newest epoch is the best.
            min_delta: What counts as better for early stopping.
        """
        self.rows.append(row)
        if goodness is None:
            self.best_epoch = int(row["epoch"])
            return True
        self.stale = 0 if goodness > self.stopping_best + min_delta else self.stale + 1
        self.stopping_best = max(self.stopping_best, goodness) if self.stale == 0 else self.stopping_best
        # The first epoch is the best so far even where its measure is not a number.
        if len(self.rows) == 1 or goodness > self.best:
            self.best, self.best_epoch = goodness, int(row["epoch"])
            return True
        return False

    @property
    def best_row(self) -> Row:
        """Of the best epoch."""
        return next(row for row in self.rows if row["epoch"] == self.best_epoch)

    def to_csv(self) -> str:
        """All rows, with the columns of all of them; a row without a column leaves it empty."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in self.rows)
        return text.getvalue()


def _short(value: float) -> float | str:
    return value if isinstance(value, int) else f"{value:.6g}"
