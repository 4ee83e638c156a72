"""What a data layout gives, and a share of it. The layouts are in :mod:`segtool.scan.sets`."""

from collections.abc import Sequence
from typing import TypeVar

from segtool.scan.sets import Item, Listing

__all__ = ["Item", "Listing", "spread"]

T = TypeVar("T")


def spread(items: Sequence[T], limit: int) -> Sequence[T]:
    """At most ``limit`` of ``items``, evenly from first to last."""
    if len(items) <= limit:
        return items
    return [items[i * len(items) // limit] for i in range(limit)]
