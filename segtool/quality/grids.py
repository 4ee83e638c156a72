"""Whether a volume's grid can be that of a head."""

from collections.abc import Iterator

from segtool.geometry import Geometry
from segtool.spec_statistics import GridStatistics

_FINEST_MM, _COARSEST_MM = 0.1, 10.0
_NARROWEST_MM, _WIDEST_MM = 100.0, 500.0
_MOST_ANISOTROPIC = 20.0
_EQUAL = 1.01
_PERMUTED = 2.0
_FLAT = 4  # times fewer voxels along one axis than along both others
_BEYOND_TRAINING = 2.0
_REMEDY = "check the header with `segtool inspect`"


def grid_warnings(geometry: Geometry, statistics: GridStatistics | None, plane: str | None = None) -> Iterator[str]:
    """One line for each thing that a head's grid cannot be, or that training never showed.

    Args:
        geometry: Of the case; pictures have no size and no warnings.
        statistics: Of the training volumes.
        plane: In which the model cuts the volume.
    """
    if geometry.kind != "volume":
        return
    spacing, extent = geometry.spacing_mm, [n * mm for n, mm in zip(geometry.shape, geometry.spacing_mm, strict=True)]
    told = False
    for line in _implausible(geometry, spacing, extent):
        told = True
        yield f"grid: {line}: {_REMEDY}"
    if statistics is None or told:
        return
    for which, mm, (low, high) in zip(
        ("finest", "middle", "widest"), sorted(spacing), statistics.spacing_mm, strict=True
    ):
        if not low / _BEYOND_TRAINING <= mm <= high * _BEYOND_TRAINING:
            yield f"grid: {which} spacing unlike training ({mm:.3g} mm, training {_between(low, high)} mm): {_REMEDY}"
    if statistics.planes and plane is not None and plane not in statistics.planes:
        yield f"grid: {plane} slices (training had {', '.join(statistics.planes)}): choose a model trained on such"


def _implausible(geometry: Geometry, spacing: tuple[float, ...], extent: list[float]) -> Iterator[str]:
    shape = "x".join(map(str, geometry.shape))
    voxel = " x ".join(f"{mm:.3g}" for mm in spacing)
    if min(spacing) < _FINEST_MM or max(spacing) > _COARSEST_MM:
        yield f"voxels of no head ({voxel} mm, a head's have {_FINEST_MM:g} to {_COARSEST_MM:g} mm)"
        return
    if max(spacing) > _MOST_ANISOTROPIC * min(spacing):
        yield f"voxels of no head ({voxel} mm, sides that differ more than {_MOST_ANISOTROPIC:g} times)"
        return
    few = min(range(3), key=lambda axis: geometry.shape[axis])
    others = [axis for axis in range(3) if axis != few]
    # One slice has no distance to another.
    if geometry.shape[few] > 1 and geometry.shape[few] * _FLAT <= min(geometry.shape[axis] for axis in others):
        # So few slices of a head lie further apart than their pixels do.
        if max(spacing) <= min(spacing) * _EQUAL:
            yield f"the slices' distance is missing (or a thin slab: {shape} voxels of {voxel} mm)"
            return
        if _PERMUTED * spacing[few] < max(spacing[axis] for axis in others):
            yield f"axes and spacings look permuted ({shape} voxels of {voxel} mm)"
            return
    across = sorted(extent)
    if across[1] < _NARROWEST_MM or across[2] > _WIDEST_MM:
        found = " x ".join(f"{mm:.0f}" for mm in extent)
        yield f"a field of no head ({found} mm, wanted {_NARROWEST_MM:g} to {_WIDEST_MM:g} mm)"


def _between(low: float, high: float) -> str:
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
