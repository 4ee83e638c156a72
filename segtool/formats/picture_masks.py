"""What greys between black and white mean in a picture of a mask."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray

CUT = "mask compressed with losses: cut at 128 into labelled and not"
"""Note of every mask that :func:`cut` has cut."""

_MIDDLE = 128
_GREYS = (48, 207)
"""Between them a value is neither black nor white, whatever compression did to it."""
_ALIKE = 24
"""Levels between the 3x3 pixels inside an area of one grey, compressed."""
_GREY_SHARE = 0.05
"""Of all pixels that are not black; white on black has none, compressed at any quality."""
_MOST_LABELS = 16
"""Values of a mask up to which nobody need wonder."""


def cut(values: AnyArray, path: Path) -> npt.NDArray[np.uint8]:
    """A mask compressed with losses: 255 from the middle grey on, 0 below.

    Args:
        values: ``(H, W)`` from 0 to 255.
        path: The file, for messages.

    Raises:
        UnreadableFileError: It is no picture of white on black.
    """
    highest = int(values.max())
    if 0 < highest < _MIDDLE:
        raise UnreadableFileError(
            f"{path}: a mask compressed with losses, brightest value {highest}, wanted white (255) on black",
            "Save the mask as PNG.",
        )
    grey = values[1:-1, 1:-1][_is_flat_grey(values)]
    if grey.size > _GREY_SHARE * np.count_nonzero(values >= _GREYS[0]):
        raise UnreadableFileError(
            f"{path}: a mask compressed with losses holds areas of grey (about {int(np.median(grey))}), and nothing "
            "tells which label they mean",
            "Save it as PNG with labels as values, or draw one structure in white on black.",
        )
    return np.where(values >= _MIDDLE, np.uint8(255), np.uint8(0))


def _is_flat_grey(values: AnyArray) -> npt.NDArray[np.bool_]:
    """``(H - 2, W - 2)``, True where the 3x3 pixels around one are nearly alike, and neither black nor white.

    Along the edge of a white area greys are steep, however strong the compression.
    """
    highest = lowest = values.astype(np.int16)
    for _ in range(2):  # axes: each pass swaps them
        rows = max(0, len(highest) - 2)
        highest = np.maximum.reduce([highest[start : start + rows] for start in range(3)]).T
        lowest = np.minimum.reduce([lowest[start : start + rows] for start in range(3)]).T
    flat: npt.NDArray[np.bool_] = (highest - lowest <= _ALIKE) & (lowest >= _GREYS[0]) & (highest <= _GREYS[1])
    return flat


def doubt(values: AnyArray) -> str:
    """What to say of a lossless mask whose greys look like those of an earlier compression; empty for others."""
    if values.dtype != np.uint8 or values.max() != 255:
        return ""
    kinds = np.count_nonzero(np.bincount(values.reshape(-1), minlength=256))
    if kinds <= _MOST_LABELS:
        return ""
    return (
        f"mask of {kinds} greys, as smoothing or an earlier compression leaves them: every one but 0 is taken as "
        "labelled; where they mean one structure, cut them at 128 and save the mask as PNG"
    )
