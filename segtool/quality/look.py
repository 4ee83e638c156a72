"""What a channel looks like, free of the unit, offset and size in which it is stored.

A look is made of a few pictures of a case, each thinned to 64 by 64 pixels, so that it costs less than a tenth of a
millisecond a picture. Its numbers are, in units of the spread of the head's intensities and from their median:

* 16 intensities at evenly spaced ranks, which is a histogram seen from its side;
* mean, deviation and share of dark pixels in five rings from the middle of the head to its edge, which tell
  sequences apart whose histograms are alike: fluid lies in the middle, fat at the edge;
* the mean difference of pixels a 128th and a 32nd of the width apart: noise and blur.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import Case
from segtool.preprocess.sliced import slice_orientation
from segtool.spec import ModelSpec

AnyArray = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RANKS = 16
_THINNED = 64
_PICTURES = 8
_LEVELS = (0.01, 0.99)
_ABOVE = 0.1  # of the range; what is darker is air
_FRAME = 24
_RINGS = (0.25, 0.5, 0.7, 0.85, 0.97)
_DARK = -0.35
_FEWEST = 32  # pixels of a head of 4096
_ROWS = 16
_APART = (128, 32)


@dataclass(frozen=True, eq=False)
class Look:
    """Of one channel of one case.

    Attributes:
        low: The lowest stored value of the pictures looked at; likewise ``high``.
        border: Where the median of the pictures' edges lies between low (0) and high (1).
        air: Share of values below -500, which in HU is air and in MRI nothing.
        levels: Different values in the picture that has most.
        grain: Mean difference of neighbours against the mean deviation; 1.41 where neighbours know nothing of each
            other.
        cut: Value above which a pixel is head; None where every value but 0 is.
        features: ``(F,)`` numbers that the module's text lists.
    """

    low: float
    high: float
    border: float
    air: float
    levels: int
    grain: float
    cut: float | None
    features: Float64Array

    @property
    def histogram(self) -> Float64Array:
        """Intensities of the head at evenly spaced ranks, ``(RANKS,)``."""
        return self.features[:RANKS]


def pictures(case: Case, spec: ModelSpec) -> Iterator[AnyArray]:
    """Up to eight pictures ``(C, H, W)`` of a case, from the middle half of a volume, as views."""
    data, geometry = case.data, case.geometry
    if geometry.kind == "image":
        yield data
        return
    if geometry.kind == "volume":
        plane = spec.input.plane if spec.input.rank == 2 else "axial"
        data = geometry.reorientation_to(slice_orientation(geometry, plane)).apply(data)
    count = data.shape[1]
    first, last = (0, count) if geometry.kind == "stack" else (count // 4, count - count // 4)
    for index in sorted({first + (last - first) * i // _PICTURES for i in range(_PICTURES)}):
        yield data[:, index]


def looks(case: Case, spec: ModelSpec) -> list[Look | None]:
    """Of every channel; None where its pictures show nothing."""
    nonzero = spec.intensity.foreground == "nonzero"
    seen = [[_look(channel, nonzero) for channel in picture] for picture in pictures(case, spec)]
    return [_together([one for one in channel if one is not None]) for channel in zip(*seen, strict=True)]


def thinned(picture: AnyArray) -> AnyArray:
    """At most 64 by 64 pixels of ``(H, W)``, evenly spaced; a view."""
    rows, columns = picture.shape
    return picture[:: -(-rows // _THINNED), :: -(-columns // _THINNED)]


def is_head(values: AnyArray, cut: float | None) -> Mask:
    """Which of ``values`` are of the head rather than of the air around it."""
    return np.asarray(values != 0 if cut is None else values > cut)


def _together(seen: list[Look]) -> Look | None:
    """The look of a case from those of its pictures."""
    if len(seen) < 2:
        return seen[0] if seen else None
    cuts = [one.cut for one in seen if one.cut is not None]
    return Look(
        low=min(one.low for one in seen),
        high=max(one.high for one in seen),
        border=float(np.median([one.border for one in seen])),
        air=float(np.mean([one.air for one in seen])),
        levels=max(one.levels for one in seen),
        grain=float(np.median([one.grain for one in seen])),
        cut=float(np.median(cuts)) if cuts else None,
        features=np.mean([one.features for one in seen], axis=0),
    )


def _look(picture: AnyArray, nonzero: bool) -> Look | None:
    """Of one picture ``(H, W)``; None where fewer than 1 % of its pixels are head, or all are alike."""
    thin = thinned(picture)
    ordered = np.sort(thin, axis=None)
    last = ordered.size - 1
    low, high = (float(ordered[round(last * level)]) for level in _LEVELS)
    cut = None if nonzero else low + _ABOVE * (high - low)
    inside = _inside(ordered, cut)
    if inside.size < _FEWEST:
        return None
    ranked = inside[_ranks(inside.size)].astype(np.float64)
    middle, width = ranked[RANKS // 2], ranked[-2] - ranked[1]
    if not width > 0:
        return None
    differences, grain = _differences(picture, cut)
    edge = np.concatenate([thin[0], thin[-1], thin[:, 0], thin[:, -1]])
    return Look(
        low=float(ordered[0]),
        high=float(ordered[-1]),
        border=(float(np.partition(edge, edge.size // 2)[edge.size // 2]) - low) / (high - low) if high > low else 0.0,
        air=float(np.searchsorted(ordered, -500)) / ordered.size,
        levels=1 + int(np.count_nonzero(ordered[1:] != ordered[:-1])),
        grain=grain,
        cut=cut,
        features=np.concatenate(
            [(ranked - middle) / width, _rings_of(thin, cut, middle, width), [each / width for each in differences]]
        ),
    )


def _inside(ordered: AnyArray, cut: float | None) -> AnyArray:
    """Those of the ordered values that are of the head."""
    if cut is not None:
        return ordered[np.searchsorted(ordered, cut, "right") :]
    first, past = np.searchsorted(ordered, 0, "left"), np.searchsorted(ordered, 0, "right")
    return ordered[past:] if first == 0 else np.concatenate([ordered[:first], ordered[past:]])


def _ranks(count: int) -> npt.NDArray[np.intp]:
    return ((np.arange(RANKS) + 0.5) * (count / RANKS)).astype(np.intp)


@cache
def _ring_weights() -> tuple[Float32Array, tuple[Mask, ...]]:
    """``(rings, _FRAME ** 2)`` weights whose products with a frame are the means of its rings."""
    along = (np.arange(_FRAME) + 0.5) / _FRAME * 2 - 1
    radius = np.hypot(along[:, None], along[None, :]).ravel()
    inner = (0.0, *_RINGS[:-1])
    masks = tuple((radius >= a) & (radius < b) for a, b in zip(inner, _RINGS, strict=True))
    return np.stack([mask / mask.sum() for mask in masks]).astype(np.float32), masks


def _rings_of(thin: AnyArray, cut: float | None, middle: float, width: float) -> Float64Array:
    """Mean, deviation and share of dark pixels of each ring within the box around the head."""
    head = is_head(thin, cut)
    rows, columns = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    steps = np.arange(_FRAME) / (_FRAME - 1)
    box = [(ends[0] + steps * (ends[-1] - ends[0])).astype(np.intp) for ends in (rows, columns)]
    frame = (thin[box[0][:, None], box[1]].astype(np.float32).ravel() - np.float32(middle)) / np.float32(width)
    weights, _ = _ring_weights()
    means, squares, dark = weights @ np.stack([frame, frame * frame, frame < _DARK], axis=1).astype(np.float32)[:, :].T.T.T if False else (
        weights @ frame, weights @ (frame * frame), weights @ (frame < _DARK).astype(np.float32)
    )
    return np.concatenate([means, np.sqrt(np.maximum(squares - means * means, 0.0)), dark]).astype(np.float64)
