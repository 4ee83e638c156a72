"""Loading: channels by name, one grid, and everything that cannot be loaded said in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow
from tiny import spec_of

from segtool.case import Case, CaseSource, Source
from segtool.errors import GridError, MissingChannelError, UnreadableFileError, VoxelError
from segtool.geometry import Geometry
from segtool.loading import load_case, load_reference
from segtool.regrid import is_placeholder, resample
from segtool.scan import scan
from segtool.spec import ChannelSpec

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""1 mm voxels whose first two indices grow to the Left and to the Posterior."""


def placed(spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def ramp(*shape: int, dtype: Any = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def write_png(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(data).save(path)


def load(folder: Path, *channels: str | ChannelSpec, strict: bool = False) -> Case:
    """Scan a folder of one case and load it."""
    spec = spec_of(*channels)
    (source,) = scan([folder], spec).cases
    return load_case(source, spec, strict=strict)


# channels


def test_channels_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    for value, name in enumerate(("t1", "t1c", "t2w", "t2f")):
        write_nifti(tmp_path / f"P_{name}.nii.gz", ramp(3, 4, 5) + np.int16(value * 100))
    case = load(tmp_path, "flair", ChannelSpec(name="T1Gd"), "t1")
    np.testing.assert_array_equal(case.data[:, 0, 0, 0], [300, 100, 0])
    assert (case.name, case.data.dtype, case.geometry.shape, case.notes) == ("P", np.int16, (3, 4, 5), ())


def test_a_missing_channel_is_said_with_what_was_found(tmp_path: Path) -> None:
    for name in ("t1", "t2", "flair"):
        write_nifti(tmp_path / f"BraTS-007_{name}.nii.gz", ramp(3, 4, 5))
    with pytest.raises(MissingChannelError) as caught:
        load(tmp_path, "t1", "t1ce", "t2", "flair")
    assert str(caught.value) == (
        "case 'BraTS-007' has no t1ce image (found: t1, t2, flair). "
        "Name the files so that they end in _t1ce, or pass --channel t1ce=PATTERN."
    )


def test_a_flair_is_no_t1ce_even_for_a_model_of_one_channel(tmp_path: Path) -> None:
    write_nifti(tmp_path / "P_flair.nii.gz", ramp(3, 4, 5))
    with pytest.raises(MissingChannelError, match=r"no t1ce image \(found: flair\).*--channel t1ce=PATTERN"):
        load(tmp_path, "t1ce")


def test_a_file_whose_name_tells_nothing_is_the_models_channel(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", ramp(4, 5, dtype=np.uint8))
    case = load(tmp_path, "t1ce")
    assert (case.data.shape, case.data.dtype, case.notes) == ((1, 4, 5), np.uint8, ())


def test_one_picture_does_not_make_four_channels(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", ramp(4, 5, dtype=np.uint8))
    with pytest.raises(MissingChannelError, match=r"is one image, the model wants 4 .*names that end in _t1, _t1ce"):
        load(tmp_path, "t1", "t1ce", "t2", "flair")


def test_channels_of_one_file_without_names_follow_the_model_and_say_so(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", ramp(3, 4, 5, 2))
    case = load(tmp_path, "t1ce", "flair")
    np.testing.assert_array_equal(case.data[:, 0, 0, 0], [0, 1])
    assert case.notes == ("2 channels without names were taken as t1ce, flair",)


def test_four_channels_in_a_file_are_too_many_for_a_model_of_one(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", ramp(3, 4, 5, 4))
    with pytest.raises(
        MissingChannelError, match=r"holds 4 channels in one file, the model wants 1 \(t1ce\).*Split it"
    ):
        load(tmp_path, "t1ce")


def test_a_named_file_with_several_volumes_is_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a_t1ce.nii.gz", ramp(3, 4, 5, 4))
    with pytest.raises(MissingChannelError, match=r"a_t1ce\.nii\.gz: holds 4 channels.*Split it"):
        load(tmp_path, "t1ce")


def test_names_inside_an_hdf5_file_decide(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = ramp(16, 16, 4)
        file["image"].attrs["channels"] = ["FLAIR", "T1", "T1Gd", "T2"]
    case = load(tmp_path, "t1ce", "flair")
    np.testing.assert_array_equal(case.data[:, 0, 0], [2, 0])
    with pytest.raises(MissingChannelError, match=r"no dwi image \(found: FLAIR, T1, T1Gd, T2\)"):
        load(tmp_path, "dwi")


def test_a_colour_picture_becomes_its_luminance(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[0, 0], colours[0, 1], colours[1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    write_png(tmp_path / "a.png", colours)
    case = load(tmp_path, "t1ce")
    np.testing.assert_allclose(case.data, [[[0.299 * 255, 0.587 * 255], [0.114 * 255, 0]]], rtol=1e-6)
    assert case.data.dtype == np.float32
    assert "luminance" in case.notes[0]


@pytest.mark.parametrize("colours", [1, 3])
def test_a_model_of_red_green_and_blue_takes_colour_and_grey_pictures(tmp_path: Path, colours: int) -> None:
    planes = [np.asarray(ramp(4, 4, dtype=np.uint8) + np.uint8(50 * n)) for n in range(colours)]
    write_png(tmp_path / "a.png", planes[0] if colours == 1 else np.stack(planes, axis=-1))
    case = load(tmp_path, "red", "green", "blue")
    for channel, data in enumerate(case.data):
        np.testing.assert_array_equal(data, planes[channel % colours])


def test_three_channels_of_hdf5_are_not_mixed_unless_they_are_equal(tmp_path: Path) -> None:
    grey = ramp(16, 16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.stack([grey, grey, grey], axis=-1)
    np.testing.assert_array_equal(load(tmp_path, "t1ce").data, grey[None])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.stack([grey, grey, grey + 1], axis=-1)
    with pytest.raises(MissingChannelError, match=r"name its channels in a dataset\.json"):
        load(tmp_path, "t1ce")


def test_kaggle_3m_gives_the_colour_that_is_the_channel(tmp_path: Path) -> None:
    stem = "TCGA_CS_5396_20010302_7"
    colours = np.stack([ramp(4, 4, dtype=np.uint8) + np.uint8(n) for n in (0, 50, 100)], axis=-1)
    write_png(tmp_path / f"{stem}.tif", colours)
    write_png(tmp_path / f"{stem}_mask.tif", np.eye(4, dtype=np.uint8) * 255)
    case = load(tmp_path, "t1ce", "flair")
    np.testing.assert_array_equal(case.data[:, 0, 0], [100, 50])
    assert case.reference is not None
    # Where all sequences but one are missing the set repeats it: red, green and blue are equal.
    write_png(tmp_path / f"{stem}.tif", np.repeat(ramp(4, 4, 1, dtype=np.uint8), 3, axis=-1))
    assert load(tmp_path, "t1ce", "flair").data.shape == (2, 4, 4)


def test_decathlon_channels_are_picked_by_name_and_the_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segtool.formats import get_format

    write_nifti(tmp_path / "imagesTr/B_1.nii.gz", ramp(3, 4, 5, 4))
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}')
    reads = []
    nifti = get_format("nifti")
    original = nifti.read_image
    monkeypatch.setattr(nifti, "read_image", lambda source: reads.append(source) or original(source), raising=False)
    case = load(tmp_path, "t1", "t1ce", "t2", "flair")
    np.testing.assert_array_equal(case.data[:, 0, 0, 0], [1, 2, 3, 0])
    assert len(reads) == 1


def test_a_channel_beyond_the_file_blames_dataset_json(tmp_path: Path) -> None:
    write_nifti(tmp_path / "imagesTr/B_1.nii.gz", ramp(3, 4, 5, 2))
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd"}}')
    with pytest.raises(
        MissingChannelError, match=r"B_1\.nii\.gz: t1ce should be channel 2, .*Correct the channel names in dataset"
    ):
        load(tmp_path, "t1ce")


def test_one_channel_is_not_copied(tmp_path: Path) -> None:
    from segtool.formats import get_format

    write_png(tmp_path / "a.png", ramp(4, 5, dtype=np.uint8))
    image = get_format("png").read_image(Source("png", (tmp_path / "a.png",)))
    case = load(tmp_path, "t1ce")
    assert case.data.base is not None
    assert case.data.strides == image.data.strides


def test_types_that_differ_meet_in_float32(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a_t1.nii.gz", ramp(3, 4, 5, dtype=np.int32))
    write_nifti(tmp_path / "a_t2.nii.gz", ramp(3, 4, 5, dtype=np.float32))
    assert load(tmp_path, "t1", "t2").data.dtype == np.float32


# grids


def smooth(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """``100 + x + 2 y + 4 z`` at every voxel: linear in millimetres, so that interpolation must be exact."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    place = index @ affine[:3, :3].T + affine[:3, 3]
    return (100 + place @ np.array([1.0, 2.0, 4.0])).astype(np.float32)


OTHER_GRIDS = {
    "coarser": ((4, 4, 6), placed((2, 2, 2), (0, 0, 0))),
    "shifted": ((10, 10, 14), placed((1, 1, 1), (-1.5, -1, -1))),
    "turned": ((14, 10, 10), np.array([[0, 0, 1, -1.5], [0, -1, 0, 8], [1, 0, 0, -1], [0, 0, 0, 1.0]])),
    "oblique": (
        (24, 24, 24),
        np.array([[0.8, -0.6, 0, -1], [0.6, 0.8, 0, -8], [0, 0, 1, -5], [0, 0, 0, 1.0]]),
    ),
}


@pytest.mark.parametrize("name", OTHER_GRIDS)
def test_a_channel_on_another_grid_is_resampled_through_the_patient(tmp_path: Path, name: str) -> None:
    shape, affine = OTHER_GRIDS[name]
    first = ((6, 6, 10), placed((1, 1, 1), (0, 0, 0)))
    write_nifti(tmp_path / "P_t1.nii.gz", smooth(*first), first[1])
    write_nifti(tmp_path / "P_t2.nii.gz", smooth(shape, affine), affine)
    case = load(tmp_path, "t1", "t2")
    np.testing.assert_allclose(case.data[1], case.data[0], rtol=1e-5)
    assert case.notes == ("t2 resampled onto t1",)
    with pytest.raises(GridError, match=r"t1 has 6x6x10 .*t2 has .* without --strict"):
        load(tmp_path, "t1", "t2", strict=True)


def test_the_models_first_channel_gives_the_grid(tmp_path: Path) -> None:
    write_nifti(tmp_path / "P_t1.nii.gz", ramp(4, 4, 4), placed((1, 1, 1), (0, 0, 0)))
    write_nifti(tmp_path / "P_t2.nii.gz", ramp(2, 2, 2), placed((2, 2, 2), (0, 0, 0)))
    case = load(tmp_path, "t2", "t1")
    assert case.geometry.shape == (2, 2, 2)
    assert case.notes == ("t1 resampled onto t2",)


def test_a_channel_in_another_orientation_is_turned_without_loss(tmp_path: Path) -> None:
    geometry = Geometry.of_volume((3, 4, 5), placed((1, 2, 3), (5, 6, 7)))
    move = geometry.reorientation_to("SLP")
    data = ramp(3, 4, 5)
    write_nifti(tmp_path / "P_t1.nii.gz", data, geometry.affine)
    write_nifti(tmp_path / "P_t2.nii.gz", move.apply(data), geometry.moved(move).affine)
    case = load(tmp_path, "t1", "t2", strict=True)
    np.testing.assert_array_equal(case.data[1], data)
    assert case.notes == ("t2 turned into the orientation of t1",)


def test_voxels_outside_a_channel_are_zero_and_its_border_is_kept() -> None:
    have = Geometry.of_volume((2, 2, 2), placed((1, 1, 1), (0.1, 0.1, 0.1)))
    want = Geometry.of_volume((4, 2, 2), placed((1, 1, 1), (0.1 - 1e-12, 0.1, 0.1)))
    result = resample(np.full((2, 2, 2), 7.0), have, want, "linear")
    np.testing.assert_allclose(result[:, 0, 0], [7, 7, 0, 0], atol=1e-6)


def test_channels_of_places_apart_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "P_t1.nii.gz", ramp(4, 4, 4), placed((1, 1, 1), (0, 0, 0)))
    write_nifti(tmp_path / "P_t2.nii.gz", ramp(4, 4, 4), placed((1, 1, 1), (900, 0, 0)))
    with pytest.raises(GridError, match=r"no place in common.*of one patient"):
        load(tmp_path, "t1", "t2")


def test_pictures_of_different_size_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "P_t1.png", ramp(4, 5, dtype=np.uint8))
    write_png(tmp_path / "P_t2.png", ramp(5, 4, dtype=np.uint8))
    with pytest.raises(GridError, match=r"t1 has 4x5 pixels, t2 has 5x4 pixels\. Bring the images onto one grid"):
        load(tmp_path, "t1", "t2")


def test_a_picture_and_a_volume_make_no_case(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", ramp(4, 5, dtype=np.uint8))
    write_nifti(tmp_path / "b.nii.gz", ramp(4, 5, 6))
    sources = {"t1": Source("png", (tmp_path / "a.png",)), "t2": Source("nifti", (tmp_path / "b.nii.gz",))}
    with pytest.raises(GridError, match="Bring the images onto one grid"):
        load_case(CaseSource("x", sources), spec_of("t1", "t2"))


# voxels


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([np.nan] * 3, "3 NaN voxels in t1ce"),
        ([np.nan], "1 NaN voxel in t1ce"),
        ([np.inf, -np.inf], "2 infinite voxels in t1ce"),
        ([np.nan, np.inf], "1 NaN and 1 infinite voxels in t1ce"),
    ],
)
def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, bad: list[float], said: str) -> None:
    data = ramp(3, 4, 5, dtype=np.float32)
    data.flat[: len(bad)] = bad
    write_nifti(tmp_path / "P_t1ce.nii.gz", data)
    with pytest.raises(VoxelError, match=rf"P_t1ce\.nii\.gz: {said}\. Replace them in the file"):
        load(tmp_path, "t1ce")


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_volume_is_refused(tmp_path: Path, value: int) -> None:
    write_nifti(tmp_path / "P_t1ce.nii.gz", np.full((3, 4, 5), value, np.int16))
    with pytest.raises(VoxelError, match=f"every voxel of t1ce is {value}.*leave it out"):
        load(tmp_path, "t1ce")


def test_a_blank_picture_is_a_case_with_a_note(tmp_path: Path) -> None:
    write_png(tmp_path / "P_t1ce.png", np.zeros((4, 4), np.uint8))
    assert load(tmp_path, "t1ce").notes == ("every pixel of t1ce is 0",)


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnreadableFileError) as caught:
        load(tmp_path, "t1ce")
    assert "\n" not in str(caught.value)


# references

SHAPE = (3, 4, 5)
MASK = np.zeros(SHAPE, np.uint8)
MASK[0, 1, 2], MASK[2, 3, 4] = 1, 4


@pytest.mark.parametrize("strict", [False, True])
def test_a_reference_in_another_orientation_is_turned(tmp_path: Path, strict: bool) -> None:
    geometry = Geometry.of_volume(SHAPE, placed((1, 2, 3), (5, 6, 7)))
    move = geometry.reorientation_to("PSL")
    write_nifti(tmp_path / "P.nii.gz", ramp(*SHAPE), geometry.affine)
    write_nifti(tmp_path / "P_seg.nii.gz", move.apply(MASK), geometry.moved(move).affine)
    case = load(tmp_path, "t1ce", strict=strict)
    assert case.reference is not None
    np.testing.assert_array_equal(case.reference.labels, MASK)
    assert case.reference.geometry is case.geometry
    assert case.notes == ("reference turned into the orientation of the scan",)


@pytest.mark.parametrize("dummy", [np.eye(4), LPS, placed((-1, -1, 1), (0, 3, 0))])
def test_a_reference_without_a_real_affine_is_taken_as_it_lies(tmp_path: Path, dummy: np.ndarray) -> None:
    write_nifti(tmp_path / "P.nii.gz", ramp(*SHAPE), placed((0.5, 0.5, 3), (-60, 20, 9)))
    write_nifti(tmp_path / "P_seg.nii.gz", MASK, dummy)
    case = load(tmp_path, "t1ce")
    assert case.reference is not None
    np.testing.assert_array_equal(case.reference.labels, MASK)
    assert "taken as they lie" in case.notes[0]
    with pytest.raises(GridError, match="Copy the affine of the scan into the reference"):
        load(tmp_path, "t1ce", strict=True)


def test_a_reference_with_an_affine_of_its_own_is_resampled(tmp_path: Path) -> None:
    write_nifti(tmp_path / "P.nii.gz", ramp(*SHAPE), placed((2, 2, 2), (10, 20, 30)))
    write_nifti(tmp_path / "P_seg.nii.gz", MASK, placed((2, 2, 2), (12, 20, 30)))
    case = load(tmp_path, "t1ce")
    assert case.reference is not None
    # One voxel to the right: what lay at index 0 lies at 1; what lay at 2 leaves the scan.
    assert np.argwhere(case.reference.labels).tolist() == [[1, 1, 2]]
    assert case.reference.labels.dtype == np.uint8
    assert "reference resampled onto the scan" in case.notes[0]
    with pytest.raises(GridError, match="without --strict"):
        load(tmp_path, "t1ce", strict=True)


def test_a_reference_outside_the_scan_is_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "P.nii.gz", ramp(*SHAPE), placed((2, 2, 2), (10, 20, 30)))
    write_nifti(tmp_path / "P_seg.nii.gz", MASK, placed((2, 2, 2), (900, 20, 30)))
    with pytest.raises(GridError, match=r"lies outside the scan.*of one patient"):
        load(tmp_path, "t1ce")


def test_a_reference_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "P.png", ramp(4, 5, dtype=np.uint8))
    write_png(tmp_path / "P_mask.png", np.eye(6, dtype=np.uint8))
    with pytest.raises(GridError, match=r"the reference has 6x6 pixels, the scan 4x5 pixels.*on the grid of its scan"):
        load(tmp_path, "t1ce")


@pytest.mark.parametrize("with_mask", [True, False])
def test_an_hdf5_file_may_hold_its_reference_or_not(tmp_path: Path, with_mask: bool) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = ramp(16, 16, dtype=np.uint8)
        if with_mask:
            file["y"] = np.eye(16, dtype=np.uint8)
    case = load(tmp_path, "flair")
    assert (case.reference is not None) is with_mask
    (source,) = scan([tmp_path]).cases
    alone = load_reference(source, case.geometry)
    assert (alone is not None) is with_mask


def test_a_case_without_reference_has_none(tmp_path: Path) -> None:
    write_png(tmp_path / "P.png", ramp(4, 5, dtype=np.uint8))
    assert load(tmp_path, "t1ce").reference is None


PLACEHOLDERS: Mapping[str, tuple[np.ndarray, bool]] = {
    "identity": (np.eye(4), True),
    "flipped": (placed((-1, -1, 1), (0, -3, 0)), True),
    "BraTS": (placed((-1, -1, 1), (0, 3, 0)), True),
    "elsewhere": (placed((1, 1, 1), (-90, -126, -72)), False),
    "spaced": (placed((1, 1, 2), (0, 0, 0)), False),
}


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_placeholders_are_told_from_real_affines(name: str) -> None:
    affine, wanted = PLACEHOLDERS[name]
    assert is_placeholder(Geometry.of_volume(SHAPE, affine)) is wanted


# real scans


@pytest.mark.parametrize(
    ("folder", "channels", "shape", "values"),
    [
        ("brats2018", ("t1", "t1ce", "t2", "flair"), (4, 240, 240, 155), {0, 1, 2, 3}),
        ("brats2015", ("t1ce", "flair"), (2, 240, 240, 155), {0, 1, 2, 3, 4}),
        ("progression/01_Pre", ("t1ce",), (1, 256, 256, 24), {0, 1}),
    ],
)
def test_real_volumes_load(
    real_data: Path, folder: str, channels: tuple[str, ...], shape: tuple[int, ...], values: set[int]
) -> None:
    case = load(real_data / folder, *channels, strict=True)
    assert case.data.shape == shape
    assert case.reference is not None
    assert set(np.unique(case.reference.labels).tolist()) == values
    assert case.notes == ()


@pytest.mark.parametrize(("folder", "channel"), [("kaggle_3m", "flair"), ("lgg_h5", "flair"), ("cheng", "t1ce")])
def test_real_pictures_load_with_their_references(real_data: Path, folder: str, channel: str) -> None:
    spec = spec_of(channel)
    for source in scan([real_data / folder], spec).cases[:5]:
        case = load_case(source, spec, strict=True)
        assert case.data.shape == (1, *case.geometry.shape)
        assert case.reference is not None
        assert case.reference.labels.shape == case.geometry.shape


def test_a_real_dicom_series_loads(real_data: Path) -> None:
    case = load(real_data / "dicom/structural_t1", "t1")
    assert sorted(case.data.shape) == [1, 64, 274, 384]
