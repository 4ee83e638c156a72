"""From logits to a label map on the case's own grid, and how its rules are learnt on validation cases."""

from segtool.postprocess.assemble import SliceAssembler, finish_volume
from segtool.postprocess.components import postprocess
from segtool.postprocess.decision import Thresholds, activate, decide, own_thresholds, thresholds_for

__all__ = [
    "SliceAssembler",
    "Thresholds",
    "activate",
    "decide",
    "finish_volume",
    "own_thresholds",
    "postprocess",
    "thresholds_for",
]
