"""Patients to training, validation and test. No patient lies on two sides."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from segtool.atomic import write_text
from segtool.errors import UsageError
from segtool_train.data.base import Item

Share = Annotated[float, Field(ge=0, lt=1)]


class SplitRecipe(BaseModel):
    """How patients are parted. A patient never lies on two sides.

    Args:
        test_fold: Patients with an item of this official fold are the test part.
        test: Share of the patients for testing where ``test_fold`` is not given.
        validation: Share of the remaining patients that choose the best weights.
        seed: Of the shuffle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_fold: str | None = None
    test: Share = 0.0
    validation: Share = 0.12
    seed: int = 0


@dataclass(frozen=True)
class Split:
    """Names of the patients and of the items on each side."""

    train_patients: tuple[str, ...]
    validation_patients: tuple[str, ...]
    test_patients: tuple[str, ...]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def sizes(self) -> dict[str, dict[str, int]]:
        """Patients and items a side, for reports."""
        sides = {
            "train": (self.train_patients, self.train),
            "validation": (self.validation_patients, self.validation),
            "test": (self.test_patients, self.test),
        }
        return {side: {"patients": len(p), "items": len(i)} for side, (p, i) in sides.items()}

    def write(self, path: Path) -> None:
        """Store as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Split":
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: Missing or not such a file.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{key: tuple(value) for key, value in raw.items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not a split of a training run ({error})", "Train again.") from error


def split_by_patient(items: Sequence[Item], rule: SplitRecipe) -> Split:
    """Part ``items`` by patient.

    Args:
        items: All items.
        rule: Test patients are all with an item of ``rule.test_fold``, else a share; then comes validation.

    Raises:
        UsageError: A side that the rule asks for would be empty.
    """
    patients = sorted({item.patient for item in items})
    shuffled = random.Random(rule.seed)  # noqa: S311 - a reproducible shuffle, no secret
    if rule.test_fold is not None:
        test = {item.patient for item in items if item.fold == rule.test_fold}
        if not test:
            raise UsageError(
                f"the split wants official fold {rule.test_fold!r} for testing, and no item is in it",
                "Change [data.split] test_fold in the recipe.",
            )
    else:
        order = patients.copy()
        shuffled.shuffle(order)
        test = set(order[: round(rule.test * len(order))])
    rest = [patient for patient in patients if patient not in test]
    shuffled.shuffle(rest)
    count = max(1, round(rule.validation * len(rest)))
    if len(rest) <= count:
        raise UsageError(
            f"{len(patients)} patients are too few: {len(rest)} are left beside the test part, "
            f"and {count} of them would validate",
            "Give more patients, or lower [data.split] test and validation.",
        )
    validation = set(rest[:count])
    sides = [set(rest[count:]), validation, test]
    return Split(
        *(tuple(sorted(side)) for side in sides),
        *(tuple(item.name for item in items if item.patient in side) for side in sides),
    )
