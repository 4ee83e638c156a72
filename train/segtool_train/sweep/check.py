"""What is seen before a sweep's first trial: that not all of them would fail before they train."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from segtool.errors import UsageError, UserError
from segtool_train.data.listing import listed
from segtool_train.data.split import split_items
from segtool_train.recipe import Recipe
from segtool_train.run_folder import RunFolder
from segtool_train.sides import parts_slices
from segtool_train.sweep.plan import Choices, Search, Sweep, Values
from segtool_train.training import Options, check_start
from segtool_train.training_set import gather

Read = Callable[[Values], Recipe]
"""The recipe with some of its values replaced. Raises UsageError where they are not valid."""
Log = Callable[[str], None]
Check = Callable[[Recipe], object]


def check_sides(sweep: Sweep, read: Read, data: Path, *, test: bool) -> None:
    """See that the split of one of the recipes has the sides that the sweep needs.

    Raises:
        UserError: No recipe is valid, the folder is none of a set, or a side is empty.
    """

    def check(recipe: Recipe) -> None:
        if parts_slices(recipe):
            return  # which slices there are is known when they have been read
        split = split_items(listed(recipe, data).items, recipe.data.split)
        if sweep.optuna and not split.validation:
            raise UsageError(
                "a search needs validation, and the split leaves nobody for it", "Raise [data.split] validation."
            )
        if test and not split.test:
            raise UsageError(
                "--test: the split leaves no patients for testing",
                "Set [data.split] test in the recipe, or leave it out.",
            )

    _one_passes(_recipes(sweep, read), check, _of_data)


def check_trials(sweep: Sweep, read: Read, options: Options, log: Log) -> None:
    """See that one of the trials can begin to train, and fill its cache, which the trials share.

    What stands in the way of one alone is left to it.

    Raises:
        UserError: What stands in the way of all: of several reasons the first one's.
    """
    _one_passes(_recipes(sweep, read), lambda recipe: check_start(recipe, options), _of_start)

    def check(recipe: Recipe) -> None:
        gather(
            recipe,
            RunFolder(options.run),
            options.data,
            log,
            cache=options.cache,
            limit=options.limit,
            skip_broken=options.skip_broken,
        )

    _one_passes(_recipes(sweep, read), check, _of_data)


def _of_data(recipe: Recipe) -> str:
    """What decides whether the data can be used."""
    watching = recipe.training.early_stopping, recipe.training.schedule
    return f"{recipe.model_dump_json(include={'data', 'spec'})} {watching}"


def _of_start(recipe: Recipe) -> str:
    """What decides whether a training can begin at all."""
    training = recipe.training
    encoder = training.freeze_encoder_epochs, training.unfreeze_from, training.encoder_lr
    return f"{recipe.model_dump_json(include={'network', 'spec'})} {training.precision} {encoder}"


def _one_passes(recipes: Iterable[Recipe], check: Check, key: Callable[[Recipe], str]) -> None:
    """Check until one passes; recipes of one ``key`` pass or fail alike.

    Raises:
        UserError: None passes; the first one's.
    """
    seen: set[str] = set()
    first: UserError | None = None
    for recipe in recipes:
        kind = key(recipe)
        if kind in seen:
            continue
        seen.add(kind)
        try:
            check(recipe)
        except UserError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def _recipes(sweep: Sweep, read: Read) -> Iterator[Recipe]:
    """Those of the trials that are valid; of a search, of some points of its space.

    Raises:
        UsageError: None is valid.
    """
    first: UsageError | None = None
    valid = False
    for values in _some_points(sweep.optuna) if sweep.optuna else sweep.points:
        try:
            recipe = read({**sweep.shared, **values})
        except UsageError as error:
            first = first or error
        else:
            valid = True
            yield recipe
    if first is not None and not valid:
        raise first


def _some_points(search: Search) -> list[Values]:
    """So many that each choice is in one of them; of a range its low end."""
    choices = {
        key: entry.choices if isinstance(entry, Choices) else (entry.low,) for key, entry in search.space.items()
    }
    count = max(map(len, choices.values()))
    return [{key: those[number % len(those)] for key, those in choices.items()} for number in range(count)]
