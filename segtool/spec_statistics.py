"""What training scans were like, as a model's spec carries it: the reference of :mod:`segtool.quality`.

Intensities of MRI have no unit, so that they are compared without one: a *look* is what a channel's pictures are like
whatever factor and offset they are stored with, see :mod:`segtool.quality.look`. Raw ranges are kept beside it.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

RANKS = 16
"""Of a look's histogram."""

LOOK = 33
"""Numbers of a look, its histogram among them."""

Range = tuple[float, float]
"""Lowest and highest."""

Quantiles = tuple[float, float, float]
"""What 50, 90 and 99 % stay below."""

Share = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChannelStatistics(_Frozen):
    """Of one channel.

    Args:
        values: The lowest and the highest stored value that is usual, over all training cases.
        histogram: ``RANKS`` numbers, the mean over cases of the intensities of the head at evenly spaced ranks, free
            of unit.
        histogram_distance: Of a training case's histogram to that mean: what 50, 90 and 99 % of them stay below.
        mean: ``LOOK`` numbers, the mean of the looks; likewise their ``deviation``.
        precision: Lower triangle, row by row, of the inverse ``(LOOK, LOOK)`` of the looks' correlations.
        distance: Of a training case's look to the mean, by that inverse: what 50, 90 and 99 % of them stay below.
        several: Where training saw single pictures, the distances of the histogram and of the look once more, of the
            mean look of eight in a row: a volume, or a stack of pictures, lies about so near. None where training saw
            volumes, or too few pictures.
    """

    values: Range
    histogram: tuple[float, ...]
    histogram_distance: Quantiles
    mean: tuple[float, ...]
    deviation: tuple[Annotated[float, Field(gt=0)], ...]
    precision: tuple[float, ...]
    distance: Quantiles
    several: tuple[Quantiles, Quantiles] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "ChannelStatistics":
        count = len(self.mean)
        if (count, len(self.histogram)) != (LOOK, RANKS):
            raise ValueError(f"looks of {count} numbers, {len(self.histogram)} of a histogram: not {LOOK} and {RANKS}")
        if len(self.deviation) != count or len(self.precision) != count * (count + 1) // 2:
            raise ValueError(f"{count} means, {len(self.deviation)} deviations, {len(self.precision)} of precision")
        return self


class GridStatistics(_Frozen):
    """Of the training volumes' grids; pictures have none.

    Args:
        spacing_mm: Ranges of the finest, the middle and the widest spacing of a volume.
        extent_mm: Ranges of the shortest, the middle and the longest side.
        planes: In which volumes were cut into slices, most often first; only of 2D models.
    """

    spacing_mm: tuple[Range, Range, Range]
    extent_mm: tuple[Range, Range, Range]
    planes: tuple[str, ...] = ()


class MaskStatistics(_Frozen):
    """Of the training references, all labels together.

    Args:
        cases: That had a reference.
        empty: Share of cases whose reference is empty.
        share_of_head: Of the head that a reference covers, where it is not empty: lowest and highest.
        outside_head: Highest share of a reference that lies outside of the head.
    """

    cases: Annotated[int, Field(ge=1)]
    empty: Share
    share_of_head: tuple[Share, Share]
    outside_head: Share


class StatisticsSpec(_Frozen):
    """Of the cases that a model was trained on.

    Args:
        cases: How many were looked at.
        channels: In the order of the model's.
        grid: None where training saw pictures.
        mask: None where no case had a reference.
        exchange: How much nearer a training case's channels come to the looks of others than to their own by changing
            places, as a difference of summed distances that 99 % stay below; None of one channel.
        exchange_of_several: The same of eight single pictures in a row, None where there is no such thing.
    """

    cases: Annotated[int, Field(ge=1)]
    channels: Annotated[tuple[ChannelStatistics, ...], Field(min_length=1)]
    grid: GridStatistics | None = None
    mask: MaskStatistics | None = None
    exchange: float | None = None
    exchange_of_several: float | None = None
