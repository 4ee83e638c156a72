"""Particulars of MATLAB v7.3."""

import h5py
import numpy as np
import pytest

from segtool.case import LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.matlab import MatlabFormat
from segtool.geometry import Geometry

PICTURE = np.arange(24 * 32, dtype=np.int16).reshape(24, 32)
TUMOUR = (PICTURE > 300) & (PICTURE < 500)
FORM = MatlabFormat()


def saved(path, **datasets):
    """As MATLAB stores: the last axis first."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in datasets.items():
            file[f"cjdata/{name}"] = np.asarray(values).T
    return Source("matlab", (path,))


def cheng(path):
    return saved(
        path,
        image=PICTURE,
        tumorMask=TUMOUR.astype(np.uint8),
        label=[[3.0]],
        PID=np.array([[77, 78, 79]], np.uint16),
        tumorBorder=np.linspace(1, 20, 60)[np.newaxis],
    )


def test_image_and_mask_are_upright(tmp_path):
    source = cheng(tmp_path / "1.mat")
    image, mask = FORM.read_image(source), FORM.read_labels(source)
    np.testing.assert_array_equal(image.data, PICTURE[np.newaxis])
    assert image.geometry.kind == "image"
    np.testing.assert_array_equal(mask.labels, TUMOUR)


def test_describe_names_no_patient(tmp_path):
    description = FORM.describe(cheng(tmp_path / "1.mat"))
    assert description.geometry.shape == (24, 32)
    assert description.details == ("image /cjdata/image", "mask /cjdata/tumorMask")


def test_channels_last_in_matlab_are_channels(tmp_path):
    data = np.random.default_rng(0).normal(size=(24, 32, 3))
    image = FORM.read_image(saved(tmp_path / "1.mat", image=data))
    np.testing.assert_array_equal(image.data, np.moveaxis(data, -1, 0))


def test_slices_last_in_matlab_are_a_stack(tmp_path):
    data = np.random.default_rng(0).normal(size=(24, 32, 10))
    source = saved(tmp_path / "1.mat", image=data)
    image = FORM.read_image(source)
    assert image.geometry.shape == FORM.describe(source).geometry.shape == (10, 24, 32)
    np.testing.assert_array_equal(image.data[0], np.moveaxis(data, -1, 0))


def test_the_result_is_a_matlab_file(tmp_path):
    label_map = LabelMap(TUMOUR.astype(np.uint8), Geometry.of_pixels(TUMOUR.shape))
    FORM.write_labels(tmp_path / "out.mat", label_map, cheng(tmp_path / "1.mat"))
    head = (tmp_path / "out.mat").read_bytes()[:520]
    assert head.startswith(b"MATLAB 7.3 MAT-file")
    assert head[124:128] == b"\x00\x02IM"
    assert head[512:] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(tmp_path / "out.mat") as file:
        np.testing.assert_array_equal(file["cjdata/tumorMask"][()], TUMOUR.T)
        assert file["cjdata"].attrs["MATLAB_class"] == b"struct"
        assert file["cjdata/tumorMask"].attrs["MATLAB_class"] == b"uint8"


def test_an_older_version_says_how_to_save_again(tmp_path):
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform: PCWIN64".ljust(400))
    source = Source("matlab", (tmp_path / "old.mat",))
    for method in (FORM.read_image, FORM.read_labels, FORM.describe):
        with pytest.raises(UnreadableFileError, match=r"-v7\.3"):
            method(source)
