"""Particulars of NIfTI."""

import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.case import LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.nifti import NiftiFormat
from segtool.geometry import Geometry

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
AFFINE = np.array([[-1, 0, 0, 90], [0, -2, 0, 120], [0, 0, 3, -70], [0, 0, 0, 1]], np.float64)
FORM = NiftiFormat()


def saved(path, voxels=VOXELS, affine=AFFINE, kind=nibabel.Nifti1Image, **fields):
    image = kind(voxels, affine)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return Source("nifti", (path,))


def label_map(geometry):
    labels = np.zeros(geometry.shape, np.uint8)
    labels[0, 0, 0], labels[-1, -1, -1] = 4, 1
    return LabelMap(labels, geometry)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"])
def test_voxels_keep_their_type_and_become_native(tmp_path, suffix, dtype):
    header = nibabel.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(VOXELS.astype(dtype), AFFINE, header), tmp_path / f"a.{suffix}")
    source = Source("nifti", (tmp_path / f"a.{suffix}",))
    image = FORM.read_image(source)
    assert image.data.dtype == np.dtype(dtype).newbyteorder("=")
    assert image.data.dtype.isnative
    assert FORM.describe(source).dtype == image.data.dtype.name
    np.testing.assert_array_equal(image.data[0], VOXELS)


def test_a_scaled_file_gives_float32(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "a.nii")
    data = FORM.read_image(Source("nifti", (tmp_path / "a.nii",))).data
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data[0], VOXELS * 0.5 - 3)
    assert FORM.describe(Source("nifti", (tmp_path / "a.nii",))).dtype == "float32"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param((4, 5), (1, 4, 5, 1), id="picture"),
        pytest.param((4, 5, 1), (1, 4, 5, 1), id="one slice"),
        pytest.param((4, 5, 6), (1, 4, 5, 6), id="volume"),
        pytest.param((4, 5, 6, 1, 1), (1, 4, 5, 6), id="singleton axes"),
        pytest.param((4, 5, 6, 3), (3, 4, 5, 6), id="Decathlon"),
        pytest.param((4, 5, 6, 1, 3), (3, 4, 5, 6), id="vectors"),
        pytest.param((4, 5, 1, 3), (3, 4, 5, 1), id="pack of one slice"),
    ],
)
def test_axes_beyond_the_third_are_channels(tmp_path, shape, expected):
    voxels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    source = saved(tmp_path / "a.nii", voxels)
    image = FORM.read_image(source)
    assert image.data.shape == expected
    assert FORM.describe(source).channels == expected[0]
    np.testing.assert_array_equal(np.moveaxis(image.data, 0, -1).ravel(), voxels.ravel())


def test_one_channel_of_a_pack(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 3)).astype(np.int16)
    source = saved(tmp_path / "a.nii.gz", voxels)
    image = FORM.read_image(Source("nifti", source.paths, index=2))
    np.testing.assert_array_equal(image.data, voxels[np.newaxis, ..., 2])


def test_two_extra_axes_are_refused(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"2x2x2x2x2.*Split the file"):
        FORM.read_image(saved(tmp_path / "a.nii", np.zeros((2, 2, 2, 2, 2), np.uint8)))


def test_colours_are_refused_by_name(tmp_path):
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnreadableFileError, match=r"colours.*grey"):
        FORM.read_image(saved(tmp_path / "a.nii", colours))


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"complex64.*grey"):
        FORM.read_image(saved(tmp_path / "a.nii", np.zeros((2, 2, 2), np.complex64)))


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_a_singular_affine_says_how_to_repair_it(tmp_path, bad):
    source = saved(tmp_path / "a.nii")
    content = bytearray(source.path.read_bytes())
    content[280:296] = np.array([bad, 0, 0, 0], "<f4").tobytes()  # srow_x
    source.path.write_bytes(content)
    for method in (FORM.read_image, FORM.describe):
        with pytest.raises(UnreadableFileError, match="Repair its sform"):
            method(source)


def test_the_sform_wins_then_the_qform(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    other = np.diag([1.0, 2.0, 3.0, 1.0])
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "both.nii")
    image.set_sform(AFFINE, 0)
    nibabel.save(image, tmp_path / "qform.nii")
    both = FORM.read_image(Source("nifti", (tmp_path / "both.nii",))).geometry
    qform = FORM.read_image(Source("nifti", (tmp_path / "qform.nii",))).geometry
    np.testing.assert_allclose(both.affine, AFFINE)
    np.testing.assert_allclose(qform.affine, other)


def test_whole_floats_are_labels(tmp_path):
    labels = FORM.read_labels(saved(tmp_path / "a.nii", VOXELS.astype(np.float32))).labels
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, VOXELS)


@pytest.mark.parametrize(
    ("value", "named"),
    [(0.5, r"0\.5"), (-1.0, r"-1\.0"), (np.nan, "nan"), (np.inf, "inf"), (1e30, r"e\+30")],
)
def test_other_floats_are_no_labels(tmp_path, value, named):
    voxels = VOXELS.astype(np.float32)
    voxels[1, 2, 3] = value
    with pytest.raises(UnreadableFileError, match=f"{named}.*Threshold or round"):
        FORM.read_labels(saved(tmp_path / "a.nii", voxels))


def test_labels_above_255_stay(tmp_path):
    labels = FORM.read_labels(saved(tmp_path / "a.nii", VOXELS * 100)).labels
    assert labels.dtype == np.uint16
    assert labels.max() == 2300


def test_several_volumes_are_no_label_map(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"2 volumes.*Merge"):
        FORM.read_labels(saved(tmp_path / "a.nii", np.zeros((2, 2, 2, 2), np.uint8)))


def test_labels_keep_form_codes_and_units_and_drop_texts(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.set_sform(AFFINE, 4)
    image.set_qform(np.diag([1, 2, 3, 1]), 2)
    image.header.set_xyzt_units("micron", "sec")
    image.header["descrip"], image.header["db_name"] = b"Nobody Known", b"19700101"
    image.header["aux_file"], image.header["intent_name"] = b"Nobody.txt", b"Nobody"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Nobody Known"))
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    source = Source("nifti", (tmp_path / "a.nii.gz",))
    FORM.write_labels(tmp_path / "out.nii.gz", label_map(FORM.read_image(source).geometry), source)
    raw = gzip.decompress((tmp_path / "out.nii.gz").read_bytes())
    assert b"Nobody" not in raw
    assert b"1970" not in raw
    header = nibabel.load(tmp_path / "out.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 2)
    np.testing.assert_array_equal(header.get_sform(), AFFINE)
    np.testing.assert_allclose(header.get_qform(), np.diag([1, 2, 3, 1]), atol=1e-6)
    assert header.get_xyzt_units() == ("micron", "sec")
    assert header.get_data_dtype() == np.uint8
    stored = nibabel.Nifti1Header(raw[:348])
    assert (float(stored["scl_slope"]), float(stored["scl_inter"]), float(stored["cal_max"])) == (1, 0, 4)


def test_labels_of_a_pack_and_of_a_picture_have_its_grid(tmp_path):
    for shape, expected in (((4, 5, 6, 3), (4, 5, 6)), ((4, 5), (4, 5))):
        source = saved(tmp_path / "a.nii", np.zeros(shape, np.int16))
        FORM.write_labels(tmp_path / "out.nii", label_map(FORM.read_image(source).geometry), source)
        assert nibabel.load(tmp_path / "out.nii").shape == expected


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (1, 0), (2, 3)])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 3), (4, 5)])
def test_wherever_the_affine_comes_from_labels_have_the_same(tmp_path, codes, shape):
    image = nibabel.Nifti1Image(np.zeros(shape, np.int16), AFFINE)
    image.set_sform(AFFINE, codes[0])
    image.set_qform(np.diag([1.5, 2, 3, 1]), codes[1])
    nibabel.save(image, tmp_path / "a.nii")
    source = Source("nifti", (tmp_path / "a.nii",))
    geometry = FORM.read_image(source).geometry
    FORM.write_labels(tmp_path / "out.nii", label_map(geometry), source)
    back = nibabel.load(tmp_path / "out.nii")
    np.testing.assert_array_equal(back.affine, geometry.affine)
    assert (int(back.header["sform_code"]), int(back.header["qform_code"])) == codes


def test_nifti_2_stays_nifti_2(tmp_path):
    source = saved(tmp_path / "a.nii.gz", kind=nibabel.Nifti2Image)
    FORM.write_labels(tmp_path / "out.nii.gz", label_map(FORM.read_image(source).geometry), source)
    assert isinstance(nibabel.load(tmp_path / "out.nii.gz"), nibabel.Nifti2Image)


def test_labels_on_another_grid_carry_their_own_affine(tmp_path):
    source = saved(tmp_path / "a.nii.gz")
    geometry = Geometry.of_volume((2, 2, 2), np.diag([3.0, 3.0, 3.0, 1.0]))
    FORM.write_labels(tmp_path / "out.nii.gz", label_map(geometry), source)
    back = FORM.read_labels(Source("nifti", (tmp_path / "out.nii.gz",)))
    np.testing.assert_allclose(back.geometry.affine, geometry.affine)


def test_the_gzip_header_holds_no_time_and_no_name(tmp_path):
    source = saved(tmp_path / "a.nii.gz")
    FORM.write_labels(tmp_path / "out.nii.gz", label_map(FORM.read_image(source).geometry), source)
    head = (tmp_path / "out.nii.gz").read_bytes()[:10]
    assert head[3] == 0  # no flags: no name, no comment
    assert head[4:8] == bytes(4)  # no time


def test_a_gzip_file_cut_at_its_end_is_refused(tmp_path):
    source = saved(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16))
    source.path.write_bytes(source.path.read_bytes()[:-200])
    with pytest.raises(UnreadableFileError, match=r"truncated.*copy or convert it again"):
        FORM.read_image(source)
    assert FORM.describe(source).geometry.shape == (20, 20, 20)


def test_plain_bytes_called_gz_are_refused(tmp_path):
    saved(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    with pytest.raises(UnreadableFileError, match="convert it again"):
        FORM.read_image(Source("nifti", (tmp_path / "b.nii.gz",)))


numbers = st.floats(-1, 1, allow_subnormal=False)


@settings(max_examples=40, deadline=None)
@given(
    matrix=st.lists(numbers, min_size=9, max_size=9),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_any_affine_comes_back(tmp_path_factory, matrix, spacing, origin, shape):
    directions, _ = np.linalg.qr(np.reshape(matrix, (3, 3)) + np.diag([2.0, 2.0, 2.0]))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * spacing, origin
    folder = tmp_path_factory.mktemp("any")
    source = saved(folder / "a.nii", np.ones(shape, np.uint8), affine)
    geometry = FORM.read_image(source).geometry
    np.testing.assert_allclose(geometry.affine, affine, atol=1e-4)
    FORM.write_labels(folder / "out.nii", label_map(geometry), source)
    back = FORM.read_labels(Source("nifti", (folder / "out.nii",)))
    assert np.array_equal(back.geometry.affine, geometry.affine)
    np.testing.assert_array_equal(back.labels, label_map(geometry).labels)


@pytest.mark.parametrize("name", ["t1", "t1ce", "t2", "flair"])
def test_real_brats_volumes(real_data, name):
    source = Source("nifti", (real_data / "brats2018" / "patient_1" / f"{name}.nii.gz",))
    description = FORM.describe(source)
    assert description.geometry.shape == (240, 240, 155)
    assert description.geometry.spacing_mm == (1, 1, 1)
    assert description.dtype == "int16"


def test_real_masks_lie_on_the_grid_of_their_scan_and_rewrite_exactly(real_data, tmp_path):
    folder = real_data / "progression" / "01_Pre"
    scan = Source("nifti", (folder / "01_Pre_t1ce.nii.gz",))
    mask = FORM.read_labels(Source("nifti", (folder / "01_Pre_mask.nii.gz",)))
    assert mask.geometry.same_grid(FORM.read_image(scan).geometry)
    FORM.write_labels(tmp_path / "out.nii.gz", mask, scan)
    back = FORM.read_labels(Source("nifti", (tmp_path / "out.nii.gz",)))
    np.testing.assert_array_equal(back.labels, mask.labels)
    np.testing.assert_array_equal(back.geometry.affine, mask.geometry.affine)


def test_real_float_labels_are_labels(real_data):
    folder = real_data / "brats2015" / "brats_2013_pat0001_1"
    labels = FORM.read_labels(Source("nifti", (folder / "OTMultiClass.nii.gz",))).labels
    assert labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 1, 2, 3, 4]
