"""From logits to a label map on the case's own grid, and how its rules are learnt on validation cases."""

from segtool.postprocess.assemble import SliceAssembler, VolumeAssembler, background_logits
from segtool.postprocess.components import postprocess
from segtool.postprocess.decision import Thresholds, activate, decide, own_thresholds, thresholds_for

__all__ = [
    "SliceAssembler",
    "Thresholds",
    "VolumeAssembler",
    "activate",
    "background_logits",
    "decide",
    "own_thresholds",
    "postprocess",
    "thresholds_for",
]
