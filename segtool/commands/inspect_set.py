"""``segtool inspect --layout``: the items, patients and folds that training would find in a set."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from segtool.errors import UsageError, printable

if TYPE_CHECKING:
    from segtool.scan.sets import Item, Listing, Recognition
    from segtool.spec import ModelSpec

AUTO = "auto"
_BROKEN_SHOWN = 20


def describe_set(paths: Sequence[Path], layout: str, spec: "ModelSpec | None") -> dict[str, Any]:
    """What a folder holds as a training set. Names and headers are read, no pixels.

    Args:
        paths: One folder.
        layout: Key of :data:`segtool.scan.sets.LAYOUTS`.
        spec: What the set is for; None to look only.

    Raises:
        UsageError: More than a folder, no such layout, or a folder of another one.
    """
    from segtool.scan.sets import Tree, list_tree, recognise_tree
    from segtool.scan.sets.base import Recognition

    if len(paths) != 1 or not paths[0].is_dir():
        given = f"{len(paths)} paths" if len(paths) > 1 else f"{paths[0]} is no folder"
        raise UsageError(f"--layout {layout}: {given}", "Give one folder, that of the training set.")
    tree = Tree(paths[0])
    found = recognise_tree(tree) if layout == AUTO else Recognition(layout, "certain", "as named")
    listing = list_tree(found.layout, tree, spec)
    return {
        "layout": recognition_facts(found),
        **_counts(listing.items, listing.patients_known),
        "folds": _by(listing, lambda item: item.fold),
        "groups": _by(listing, lambda item: item.group),
        "notes": list(listing.notes),
        "broken": list(listing.broken),
    }


def recognised(paths: Sequence[Path]) -> "tuple[Recognition, ...]":
    """The layout of a single folder, where its own marks or names tell; several where each is certain by itself."""
    from segtool.scan.sets import recognise

    if len(paths) != 1 or not paths[0].is_dir():
        return ()
    found = [one for one in recognise(paths[0]) if one.certainty != "possible"]
    return tuple(one for one in found if one is found[0] or one.certainty == "certain")


def recognition_facts(found: "Recognition") -> dict[str, str]:
    """For JSON."""
    return {"name": found.layout, "certainty": found.certainty, "reason": found.reason}


def print_set(facts: dict[str, Any]) -> None:
    """Print what :func:`describe_set` gives."""
    layout = facts["layout"]
    typer.echo(f"layout  {layout['name']} ({layout['certainty']}: {printable(layout['reason'])})")
    for what in ("fold", "group"):
        for name, counts in facts[f"{what}s"].items():
            typer.echo(f"{what:<8}{printable(name) or '(none)'}: {_sizes(counts)}")
    for note in facts["notes"]:
        typer.echo(f"note    {printable(note)}")
    for broken in facts["broken"][:_BROKEN_SHOWN]:
        typer.echo(f"broken  {printable(broken)}")
    if len(facts["broken"]) > _BROKEN_SHOWN:
        typer.echo(f"broken  and {len(facts['broken']) - _BROKEN_SHOWN} more; --json gives all")
    typer.echo(f"seen    {_sizes(facts)}, {len(facts['broken'])} broken")


def _sizes(counts: dict[str, Any]) -> str:
    items, patients = counts["items"], counts["patients"]
    of = "patients unknown" if patients is None else f"{patients} {'patient' if patients == 1 else 'patients'}"
    return f"{items} {'item' if items == 1 else 'items'}, {of}"


def _counts(items: "Sequence[Item]", patients_known: bool) -> dict[str, int | None]:
    return {"items": len(items), "patients": len({item.patient for item in items}) if patients_known else None}


def _by(listing: "Listing", key: "Callable[[Item], str]") -> dict[str, dict[str, int | None]]:
    """Sizes by fold or group; empty where the layout has none."""
    names = sorted({key(item) for item in listing.items})
    if names == [""]:
        return {}
    return {
        name: _counts([item for item in listing.items if key(item) == name], listing.patients_known) for name in names
    }
