"""A procedural head with a ring-enhancing lesion, as contrast-enhanced T1-weighted MRI shows it.

Everything is drawn from a seed; nothing is taken from a scan. The head is a set of implicit surfaces in
millimetres (scalp, skull, dura, brain, ventricles, falx, vessels, lesion), painted from the outside inwards with
soft edges that stand for partial volume. Smooth random fields fold the cortex, vary thicknesses and texture the
tissues. Then the scanner's share: a coil's bias, the blur of a finite k-space and Rician noise.

Coordinates are RAS millimetres with the origin in the middle of the brain. Anatomical proportions are rounded
from textbook values for adults; intensities are relative to subcutaneous fat.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Plane = Literal["axial", "coronal", "sagittal"]

FIELD_OF_VIEW_MM = 240.0
_FULL_SCALE = 1400  # stored value of fat's intensity 1.0, as scanners scale it: far below the 12-bit limit

# Relative intensities after contrast agent: blood, dura and the lesion's rim enhance; fat is bright anyway.
_AIR, _BONE, _MARROW, _FAT, _SKIN, _MUSCLE = 0.0, 0.05, 0.34, 0.92, 0.50, 0.30
_CSF, _GREY, _WHITE, _DURA, _BLOOD, _CHOROID = 0.12, 0.255, 0.31, 0.36, 0.72, 0.55

_LATTICE = 24
# Variance of white noise after cubic B-spline interpolation is (151 / 315) ** 3 for three axes.
_UNIT_VARIANCE = (315 / 151) ** 1.5


@dataclass(frozen=True, eq=False)
class _Noise:
    """A smooth random field of mean 0 and variance 1: cubic B-splines over a periodic lattice.

    Args:
        lattice: ``(24, 24, 24)`` independent normal numbers.
        scale_mm: Distance of lattice points, about half the size of the blobs.
    """

    lattice: Float64Array
    scale_mm: float

    def on(self, axes: "_Axes") -> Float32Array:
        """Evaluate on a grid; three small matrix products, as the grid is aligned with the lattice."""
        x, y, z = (self._weights(axis) for axis in axes)
        planes = np.tensordot(x, self.lattice, (1, 0))  # (X, n, n)
        rows = np.matmul(y, planes)  # (X, Y, n)
        return (np.matmul(rows, z.T) * _UNIT_VARIANCE).astype(np.float32)

    def _weights(self, axis_mm: Float64Array) -> Float64Array:
        position = axis_mm / self.scale_mm
        base = np.floor(position).astype(int)
        t = position - base
        spline = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        weights = np.zeros((axis_mm.size, _LATTICE))
        for step, values in enumerate(spline):
            weights[np.arange(axis_mm.size), (base + step) % _LATTICE] += values / 6
        return weights


_Axes = tuple[Float64Array, Float64Array, Float64Array]


@dataclass(frozen=True, eq=False)
class Lesion:
    """A ring-enhancing tumour.

    Args:
        centre_mm: ``(3,)`` in the head's frame.
        radius_mm: Of the outer edge of the rim, on average.
        stretch: ``(3,)`` factors a axis, of product 1.
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


@dataclass(frozen=True, eq=False)
class Head:
    """One person who does not exist. Make it with :meth:`draw`."""

    brain_mm: Float64Array
    rotation: Float64Array
    ventricle_scale: float
    scalp_mm: float
    skull_mm: float
    lesion: Lesion
    noise: dict[str, _Noise] = field(repr=False)

    @classmethod
    def draw(cls, seed: int) -> "Head":
        """The head that belongs to ``seed``, always the same."""
        rng = np.random.default_rng([seed, 0x5E6])
        scales = {
            "fold": 6.5, "fold2": 9.0, "thickness": 14.0, "shape": 34.0, "texture": 2.4, "vessel": 11.0,
            "lesion": 9.0, "lesion_fine": 4.0, "rim": 6.0, "face": 9.0, "bias": 60.0,
        }  # fmt: skip
        noise = {
            name: _Noise(rng.standard_normal((_LATTICE,) * 3), scale_mm) for name, scale_mm in scales.items()
        }
        brain = np.array([67.0, 84.0, 66.0]) * rng.uniform(0.95, 1.05, 3)
        angles = np.radians(rng.normal(0.0, 3.0, 3))
        return cls(
            brain_mm=brain,
            rotation=_rotation(angles),
            ventricle_scale=float(rng.uniform(0.7, 1.25)),
            scalp_mm=float(rng.uniform(5.0, 8.0)),
            skull_mm=float(rng.uniform(5.0, 7.5)),
            lesion=_draw_lesion(rng, brain),
            noise=noise,
        )


def _draw_lesion(rng: np.random.Generator, brain_mm: Float64Array) -> Lesion:
    radius = float(rng.uniform(17.0, 25.0))
    side = rng.choice([-1.0, 1.0])
    along, height = rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.5)
    # As far out as the skull lets the lesion go, less a margin: most lie in a hemisphere's white matter.
    room = np.sqrt(max(0.0, 1 - along**2 - height**2)) * brain_mm[0] - radius
    across = np.clip(rng.uniform(0.75, 1.0) * room, 0.9 * radius, None)
    stretch = rng.uniform(0.85, 1.15, 3)
    return Lesion(
        centre_mm=np.array([side * across, along * brain_mm[1], height * brain_mm[2]]),
        radius_mm=radius,
        stretch=stretch / np.prod(stretch) ** (1 / 3),
        rim_mm=float(rng.uniform(4.5, 7.5)),
        rim=float(rng.uniform(0.58, 0.74)),
        core=float(rng.uniform(0.17, 0.24)),
        oedema_mm=float(rng.uniform(8.0, 18.0)),
    )


def _rotation(angles: Float64Array) -> Float64Array:
    """Rotation about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


class _Painter:
    """Paints one head onto one grid.

    Args:
        head: Whom.
        axes: Positions of the voxels along x, y and z, in mm.
        soft_mm: Width over which an edge fades; the size of a voxel.
    """

    def __init__(self, head: Head, axes: _Axes, soft_mm: float) -> None:
        self.head = head
        self.soft_mm = soft_mm
        self.noise = {name: noise.on(axes) for name, noise in head.noise.items()}
        grid = np.meshgrid(*axes, indexing="ij")
        turned = [sum(row[a] * grid[a] for a in range(3)) for row in head.rotation]
        self.x, self.y, self.z = (np.asarray(axis, np.float32) for axis in turned)
        self.image = np.full(self.x.shape, _AIR, np.float32)
        self.to_lesion = self._lesion_distance()
        self.to_brain = self._brain_distance()
        self.to_midline = self.x - self._push()[0] - 1.2 * self.noise["shape"]

    def cover(self, distance: Float32Array, soft_mm: float | None = None) -> Float32Array:
        """Share of each voxel inside the surface at distance 0; negative distances are inside."""
        return np.clip(0.5 - distance / (soft_mm or self.soft_mm), 0.0, 1.0)

    def paint(self, value: float | Float32Array, cover: Float32Array) -> None:
        """Blend ``value`` over the image."""
        self.image += cover * (value - self.image)

    def _brain_distance(self) -> Float32Array:
        """Signed distance from the cranial cavity's wall in mm, negative inside, to first order.

        Source: Taubin, IEEE PAMI 13(11), 1991: f / |grad f|.
        """
        ax, ay, az = self.head.brain_mm
        # A head is broader behind the ears than at the forehead.
        ax = ax * (1 - 0.0016 * self.y)
        radius = np.sqrt((self.x / ax) ** 2 + (self.y / ay) ** 2 + (self.z / az) ** 2) + 1e-3
        slope = np.sqrt((self.x / ax**2) ** 2 + (self.y / ay**2) ** 2 + (self.z / az**2) ** 2) / radius + 1e-3
        return np.asarray((radius - 1) / slope + 1.2 * self.noise["shape"], np.float32)

    def _lesion_distance(self) -> Float32Array:
        lesion = self.head.lesion
        x, y, z = self._from_lesion()
        sx, sy, sz = lesion.stretch
        radius = np.sqrt((x / sx) ** 2 + (y / sy) ** 2 + (z / sz) ** 2)
        bumps = 2.2 * self.noise["lesion"] + 0.7 * self.noise["lesion_fine"]
        return np.asarray(radius - lesion.radius_mm + bumps, np.float32)

    def _from_lesion(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        cx, cy, cz = self.head.lesion.centre_mm
        return self.x - np.float32(cx), self.y - np.float32(cy), self.z - np.float32(cz)

    def _push(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        """How far the mass has moved the tissue now at each voxel, in mm."""
        offset = self._from_lesion()
        radius = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2) + 1.0
        reach = self.head.lesion.radius_mm
        far = 0.22 * reach * np.exp(-np.maximum(radius - reach, 0.0) / 25.0) / radius
        return far * offset[0], far * offset[1], far * offset[2]

    def head_shell(self) -> None:
        """Scalp, skull and dura: the layers around the cranial cavity."""
        noise, outside = self.noise["thickness"], self.to_brain
        skull = self.head.skull_mm + 0.8 * noise
        scalp = skull + self.head.scalp_mm + 0.9 * self.noise["shape"]
        self.paint(_SKIN, self.cover(outside - scalp, 2.0))
        fat = _FAT * (1 + 0.06 * self.noise["texture"])
        self.paint(fat, self.cover(outside - scalp + 1.6, 1.5))
        self.paint(_BONE, self.cover(outside - skull))
        middle = np.abs(outside - 0.55 * skull) - 0.20 * skull - 0.5 * noise
        self.paint(_MARROW * (1 + 0.15 * self.noise["texture"]), self.cover(middle, 1.5))
        self.paint(_CSF, self.cover(outside))
        self.paint(_DURA, 0.7 * self.cover(np.abs(outside) - 0.5))

    def brain(self) -> None:
        """Folded cortex, white matter, deep grey matter."""
        depth = -self.to_brain
        fold = self.noise["fold"] + 0.6 * self.noise["fold2"]
        # Sulci: thin sheets where the field changes sign, narrower with depth and gone below 25 mm.
        openness = 0.17 * np.clip(1 - depth / 25.0, 0.0, 1.0) * (1 + 0.4 * self.noise["thickness"])
        to_sulcus = np.abs(fold) - openness
        surface = self.to_brain + 2.0 + 0.8 * self.noise["thickness"]
        self.paint(_GREY, self.cover(surface, 2.0))
        shallow = np.clip(1.6 - depth / 18.0, 0.0, 1.0)
        ribbon = np.clip((to_sulcus - 0.45 * shallow) / 0.35 + 0.5, 0.0, 1.0)
        inside = self.cover(surface + 3.0, 2.0)
        self.paint(_WHITE, inside * ribbon)
        self.paint(_CSF, self.cover(surface, 2.0) * np.clip(0.5 - to_sulcus / 0.14, 0.0, 1.0) * shallow * 0.8)
        for side in (-1.0, 1.0):
            thalamus = self.ellipsoid((side * 11, -12, 2), (9, 14, 9))
            putamen = self.ellipsoid((side * 26, 8, 2), (6, 17, 12))
            self.paint(_GREY, 0.8 * self.cover(np.minimum(thalamus, putamen), 3.0))
        self.image += self.cover(surface) * 0.012 * self.noise["texture"]

    def ellipsoid(self, centre: tuple[float, ...], radii: tuple[float, ...]) -> Float32Array:
        """Distance from an ellipsoid of the displaced anatomy, to first order."""
        px, py, pz = self._push()
        offset = (self.x - px - centre[0], self.y - py - centre[1], self.z - pz - centre[2])
        radius = np.sqrt(sum((o / r) ** 2 for o, r in zip(offset, radii, strict=True))) + 1e-3
        return np.asarray((radius - 1) * min(radii), np.float32)

    def tube(self, points: list[tuple[float, float, float, float]]) -> Float32Array:
        """Distance from a tube through ``(x, y, z, radius)`` in mm, of the displaced anatomy."""
        px, py, pz = self._push()
        place = (self.x - px, self.y - py, self.z - pz)
        best = np.full(self.x.shape, np.inf, np.float32)
        for (*a, ra), (*b, rb) in zip(points, points[1:], strict=False):
            direction = np.subtract(b, a)
            along = sum((p - s) * d for p, s, d in zip(place, a, direction, strict=True))
            t = np.clip(along / float(direction @ direction), 0.0, 1.0)
            gap = sum((p - s - t * d) ** 2 for p, s, d in zip(place, a, direction, strict=True))
            best = np.minimum(best, np.sqrt(gap) - (ra + t * (rb - ra)))
        return best

    def ventricles(self) -> None:
        """Lateral and third ventricle with the choroid plexus."""
        wide = self.head.ventricle_scale
        for side in (-1.0, 1.0):
            body = self.tube(
                [
                    (side * 12, 34, 8, 4.5 * wide), (side * 9, 20, 14, 6 * wide), (side * 10, -8, 20, 6 * wide),
                    (side * 20, -36, 13, 8 * wide), (side * 24, -54, 6, 3 * wide),
                ]
            )  # fmt: skip
            self.paint(_CSF, self.cover(body, 1.5))
            choroid = self.tube([(side * 14, -18, 17, 1.2), (side * 21, -36, 11, 2.4)])
            self.paint(_CHOROID, 0.8 * self.cover(choroid + 0.8 * self.noise["texture"], 1.5))
        third = np.maximum(np.abs(self.to_midline) - 1.8 * wide, self.ellipsoid((0, -4, 0), (6, 16, 11)))
        self.paint(_CSF, self.cover(third, 1.5))

    def midline(self) -> None:
        """Interhemispheric fissure, falx and the superior sagittal sinus."""
        gap = np.abs(self.to_midline)
        rim = self.cover(-self.to_brain - 26.0 - 3 * self.noise["thickness"], 6.0) * (self.z > -10)
        self.paint(_CSF, rim * self.cover(gap - 1.4 - 0.5 * self.noise["thickness"], 1.5))
        self.paint(_DURA + 0.06, rim * self.cover(gap - 0.6))
        depth = self.to_brain + 3.0
        sinus = np.sqrt((self.to_midline / 1.2) ** 2 + depth**2) - np.where(self.y < 0, 4.0, 2.0)
        self.paint(_BLOOD, self.cover(sinus, 1.5) * (self.z > -15))

    def vessels(self) -> None:
        """Veins and arteries in the sulci: where a fold meets a second sheet there is a curve."""
        fold = self.noise["fold"] + 0.6 * self.noise["fold2"]
        curve = (fold / 0.20) ** 2 + (self.noise["vessel"] / 0.14) ** 2
        shallow = self.cover(self.to_brain + 1.0) * np.clip(1.5 - -self.to_brain / 22.0, 0.0, 1.0)
        self.paint(_BLOOD * 0.8, 0.8 * shallow * np.exp(-curve))

    def tumour(self) -> npt.NDArray[np.bool_]:
        """Oedema, necrotic core and enhancing rim; the mask of rim and core."""
        lesion, away = self.head.lesion, self.to_lesion
        inside = self.cover(self.to_brain + 2.0)
        reach = np.clip(1 - away / (lesion.oedema_mm * (1 + 0.35 * self.noise["thickness"]) + 4), 0.0, 1.0)
        oedema = 0.23 * (1 + 0.05 * self.noise["texture"])
        self.paint(oedema, 0.7 * np.clip(2 * reach, 0.0, 1.0) * inside * (away > 0))
        rim_mm = np.maximum(lesion.rim_mm + 1.5 * self.noise["rim"], 1.8)
        rim = lesion.rim * (1 + 0.10 * self.noise["rim"] + 0.05 * self.noise["texture"])
        core = lesion.core * (1 + 0.12 * self.noise["lesion_fine"] + 0.05 * self.noise["texture"])
        whole = self.cover(away, max(self.soft_mm, 1.5)) * inside
        self.paint(rim, whole)
        self.paint(core, whole * self.cover(away + rim_mm, max(self.soft_mm, 2.5)))
        return np.asarray((away < 0) & (self.to_brain < -2.0))


def render(head: Head, axes: _Axes, voxel_mm: float) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """The tissue of ``head`` on a grid, before the scanner.

    Args:
        head: Whom.
        axes: Positions of voxel centres along RAS x, y and z, in mm.
        voxel_mm: Size of a voxel within a slice.

    Returns:
        Relative intensities and the lesion's mask, both ``(X, Y, Z)``.
    """
    painter = _Painter(head, axes, max(1.0, voxel_mm))
    painter.head_shell()
    painter.brain()
    painter.midline()
    painter.ventricles()
    painter.vessels()
    mask = painter.tumour()
    bias = np.exp(0.10 * painter.noise["bias"] + 0.004 * painter.to_brain)
    return painter.image * bias, mask


def _scan(tissue: Float32Array, voxel_mm: float, rng: np.random.Generator) -> Float32Array:
    """What a scanner makes of slices ``(..., H, W)``: the blur of a finite k-space, then Rician noise.

    The acquired matrix is coarser than the stored one (1 mm); a Fermi window keeps ringing low.
    Noise source: Gudbjartsson and Patz, Magn Reson Med 34(6), 1995.
    """
    rows, columns = (np.fft.fftfreq(n, voxel_mm) for n in tissue.shape[-2:])
    frequency = np.hypot(rows[:, None], columns[None, : tissue.shape[-1] // 2 + 1])
    window = 1 / (1 + np.exp((frequency - 0.48) / 0.05))
    blurred = np.fft.irfft2(np.fft.rfft2(tissue) * window, tissue.shape[-2:])
    sigma = 0.012
    # Noise passes the same filter as the signal: it is as smooth as the image.
    real, imaginary = (
        np.fft.irfft2(np.fft.rfft2(rng.standard_normal(tissue.shape)) * window, tissue.shape[-2:])
        for _ in range(2)
    )
    return np.hypot(blurred + sigma * real, sigma * imaginary).astype(np.float32)


def phantom_slice(
    seed: int, plane: Plane = "axial", size: int = 512
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """One slice through the lesion, hung as radiologists do (rows to Posterior or Inferior, columns to Left).

    Args:
        seed: Draws the head and the noise.
        plane: In which to cut.
        size: Rows and columns; the field of view is 240 mm.

    Returns:
        Image ``(size, size)`` and reference of the same shape, 1 in the lesion (rim and core) and 0 elsewhere.
    """
    head = Head.draw(seed)
    rng = np.random.default_rng([seed, 0x51])
    voxel = FIELD_OF_VIEW_MM / size
    along = (np.arange(size) + 0.5) * voxel - FIELD_OF_VIEW_MM / 2
    centre = head.rotation.T @ head.lesion.centre_mm
    across = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    cut = np.array([centre[across] + rng.uniform(-0.25, 0.25) * head.lesion.radius_mm])
    down = -along + (0.0 if plane == "axial" else _LOWER_MM)
    axes: dict[str, _Axes] = {
        "axial": (-along, -along, cut),
        "coronal": (-along, cut, down),
        "sagittal": (cut, -along, down),
    }
    tissue, mask = render(head, axes[plane], voxel)
    picture = np.take(tissue, 0, across).T  # (rows, columns)
    image = _scan(picture, voxel, rng)
    reference = np.take(mask, 0, across).T
    return np.round(image * _FULL_SCALE).astype(np.uint16), np.ascontiguousarray(reference, np.uint8)


_LOWER_MM = -20.0  # coronal and sagittal pictures reach down to the neck


def phantom_volume(
    seed: int,
    shape: tuple[int, int, int] = (160, 160, 24),
    spacing_mm: tuple[float, float, float] = (1.4, 1.4, 4.5),
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], Float64Array]:
    """An axial acquisition of the whole brain.

    Args:
        seed: Draws the head and the noise.
        shape: Voxels ``(I, J, K)`` towards Left, Posterior and Superior.
        spacing_mm: Distance of voxel centres.

    Returns:
        Image and reference ``(I, J, K)`` and the ``(4, 4)`` affine from index to RAS mm.
    """
    head = Head.draw(seed)
    rng = np.random.default_rng([seed, 0x70])
    i, j, k = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    middle = 14.0  # between the base of the brain and its vertex
    tissue, mask = render(head, (-i, -j, k + middle), spacing_mm[0])
    slices = _scan(np.moveaxis(tissue, 2, 0), spacing_mm[0], rng)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = -i[0], -j[0], k[0] + middle
    image = np.moveaxis(np.round(slices * _FULL_SCALE).astype(np.int16), 0, 2)
    return np.ascontiguousarray(image), mask.astype(np.uint8), affine
