"""A procedural head with a ring-enhancing lesion, as contrast-enhanced T1-weighted MRI shows it.

Everything is drawn from a seed; nothing is taken from a scan. :mod:`~segtool.phantom.head` draws a person who
does not exist, :mod:`~segtool.phantom.tissue` paints that head onto a grid, from the outside inwards, and
:mod:`~segtool.phantom.scanner` cuts slices and volumes and adds what a scanner adds.

Coordinates are RAS millimetres with the origin in the middle of the brain. Proportions are rounded from
textbook values for adults; intensities are relative to subcutaneous fat.
"""

from segtool.phantom.scanner import FIELD_OF_VIEW_MM, PLANES, Plane, phantom_slice, phantom_volume

__all__ = ["FIELD_OF_VIEW_MM", "PLANES", "Plane", "phantom_slice", "phantom_volume"]
