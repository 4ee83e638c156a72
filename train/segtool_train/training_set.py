"""From a folder to what trains and validates: list, split, cache, leave out what is broken."""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from segtool.atomic import write_text
from segtool.errors import OutputError, UsageError
from segtool_train.data.base import Item, Listing, spread
from segtool_train.data.cache import Cache, broken_error, open_cache
from segtool_train.data.dataset import EpochShuffle
from segtool_train.data.listing import listed
from segtool_train.data.split import Split, split_items
from segtool_train.recipe import Recipe
from segtool_train.run_folder import RunFolder
from segtool_train.sides import note_sideless, parts_slices, require_no_monitor, require_there, split_samples

BROKEN = "broken.txt"
"""File in the run's folder: one line for each case that cannot be used."""

_MOST_NOTES = 5

Log = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSet:
    """Everything that a run trains and validates on.

    Args:
        items: All cases that can be used, on whichever side.
        split: Their sides.
        cache: Their samples.
        train: Numbers of the samples that train.
        validation: Numbers of those that validate; none where all patients train.
    """

    items: tuple[Item, ...]
    split: Split
    cache: Cache
    train: tuple[int, ...]
    validation: tuple[int, ...]

    @cached_property
    def _owner(self) -> dict[str, Item]:
        return {item.name: item for item in self.items}

    @property
    def groups(self) -> list[str]:
        """Class of every sample of the cache by number; empty where the layout has none."""
        return [self._owner[sample.item].group for sample in self.cache.samples]

    def shuffle(self, recipe: Recipe) -> EpochShuffle:
        """The order in which a run of ``recipe`` sees the samples that train."""
        training = recipe.training
        weights = self._weights(recipe)
        return EpochShuffle(self.train, training.batch, training.seed, training.copies, weights)

    def _weights(self, recipe: Recipe) -> list[float] | None:
        if recipe.data.balance == "none":
            return None
        by_group = recipe.data.balance == "group"
        items = [self._owner[self.cache.samples[index].item] for index in self.train]
        keys = [item.group if by_group else item.patient for item in items]
        if by_group and not any(keys):
            raise UsageError(
                f'[data] balance = "group": layout {recipe.data.layout!r} names no classes',
                "Balance by patient, or leave it out.",
            )
        sizes = Counter(keys)
        return [1 / sizes[key] for key in keys]

    def describe(self) -> list[str]:
        """Lines for the log: sides, leak, empty samples, what reading had to decide."""
        sizes = self.split.sizes()
        what = "slices" if self.split.of_slices else "cases"
        sides = ", ".join(f"{side} {size['patients']} patients {size['items']} {what}" for side, size in sizes.items())
        lines = [f"split   {sides}"]
        leaking = self.split.patients_on_two_sides
        if leaking:
            patients = {*self.split.train_patients, *self.split.validation_patients, *self.split.test_patients}
            lines.append(
                f"leak    {leaking} of {len(patients)} patients lie on two sides, as the split is by slice: "
                f"scores of {' and of '.join(self.split.leaks)} are too good"
            )
            if self.split.test and "test" not in self.split.leaks:
                lines.append(
                    "note    no test patient leaks, as the test part holds whole patients; "
                    "[data.split] test = 0.2 in place of its choice parts them by slice, too"
                )
        empty = [sum(not self.cache.samples[i].labelled for i in side) for side in (self.train, self.validation)]
        if any(empty):
            lines.append(
                f"empty   no label in {empty[0]} of {len(self.train)} training samples "
                f"and {empty[1]} of {len(self.validation)} validation samples"
            )
        return lines + self._doubts()

    def _doubts(self) -> list[str]:
        """The most frequent notes on cases; a set may have one of its own for every case."""
        notes = self.cache.notes
        lines = [f"note    {count} of {len(self.items)} cases: {note}" for note, count in notes[:_MOST_NOTES]]
        if len(notes) > _MOST_NOTES:
            lines.append(f"note    and {len(notes) - _MOST_NOTES} more notes on cases; `segtool predict` tells each")
        return lines


def gather(
    recipe: Recipe,
    run: RunFolder,
    data: Path,
    log: Log,
    *,
    cache: Path | None = None,
    limit: int | None = None,
    skip_broken: bool = False,
    resumed: bool = False,
) -> TrainingSet:
    """List, split and cache what a run trains on.

    Args:
        recipe: Layout, split, pixels.
        run: Its folder; what is broken is listed there.
        data: Folder of the set.
        log: Takes notes and progress.
        cache: Folder of caches; None keeps them in the run.
        limit: Take so many items, spread over the set; None takes all.
        skip_broken: Go on without cases that cannot be used.
        resumed: Take the split of the run.

    Raises:
        UserError: The run's folder cannot be written, cases cannot be used, a side is empty, the disk is too small.
    """
    _require_writable(run.path)
    listing = listed(recipe, data)
    for note in listing.notes:
        log(f"note    {note}")
    items = listing.items if limit is None else tuple(spread(listing.items, limit))
    _require_own_names(items)
    # Before the cache, so that a wrong rule costs no time, and so that who is broken moves nobody else.
    split = None if parts_slices(recipe) else split_items(items, recipe.data.split)
    if resumed:
        split = run.read_split()
        require_there(run, split.cases((*split.train, *split.validation)), items)
    if split is not None:
        require_no_monitor(recipe, bool(split.validation))
    if listing.broken and not skip_broken:
        _report_broken(run, listing, {}, skip_broken, log)
    filled = _cache(cache or run.path / "cache", items, recipe, log)
    broken = dict(filled.broken)
    _report_broken(run, listing, broken, skip_broken, log)
    usable = tuple(item for item in items if item.name not in broken)
    if resumed:
        assert split is not None
        validates = bool(split.validation)
        require_there(run, split.cases((*split.train, *split.validation)), usable)
    else:
        split = split or split_samples(items, filled, recipe)
        validates = bool(split.validation)
        if not split.of_slices:
            split = split.without([item for item in items if item.name in broken], items)
            note_sideless(split, usable, log)
    require_no_monitor(recipe, validates)
    train, validation = (tuple(filled.indices(side)) for side in (split.train, split.validation))
    gathered = TrainingSet(usable, split, filled, train, validation)
    _require_samples(gathered, validates)
    return gathered


def require_outside(data: Path, places: Mapping[str, Path | None]) -> None:
    """Refuse to write into the set, whose next listing would take label maps and pictures for scans.

    Args:
        data: Folder of the set.
        places: What will be written, by the option that names it; None where it is not given.

    Raises:
        UsageError: One of them lies in ``data``.
    """
    for option, place in places.items():
        if place is not None and place.resolve().is_relative_to(data.resolve()):
            raise UsageError(
                f"{option} {place}: lies in the data ({data}), where its files would be taken for scans",
                "Name a place outside.",
            )


def _require_writable(folder: Path) -> None:
    """Notice before hours of caching that the result has no place.

    Raises:
        OutputError: Nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"--output {folder}: cannot be written ({error.strerror or error})", "Name another folder."
        ) from error


def _require_own_names(items: Sequence[Item]) -> None:
    """Split and cache know items by name."""
    ((name, count),) = Counter(item.name for item in items).most_common(1)
    if count > 1:
        raise UsageError(f"{count} cases are called {name!r}", "Rename their files, so that each name is there once.")


def _cache(folder: Path, items: Sequence[Item], recipe: Recipe, log: Log) -> Cache:
    told = 0

    def on_item(done: int, total: int) -> None:
        nonlocal told
        if done * 10 // total > told:
            told = done * 10 // total
            log(f"cache   {done} of {total} cases")

    return open_cache(
        folder,
        items,
        recipe.spec,
        recipe.data.slices,
        on_item,
        background_values=recipe.data.background_values,
        skip_broken=True,  # they are reported together with what the layout found
    )


def _report_broken(run: RunFolder, listing: Listing, broken: Mapping[str, str], skip: bool, log: Log) -> None:
    """Store what cannot be used, and stop there unless it is to be skipped.

    Args:
        run: Takes the list.
        listing: What the layout could not use.
        broken: What could not be read, by name.
        skip: Go on.
        log: Told how many are left out.

    Raises:
        CaseError: There is some.
    """
    lines, file = [*listing.broken, *broken.values()], run.path / BROKEN
    if not lines:
        file.unlink(missing_ok=True)
        return
    write_text(file, "".join(f"{line}\n" for line in lines))
    total = len(listing.items) + len(listing.broken)
    if not skip:
        raise broken_error(lines, total, file)
    log(f"broken  {len(lines)} of {total} cases are left out   {file}")


def _require_samples(gathered: TrainingSet, validates: bool) -> None:
    """Each side that the split asked for has samples, and a label in some of them.

    Raises:
        UsageError: It has not.
    """
    sides = {"training": gathered.train, **({"validation": gathered.validation} if validates else {})}
    for side, samples in sides.items():
        if not samples:
            raise UsageError(
                f"no samples are left for {side}", "Give more cases, raise --limit, or change [data.split]."
            )
        if not any(gathered.cache.samples[index].labelled for index in samples):
            raise UsageError(
                f"the masks of all {len(samples)} {side} samples are empty",
                "Check the masks, and reference_values of the labels in the recipe's spec.",
            )
