"""How items are parted: what a recipe's ``[data.split]`` says, and the flags that replace it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segtool.errors import UsageError

Share = Annotated[float, Field(ge=0, lt=1)]
By = Literal["patient", "slice"]

_PLACE = "data.split."
"""Of the rule in a recipe."""


class SplitRecipe(BaseModel):
    """How items are parted.

    The test part is one of: an official fold, one of ``folds`` folds made here, what a file says, a share.

    Args:
        by: ``patient`` keeps all items of a patient on one side. ``slice`` parts items one by one, as some
            published systems do: patients then lie on two sides, and all scores are too good.
        test_fold: Patients with an item of this official fold are the test part.
        validation_fold: Patients with an item of this official fold, and not tested, validate.
        folds: Number of folds; each patient tests in exactly one, and each holds its share of every group.
        fold: The one of ``folds`` that tests, from 0.
        file: Names of each side, see :func:`segtool_train.data.split_file.read_sides`.
        test: Share of the patients for testing where nothing else chooses them.
        validation: Share of the remaining patients that choose the best weights; 0 lets all of them train and
            keeps the last epoch's weights.
        seed: Of the shuffles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: By = "patient"
    test_fold: str | None = None
    validation_fold: str | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    file: Path | None = None
    test: Share = 0.0
    validation: Share = 0.12
    seed: int = 0

    @model_validator(mode="after")
    def _one_choice(self) -> "SplitRecipe":
        choices = [name for name in ("file", "folds", "test_fold", "test") if getattr(self, name)]
        if len(choices) > 1:
            away = " ".join(f"--set {_PLACE}{name}=" for name in choices if name != "test")
            raise ValueError(
                f"{' and '.join(choices)} both choose who tests; keep one of them ({away} takes the recipe's away)"
            )
        if self.file is not None and self.validation_fold is not None:
            raise ValueError("file and validation_fold both choose who validates; keep one of them")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold {self.fold} is not among {self.folds or 1} folds, counted from 0")
        return self

    def choosing(self, *, folds: int, fold: int) -> "SplitRecipe":
        """The rule with one of ``folds`` folds for testing in place of its own choice.

        Raises:
            ValidationError: There is no such fold.
        """
        changes = choice_of_test(folds=folds, fold=fold)
        raw = self.model_dump() | {key.removeprefix(_PLACE): value for key, value in changes.items()}
        return SplitRecipe.model_validate({key: value for key, value in raw.items() if value is not None})

    def __str__(self) -> str:
        """Such as ``by patient: official fold 5 tests, 12 % of the rest validate, seed 0``."""
        if self.file is not None:
            return f"by {self.by}: as a file says"
        if self.folds is not None:
            test = f"fold {self.fold} of {self.folds} tests"
        elif self.test_fold is not None:
            test = f"official fold {self.test_fold} tests"
        else:
            test = f"{100 * self.test:g} % test"
        share = f"{100 * self.validation:g} % of the rest validate"
        validation = share if self.validation_fold is None else f"official fold {self.validation_fold} validates"
        return f"by {self.by}: {test}, {validation}, seed {self.seed}"


def choice_of_test(
    *,
    by: By | None = None,
    test_fold: str | None = None,
    file: Path | None = None,
    folds: int | None = None,
    fold: int = 0,
) -> dict[str, Any]:
    """Overrides that give a recipe another unit, or another choice of who tests in place of its own.

    For :func:`segtool_train.overrides.override`. None leaves the recipe's.

    Raises:
        UsageError: Several choices at once.
    """
    changes: dict[str, Any] = {} if by is None else {"by": by}
    chosen = {"test_fold": test_fold, "file": None if file is None else str(file), "folds": folds}
    given = [key for key, value in chosen.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} both choose who tests", "Give one of them.")
    if given:
        # An official validation fold makes sense beside an official test fold only.
        stale = {} if test_fold is not None else {"validation_fold": None}
        changes |= {"test": None, **stale, **chosen, "fold": fold if folds is not None else None}
    return {f"{_PLACE}{key}": value for key, value in changes.items()}
