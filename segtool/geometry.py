"""Where voxels lie: grid shape, affine, orientation, and the moves between grids.

An affine maps the index of a voxel's centre ``(i, j, k)`` to millimetres in the patient's RAS frame: x grows to
the patient's Right, y to the Anterior, z to the Superior. An orientation such as ``"LPS"`` names, axis by axis,
the direction towards which the *index* grows.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

Kind = Literal["image", "stack", "volume"]
"""``image``: one 2D picture ``(H, W)``. ``stack``: independent pictures ``(N, H, W)``. ``volume``: ``(I, J, K)``."""

_NEGATIVE, _POSITIVE = "LPI", "RAS"
ORIENTATIONS = frozenset(
    "".join(codes)
    for axes in itertools.permutations(range(3))
    for codes in itertools.product(*(_NEGATIVE[axis] + _POSITIVE[axis] for axis in axes))
)
"""The 48 orientations: every order of the three axes, each in both directions."""


_SAME_VOXEL = 0.1
"""Voxels by which centres may miss each other: headers round, and the nearest one is the same."""


def pasted(array: AnyArray, have: "Geometry", want: "Geometry") -> AnyArray | None:
    """``array`` on ``have`` put where its voxels lie on ``want``, with 0 elsewhere and nothing interpolated.

    None where the voxels of both grids do not coincide, or none of them do.
    """
    place = have.place_in(want)
    if place is None or any(box.stop <= 0 or box.start >= n for box, n in zip(place, want.shape, strict=True)):
        return None
    turned = have.reorientation_to(want.orientation).apply(array)
    theirs = tuple(slice(max(0, box.start), min(n, box.stop)) for box, n in zip(place, want.shape, strict=True))
    mine = tuple(slice(a.start - box.start, a.stop - box.start) for a, box in zip(theirs, place, strict=True))
    whole = np.zeros(want.shape, array.dtype)
    whole[theirs] = turned[mine]
    return whole


@dataclass(frozen=True)
class Reorientation:
    """A permutation of spatial axes followed by flips: ``np.flip(array.transpose(order), flipped)``."""

    order: tuple[int, ...]
    flipped: tuple[bool, ...]

    def apply(self, array: AnyArray) -> AnyArray:
        """Move the last ``len(order)`` axes of ``array``; leading axes stay. Returns a view."""
        lead = array.ndim - len(self.order)
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return moved[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flipped))]

    def undo(self, array: AnyArray) -> AnyArray:
        """Reverse :meth:`apply`. Returns a view."""
        lead = array.ndim - len(self.order)
        unflipped = array[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flipped))]
        return unflipped.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(self.order)))


LEAST_MM, MOST_MM, FARTHEST_MM = 1e-3, 1e4, 1e6
"""Voxels from a micrometre to 10 m, at most 1 km from the origin: whatever lies beyond is a header gone wrong."""
_FLATTEST = 1e-6


def _check_place(affine: FloatArray) -> None:
    """Refuse an affine that no image of a patient has.

    Raises:
        ValueError: Voxels too small, too large or too far away, or axes in one plane.
    """
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        origin = float(np.linalg.norm(affine[:3, 3]))
    if not ((lengths >= LEAST_MM) & (lengths <= MOST_MM)).all():
        size = " x ".join(f"{mm:.3g}" for mm in lengths)
        raise ValueError(f"voxels of {size} mm, wanted {LEAST_MM:g} to {MOST_MM:g} mm along each axis")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLATTEST:
        raise ValueError("the affine is singular: some voxels would lie on top of each other")
    if not origin <= FARTHEST_MM:
        raise ValueError(f"its first voxel lies {origin:.3g} mm from the origin, wanted at most {FARTHEST_MM:g} mm")
    if not np.allclose(affine[3], (0, 0, 0, 1), atol=1e-6):
        raise ValueError(f"the last row of the affine is {' '.join(f'{n:g}' for n in affine[3])}, wanted 0 0 0 1")


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of an image.

    Args:
        shape: Extent of the spatial axes in voxels, 2 for an ``image``, 3 otherwise.
        affine: ``(4, 4)`` index to RAS millimetres. Only a ``volume`` has a meaningful one; pictures carry the
            identity, so that their unit of length is the pixel.
        kind: What the axes mean.

    Raises:
        ValueError: Shape, affine and kind contradict each other, or the affine of a volume is singular or makes voxels
            that no scanner makes.
    """

    shape: tuple[int, ...]
    affine: FloatArray
    kind: Kind

    def __post_init__(self) -> None:
        rank = 2 if self.kind == "image" else 3
        if len(self.shape) != rank or min(self.shape) < 1:
            raise ValueError(f"a grid of kind {self.kind!r} has {rank} axes of at least 1, not {self.shape}")
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError("an affine has 4x4 finite numbers")
        if self.kind == "volume":
            _check_place(self.affine)

    @classmethod
    def of_pixels(cls, shape: tuple[int, ...]) -> "Geometry":
        """The grid of a picture ``(H, W)`` or a stack ``(N, H, W)`` without physical size."""
        return cls(tuple(shape), np.eye(4), "image" if len(shape) == 2 else "stack")

    @classmethod
    def of_volume(cls, shape: tuple[int, ...], affine: npt.ArrayLike) -> "Geometry":
        """The grid of a volume ``(I, J, K)`` in patient space."""
        return cls(tuple(int(n) for n in shape), np.array(affine, np.float64), "volume")

    @cached_property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance of neighbouring voxel centres along each axis, in mm (pixels for pictures)."""
        if self.kind != "volume":
            return (1.0,) * len(self.shape)
        return tuple(float(np.linalg.norm(self.affine[:3, axis])) for axis in range(3))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres, of sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def is_physical(self) -> bool:
        """True where lengths are millimetres, not pixels."""
        return self.kind == "volume"

    @cached_property
    def orientation(self) -> str:
        """Three letters such as ``"RAS"``: towards which side each index grows.

        The assignment of index axes to patient axes that maximises the summed absolute direction cosines, so
        that oblique grids get their closest orientation and each letter pair occurs once.
        """
        cosines = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        best = max(
            itertools.permutations(range(3)),
            key=lambda axes: sum(abs(cosines[patient, index]) for index, patient in enumerate(axes)),
        )
        return "".join(
            _POSITIVE[patient] if cosines[patient, index] > 0 else _NEGATIVE[patient]
            for index, patient in enumerate(best)
        )

    def reorientation_to(self, orientation: str) -> Reorientation:
        """The axis moves that bring this grid into ``orientation``.

        Raises:
            ValueError: ``orientation`` is not one of :data:`ORIENTATIONS`.
        """
        if orientation not in ORIENTATIONS:
            raise ValueError(f"{orientation!r} is not an orientation such as 'RAS'")
        order, flipped = [], []
        for wanted in orientation:
            opposite = (_POSITIVE + _NEGATIVE)[(_NEGATIVE + _POSITIVE).index(wanted)]
            axis = next(i for i, have in enumerate(self.orientation) if have in (wanted, opposite))
            order.append(axis)
            flipped.append(self.orientation[axis] != wanted)
        return Reorientation(tuple(order), tuple(flipped))

    def moved(self, move: Reorientation) -> "Geometry":
        """The grid after ``move``: voxels keep their place in the patient."""
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, list(move.order)]
        shape = tuple(self.shape[axis] for axis in move.order)
        for axis, flip in enumerate(move.flipped):
            if flip:
                affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
                affine[:3, axis] *= -1
        return Geometry(shape, affine, self.kind)

    def cropped(self, box: tuple[slice, ...]) -> "Geometry":
        """The grid of ``array[box]``; the slices have a start, a stop and no step."""
        affine = self.affine.copy()
        if self.kind == "volume":
            affine[:3, 3] += self.affine[:3, :3] @ np.array([s.start for s in box], np.float64)
        return Geometry(tuple(s.stop - s.start for s in box), affine, self.kind)

    def same_grid(self, other: "Geometry", tolerance_mm: float = 1e-2) -> bool:
        """True where both grids have one shape and no voxel is displaced by more than ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        if not (self.is_physical and other.is_physical):
            return True
        corners = np.array(list(itertools.product(*((0, n - 1) for n in self.shape))), np.float64)
        mine, theirs = (corners @ g.affine[:3, :3].T + g.affine[:3, 3] for g in (self, other))
        return float(np.abs(mine - theirs).max()) <= tolerance_mm

    def place_in(self, other: "Geometry") -> tuple[slice, ...] | None:
        """The box of ``other`` that this volume, turned like it, takes, in part perhaps beyond its ends.

        Returns:
            Slices of which a start may be negative; None where the voxels of both do not coincide.
        """
        if self.kind != "volume" or other.kind != "volume":
            return None
        turned = self.moved(self.reorientation_to(other.orientation))
        corners = np.array(list(itertools.product(*((0, n - 1) for n in turned.shape), (1,))), np.float64)
        indices = (corners @ np.linalg.solve(other.affine, turned.affine).T)[:, :3]
        first = np.rint(indices[0]).astype(int)
        if np.abs(indices - corners[:, :3] - first).max() > _SAME_VOXEL:
            return None
        return tuple(slice(int(start), int(start) + n) for start, n in zip(first, turned.shape, strict=True))

    def describe(self) -> str:
        """Such as ``240x240x155 voxels, 1 x 1 x 1 mm, LPS`` or ``512x512 pixels``."""
        extent = "x".join(str(n) for n in self.shape)
        if not self.is_physical:
            return f"{extent} pixels"
        spacing = " x ".join(f"{mm:.3g}" for mm in self.spacing_mm)
        return f"{extent} voxels, {spacing} mm, {self.orientation}"
