"""A head, its lesion and its random fields, drawn from a seed."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]
Axes = tuple[AnyArray, AnyArray, AnyArray]
"""Positions of voxel centres along RAS x, y and z, in mm."""

_LATTICE = 24
# Variance of white noise after cubic B-spline interpolation is (151 / 315) ** 3 for three axes.
_UNIT_VARIANCE = (315 / 151) ** 1.5

_NOISE_MM = {
    "fold": 6.5,
    "fold2": 9.0,
    "thickness": 14.0,
    "shape": 34.0,
    "texture": 2.2,
    "vessel": 8.0,
    "lesion": 9.0,
    "lesion_fine": 4.0,
    "rim": 6.0,
    "face": 7.0,
    "bias": 60.0,
}
"""Random fields by name, with the distance of their lattice points: about half the size of a blob."""


@dataclass(frozen=True, eq=False)
class Noise:
    """A smooth random field of mean 0 and variance 1: cubic B-splines over a periodic lattice.

    Args:
        lattice: ``(24, 24, 24)`` independent normal numbers.
        scale_mm: Distance of lattice points.
    """

    lattice: Float64Array
    scale_mm: float

    def on(self, axes: Axes) -> Float32Array:
        """Evaluate on a grid, ``(X, Y, Z)``: one matrix product an axis, as grid and lattice are aligned."""
        values = np.asarray(self.lattice * _UNIT_VARIANCE, np.float32)
        # The shortest axis first: for a slice that leaves a plane of the lattice for the other two.
        for axis in sorted(range(3), key=lambda a: axes[a].size):
            values = np.moveaxis(np.tensordot(self._weights(axes[axis]), values, (1, axis)), 0, axis)
        return np.ascontiguousarray(values)

    def _weights(self, axis_mm: AnyArray) -> Float32Array:
        position = axis_mm / self.scale_mm
        base = np.floor(position).astype(int)
        t = position - base
        spline = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        weights = np.zeros((axis_mm.size, _LATTICE), np.float32)
        for step, values in enumerate(spline):
            weights[np.arange(axis_mm.size), (base + step) % _LATTICE] += values / 6
        return weights


@dataclass(frozen=True, eq=False)
class Lesion:
    """A ring-enhancing tumour.

    Args:
        centre_mm: ``(3,)`` in the head's frame.
        radius_mm: Of the outer edge of the rim, on average.
        stretch: ``(3,)`` factors, one an axis, of product 1.
        rim_mm: Thickness of the enhancing rim, on average.
        rim: Relative intensity of the rim.
        core: Relative intensity of the necrotic core.
        oedema_mm: How far the darkened brain reaches.
    """

    centre_mm: Float64Array
    radius_mm: float
    stretch: Float64Array
    rim_mm: float
    rim: float
    core: float
    oedema_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, brain_mm: Float64Array) -> "Lesion":
        """A lesion in one hemisphere of a brain with half axes ``brain_mm``."""
        radius = float(rng.uniform(17.0, 25.0))
        side = rng.choice([-1.0, 1.0])
        along, height = rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.5)
        # As far out as the skull lets the lesion go, less a margin: most lie in a hemisphere's white matter.
        room = np.sqrt(1 - along**2 - height**2) * brain_mm[0] - radius
        across = max(rng.uniform(0.75, 1.0) * room, 0.9 * radius)
        stretch = rng.uniform(0.85, 1.15, 3)
        return cls(
            centre_mm=np.array([side * across, along * brain_mm[1], height * brain_mm[2]]),
            radius_mm=radius,
            stretch=stretch / np.prod(stretch) ** (1 / 3),
            rim_mm=float(rng.uniform(3.8, 6.8)),
            rim=float(rng.uniform(0.58, 0.74)),
            core=float(rng.uniform(0.17, 0.24)),
            oedema_mm=float(rng.uniform(8.0, 18.0)),
        )


@dataclass(frozen=True, eq=False)
class Head:
    """One person who does not exist. Make it with :meth:`draw`.

    Args:
        brain_mm: ``(3,)`` half axes of the cranial cavity.
        rotation: ``(3, 3)`` from the scanner's frame to the head's: nobody lies straight.
        ventricle_scale: Width of the ventricles against a middling adult's.
        scalp_mm: Thickness of the scalp, on average.
        skull_mm: Thickness of the skull, on average.
        lesion: The tumour.
        noise: Random fields by name.
    """

    brain_mm: Float64Array
    rotation: Float64Array
    ventricle_scale: float
    scalp_mm: float
    skull_mm: float
    lesion: Lesion
    noise: dict[str, Noise] = field(repr=False)

    @classmethod
    def draw(cls, seed: int) -> "Head":
        """The head that belongs to ``seed``, always the same."""
        rng = np.random.default_rng([seed, 0x5E6])
        noise = {name: Noise(rng.standard_normal((_LATTICE,) * 3), scale_mm) for name, scale_mm in _NOISE_MM.items()}
        brain = np.array([67.0, 84.0, 66.0]) * rng.uniform(0.95, 1.05, 3)
        return cls(
            brain_mm=brain,
            rotation=_rotation(np.radians(rng.normal(0.0, 3.0, 3))),
            ventricle_scale=float(rng.uniform(0.7, 1.25)),
            scalp_mm=float(rng.uniform(4.0, 6.5)),
            skull_mm=float(rng.uniform(4.5, 7.0)),
            lesion=Lesion.draw(rng, brain),
            noise=noise,
        )


def _rotation(angles: Float64Array) -> Float64Array:
    """Rotation by ``angles`` (radians) about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result
