"""Particulars of HDF5."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from segtool.case import LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats import hdf5_slice
from segtool.formats.hdf5 import Hdf5Format
from segtool.formats.hdf5_layout import layout_of
from segtool.geometry import Geometry

PICTURE = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)
FORM = Hdf5Format()


def saved(path, attributes=(), **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
        for name, key, value in attributes:
            file[name].attrs[key] = value
    return Source("hdf5", (path,))


def one_hot(labels, count):
    return np.stack([labels == value for value in range(1, count + 1)], axis=-1)


@pytest.mark.parametrize(
    ("shape", "mask", "channel_axis", "grid"),
    [
        pytest.param((24, 32), None, None, (24, 32), id="picture"),
        pytest.param((240, 240, 4), None, 2, (240, 240), id="BraTS channels last"),
        pytest.param((240, 240, 4), (240, 240, 3), 2, (240, 240), id="BraTS with a one-hot mask"),
        pytest.param((240, 240, 3), (240, 240, 3), 2, (240, 240), id="as many channels as labels"),
        pytest.param((240, 240, 1), (240, 240, 1), 2, (240, 240), id="one channel last"),
        pytest.param((4, 240, 240), None, 0, (240, 240), id="channels first"),
        pytest.param((4, 240, 240), (240, 240), 0, (240, 240), id="channels first, mask flat"),
        pytest.param((4, 240, 240), (3, 240, 240), 0, (240, 240), id="channels first, mask one-hot"),
        pytest.param((4, 240, 240), (4, 240, 240), None, (4, 240, 240), id="a short stack, as its mask says"),
        pytest.param((4, 240, 240), (4, 240, 240, 1), None, (4, 240, 240), id="the same, one label last"),
        pytest.param((20, 240, 240), None, None, (20, 240, 240), id="stack"),
        pytest.param((20, 64, 48, 1), None, 3, (20, 64, 48), id="stack, one channel last"),
        pytest.param((20, 1, 64, 48), None, 1, (20, 64, 48), id="stack, one channel first"),
        pytest.param((20, 64, 48, 4), (20, 64, 48), 3, (20, 64, 48), id="stack of BraTS slices"),
        pytest.param((16, 16, 10), (16, 16), 2, (16, 16), id="ten channels, as the mask says"),
    ],
)
def test_layouts(shape, mask, channel_axis, grid):
    layout = layout_of(shape, mask, Path("a.h5"))
    assert (layout.channel_axis, layout.grid) == (channel_axis, grid)


@pytest.mark.parametrize("shape", [(4, 60, 60, 60), (2, 2, 2, 64, 64)])
def test_an_unknown_layout_is_named(shape):
    with pytest.raises(UnreadableFileError, match=r"no known layout.*N H W C"):
        layout_of(shape, None, Path("a.h5"))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("image", "mask"),
        ("x", "y"),
        ("X", "Y"),
        ("data", "label"),
        ("img", "seg"),
        ("group__deep__scan", "other__target"),
    ],
)
def test_image_and_mask_are_found_by_name(tmp_path, image, mask):
    source = saved(tmp_path / "a.h5", **{image: PICTURE, mask: (PICTURE > 99).astype(np.uint8)})
    np.testing.assert_array_equal(FORM.read_image(source).data, PICTURE[np.newaxis])
    np.testing.assert_array_equal(FORM.read_labels(source).labels, PICTURE > 99)


def test_an_image_of_any_name_is_found_where_it_is_alone(tmp_path):
    source = saved(tmp_path / "a.h5", flair2d=PICTURE, mask=PICTURE * 0, age=np.float64(3), codes=np.arange(4))
    np.testing.assert_array_equal(FORM.read_image(source).data[0], PICTURE)


def test_two_candidates_need_a_name(tmp_path):
    source = saved(tmp_path / "a.h5", first=PICTURE, second=PICTURE + 1)
    with pytest.raises(UnreadableFileError, match=r"first, second.*--image-dataset"):
        FORM.read_image(source)
    named = Source("hdf5", source.paths, dataset="second")
    np.testing.assert_array_equal(FORM.read_image(named).data[0], PICTURE + 1)


def test_two_datasets_of_one_name_need_a_path(tmp_path):
    source = saved(tmp_path / "a.h5", a__image=PICTURE, b__image=PICTURE + 1)
    with pytest.raises(UnreadableFileError, match=r"a/image, b/image.*--image-dataset"):
        FORM.read_image(source)
    named = Source("hdf5", source.paths, dataset="/b/image")
    np.testing.assert_array_equal(FORM.read_image(named).data[0], PICTURE + 1)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    source = saved(tmp_path / "a.h5", image=PICTURE)
    with pytest.raises(UnreadableFileError, match=r"'t2' \(found: image\)"):
        FORM.read_image(Source("hdf5", source.paths, dataset="t2"))


def test_brats_slices(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    labels[10:30, 10:30], labels[12:20, 12:20], labels[14:16, 14:16] = 2, 3, 1
    data = np.random.default_rng(0).normal(size=(64, 64, 4))
    source = saved(tmp_path / "volume_1_slice_70.h5", image=data, mask=one_hot(labels, 3).astype(np.uint8))
    image = FORM.read_image(source)
    np.testing.assert_array_equal(image.data, np.moveaxis(data, -1, 0))
    np.testing.assert_array_equal(FORM.read_labels(source).labels, labels)
    third = FORM.read_image(Source("hdf5", source.paths, index=2))
    np.testing.assert_array_equal(third.data, data[np.newaxis, ..., 2])


@pytest.mark.parametrize("place", ["last", "first", "255"])
def test_one_hot_masks(tmp_path, place):
    labels = np.arange(24 * 32).reshape(24, 32) % 4
    mask = one_hot(labels, 3).astype(np.uint8)
    mask = {"last": mask, "first": np.moveaxis(mask, -1, 0), "255": mask * 255}[place]
    source = saved(tmp_path / "a.h5", image=PICTURE, mask=mask)
    np.testing.assert_array_equal(FORM.read_labels(source).labels, labels)


def test_one_hot_with_background_in_front(tmp_path):
    labels = np.arange(24 * 32).reshape(24, 32) % 3
    mask = np.stack([labels == value for value in range(3)], axis=-1).astype(np.float32)
    np.testing.assert_array_equal(FORM.read_labels(saved(tmp_path / "a.h5", image=PICTURE, mask=mask)).labels, labels)


def test_nested_regions_give_the_innermost(tmp_path):
    mask = np.zeros((24, 32, 3), bool)
    mask[2:20, 2:20, 0] = mask[4:10, 4:10, 1] = mask[5:7, 5:7, 2] = True
    labels = FORM.read_labels(saved(tmp_path / "a.h5", image=PICTURE, mask=mask)).labels
    assert [int(labels[at]) for at in ((0, 0), (2, 2), (4, 4), (5, 5))] == [0, 1, 2, 3]


def test_a_stack_of_one_hot_masks(tmp_path):
    labels = np.arange(10 * 24 * 32).reshape(10, 24, 32) % 3
    source = saved(tmp_path / "a.h5", images=np.stack([PICTURE] * 10), masks=one_hot(labels, 2).astype(np.uint8))
    read = FORM.read_labels(source)
    np.testing.assert_array_equal(read.labels, labels)
    assert read.geometry.kind == "stack"


def test_channels_that_are_not_one_hot_are_refused(tmp_path):
    mask = np.zeros((24, 32, 3), np.uint8)
    mask[0, 0] = 1, 2, 3
    with pytest.raises(UnreadableFileError, match="one channel of zeros and ones a label"):
        FORM.read_labels(saved(tmp_path / "a.h5", image=PICTURE, mask=mask))


def test_a_file_without_a_mask_has_no_labels(tmp_path):
    assert FORM.read_labels(saved(tmp_path / "a.h5", image=PICTURE)) is None


@pytest.mark.parametrize("name", ["mask", "whatever"])
def test_a_file_of_one_mask_has_labels(tmp_path, name):
    source = saved(tmp_path / "a.h5", **{name: (PICTURE % 4).astype(np.uint8)})
    np.testing.assert_array_equal(FORM.read_labels(source).labels, PICTURE % 4)


def test_a_mask_alone_is_no_image(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"no image found.*the file holds: mask"):
        FORM.read_image(saved(tmp_path / "a.h5", mask=PICTURE))


def test_short_stacks_of_labels_stay_stacks(tmp_path):
    labels = (np.arange(3 * 24 * 32).reshape(3, 24, 32) % 4).astype(np.uint8)
    FORM.write_labels(tmp_path / "out.h5", LabelMap(labels, Geometry.of_pixels(labels.shape)), Source("hdf5", ()))
    np.testing.assert_array_equal(FORM.read_labels(Source("hdf5", (tmp_path / "out.h5",))).labels, labels)


def test_a_mask_of_another_grid_is_read_as_it_is(tmp_path):
    source = saved(tmp_path / "a.h5", image=PICTURE, mask=np.ones((12, 16), np.uint8))
    assert FORM.read_labels(source).geometry.shape == (12, 16)


def test_channel_names_come_from_the_attribute(tmp_path):
    names = ["t1", "t1ce", "t2", "flair"]
    source = saved(tmp_path / "a.h5", [("image", "channels", names)], image=np.zeros((24, 32, 4), np.int16))
    assert FORM.read_image(source).channel_names == tuple(names)
    assert FORM.describe(source).channel_names == tuple(names)
    assert FORM.read_image(Source("hdf5", source.paths, index=1)).channel_names == ("t1ce",)


@pytest.mark.parametrize("value", [1, ["t1"] * 3, h5py.Empty("f4"), 0.5])
def test_other_attributes_are_no_channel_names(tmp_path, value):
    source = saved(tmp_path / "a.h5", [("image", "channels", value)], image=PICTURE)
    assert FORM.read_image(source).channel_names == ()


def test_describe_reads_no_pixels(tmp_path, monkeypatch):
    source = saved(tmp_path / "a.h5", image=PICTURE, mask=PICTURE)

    def read(self, selection):
        raise AssertionError("read")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", read)
    assert FORM.describe(source).geometry.shape == PICTURE.shape


def test_booleans_are_numbers(tmp_path):
    source = saved(tmp_path / "a.h5", image=PICTURE > 5, mask=PICTURE > 9)
    assert FORM.read_image(source).data.dtype == np.uint8
    assert FORM.describe(source).dtype == "uint8"
    np.testing.assert_array_equal(FORM.read_labels(source).labels, PICTURE > 9)


def test_links_to_other_files_are_not_followed(tmp_path):
    saved(tmp_path / "secret.h5", image=PICTURE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = h5py.ExternalLink("secret.h5", "/image")
        file["mask"] = h5py.SoftLink("/image")
    source = Source("hdf5", (tmp_path / "a.h5",))
    for method in (FORM.read_image, FORM.describe):
        with pytest.raises(UnreadableFileError, match="image lie in other files"):
            method(source)
    assert FORM.read_labels(source) is None


def test_values_in_other_files_are_not_read(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(24 * 32))
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("image", (24, 32), "u1", external=[(str(tmp_path / "secret.bin"), 0, 24 * 32)])
    saved(tmp_path / "secret.h5", image=PICTURE)
    layout = h5py.VirtualLayout((24, 32), "u2")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "image", (24, 32))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("image", layout)
    for name in ("external.h5", "virtual.h5"):
        with pytest.raises(UnreadableFileError, match="lie in other files"):
            FORM.read_image(Source("hdf5", (tmp_path / name,)))


def test_a_group_that_holds_itself_ends(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/image"] = PICTURE
        file["group/again"] = file["group"]
    assert FORM.read_image(Source("hdf5", (tmp_path / "a.h5",))).data.shape == (1, 24, 32)


def test_labels_are_written_slice_by_slice_with_their_values(tmp_path):
    labels = np.zeros((10, 24, 32), np.uint8)
    labels[3, 4:6] = 4
    labels[4, 4:6] = 1
    FORM.write_labels(tmp_path / "out.h5", LabelMap(labels, Geometry.of_pixels(labels.shape)), Source("hdf5", ()))
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["mask"]
        assert file["mask"].chunks == (1, 24, 32)
        assert file["mask"].compression == "gzip"
        assert file["mask"].attrs["values"].tolist() == [1, 4]


def test_no_file_stays_open(tmp_path):
    source = saved(tmp_path / "a.h5", image=PICTURE)
    FORM.read_image(source)
    FORM.describe(source)
    with h5py.File(source.path, "r+") as file:
        file["more"] = 1


def test_real_slices(real_data):
    for path in sorted((real_data / "lgg_h5").glob("*.h5"))[:5]:
        source = Source("hdf5", (path,))
        image, mask = FORM.read_image(source), FORM.read_labels(source)
        assert image.data.shape == (1, 256, 256)
        assert image.data.dtype == np.uint8
        assert np.unique(mask.labels).tolist() == [0, 1]
        assert mask.geometry.same_grid(image.geometry)


STACK = np.arange(9 * 16 * 12, dtype=np.uint16).reshape(9, 16, 12)


@pytest.mark.parametrize("shape", [(9, 16, 12), (9, 16, 12, 1), (9, 1, 16, 12)])
def test_one_slice_of_a_stack_is_read_by_its_number(tmp_path, shape):
    source = saved(tmp_path / "a.h5", x=STACK.reshape(shape), y=(STACK > 500).reshape(shape))
    image = FORM.read_image(Source("hdf5", source.paths, "x[3]"))
    np.testing.assert_array_equal(image.data, STACK[3][np.newaxis])
    labels = FORM.read_labels(Source("hdf5", source.paths, "y[3]"))
    np.testing.assert_array_equal(labels.labels, STACK[3] > 500)
    assert labels.geometry.kind == image.geometry.kind == "image"
    assert FORM.describe(Source("hdf5", source.paths, "x[8]")).geometry.shape == (16, 12)


@pytest.mark.parametrize("name", ["x[9]", "flat[0]", "z[0]"])
def test_a_slice_that_is_not_there_is_named(tmp_path, name):
    source = saved(tmp_path / "a.h5", x=STACK, flat=STACK[0])
    with pytest.raises(UnreadableFileError, match=r"Name (a slice|one) that is there"):
        FORM.read_image(Source("hdf5", source.paths, name))


def test_a_dataset_may_be_called_like_a_slice(tmp_path):
    source = saved(tmp_path / "a.h5", **{"x[0]": STACK[5], "x": STACK})
    np.testing.assert_array_equal(FORM.read_image(Source("hdf5", source.paths, "x[0]")).data[0], STACK[5])


@pytest.mark.parametrize(
    ("datasets", "image", "mask", "grid"),
    [
        (("x", "y"), "x", "y", (9, 16, 12)),
        (("images",), "images", None, (9, 16, 12)),
        (("masks",), None, "masks", (9, 16, 12)),
        (("flair", "mask"), "flair", "mask", (9, 16, 12)),
        (("anything",), "anything", "anything", (9, 16, 12)),
    ],
)
def test_contents_are_told_without_reading_them(tmp_path, datasets, image, mask, grid):
    source = saved(tmp_path / "a.h5", **dict.fromkeys(datasets, STACK))
    held = FORM.contents(source.path)
    assert (held.image, held.mask, held.grid) == (image, mask, grid)


@pytest.fixture
def packed(tmp_path):
    """A stack of 9 slices in chunks of 4, so that the last holds 1."""
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file.create_dataset("x", data=STACK, chunks=(4, 8, 8), compression="gzip")
        file.create_dataset("y", data=STACK > 500, chunks=(4, 8, 8), compression="gzip")
    return tmp_path / "stack.h5"


@pytest.fixture
def unpacked(monkeypatch):
    """What is taken out of datasets, in order."""
    taken = []
    real = hdf5_slice.read_range

    def counted(dataset, storage, start, stop, where):
        taken.append((start, stop))
        return real(dataset, storage, start, stop, where)

    monkeypatch.setattr(hdf5_slice, "read_range", counted)
    return taken


def test_slices_that_are_packed_together_are_unpacked_together(packed, unpacked):
    for number in range(9):
        image = FORM.read_image(Source("hdf5", (packed,), f"x[{number}]"))
        np.testing.assert_array_equal(image.data, STACK[number][np.newaxis])
    assert unpacked == [(0, 4), (4, 8), (8, 9)]
    assert not hdf5_slice._BLOCKS._held  # every slice was taken, so nothing stays in memory


def test_blocks_of_unpacked_slices_are_bounded(packed, unpacked, monkeypatch):
    block = 4 * STACK[0].nbytes
    monkeypatch.setattr(hdf5_slice, "BLOCKS_LIMIT", block)
    for number in (0, 4, 1):
        np.testing.assert_array_equal(FORM.read_image(Source("hdf5", (packed,), f"x[{number}]")).data[0], STACK[number])
    assert unpacked == [(0, 4), (4, 8), (0, 4)]
    monkeypatch.setattr(hdf5_slice, "BLOCKS_LIMIT", block - 1)
    FORM.read_image(Source("hdf5", (packed,), "x[8]"))
    assert unpacked[-1] == (8, 9)


def test_room_for_a_block_is_made_before_it_is_read(packed, monkeypatch):
    monkeypatch.setattr(hdf5_slice, "BLOCKS_LIMIT", 4 * STACK[0].nbytes)
    held = []
    real = hdf5_slice.read_range
    monkeypatch.setattr(
        hdf5_slice, "read_range", lambda *what: held.append(len(hdf5_slice._BLOCKS._held)) or real(*what)
    )
    for number in (0, 4, 1):
        FORM.read_image(Source("hdf5", (packed,), f"x[{number}]"))
    assert held == [0, 0, 0]


def test_another_file_of_the_same_name_size_and_time_is_read(packed, tmp_path):
    other = tmp_path / "other.h5"
    for path, value in ((packed, 1), (other, 2)):
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=np.full_like(STACK, value), chunks=(4, 8, 8))
        os.utime(path, (1e9, 1e9))
    source = Source("hdf5", (packed,), "x[1]")
    assert FORM.read_image(source).data.max() == 1
    other.replace(packed)
    assert FORM.read_image(source).data.max() == 2


def test_a_file_that_was_written_again_is_read_again(packed):
    first = FORM.read_image(Source("hdf5", (packed,), "x[1]")).data
    with h5py.File(packed, "a") as file:
        file["x"][1] = STACK[1][::-1]
        file["later"] = np.zeros(9)
    second = FORM.read_image(Source("hdf5", (packed,), "x[1]")).data
    np.testing.assert_array_equal(second, first[:, ::-1])


def test_a_slice_may_be_changed_without_changing_the_next_reading(packed):
    source = Source("hdf5", (packed,), "x[2]")
    FORM.read_image(source).data[:] = 0
    np.testing.assert_array_equal(FORM.read_image(source).data[0], STACK[2])
