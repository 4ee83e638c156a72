"""Cuts slices and volumes out of a head and adds what a scanner adds."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from segtool.phantom.head import AnyArray, Axes, Float32Array, Float64Array, Head
from segtool.phantom.tissue import render

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)

FIELD_OF_VIEW_MM = 240.0
_LOWER_MM = 18.0  # coronal and sagittal pictures are centred lower, so that they show the neck
_MIDDLE_OF_SLAB_MM = 24.0  # height at which volumes are centred: the cerebrum without the skull's base

_FULL_SCALE = 1400  # stored value of fat; scanners leave room below the 12 bits of their converters
_NOISE_SIGMA = 0.013  # against fat; about 25 to 1 in white matter
_CUTOFF_PER_MM, _ROLL_OFF_PER_MM = 0.60, 0.06


def phantom_slice(
    seed: int, plane: Plane = "axial", size: int = 512
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """One slice through the lesion, hung as radiologists do.

    Rows grow to Posterior or Inferior; columns grow to Left, or to Posterior in a sagittal slice.

    Args:
        seed: Draws the head and the noise.
        plane: In which to cut.
        size: Rows and columns; the field of view is 240 mm.

    Returns:
        Image ``(size, size)`` and reference of that shape: 1 in the lesion (rim and core), 0 elsewhere.
    """
    head = Head.draw(seed)
    rng = np.random.default_rng([seed, PLANES.index(plane)])
    voxel_mm = FIELD_OF_VIEW_MM / size
    along = (np.arange(size) + 0.5) * voxel_mm - FIELD_OF_VIEW_MM / 2
    centre = head.rotation.T @ head.lesion.centre_mm
    across = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    cut = np.array([centre[across] + rng.uniform(-0.25, 0.25) * head.lesion.radius_mm])
    axes: dict[Plane, Axes] = {
        "axial": (-along, -along, cut),
        "coronal": (-along, cut, -along - _LOWER_MM),
        "sagittal": (cut, -along, -along - _LOWER_MM),
    }
    # (X, Y, Z) with one axis of length 1 -> (columns, rows) -> (rows, columns)
    tissue, mask = (np.take(part, 0, across).T for part in render(head, axes[plane], voxel_mm))
    image = _stored(acquire(tissue, voxel_mm, rng))
    return image.astype(np.uint16), np.ascontiguousarray(mask, np.uint8)


def phantom_volume(
    seed: int,
    shape: tuple[int, int, int] = (160, 160, 24),
    spacing_mm: tuple[float, float, float] = (1.4, 1.4, 3.0),
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], Float64Array]:
    """An axial slab through the cerebrum, of thick slices.

    Args:
        seed: Draws the head and the noise.
        shape: Voxels ``(I, J, K)`` towards Left, Posterior and Superior.
        spacing_mm: Distance of voxel centres.

    Returns:
        Image and reference ``(I, J, K)``, and the ``(4, 4)`` affine from index to RAS mm.
    """
    head = Head.draw(seed)
    rng = np.random.default_rng([seed, len(PLANES)])
    x, y, z = (
        sign * ((np.arange(n) - (n - 1) / 2) * mm) for n, mm, sign in zip(shape, spacing_mm, (-1, -1, 1), strict=True)
    )
    z = z + _MIDDLE_OF_SLAB_MM
    tissue, mask = render(head, (x, y, z), spacing_mm[0])
    slices = acquire(np.moveaxis(tissue, 2, 0), spacing_mm[0], rng)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = x[0], y[0], z[0]
    image = np.moveaxis(_stored(slices), 0, 2)
    return np.ascontiguousarray(image, np.int16), np.ascontiguousarray(mask, np.uint8), affine


def acquire(tissue: AnyArray, voxel_mm: float, rng: np.random.Generator) -> Float32Array:
    """What a scanner makes of slices ``(..., H, W)``: the blur of a finite k-space, and Rician noise.

    The acquired matrix is coarser than the stored one, 0.8 mm; a Fermi window keeps ringing low.
    Noise passes the same window as the signal, and so is as smooth as the image.

    Source: Gudbjartsson and Patz, Magn Reson Med 34(6), 1995.
    """
    shape = tissue.shape[-2:]
    rows, columns = np.fft.fftfreq(shape[0], voxel_mm), np.fft.rfftfreq(shape[1], voxel_mm)
    frequency = np.hypot(rows[:, None], columns[None, :])
    # The exponent is bounded: beyond it the window is 0 anyway, and exp would overflow.
    window = 1 / (1 + np.exp(np.minimum((frequency - _CUTOFF_PER_MM) / _ROLL_OFF_PER_MM, 50.0)))

    def filtered(values: AnyArray) -> AnyArray:
        return np.fft.irfft2(np.fft.rfft2(values) * window, shape)

    real, imaginary = (filtered(rng.standard_normal(tissue.shape, np.float32)) for _ in range(2))
    # The window takes power from the noise; what is left has the wanted deviation.
    full = np.fft.fftfreq(shape[1], voxel_mm)
    kept = 1 / (1 + np.exp(np.minimum((np.hypot(rows[:, None], full) - _CUTOFF_PER_MM) / _ROLL_OFF_PER_MM, 50.0)))
    sigma = _NOISE_SIGMA / np.sqrt(np.mean(kept**2))
    return np.asarray(np.hypot(filtered(tissue) + sigma * real, sigma * imaginary), np.float32)


def _stored(signal: Float32Array) -> Float32Array:
    """Whole numbers on the scale of stored values."""
    return np.round(signal * _FULL_SCALE)
