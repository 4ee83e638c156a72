"""Items to training, validation and test. No patient lies on two sides, unless that is asked for by name."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segtool.atomic import write_text
from segtool.errors import UsageError
from segtool_train.data.base import Item
from segtool_train.data.split_file import SIDES, read_sides
from segtool_train.data.split_rule import SplitRecipe


@dataclass(frozen=True)
class Split:
    """Names of the patients and of the items on each side.

    Args:
        rule: How it was made; None in runs of versions that did not store it, which parted by patient.
        left_out: Items that could not be used and were left out on request.
        of_slices: What lies on the sides are single slices of items with several, under the names of their samples
            in the cache.
    """

    train_patients: tuple[str, ...]
    validation_patients: tuple[str, ...]
    test_patients: tuple[str, ...]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    rule: SplitRecipe | None = None
    left_out: tuple[str, ...] = ()
    of_slices: bool = False

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

    def cases(self, names: Sequence[str]) -> tuple[str, ...]:
        """The items that names on a side are of, each once."""
        return tuple(dict.fromkeys(item_of(name) for name in names)) if self.of_slices else tuple(names)

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
            rule, of_slices = raw.pop("rule", None), raw.pop("of_slices", False)
            names = {key: tuple(value) for key, value in raw.items()}
            made_by = None if rule is None else SplitRecipe.model_validate(rule)
            return cls(**names, rule=made_by, of_slices=bool(of_slices))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not a split of a training run ({error})", "Train again.") from error


def slice_name(item: str, number: int) -> str:
    """Of one slice of an item, where a split parts slices."""
    return f"{item}#{number}"


def item_of(name: str) -> str:
    """The item of a :func:`slice_name`."""
    return name.rpartition("#")[0]


def split_slices(items: Sequence[Item], slices: Sequence[tuple[str, int]], rule: SplitRecipe) -> Split:
    """As :func:`split_items`, of the slices of items: pairs of an item's name and a number."""
    named = {item.name: item for item in items}
    each = [
        replace(named[item], source=replace(named[item].source, name=slice_name(item, number)))
        for item, number in slices
    ]
    return replace(split_items(each, rule), of_slices=True)


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
