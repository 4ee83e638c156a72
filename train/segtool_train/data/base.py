"""What a data layout gives. One file a layout; the table is in :mod:`segtool_train.data`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from segtool.case import CaseSource
from segtool.spec import ModelSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One labelled case.

    Args:
        source: Where its pixels lie; it has a reference.
        patient: Whose they are, as the layout names patients. A split keeps a patient on one side.
        group: A class for reports, such as the kind of tumour; empty where the layout has none.
        fold: The set's official fold; empty where it has none.
    """

    source: CaseSource
    patient: str
    group: str = ""
    fold: str = ""

    @property
    def name(self) -> str:
        """The case's name."""
        return self.source.name


@dataclass(frozen=True)
class Listing:
    """What a layout found: items by name, and what the user must be told."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


def spread(items: Sequence[T], limit: int) -> Sequence[T]:
    """At most ``limit`` of ``items``, evenly from first to last."""
    if len(items) <= limit:
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


Layout = Callable[[Path, ModelSpec], Listing]
"""Lists a folder. Raises UsageError where the folder is not of this layout or an item lacks its reference."""
