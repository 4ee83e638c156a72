"""When a run's cases or slices are parted, and what its sides must hold."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from segtool.errors import UsageError
from segtool_train.data.base import Item
from segtool_train.data.cache import Cache
from segtool_train.data.split import Split, split_items, split_slices
from segtool_train.recipe import Recipe
from segtool_train.run_folder import RunFolder


def parts_slices(recipe: Recipe) -> bool:
    """True where slices are parted one by one, which are known when all cases have been read."""
    rule = recipe.data.split
    return rule.by == "slice" and rule.file is None and recipe.spec.input.rank == 2


def split_samples(items: Sequence[Item], cache: Cache, recipe: Recipe) -> Split:
    """By slice, from the samples that there are. Where no case has several, who is broken moves nobody else.

    Raises:
        UsageError: As :func:`segtool_train.data.split.split_items`.
    """
    slices = [(sample.item, sample.slice) for sample in cache.samples]
    if len({item for item, _ in slices}) == len(slices):
        return split_items(items, recipe.data.split)
    broken = tuple(name for name, _ in cache.broken)
    return replace(split_slices(items, slices, recipe.data.split), left_out=broken)


def require_there(run: RunFolder, names: Sequence[str], items: Sequence[Item]) -> None:
    """All that a run was started with, for training and validation, must be there when it goes on.

    Raises:
        UsageError: It is not.
    """
    there = {item.name for item in items}
    gone = [name for name in names if name not in there]
    if gone:
        raise UsageError(
            f"{run.path}: was started with {len(gone)} more cases (first {gone[0]!r})",
            "Resume with the same --data and --limit, or train into another folder.",
        )


def note_sideless(split: Split, items: Sequence[Item], log: Callable[[str], None]) -> None:
    """Say how many items a split file leaves out."""
    sideless = len(items) - len(split.train) - len(split.validation) - len(split.test)
    if sideless:
        log(f"note    {sideless} of {len(items)} cases are on no side of the split file: left out")


def require_no_monitor(recipe: Recipe, validates: bool) -> None:
    """Without validation nothing says when to stop or to slow down.

    Raises:
        UsageError: The recipe wants to know.
    """
    training = recipe.training
    watching = ["early_stopping"] if training.early_stopping else []
    watching += ['schedule "plateau"'] if training.schedule.name == "plateau" else []
    if watching and not validates:
        raise UsageError(
            f"[training] {' and '.join(watching)} look at validation, and nobody validates in this split",
            "Take another schedule and no early stopping, or let some validate with [data.split] validation.",
        )
