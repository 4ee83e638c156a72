"""Items to training, validation and test. No patient lies on two sides, unless that is asked for by name."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segtool.atomic import write_text
from segtool.errors import UsageError
from segtool_train.data.base import Item
from segtool_train.data.split_file import SIDES, read_sides

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
            raise ValueError(f"{' and '.join(choices)} both choose who tests; keep one of them")
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


@dataclass(frozen=True)
class Split:
    """Names of the patients and of the items on each side.

    Args:
        rule: How it was made; None in runs of versions that did not store it, which parted by patient.
        left_out: Items that could not be used and were left out on request.
    """

    train_patients: tuple[str, ...]
    validation_patients: tuple[str, ...]
    test_patients: tuple[str, ...]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    rule: SplitRecipe | None = None
    left_out: tuple[str, ...] = ()

    @property
    def patients_on_two_sides(self) -> int:
        """Number of patients that leak from one side into another; 0 in a split by patient."""
        sides = Counter((*self.train_patients, *self.validation_patients, *self.test_patients))
        return sum(count > 1 for count in sides.values())

    @property
    def leaks(self) -> dict[str, int]:
        """Patients of validation and of test that other sides were trained or chosen on; sides without are left out.

        What a side measures is too good where it has some.
        """
        taught = {*self.train_patients}
        chosen = {*taught, *self.validation_patients}
        found = {
            "validation": len(taught.intersection(self.validation_patients)),
            "test": len(chosen.intersection(self.test_patients)),
        }
        return {side: count for side, count in found.items() if count}

    def sizes(self) -> dict[str, dict[str, int]]:
        """Patients and items a side, for reports."""
        sides = {
            "train": (self.train_patients, self.train),
            "validation": (self.validation_patients, self.validation),
            "test": (self.test_patients, self.test),
        }
        return {side: {"patients": len(p), "items": len(i)} for side, (p, i) in sides.items()}

    def provenance(self) -> dict[str, Any]:
        """For a model's spec: the rule, sizes, and how many patients leak where any may."""
        by_slice = self.rule is not None and self.rule.by == "slice"
        leak = {"patients_on_two_sides": self.patients_on_two_sides} if by_slice else {}
        return {"rule": "by patient" if self.rule is None else str(self.rule), **leak, **self.sizes()}

    def without(self, broken: Sequence[Item], items: Sequence[Item]) -> "Split":
        """The split of ``items`` with those that are ``broken`` left out; every other stays on its side."""
        gone = {item.name for item in broken}
        kept = [item for item in items if item.name not in gone]
        sides = [set(self.train), set(self.validation), set(self.test)]
        return replace(_split(kept, sides, self.rule), left_out=tuple(item.name for item in broken))

    def write(self, path: Path) -> None:
        """Store as JSON."""
        rule = None if self.rule is None else self.rule.model_dump(mode="json", exclude_none=True)
        content = {**asdict(self), "rule": rule, "patients_on_two_sides": self.patients_on_two_sides}
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Split":
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: Missing or not such a file.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw.pop("patients_on_two_sides", None)  # counted anew
            rule = raw.pop("rule", None)
            names = {key: tuple(value) for key, value in raw.items()}
            return cls(**names, rule=None if rule is None else SplitRecipe.model_validate(rule))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not a split of a training run ({error})", "Train again.") from error


def split_items(items: Sequence[Item], rule: SplitRecipe) -> Split:
    """Part ``items`` as ``rule`` says; the same items and rule give the same split.

    Items that a split file does not name lie on no side.

    Raises:
        UsageError: A side that the rule asks for would be empty, the split file is not of these items, or it puts
            patients on two sides and ``rule.by`` is not ``slice``.
    """
    if rule.file is not None:
        return _by_file(items, rule, rule.file)
    # What lies on one side as a whole.
    unit = {item.name: item.patient if rule.by == "patient" else item.name for item in items}
    units = sorted(set(unit.values()))
    shuffled = random.Random(rule.seed)  # noqa: S311 - a reproducible shuffle, no secret
    if rule.test_fold is not None:
        test = _official(items, unit, "test_fold", rule.test_fold)
    elif rule.folds is not None:
        test = _fold(items, unit, rule.folds, rule.fold, shuffled)
    else:
        order = units.copy()
        shuffled.shuffle(order)
        test = set(order[: _share(rule.test, len(order))])
    rest = [one for one in units if one not in test]
    if rule.validation_fold is not None:
        validation = _official(items, unit, "validation_fold", rule.validation_fold) - test
    else:
        shuffled.shuffle(rest)
        validation = set(rest[: _share(rule.validation, len(rest))])
    train = set(rest) - validation
    if not train or (rule.validation_fold is not None and not validation):
        raise UsageError(
            f"{len(units)} {'patients' if rule.by == 'patient' else 'cases'} are too few: {len(rest)} are left "
            f"beside the test part, and {len(validation)} of them would validate",
            "Give more patients, or lower [data.split] test and validation.",
        )
    sides = [{name for name, one in unit.items() if one in side} for side in (train, validation, test)]
    return _split(items, sides, rule)


def _share(share: float, count: int) -> int:
    """How many of ``count`` a share is: none for 0, else at least one."""
    return max(1, round(share * count)) if share else 0


def _official(items: Sequence[Item], unit: dict[str, str], key: str, fold: str) -> set[str]:
    """Units with an item in an official fold of the set."""
    found = {unit[item.name] for item in items if item.fold == fold}
    if not found:
        folds = sorted({item.fold for item in items} - {""})
        there = f"there are {', '.join(folds)}" if folds else "the data names no folds"
        raise UsageError(
            f"the split wants official fold {fold!r}, and no item is in it ({there})",
            f"Change [data.split] {key} in the recipe, or raise --limit.",
        )
    return found


def _fold(items: Sequence[Item], unit: dict[str, str], folds: int, fold: int, shuffled: random.Random) -> set[str]:
    """Units that test in one of ``folds`` folds: each group is dealt round, the next goes on where it ended."""
    groups: dict[str, Counter[str]] = {}
    for item in items:
        groups.setdefault(unit[item.name], Counter())[item.group] += 1
    if len(groups) < folds:
        raise UsageError(
            f"{len(groups)} patients cannot be dealt into {folds} folds", "Give more patients, or lower the folds."
        )
    # A patient counts for the group of most of its items; of equals, the first by name.
    order = sorted(groups)
    shuffled.shuffle(order)
    order.sort(key=lambda one: min(groups[one], key=lambda group: (-groups[one][group], group)))
    return set(order[fold::folds])


def _by_file(items: Sequence[Item], rule: SplitRecipe, path: Path) -> Split:
    sides = read_sides(path, items)
    split = _split(items, sides, rule)
    if not split.train:
        raise UsageError(f"split file {path}: names nobody to train on", "Name patients or cases under 'train'.")
    leaking = split.patients_on_two_sides
    if leaking and rule.by == "patient":
        raise UsageError(
            f"split file {path}: {leaking} {'patient lies' if leaking == 1 else 'patients lie'} on two sides",
            f"Put each patient into one of {', '.join(SIDES)}, or pass --split slice where that leak is wanted.",
        )
    return split


def _split(items: Sequence[Item], sides: Sequence[set[str]], rule: SplitRecipe | None) -> Split:
    """From the names of the items on each side."""
    train, validation, test = ([item for item in items if item.name in side] for side in sides)
    return Split(
        *(_patients(train), _patients(validation), _patients(test)),
        *(_names(train), _names(validation), _names(test)),
        rule,
    )


def _patients(side: Sequence[Item]) -> tuple[str, ...]:
    return tuple(sorted({item.patient for item in side}))


def _names(side: Sequence[Item]) -> tuple[str, ...]:
    return tuple(item.name for item in side)
