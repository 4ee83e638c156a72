"""One training of a sweep: what was set and what it reached, kept in a file of its run folder."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from segtool.atomic import write_text
from segtool.errors import UsageError

State = Literal["started", "done", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial that has started.

    Args:
        number: From 0.
        values: Dotted recipe key to value: what varies.
        state: A ``started`` one trains or was interrupted; ``pruned`` was stopped by the search, ``failed`` by an
            error.
        validation: :data:`segtool_train.columns.MEASURES` at the best epoch; what is not a number is left out.
        test: The same on the test part, where it was asked for.
        best_epoch: From 1.
        curve: Validation Dice of every epoch.
        elapsed_s: Of the training, over all its parts where it was interrupted.
        error: One line.
    """

    number: int
    values: dict[str, Any]
    state: State
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    curve: tuple[float, ...] = ()
    elapsed_s: float = 0.0
    error: str = ""

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return folder_name(self.number)

    def facts(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        return {**asdict(self), "curve": [None if math.isnan(dice) else dice for dice in self.curve]}

    def write(self, sweep: Path) -> None:
        """Store below the sweep's folder."""
        text = json.dumps(self.facts(), indent=1, ensure_ascii=False)
        write_text(sweep / self.folder / "trial.json", f"{text}\n")


def folder_name(number: int) -> str:
    """Of a trial's run, below the sweep's folder."""
    return f"trial-{number:03d}"


def read_trial(sweep: Path, number: int) -> Trial | None:
    """What :meth:`Trial.write` wrote; None where the trial has not started.

    Raises:
        UsageError: The file is damaged.
    """
    path = sweep / folder_name(number) / "trial.json"
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        curve = tuple(math.nan if dice is None else dice for dice in raw.pop("curve"))
        return Trial(**raw, curve=curve)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path}: damaged ({error})", "Remove that file; its trial is then trained again.") from error
