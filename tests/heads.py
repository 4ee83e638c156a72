"""Drawn heads of three contrasts, for tests of the checks of scans."""

import numpy as np

from segtool.case import Case, LabelMap
from segtool.geometry import Geometry
from segtool.spec import ChannelSpec, IntensitySpec, LabelSpec, ModelSpec, SliceSpec

CONTRASTS = {"t1": (0.8, 0.6, 0.2), "t2": (0.5, 0.35, 1.0), "flair": (0.35, 0.55, 0.15)}
"""Brightness of scalp, brain and fluid."""


def head(seed: int, contrast: str = "t1", size: int = 96, scale: float = 200.0) -> np.ndarray:
    """One slice ``(size, size)``: an oval of scalp, brain and a ventricle in air, blurred and a little noisy."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng([seed, sorted(CONTRASTS).index(contrast)])
    shape = np.random.default_rng(seed).uniform(0.9, 1.1, 4)  # of the person, whatever the contrast
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(rows / (0.85 * shape[0]), columns / (0.68 * shape[1]))
    scalp, brain, fluid = CONTRASTS[contrast]
    image = np.where(radius < 1, scalp, 0.0)
    image[radius < 0.85] = brain
    image[(np.abs(columns) < 0.12 * shape[2]) & (np.abs(rows) < 0.4 * shape[3])] = fluid
    texture = gaussian_filter(rng.normal(0, 1, image.shape), 3) * 0.6 * brain
    noisy = gaussian_filter(image + texture * (radius < 0.85), 1) + rng.normal(0, 0.01, image.shape)
    return np.clip(noisy * scale, 0, None).astype(np.float32)


def picture(*channels: np.ndarray, mask: np.ndarray | None = None) -> Case:
    """A case of one picture."""
    grid = Geometry.of_pixels(channels[0].shape)
    return Case("case", np.stack(channels), grid, None if mask is None else LabelMap(mask.astype(np.uint8), grid))


def volume(slices: list[np.ndarray], spacing_mm: tuple[float, float, float] = (2.0, 2.0, 5.0)) -> Case:
    """A case of one axial volume: columns to the Left, rows to the Posterior, slices to the Superior."""
    data = np.stack([one.T for one in slices], axis=-1)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    return Case("case", data[np.newaxis], Geometry.of_volume(data.shape, affine))


def model(*names: str) -> ModelSpec:
    """A 2D model of these channels."""
    return ModelSpec(
        name="heads",
        channels=tuple(ChannelSpec(name=name) for name in names),
        labels=(LabelSpec(name="tumour", value=1),),
        input=SliceSpec(size=(32, 32)),
        intensity=IntensitySpec(foreground="above"),
    )


def lesion(size: int = 96, radius: int = 8) -> np.ndarray:
    """A disc within the brain, ``(size, size)`` of 0 and 1."""
    rows, columns = np.ogrid[:size, :size]
    return ((rows - size // 2) ** 2 + (columns - size // 3) ** 2 <= radius**2).astype(np.uint8)
