"""From a case to what the network sees, and back onto the case's grid.

This is the only preprocessing there is. Training fills its cache through the same two classes, so that a
network never meets pixels at inference that were made in another way.
"""

from segtool.preprocess.intensity import Statistics, normalise
from segtool.preprocess.masks import coverage, nonzero_box
from segtool.preprocess.placement import Placement
from segtool.preprocess.sliced import SlicedCase, slice_orientation
from segtool.preprocess.windowed import WindowedCase

__all__ = [
    "Placement",
    "SlicedCase",
    "Statistics",
    "WindowedCase",
    "coverage",
    "nonzero_box",
    "normalise",
    "slice_orientation",
]
