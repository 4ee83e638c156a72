"""Learns from training cases what scans of a model are like."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import Case
from segtool.errors import UsageError
from segtool.preprocess.masks import coverage
from segtool.preprocess.sliced import slice_orientation
from segtool.quality.likeness import Reference, distances, exchange
from segtool.quality.look import PICTURES, Float64Array, looks
from segtool.quality.masks import MaskFacts, mask_facts
from segtool.spec import ModelSpec
from segtool.spec_statistics import (
    RANKS,
    ChannelStatistics,
    GridStatistics,
    MaskStatistics,
    Quantiles,
    Range,
    StatisticsSpec,
)

FEWEST = 20
"""Cases, below which limits would be guesses."""

_FOLDS = 5
_QUANTILES = (0.5, 0.9, 0.99)
_RARE = 0.995
_LEAST_SHRINKAGE = 0.05
_LEAST_DEVIATION = 1e-3
_DIGITS = 4
_PLANES = {"S": "axial", "P": "coronal", "L": "sagittal"}


@dataclass
class StatisticsLearner:
    """Takes training cases one by one, in an order that keeps a patient's together.

    Args:
        spec: Of the model.
    """

    spec: ModelSpec
    _features: list[list[Float64Array]] = field(default_factory=list)
    _values: list[list[Range]] = field(default_factory=list)
    _spacings: list[list[float]] = field(default_factory=list)
    _extents: list[list[float]] = field(default_factory=list)
    _planes: Counter[str] = field(default_factory=Counter)
    _masks: list[MaskFacts] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Take a case; one that shows nothing in some channel is left out."""
        seen = looks(case, self.spec)
        found = [one for one in seen if one is not None]
        if len(found) < len(seen):
            return
        self._features.append([one.features for one in found])
        self._values.append([(one.low, one.high) for one in found])
        grid = case.geometry
        if grid.kind == "volume":
            self._spacings.append(sorted(grid.spacing_mm))
            self._extents.append(sorted(n * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)))
            if self.spec.input.rank == 2:
                self._planes[plane_of(case, self.spec)] += 1
        if case.reference is not None:
            self._masks.append(mask_facts(case, _covered(case.reference.labels, self.spec), found[0].cut))

    def finish(self) -> StatisticsSpec:
        """The statistics of all cases taken.

        Raises:
            UsageError: They are fewer than :data:`FEWEST`.
        """
        count = len(self._features)
        if count < FEWEST:
            raise UsageError(
                f"statistics of {count} cases with pictures to look at, needed {FEWEST}", "Give more training scans."
            )
        features, values = np.array(self._features), np.array(self._values)  # (cases, C, F), (cases, C, 2)
        apart, histograms_apart = _distances(features)
        enough = not self._spacings and count >= _FOLDS * 2 * PICTURES
        rows = _distances(features, PICTURES) if enough else None
        channels = tuple(
            _channel(
                features[:, c],
                values[:, c],
                (_limits(histograms_apart[:, c]), _limits(apart[:, c, c])),
                rows and (_limits(rows[1][:, c]), _limits(rows[0][:, c, c])),
            )
            for c in range(features.shape[1])
        )
        return StatisticsSpec(
            cases=count,
            channels=channels,
            grid=self._grid(),
            mask=self._mask(),
            exchange=_gain(apart),
            exchange_of_several=rows and _gain(rows[0]),
        )

    def _grid(self) -> GridStatistics | None:
        if not self._spacings:
            return None
        return GridStatistics(
            spacing_mm=_three_ranges(self._spacings),
            extent_mm=_three_ranges(self._extents),
            planes=tuple(name for name, _ in self._planes.most_common()),
        )

    def _mask(self) -> MaskStatistics | None:
        if not self._masks:
            return None
        shares = [one.share_of_head for one in self._masks if not one.is_empty] or [0.0]
        outside = [one.outside for one in self._masks if not one.is_empty] or [0.0]
        return MaskStatistics(
            cases=len(self._masks),
            empty=_rounded(float(np.mean([one.is_empty for one in self._masks]))),
            share_of_head=(_rounded(min(shares)), _rounded(max(shares))),
            outside_head=_rounded(float(np.quantile(outside, _RARE))),
        )


def plane_of(case: Case, spec: ModelSpec) -> str:
    """The plane in which a 2D model cuts the volume, such as ``axial``."""
    assert spec.input.rank == 2
    return _PLANES[slice_orientation(case.geometry, spec.input.plane)[0]]


def _covered(labels: npt.NDArray[Any], spec: ModelSpec) -> npt.NDArray[np.bool_]:
    """Voxels that any label of the spec covers."""
    return np.asarray(np.any([coverage(labels, label) > 0 for label in spec.labels], axis=0))


def _reference(features: Float64Array) -> Reference:
    """Of features ``(cases, F)``."""
    count, size = features.shape
    mean = features.mean(axis=0)
    deviation = np.maximum(features.std(axis=0), _LEAST_DEVIATION)
    scores = (features - mean) / deviation
    # Towards independence, the more so the fewer cases there are: else the inverse amplifies chance.
    shrinkage = max(_LEAST_SHRINKAGE, size / (size + count))
    covariance = (1 - shrinkage) * (scores.T @ scores / count) + shrinkage * np.eye(size)
    return Reference(mean[:RANKS], mean, deviation, np.linalg.inv(covariance))


def _distances(features: Float64Array, together: int = 1) -> tuple[Float64Array, Float64Array]:
    """Of cases to references learnt without them and their neighbours, who may be of the same patient.

    Args:
        features: ``(cases, C, F)``.
        together: Cases in a row of which the mean is taken.

    Returns:
        ``(n, C, C)``, of the looks of the second axis to the references of the third; and ``(n, C)``, of the
        histograms to their channel's.
    """
    looks_apart, histograms_apart = [], []
    for block in np.array_split(np.arange(len(features)), _FOLDS):
        others = np.delete(features, block, axis=0)
        references = [_reference(others[:, channel]) for channel in range(features.shape[1])]
        starts = range(0, len(block) - together + 1, max(1, together // 2))
        for mean in (features[block[start : start + together]].mean(axis=0) for start in starts):
            looks_apart.append(distances(list(mean), references))
            pairs = zip(references, mean, strict=True)
            histograms_apart.append([reference.histogram_distance(one[:RANKS]) for reference, one in pairs])
    return np.array(looks_apart), np.array(histograms_apart)


def _channel(
    features: Float64Array,
    values: Float64Array,
    limits: tuple[Quantiles, Quantiles],
    several: tuple[Quantiles, Quantiles] | None,
) -> ChannelStatistics:
    reference = _reference(features)
    size = len(reference.mean)
    return ChannelStatistics(
        values=(float(np.quantile(values[:, 0], 1 - _RARE)), float(np.quantile(values[:, 1], _RARE))),
        histogram=_all_rounded(reference.histogram),
        histogram_distance=limits[0],
        mean=_all_rounded(reference.mean),
        deviation=_all_rounded(reference.deviation),
        precision=_all_rounded(reference.precision[np.tril_indices(size)]),
        distance=limits[1],
        several=several,
    )


def _limits(values: Float64Array) -> Quantiles:
    half, most, nearly_all = (_rounded(float(value)) for value in np.quantile(values, _QUANTILES))
    return half, most, nearly_all


def _gain(apart: Float64Array) -> float | None:
    """What 99 % of the gains stay below, of ``(n, C, C)`` distances; None of one channel."""
    if apart.shape[1] < 2:
        return None
    return _limits(np.array([exchange(costs).gain for costs in apart]))[-1]


def _three_ranges(rows: list[list[float]]) -> tuple[Range, Range, Range]:
    lowest, highest = np.min(rows, axis=0), np.max(rows, axis=0)
    first, second, third = ((_rounded(float(a)), _rounded(float(b))) for a, b in zip(lowest, highest, strict=True))
    return first, second, third


def _rounded(value: float) -> float:
    """To significant digits, for the spec is text that people read."""
    return float(f"{value:.{_DIGITS}g}")


def _all_rounded(values: Float64Array) -> tuple[float, ...]:
    return tuple(_rounded(float(value)) for value in values)
