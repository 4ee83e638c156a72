"""Paints a head onto a grid, from the outside inwards, with soft edges that stand for partial volume.

Structures are implicit surfaces: fields of the signed distance in mm, negative inside.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from segtool.phantom.head import AnyArray, Axes, Float32Array, Head

# Relative intensities after contrast agent: blood, dura and the lesion's rim enhance; fat is bright anyway.
_AIR, _BONE, _MARROW, _FAT, _SKIN, _MUSCLE = 0.0, 0.05, 0.34, 0.80, 0.45, 0.32
_CSF, _GREY, _WHITE, _DURA, _BLOOD, _CHOROID = 0.12, 0.265, 0.32, 0.40, 0.70, 0.55

_CORTEX_MM = 25.0  # how deep sulci reach
_FALX_MM = 28.0


def render(head: Head, axes: Axes, voxel_mm: float) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """The tissue of ``head`` on a grid, before the scanner.

    Args:
        head: Whom.
        axes: Positions of voxel centres.
        voxel_mm: Size of a voxel within a slice.

    Returns:
        Relative intensities and the lesion's mask (rim and core), both ``(X, Y, Z)``.
    """
    painter = _Painter(head, axes, max(1.0, voxel_mm))
    painter.paint_face_and_neck()
    painter.paint_skull()
    painter.paint_brain()
    painter.paint_cerebellum_and_stem()
    painter.paint_midline()
    painter.paint_ventricles()
    painter.paint_vessels()
    mask = painter.paint_lesion()
    # Receive coils lie outside: the signal falls off towards the middle.
    bias = np.exp(0.08 * painter.noise["bias"] + 0.003 * np.minimum(painter.to_cranium, 20.0))
    return np.asarray(painter.image * bias, np.float32), mask


def _blend(first: AnyArray, second: AnyArray) -> Float32Array:
    """Distance from the union of two bodies, rounded over 14 mm where they meet (the soft minimum)."""
    scale = np.float32(7.0)
    return np.asarray(-scale * np.logaddexp(-first / scale, -second / scale), np.float32)


class _Painter:
    """One head on one grid.

    Attributes:
        image: ``(X, Y, Z)`` relative intensities so far.
        noise: The head's random fields on the grid.
        to_cranium: Distance from the ellipsoid that the skull's vault follows.
        to_brain: Distance from the cranial cavity, which ends at the skull's base.
        to_lesion: Distance from the outer edge of the lesion's rim.
        to_midline: Distance from the plane between the hemispheres, signed to the right.
    """

    def __init__(self, head: Head, axes: Axes, soft_mm: float) -> None:
        self.head = head
        self.soft_mm = soft_mm
        self.noise = {name: noise.on(axes) for name, noise in head.noise.items()}
        grid = np.meshgrid(*axes, indexing="ij")
        self.x, self.y, self.z = (
            np.asarray(a * grid[0] + b * grid[1] + c * grid[2], np.float32) for a, b, c in head.rotation
        )
        self.image = np.full(self.x.shape, _AIR, np.float32)
        self.from_lesion = self._from_lesion()
        self.push = self._mass_effect()
        self.to_lesion = self._lesion_distance()
        self.to_cranium = self._cranium_distance()
        self.to_brain = np.maximum(self.to_cranium, self._base_distance())
        self.to_midline = self.x - self.push[0] - 1.2 * self.noise["shape"]

    def cover(self, distance: AnyArray, soft_mm: float | None = None) -> Float32Array:
        """Share of each voxel inside the surface at distance 0."""
        return np.asarray(np.clip(0.5 - distance / (soft_mm or self.soft_mm), 0.0, 1.0), np.float32)

    def paint(self, value: float | AnyArray, cover: AnyArray) -> None:
        """Blend ``value`` over the image."""
        self.image += cover * (value - self.image)

    def _cranium_distance(self) -> Float32Array:
        """To first order.

        Source: Taubin, IEEE PAMI 13(11), 1991: f / |grad f|.
        """
        ax, ay, az = (np.float32(mm) for mm in self.head.brain_mm)
        # A head is broader behind the ears than at the forehead.
        wide = ax * (1 - np.float32(0.0014) * self.y)
        radius = np.sqrt((self.x / wide) ** 2 + (self.y / ay) ** 2 + (self.z / az) ** 2) + 1e-3
        slope = np.sqrt((self.x / wide**2) ** 2 + (self.y / ay**2) ** 2 + (self.z / az**2) ** 2) / radius
        return np.asarray((radius - 1) / (slope + 1e-3) + 0.8 * self.noise["shape"], np.float32)

    def _base_distance(self) -> Float32Array:
        """Distance above which the skull's base lies: shallow behind the eyes, deepest at the cerebellum."""
        front, back = (1 / (1 + np.exp(-along / 6.0)) for along in (self.y - 28.0, -self.y - 26.0))
        floor = -34.0 + 9.0 * front - 24.0 * back - 0.004 * self.x**2 * (1 - front)
        slope = 1.3  # the floor is oblique: across it distances are shorter than upwards
        return np.asarray((floor - self.z + 2.0 * self.noise["thickness"]) / slope, np.float32)

    def _from_lesion(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        cx, cy, cz = (np.float32(mm) for mm in self.head.lesion.centre_mm)
        return self.x - cx, self.y - cy, self.z - cz

    def _lesion_distance(self) -> Float32Array:
        lesion = self.head.lesion
        radius = np.sqrt(sum((o / np.float32(s)) ** 2 for o, s in zip(self.from_lesion, lesion.stretch, strict=True)))
        bumps = 2.2 * self.noise["lesion"] + 0.7 * self.noise["lesion_fine"]
        return np.asarray(radius - lesion.radius_mm + bumps, np.float32)

    def _mass_effect(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        """How far the tumour has pushed the tissue that now is at each voxel, in mm."""
        x, y, z = self.from_lesion
        radius = np.sqrt(x**2 + y**2 + z**2) + np.float32(1.0)
        reach = np.float32(self.head.lesion.radius_mm)
        far = 0.22 * reach * np.exp(-np.maximum(radius - reach, 0.0) / 25.0) / radius
        return far * x, far * y, far * z

    def ellipsoid(self, centre: tuple[float, ...], radii: tuple[float, ...]) -> Float32Array:
        """Distance from an ellipsoid of the displaced anatomy, to first order."""
        here = zip((self.x, self.y, self.z), self.push, centre, radii, strict=True)
        radius = np.sqrt(sum(((p - moved - c) / r) ** 2 for p, moved, c, r in here))
        return np.asarray((radius - 1) * min(radii), np.float32)

    def tube(self, points: list[tuple[float, float, float, float]]) -> Float32Array:
        """Distance from a tube through ``(x, y, z, radius)`` in mm, of the displaced anatomy."""
        place = [p - moved for p, moved in zip((self.x, self.y, self.z), self.push, strict=True)]
        best = np.full(self.x.shape, np.inf, np.float32)
        for (*a, ra), (*b, rb) in pairwise(points):
            step = [float(q - p) for p, q in zip(a, b, strict=True)]
            squared = sum(d * d for d in step)
            along = sum((p - s) * d for p, s, d in zip(place, a, step, strict=True)) / squared
            t = np.clip(along, 0.0, 1.0)
            gap = sum((p - s - t * d) ** 2 for p, s, d in zip(place, a, step, strict=True))
            best = np.minimum(best, np.sqrt(gap) - (ra + t * (rb - ra)))
        return best

    def paint_face_and_neck(self) -> None:
        """Skin, fat and, below the skull's base, muscle, fat planes and airways without anatomical detail."""
        thickness = self.head.skull_mm + self.head.scalp_mm + 0.7 * self.noise["thickness"]
        face = self.ellipsoid((0, 44, -68), (60, 46, 70))
        neck = np.maximum(np.hypot(self.x, (self.y + 18.0) * 0.85) - 57.0, self.z + 30.0)
        skin = _blend(self.to_cranium - thickness, _blend(face, neck)) + self.noise["shape"]
        self.paint(_SKIN, self.cover(skin, 2.0))
        fat = _FAT * (1 + 0.07 * self.noise["texture"] + 0.10 * self.noise["thickness"])
        self.paint(fat, self.cover(skin + 1.7, 1.5))
        below = self.cover(np.maximum(skin + self.head.scalp_mm + 2.0, self.z + 22.0), 4.0)
        flesh = _MUSCLE * (1 + 0.22 * self.noise["face"] + 0.14 * self.noise["texture"])
        self.paint(flesh, below)
        # Fat lies in sheets between muscles, bone and vessels in between.
        self.paint(_FAT * 0.75, below * np.exp(-((self.noise["vessel"] / 0.22) ** 2)) * 0.8)
        self.paint(_BONE, below * self.cover((1.1 - self.noise["fold2"]) * 4, 3.0))
        nose = self.ellipsoid((0, 52, -44), (17, 26, 20)) - 4.0 * self.noise["lesion_fine"]
        throat = self.tube([(0, 26, -60, 8), (0, 12, -90, 8), (0, 10, -140, 9)]) + 2.0 * self.noise["face"]
        self.paint(_AIR, self.cover(np.minimum(nose, throat), 2.0))

    def paint_skull(self) -> None:
        """Skull with its marrow, fluid and dura."""
        outside = self.to_brain
        skull = self.head.skull_mm + 0.8 * self.noise["thickness"]
        self.paint(_BONE, self.cover(outside - skull))
        middle = np.abs(outside - 0.55 * skull) - 0.20 * skull - 0.5 * self.noise["thickness"]
        self.paint(_MARROW * (1 + 0.15 * self.noise["texture"]), self.cover(middle, 1.5))
        self.paint(_CSF, self.cover(outside))
        self.paint(_DURA, 0.7 * self.cover(np.abs(outside) - 0.5))

    def paint_brain(self) -> None:
        """Folded cortex, white matter, deep grey matter."""
        depth = -self.to_brain
        fold = self.noise["fold"] + 0.6 * self.noise["fold2"]
        # Sulci: thin sheets where the field changes sign, narrower with depth.
        openness = 0.17 * np.clip(1 - depth / _CORTEX_MM, 0.0, 1.0) * (1 + 0.4 * self.noise["thickness"])
        to_sulcus = np.abs(fold) - openness
        surface = self.to_brain + 2.0 + 0.8 * self.noise["thickness"]
        inside = self.cover(surface, 2.0)
        shallow = np.clip(1.6 - depth / (0.7 * _CORTEX_MM), 0.0, 1.0)
        self.paint(_GREY, inside)
        ribbon = np.clip((to_sulcus - 0.45 * shallow) / 0.35 + 0.5, 0.0, 1.0)
        self.paint(_WHITE, self.cover(surface + 3.0, 2.0) * ribbon)
        self.paint(_CSF, inside * np.clip(0.5 - to_sulcus / 0.14, 0.0, 1.0) * shallow * 0.8)
        for side in (-1.0, 1.0):
            thalamus = self.ellipsoid((side * 11, -12, 2), (9, 14, 9))
            putamen = self.ellipsoid((side * 26, 8, 2), (6, 17, 12))
            self.paint(_GREY, 0.8 * self.cover(np.minimum(thalamus, putamen), 3.0))
        self.image += inside * np.float32(0.012) * self.noise["texture"]

    def paint_cerebellum_and_stem(self) -> None:
        """Cerebellum with its folia below the tentorium; brain stem and cord in their fluid."""
        cerebellum = np.maximum(self.ellipsoid((0, -46, -36), (50, 36, 23)), self.to_brain + 2.0)
        self.paint(_CSF, self.cover(np.abs(cerebellum) - 1.5, 2.0) * self.cover(self.to_brain))
        # Folia are thin leaves, stacked outwards from the middle.
        leaves = np.sin(1.7 * self.z + 0.2 * np.abs(self.x) + 1.5 * self.noise["fold"])
        grey = _GREY + 0.035 * leaves * (1 + 0.5 * self.noise["rim"]) * self.cover(-cerebellum - 14.0, 8.0)
        self.paint(np.asarray(grey, np.float32), self.cover(cerebellum, 2.0))
        self.paint(_DURA, 0.7 * self.cover(np.abs(cerebellum - 2.0) - 0.5) * self.cover(self.to_brain))
        stem = self.tube([(0, -10, -8, 12), (0, -15, -32, 13), (0, -24, -54, 8), (0, -34, -130, 6)])
        self.paint(_CSF, self.cover(stem - 2.5, 2.0) * self.cover(self.z + 34.0, 8.0))
        self.paint(_WHITE * 0.97, self.cover(stem, 2.0))

    def paint_midline(self) -> None:
        """Interhemispheric fissure, falx and the superior sagittal sinus."""
        gap = np.abs(self.to_midline)
        near_surface = self.cover(-self.to_brain - _FALX_MM - 3 * self.noise["thickness"], 6.0)
        sheet = near_surface * self.cover(self.to_brain) * self.cover(-10.0 - self.z, 4.0)
        self.paint(_CSF, sheet * self.cover(gap - 1.2 - 0.5 * self.noise["thickness"], 1.5))
        self.paint(_DURA, 0.9 * sheet * self.cover(gap - 0.5))
        # The sinus is a wedge below the skull, widest at the back.
        height = np.clip(3.2 - 0.025 * self.y, 2.0, 5.0)
        below = -self.to_brain
        wedge = np.maximum(gap * 1.4 - (height - below) * 0.75, np.maximum(-0.5 - below, below - height))
        self.paint(_BLOOD, 0.9 * self.cover(wedge, 1.5) * self.cover(-10.0 - self.z, 4.0))

    def paint_ventricles(self) -> None:
        """Lateral and third ventricle with the choroid plexus."""
        wide = self.head.ventricle_scale
        for s in (-1.0, 1.0):
            horns = [(s * 12, 34.0, 8.0, 4.5), (s * 9, 20.0, 14.0, 6.0), (s * 10, -8.0, 20.0, 6.0)]
            horns += [(s * 20, -36.0, 13.0, 8.0), (s * 24, -54.0, 6.0, 3.0)]
            body = self.tube([(x, y, z, wide * radius) for x, y, z, radius in horns])
            self.paint(_CSF, self.cover(body + 0.6 * self.noise["thickness"], 1.5))
            plexus = self.tube([(s * 14, -18, 17, 1.2), (s * 21, -36, 11, 2.4)])
            self.paint(_CHOROID, 0.8 * self.cover(plexus + 0.8 * self.noise["texture"], 1.5))
        slit = np.abs(self.to_midline) - 1.8 * wide
        self.paint(_CSF, self.cover(np.maximum(slit, self.ellipsoid((0, -4, 0), (6, 16, 11))), 1.5))

    def paint_vessels(self) -> None:
        """Vessels in the sulci: where a sheet of folds meets another sheet there is a curve."""
        fold = self.noise["fold"] + 0.6 * self.noise["fold2"]
        curve = (fold / 0.22) ** 2 + (self.noise["vessel"] / 0.14) ** 2
        shallow = self.cover(self.to_brain + 1.0) * np.clip(1.5 + self.to_brain / 22.0, 0.0, 1.0)
        self.paint(_BLOOD, 0.75 * shallow * np.exp(-curve))

    def paint_lesion(self) -> npt.NDArray[np.bool_]:
        """Oedema, enhancing rim and necrotic core; the mask of rim and core."""
        lesion, away = self.head.lesion, self.to_lesion
        inside = self.cover(self.to_brain + 2.0)
        reach = lesion.oedema_mm * (1 + 0.35 * self.noise["thickness"]) + 4.0
        wet = np.clip(2 - 2 * away / reach, 0.0, 1.0) * (away > 0)
        self.paint(0.235 * (1 + 0.05 * self.noise["texture"]), 0.7 * wet * inside)
        texture = 0.08 * self.noise["texture"]
        whole = self.cover(away, max(self.soft_mm, 1.5)) * inside
        self.paint(lesion.rim * (1 + 0.13 * self.noise["rim"] + texture), whole)
        rim_mm = np.maximum(lesion.rim_mm + 1.5 * self.noise["rim"], 1.8)
        core = lesion.core * (1 + 0.12 * self.noise["lesion_fine"] + texture)
        self.paint(core, whole * self.cover(away + rim_mm, max(self.soft_mm, 2.5)))
        return np.asarray((away < 0) & (self.to_brain < -2.0))
