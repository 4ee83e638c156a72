"""What a channel looks like, free of the unit, offset and size in which it is stored.

A look is made of a few pictures of a case, each thinned to 64 by 64 pixels, so that it costs less than a tenth of a
millisecond a picture. Its numbers are, in units of the spread of the head's intensities and from their median:

* 16 intensities at evenly spaced ranks, which is a histogram seen from its side;
* mean, deviation and share of dark pixels in five rings from the middle of the head to its edge, which tell
  sequences apart whose histograms are alike: fluid lies in the middle, fat at the edge;
* the mean difference of pixels a 128th and a 32nd of the width apart: noise and blur.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import Case
from segtool.preprocess.sliced import slice_orientation
from segtool.spec import ModelSpec
from segtool.spec_statistics import RANKS

AnyArray = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PICTURES = 8
"""Of a volume or a stack, at most."""
_THINNED = 64
_LEVELS = (0.01, 0.99)
_ABOVE = 0.1  # of the range; what is darker is air
_FRAME = 24
_STEPS = np.arange(_FRAME) / (_FRAME - 1)
_RINGS = (0.25, 0.5, 0.7, 0.85, 0.97)
_DARK = -0.35
_FAR = 1e6  # times the head's spread: no voxel of a scan lies further off, and float32 holds its square
_FEWEST = 32  # pixels of a head of 4096
_ROWS = 12
_APART = (128, 32)
_ROUGH = 0.3


@dataclass(frozen=True, eq=False)
class Look:
    """Of one channel of one case.

    Attributes:
        low: The lowest stored value of the pictures looked at; likewise ``high``.
        border: Where the median of the pictures' edges lies between low (0) and high (1).
        air: Share of values below -500, which in HU is air and in MRI nothing.
        levels: Different values in the picture that has most.
        grain: Mean difference of neighbours, in units of the head's spread, or an upper bound where it is small; 0.43
            where they are unrelated.
        cut: Value above which a pixel is head; None where every value but 0 is.
        features: ``(F,)`` numbers that the module's text lists.
        pictures: Of how many these are the mean.
    """

    low: float
    high: float
    border: float
    air: float
    levels: int
    grain: float
    cut: float | None
    features: Float64Array
    pictures: int = 1

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
    for index in sorted({first + (last - first) * i // PICTURES for i in range(PICTURES)}):
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


def is_head(values: AnyArray, cut: float | Float64Array | None) -> Mask:
    """Which of ``values`` are of the head rather than of the air around it."""
    return np.asarray(values != 0 if cut is None else values > cut)


def cuts_of(stack: AnyArray) -> Float64Array:
    """Values above which pixels are head, ``(N, 1, 1)``, of the thinned pictures ``(N, H, W)`` of a stack."""
    ordered = np.sort(stack.reshape(len(stack), -1), axis=1)
    last = ordered.shape[1] - 1
    low, high = (ordered[:, round(last * level)].astype(np.float64) for level in _LEVELS)
    return np.asarray(low + _ABOVE * (high - low))[:, np.newaxis, np.newaxis]


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
        pictures=len(seen),
    )


def _look(picture: AnyArray, nonzero: bool) -> Look | None:
    """Of one picture ``(H, W)``; None where fewer than 1 % of its pixels are head, or all are alike."""
    thin = thinned(picture)
    # Bytes are sorted a third as fast as wider numbers.
    ordered = np.sort(thin.astype(np.int16) if thin.dtype == np.uint8 else thin, axis=None)
    last = ordered.size - 1
    low, high = (float(ordered[round(last * level)]) for level in _LEVELS)
    cut = None if nonzero else low + _ABOVE * (high - low)
    inside = _inside(ordered, cut)
    if inside.size < _FEWEST:
        return None
    ranked = inside[_ranks(inside.size)].astype(np.float64)
    middle, width = ranked[RANKS // 2], ranked[-2] - ranked[1]
    if not 0 < width < math.inf:
        return None
    grain, *differences = _differences(picture, cut, middle, width)
    edge = np.concatenate([thin[0], thin[-1], thin[:, 0], thin[:, -1]])
    return Look(
        low=float(ordered[0]),
        high=float(ordered[-1]),
        border=(float(np.partition(edge, edge.size // 2)[edge.size // 2]) - low) / (high - low) if high > low else 0.0,
        air=float(np.searchsorted(ordered, -500)) / ordered.size,
        levels=1 + int(np.count_nonzero(ordered[1:] != ordered[:-1])),
        grain=grain,
        cut=cut,
        features=np.concatenate([_scaled(ranked, middle, width), *_in_rings(thin, cut, middle, width), differences]),
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
def _rings() -> Float32Array:
    """``(rings, _FRAME ** 2)`` weights whose products with a frame are the means of its rings."""
    along = (np.arange(_FRAME) + 0.5) / _FRAME * 2 - 1
    radius = np.hypot(along[:, None], along[None, :]).ravel()
    masks = [(radius >= inner) & (radius < outer) for inner, outer in pairwise((0.0, *_RINGS))]
    return np.stack([mask / mask.sum() for mask in masks]).astype(np.float32)


def _in_rings(thin: AnyArray, cut: float | None, middle: float, width: float) -> list[Float32Array]:
    """Mean, deviation and share of dark pixels of each ring within the box around the head."""
    head = is_head(thin, cut)
    down, across = (_along(np.asarray(head.any(axis=axis))) for axis in (1, 0))
    frame = _scaled(thin[down[:, None], across].ravel(), middle, width).astype(np.float32)
    rings = _rings()
    means = rings @ frame
    deviations = np.sqrt(np.maximum(rings @ (frame * frame) - means * means, 0))
    return [means, deviations, rings @ (frame < _DARK).astype(np.float32)]


def _scaled(values: AnyArray, middle: float, width: float) -> Float64Array:
    """In units of the head's spread, from its median; those of broken voxels are held at a number."""
    with np.errstate(over="ignore"):
        scaled = (values.astype(np.float64) - middle) / width
    return np.clip(scaled, -_FAR, _FAR, out=scaled)


def _along(occupied: Mask) -> npt.NDArray[np.intp]:
    """Positions of a frame's lines between the first and the last of a head's."""
    first, last = int(occupied.argmax()), occupied.size - 1 - int(occupied[::-1].argmax())
    return (first + _STEPS * (last - first)).astype(np.intp)


def _differences(picture: AnyArray, cut: float | None, middle: float, width: float) -> tuple[float, float, float]:
    """Mean difference, by ``width``, of neighbours in a few rows, and of pixels two shares of the columns apart."""
    height, columns = picture.shape
    stored = picture[height // 4 : height - height // 4 : max(1, height // _ROWS)]
    head, rows = is_head(stored, cut), _scaled(stored, middle, width).astype(np.float32)
    near, far = (_mean_step(rows, head, max(1, round(columns / share))) for share in _APART)
    # Noise is as rough at any distance: where pixels further apart are alike, neighbours need no look.
    return (_mean_step(rows, head, 1) if near > _ROUGH else near), near, far


def _mean_step(rows: Float32Array, head: Mask, apart: int) -> float:
    """Mean difference of pixels of the head ``apart`` columns apart."""
    both = head[:, apart:] & head[:, :-apart]
    count = int(np.count_nonzero(both))
    steps = np.abs(rows[:, apart:] - rows[:, :-apart])
    return float(np.vdot(steps, both)) / count if count else 0.0
