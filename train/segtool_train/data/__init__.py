"""Data layouts, by name. The table and what it names live in :mod:`segtool.scan.sets`, since listing needs no torch."""

from segtool.scan.sets import LAYOUTS, list_items

__all__ = ["LAYOUTS", "list_items"]
