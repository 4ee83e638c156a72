"""The items of a recipe's set, and whose each is."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segtool.errors import UsageError
from segtool.scan.sets import Recognition, recognise
from segtool_train.data import list_items
from segtool_train.data.base import Listing

if TYPE_CHECKING:
    from segtool_train.recipe import Recipe


def listed(recipe: "Recipe", folder: Path) -> Listing:
    """The labelled cases below ``folder``, in the recipe's layout.

    Raises:
        UsageError: The folder is not of that layout, holds no labelled case, or a case's name does not say whose it
            is where the recipe says how names do.
    """
    try:
        listing = list_items(recipe.data.layout, folder, recipe.spec)
    except UsageError as error:
        rival = _other_layout(folder, recipe.data.layout)
        if rival is None:
            raise
        raise UsageError(
            f"{error.problem}; it looks like layout {rival.layout!r}, {rival.reason}",
            f"Train with --set data.layout={rival.layout}, or: {error.remedy}",
        ) from error
    pattern = recipe.data.patient
    if pattern is None:
        return listing
    items = []
    for item in listing.items:
        match = re.search(pattern, item.name)
        if match is None:
            raise UsageError(
                f"case {item.name!r}: [data] patient = {pattern!r} finds no patient in its name",
                "Change the pattern, leave it to the layout with --set data.patient=, or rename the case.",
            )
        items.append(replace(item, patient=match[1]))
    count = len({item.patient for item in items})
    # What the layout said of patients no longer holds.
    others = tuple(note for note in listing.notes if "patient" not in note)
    return replace(
        listing, items=tuple(items), notes=(*others, f"patients by {pattern!r}: {count} of {len(items)} cases")
    )


def _other_layout(folder: Path, layout: str) -> Recognition | None:
    """The layout that a folder which is none of ``layout`` is more than possibly in."""
    found = recognise(folder) if folder.is_dir() and layout != "auto" else ()
    return next((one for one in found[:1] if one.layout != layout and one.certainty != "possible"), None)
