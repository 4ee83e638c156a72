import numpy as np
import pytest
from scipy import ndimage

from segtool.geometry import Geometry
from segtool.phantom import PLANES, phantom_slice, phantom_volume
from segtool.phantom.head import Head
from segtool.phantom.scanner import FIELD_OF_VIEW_MM, acquire

SEEDS = range(4)


@pytest.fixture(scope="module")
def slices():
    return {(seed, plane): phantom_slice(seed, plane, 256) for seed in SEEDS for plane in PLANES}


def lesion_in_scanner_mm(seed):
    head = Head.draw(seed)
    return head.rotation.T @ head.lesion.centre_mm, head.lesion.radius_mm


def test_a_seed_always_gives_the_same_pixels(slices):
    again, reference = phantom_slice(1, "coronal", 256)
    assert np.array_equal(again, slices[1, "coronal"][0])
    assert np.array_equal(reference, slices[1, "coronal"][1])


def test_another_seed_gives_another_head(slices):
    assert not np.array_equal(slices[0, "axial"][1], slices[1, "axial"][1])


def test_types_and_shapes_are_those_of_scans(slices):
    for image, reference in slices.values():
        assert (image.dtype, image.shape) == (np.uint16, (256, 256))
        assert (reference.dtype, reference.shape) == (np.uint8, (256, 256))
        assert set(np.unique(reference)) == {0, 1}
        assert 1000 < image.max() < 4096  # twelve bits, as scanners store


def test_the_lesion_covers_as_much_of_the_picture_as_real_ones(slices):
    # Gliomas of the training set cover 0.4 to 5 % of a picture (5th and 95th percentile).
    for _, reference in slices.values():
        assert 0.004 < reference.mean() < 0.05


def test_the_lesion_is_a_bright_ring_around_a_dark_core(slices):
    for seed in SEEDS:
        image, reference = slices[seed, "axial"]
        depth = ndimage.distance_transform_edt(reference)
        ring = np.median(image[(depth > 1) & (depth < 4)])
        near = ndimage.distance_transform_edt(1 - reference)
        around = np.median(image[(near > 4) & (near < 10)])
        core = np.median(image[depth > 0.75 * depth.max()])
        assert ring > 1.5 * around
        assert ring > 1.5 * core


@pytest.mark.parametrize(("plane", "rows_mm", "columns_mm"), [("axial", 1, 0), ("coronal", 2, 0), ("sagittal", 2, 1)])
def test_slices_hang_as_radiologists_hang_them(slices, plane, rows_mm, columns_mm):
    # Rows grow to Posterior or Inferior, columns to Left or Posterior: against the RAS axis each time.
    for seed in SEEDS:
        centre, radius = lesion_in_scanner_mm(seed)
        row, column = ndimage.center_of_mass(slices[seed, plane][1])
        lower = 0 if plane == "axial" else 18
        along = (np.array([row, column]) + 0.5) * FIELD_OF_VIEW_MM / 256 - FIELD_OF_VIEW_MM / 2
        assert -along[0] - lower == pytest.approx(centre[rows_mm], abs=0.3 * radius)
        assert -along[1] == pytest.approx(centre[columns_mm], abs=0.3 * radius)


def test_a_volume_lies_where_its_affine_says():
    image, reference, affine = phantom_volume(2, (80, 70, 24), (2.6, 2.8, 3.0))
    geometry = Geometry.of_volume(image.shape, affine)
    assert geometry.orientation == "LPS"
    assert geometry.spacing_mm == pytest.approx((2.6, 2.8, 3.0))
    assert (image.dtype, reference.dtype) == (np.int16, np.uint8)
    centre, radius = lesion_in_scanner_mm(2)
    found = affine[:3, :3] @ ndimage.center_of_mass(reference) + affine[:3, 3]
    assert found == pytest.approx(centre, abs=0.3 * radius)


def test_two_grids_show_one_head():
    coarse = phantom_volume(3, (60, 60, 24), (4.0, 4.0, 3.0))
    fine = phantom_volume(3, (120, 120, 24), (2.0, 2.0, 3.0))
    litres = [part[1].sum() * abs(np.linalg.det(part[2][:3, :3])) for part in (coarse, fine)]
    assert litres[0] == pytest.approx(litres[1], rel=0.05)


def test_air_has_the_rayleigh_mean_of_its_noise():
    # Magnitude of complex noise of deviation s: mean s * sqrt(pi / 2).
    air = acquire(np.zeros((256, 256), np.float32), 0.9, np.random.default_rng(0))
    assert air.mean() == pytest.approx(0.013 * np.sqrt(np.pi / 2), rel=0.03)


def test_the_scanner_keeps_the_mean_signal():
    flat = acquire(np.ones((64, 64), np.float32), 0.9, np.random.default_rng(0))
    assert flat.mean() == pytest.approx(1.0, abs=0.005)
