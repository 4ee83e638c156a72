"""Faults planted into sound cases, for :mod:`benchmarks.reliability_checks`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from segtool.case import Case, LabelMap
from segtool.geometry import Geometry
from segtool.resample import resize

Fault = Callable[[Case, np.random.Generator], Case]
MaskFault = Callable[[Case, np.random.Generator], npt.NDArray[np.uint8]]


def _of_voxels(change: Callable[[npt.NDArray[np.float32], np.random.Generator], npt.NDArray[np.generic]]) -> Fault:
    return lambda case, rng: replace(case, data=change(case.data.astype(np.float32), rng))


def _ct(values: npt.NDArray[np.float32], _: np.random.Generator) -> npt.NDArray[np.int16]:
    """Hounsfield units made of an MRI: air, soft tissue, and bone where fat was. No real CT is at hand."""
    share = (values - values.min()) / max(np.ptp(values), 1)
    return np.where(share < 0.08, -1000, np.where(share > 0.6, 800, 20 + 60 * share)).astype(np.int16)


def _noise(values: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.generic]:
    return rng.integers(0, 256, values.shape).astype(np.uint8)


def _noisy(values: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.generic]:
    low, high = values.min(), values.max()
    return np.clip(values + rng.normal(0, 0.12 * (high - low), values.shape), low, high).astype(np.float32)


def _gamma(values: npt.NDArray[np.float32], _: np.random.Generator) -> npt.NDArray[np.generic]:
    return (255 * (values / max(values.max(), 1)) ** 3).astype(np.uint8)


def _swapped_bytes(values: npt.NDArray[np.float32], _: np.random.Generator) -> npt.NDArray[np.generic]:
    return (values * 16).astype(np.uint16).byteswap()


def _sheared(values: npt.NDArray[np.float32], _: np.random.Generator) -> npt.NDArray[np.generic]:
    """Rows of the wrong length, as a wrongly read raw file has them."""
    rows, columns = values.shape[-2:]
    shifts = [np.roll(values[..., row, :], row * 5 % columns, axis=-1) for row in range(rows)]
    return np.stack(shifts, axis=-2).astype(np.uint8)


SCAN_FAULTS: dict[str, Fault] = {
    "inverted grey values": _of_voxels(lambda values, _: values.max() - values),
    "CT, simulated": _of_voxels(_ct),
    "noise in place of a scan": _of_voxels(_noise),
    "noise of 12 % of the range added": _of_voxels(_noisy),
    "gamma of 3": _of_voxels(_gamma),
    "swapped bytes": _of_voxels(_swapped_bytes),
    "rows sheared": _of_voxels(_sheared),
    "blank": _of_voxels(lambda values, _: np.zeros(values.shape, np.uint8)),
    "a mask in place of a scan": _of_voxels(lambda values, _: (values > values.mean()).astype(np.uint8)),
}


def _full(case: Case, _: np.random.Generator) -> npt.NDArray[np.uint8]:
    return (case.data[0] > 0.1 * case.data[0].max()).astype(np.uint8)


def _large(case: Case, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Half of the head."""
    head = _full(case, rng)
    head[..., : head.shape[-1] // 2] = 0
    return head


def _outside(case: Case, _: np.random.Generator) -> npt.NDArray[np.uint8]:
    mask = np.zeros(case.data.shape[1:], np.uint8)
    mask[..., : mask.shape[-2] // 10, :] = 1
    return mask


def _scattered(case: Case, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    coarse = rng.random([-(-n // 4) for n in case.data.shape[1:]]) < 0.03
    fine = np.kron(coarse, np.pad(np.ones((2,) * coarse.ndim, np.uint8), (0, 2)))
    return np.asarray(fine[tuple(slice(n) for n in case.data.shape[1:])], np.uint8)


MASK_FAULTS: dict[str, MaskFault] = {
    "empty": lambda case, _: np.zeros(case.data.shape[1:], np.uint8),
    "all of the head": _full,
    "half of the head": _large,
    "outside of the head": _outside,
    "scattered pieces": _scattered,
}


def spaced(case: Case, spacing_mm: Sequence[float]) -> Case:
    """The case with other voxel sizes in its header, its axes as they lie."""
    affine = case.geometry.affine.copy()
    affine[:3, :3] *= np.array(spacing_mm) / np.array(case.geometry.spacing_mm)
    grid = Geometry.of_volume(case.geometry.shape, affine)
    reference = None if case.reference is None else LabelMap(case.reference.labels, grid)
    return replace(case, geometry=grid, reference=reference)


GRID_FAULTS: dict[str, tuple[float, float, float]] = {
    "spacing missing (1 x 1 x 1 mm)": (1, 1, 1),
    "a hundredth of the spacing": (0.009, 0.009, 0.05),
    "a hundred times the spacing": (90, 90, 500),
    "axes of the spacing permuted": (5, 0.9, 0.9),
    "a tenth of the spacing": (0.09, 0.09, 0.5),
    "a third of the spacing": (0.3, 0.3, 1.7),
    "three times the spacing": (2.7, 2.7, 8),
    "thickness 30 times the pixel": (0.9, 0.9, 27),
}


def composed(channels: Sequence[Sequence[Case]], size: int = 256) -> Case:
    """A case of several channels, each of pictures of its own, on one grid; not of one patient.

    Args:
        channels: The pictures of each channel, as many of each; one gives a picture, more a stack.
        size: Rows and columns.
    """
    parts = [[resize(part.data[0].astype(np.float32), (size, size)) for part in channel] for channel in channels]
    data = np.array(parts)  # (C, N, size, size)
    data = data[:, 0] if data.shape[1] == 1 else data
    return Case("+".join(channel[0].name for channel in channels), data, Geometry.of_pixels(data.shape[1:]))
