"""Whether a mask can be one: empty, everywhere, outside of the head, or in hundreds of pieces."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segtool.case import Case
from segtool.quality.look import Mask, cuts_of, is_head
from segtool.spec_statistics import MaskStatistics

AnyArray = npt.NDArray[Any]

_SAMPLED = 64  # an axis
_FILLS_HEAD = 0.6
_BEYOND_TRAINING = 1.5
_HARDLY_EMPTY = 0.02  # of the training cases
_OUTSIDE, _BEYOND_OUTSIDE = 0.3, 0.2
_FEWEST_VOXELS = 50  # of a thinned mask, to speak of where it lies
_FEWEST_OF_HEAD = 50
_PIECES = 100
_EMPTY_REMEDY = "check that the scan shows what the model looks for"


@dataclass(frozen=True)
class MaskFacts:
    """Of a mask in its scan.

    Args:
        is_empty: No voxel.
        share_of_head: Voxels of the mask by those of the head.
        outside: Share of the mask that lies outside of the head and its cavities.
        pieces: Connected components where there may be a hundred, else 0.
        empty_pictures: Of a stack, pictures without a voxel; likewise ``pictures``, all of them.
        of_volume: Rather than of pictures.
    """

    is_empty: bool
    share_of_head: float = 0.0
    outside: float = 0.0
    pieces: int = 0
    empty_pictures: int = 0
    pictures: int = 1
    of_volume: bool = False


def mask_facts(case: Case, labels: AnyArray, cut: float | None) -> MaskFacts:
    """Look at ``labels`` ``(*S)`` of a case.

    Args:
        case: The scan.
        labels: Not 0 where the mask is.
        cut: Of the head in the first channel, see :class:`segtool.quality.look.Look`.
    """
    stack, of_volume = (case.geometry.kind == kind for kind in ("stack", "volume"))
    found = (labels.reshape(len(labels), -1).max(axis=1) if stack else labels.max(keepdims=True).ravel()) > 0
    empty = int(found.size - np.count_nonzero(found))
    if empty == found.size:
        return MaskFacts(is_empty=True, empty_pictures=empty, pictures=found.size, of_volume=of_volume)
    thin = tuple(slice(None, None, -(-n // _SAMPLED)) for n in labels.shape)
    mask, scan = labels[thin] > 0, case.data[0][thin]
    # The pictures of a stack have no unit in common.
    head = is_head(scan, cuts_of(scan) if stack and cut is not None else cut)
    voxels, of_head = int(np.count_nonzero(mask)), int(np.count_nonzero(head))
    outside = 0.0
    if voxels >= _FEWEST_VOXELS and np.count_nonzero(mask & ~head) > _OUTSIDE * voxels:
        outside = np.count_nonzero(mask & ~_filled(head)) / voxels
    return MaskFacts(
        is_empty=False,
        share_of_head=min(1.0, voxels / of_head) if of_head >= _FEWEST_OF_HEAD else 0.0,
        outside=outside,
        pieces=_pieces(labels, thin, mask, stack),
        empty_pictures=empty,
        pictures=found.size,
        of_volume=of_volume,
    )


def mask_warnings(facts: MaskFacts, statistics: MaskStatistics | None) -> Iterator[str]:
    """One line for each way in which the mask cannot be one."""
    if statistics is not None and statistics.empty < _HARDLY_EMPTY and facts.empty_pictures:
        some = f"in {facts.empty_pictures} of {facts.pictures} pictures, as " if facts.pictures > 1 else "as "
        references = f"{statistics.empty:.0%} of {statistics.cases} training references"
        yield f"mask: empty ({some}{references} were): {_EMPTY_REMEDY}"
    elif statistics is None and facts.is_empty and facts.of_volume:
        # Slices beside a lesion are many; a whole head without one is a find, or a failure.
        yield f"mask: empty (how often training references were, the model does not say): {_EMPTY_REMEDY}"
    if facts.is_empty:
        return
    largest = 0.0 if statistics is None else statistics.share_of_head[1]
    if facts.share_of_head > _FILLS_HEAD:
        share = f"{facts.share_of_head:.0%} of it, wanted at most {_FILLS_HEAD:.0%}"
        yield f"mask: fills the head ({share}): do not use it unseen"
    elif 0 < _BEYOND_TRAINING * largest < facts.share_of_head:
        share = f"{_percent(facts.share_of_head)} of the head, training at most {_percent(largest)}"
        yield f"mask: larger than those of the training ({share}): do not use it unseen"
    allowed = _BEYOND_OUTSIDE + (0.0 if statistics is None else statistics.outside_head)
    if facts.outside > allowed:
        share = f"{facts.outside:.0%} of it, wanted at most {allowed:.0%}"
        yield f"mask: lies outside of the head ({share}): check the scan with `segtool inspect`"
    if facts.pieces:
        yield f"mask: in hundreds of pieces ({facts.pieces}, wanted fewer than {_PIECES}): check the scan"


def _percent(share: float) -> str:
    """Two digits, for the lesions of some models are a thousandth of the head."""
    return f"{100 * share:.2g}%" if share < 0.1 else f"{share:.0%}"


def _filled(head: Mask) -> Mask:
    """The head with all that lies between its first and last voxel of a row and of a column."""
    filled = np.ones(head.shape, bool)
    for axis in (-2, -1):
        forth = np.logical_or.accumulate(head, axis=axis)
        back = np.flip(np.logical_or.accumulate(np.flip(head, axis), axis=axis), axis)
        filled &= forth & back
    return filled


def _pieces(labels: AnyArray, thin: tuple[slice, ...], mask: Mask, stack: bool) -> int:
    """Connected components, 0 where they are certainly fewer than a hundred where the thinned mask lies.

    Every component has a voxel whose earlier neighbours along the axes are background; counting those is quick.
    """
    box = tuple(_span(mask, axis, step.step, n) for axis, (step, n) in enumerate(zip(thin, labels.shape, strict=True)))
    inside = labels[box] > 0
    starts = inside.copy()
    for axis in range(1 if stack else 0, inside.ndim):
        starts[_but_first(inside.ndim, axis)] &= ~inside[_but_last(inside.ndim, axis)]
    allowed = _PIECES * (labels.shape[0] if stack else 1)
    if np.count_nonzero(starts) < allowed:
        return 0
    neighbours = np.ones((3,) * inside.ndim, bool)
    if stack:
        neighbours[[0, 2]] = False
    _, count = ndimage.label(inside, neighbours)
    return int(count) if count >= allowed else 0


def _span(mask: Mask, axis: int, step: int, length: int) -> slice:
    """Where a thinned mask lies along an axis of ``length`` voxels, of which every ``step``-th was taken."""
    along = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
    if not along.size:
        return slice(0, length)
    return slice(max(0, (int(along[0]) - 1) * step), (int(along[-1]) + 2) * step)


def _but_first(rank: int, axis: int) -> tuple[slice, ...]:
    return tuple(slice(1, None) if one == axis else slice(None) for one in range(rank))


def _but_last(rank: int, axis: int) -> tuple[slice, ...]:
    return tuple(slice(None, -1) if one == axis else slice(None) for one in range(rank))
