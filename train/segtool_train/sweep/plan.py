"""A sweep file: a recipe, what all trials share and what varies."""

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segtool.errors import UsageError
from segtool_train.recipe import RECIPE_FOLDERS, find_toml

Values = dict[str, Any]
"""Dotted key of a recipe to value, as ``{"training.lr": 1e-3}``."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Part):
    """Numbers from ``low`` to ``high``, both included; whole ones where both are whole.

    Args:
        low: Least.
        high: Greatest.
        log: Draw their logarithm evenly.
        step: Between two of them; None draws any.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log wants a positive low and no step")
        return self


class Choices(_Part):
    """One of some values, of any type."""

    choices: Annotated[tuple[Any, ...], Field(min_length=1)]


class Search(_Part):
    """A search by Optuna's TPE for the highest validation Dice.

    Args:
        trials: How many trainings.
        space: Dotted key to what may be drawn.
        seed: Of the search; the same results give the same next trial.
        startup: First trials, drawn at random.
        prune: Stop a trial whose best Dice so far is below the median of the others' at the same epoch.
        warmup: Epochs that pruning lets pass.
    """

    trials: Annotated[int, Field(ge=1)]
    space: Annotated[dict[str, Range | Choices], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    startup: Annotated[int, Field(ge=1)] = 10
    prune: bool = False
    warmup: Annotated[int, Field(ge=0)] = 5

    @model_validator(mode="before")
    @classmethod
    def _dotted(cls, raw: Any) -> Any:  # noqa: ANN401 - checked by pydantic afterwards
        if isinstance(raw, dict) and isinstance(raw.get("space"), dict):
            return {**raw, "space": dict(_flat(raw["space"], {"low", "high", "choices"}))}
        return raw


class Sweep(_Part):
    """What varies is one of ``grid``, ``trials`` and ``optuna``.

    Args:
        recipe: Name of a shipped recipe, or a path; a relative one starts at the sweep file's folder.
        shared: ``[set]``, values that all trials have in place of the recipe's.
        grid: Dotted key to list of values; every combination is a trial, the last key varying fastest.
        trials: One row of values a trial.
        optuna: A search.
    """

    recipe: str
    shared: Annotated[Values, Field(alias="set")] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    trials: tuple[Values, ...] = ()
    optuna: Search | None = None

    @model_validator(mode="before")
    @classmethod
    def _dotted(cls, raw: Any) -> Any:  # noqa: ANN401 - checked by pydantic afterwards
        if not isinstance(raw, dict):
            return raw
        # Keys may be quoted, "training.lr", or not, training.lr, which TOML reads as tables.
        flat: Values = {key: dict(_flat(raw[key])) for key in ("set", "grid") if isinstance(raw.get(key), dict)}
        if isinstance(raw.get("trials"), list):
            flat["trials"] = [dict(_flat(row)) if isinstance(row, dict) else row for row in raw["trials"]]
        return {**raw, **flat}

    @model_validator(mode="after")
    def _one_way(self) -> "Sweep":
        ways = [name for name in ("grid", "trials", "optuna") if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError(f"wanted one of [grid], [[trials]] and [optuna], found {' and '.join(ways) or 'none'}")
        return self

    @property
    def varied(self) -> set[str]:
        """Keys that differ between trials."""
        found = set(self.grid) | {key for row in self.trials for key in row}
        return found | set(self.optuna.space if self.optuna else ())

    @property
    def points(self) -> list[Values]:
        """Values of every trial; empty for a search, which finds them."""
        if self.grid:
            return [dict(zip(self.grid, row, strict=True)) for row in itertools.product(*self.grid.values())]
        return list(self.trials)


def _flat(raw: Mapping[str, Any], leaves: Set[str] = frozenset(), path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested tables; a table with a key of ``leaves`` is a value."""
    for key, value in raw.items():
        if isinstance(value, dict) and not leaves & value.keys():
            yield from _flat(value, leaves, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def find_sweep(name_or_path: str) -> Path:
    """The file of a shipped sweep's name or of a path ending in ``.toml``.

    Raises:
        UsageError: Neither.
    """
    shipped = {path.stem: path for folder in RECIPE_FOLDERS for path in sorted((folder / "sweeps").glob("*.toml"))}
    return find_toml("sweep", name_or_path, shipped)


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        UsageError: Not TOML, or not valid; the line names the first fault.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # no text, no TOML, or numbers that Python does not make
        raise UsageError(f"{path}: cannot be read ({error})", "Check the path, or mend the file.") from error
    try:
        sweep = Sweep.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "sweep"
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path}: the sweep is not valid at {place!r} ({message})", "Mend the file.") from error
    beside = path.parent / sweep.recipe
    if sweep.recipe.endswith(".toml") and beside.is_file():
        return sweep.model_copy(update={"recipe": str(beside)})
    return sweep
