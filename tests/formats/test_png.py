"""Particulars of pictures."""

import struct

import numpy as np
import pytest
from PIL import Image as Pillow

from segtool.case import LabelMap, Source
from segtool.errors import LimitError, OutputError, UnreadableFileError
from segtool.formats.png import PALETTE, PictureFormat
from segtool.geometry import Geometry
from segtool.limits import Limits

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
FORM = PictureFormat()


def saved(path, pixels, mode=None, **options):
    picture = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return Source("png", (path,))


def image_of(*arguments, **options):
    return FORM.read_image(saved(*arguments, **options)).data


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_grey_and_colour_survive_in_lossless_files(tmp_path, suffix):
    np.testing.assert_array_equal(image_of(tmp_path / f"a.{suffix}", GREY), GREY[np.newaxis])
    np.testing.assert_array_equal(image_of(tmp_path / f"b.{suffix}", COLOUR), np.moveaxis(COLOUR, -1, 0))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_a_grey_picture_is_one_channel_in_any_mode(tmp_path, mode):
    np.testing.assert_array_equal(image_of(tmp_path / "a.png", GREY, mode), GREY[np.newaxis])


def test_alpha_is_dropped(tmp_path):
    pixels = np.dstack([COLOUR, np.full((8, 8), 7, np.uint8)])
    np.testing.assert_array_equal(image_of(tmp_path / "a.png", pixels), np.moveaxis(COLOUR, -1, 0))


@pytest.mark.parametrize(("suffix", "dtype"), [("png", np.uint16), ("tif", np.uint16), ("tif", np.float32)])
def test_more_than_8_bits_survive(tmp_path, suffix, dtype):
    pixels = (np.arange(64).reshape(8, 8) * 1000 + 0.5).astype(dtype)
    back = image_of(tmp_path / f"a.{suffix}", pixels)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back[0], pixels)


def test_32_bit_tiff_survives(tmp_path):
    pixels = np.array([[0, 70_000], [-5, 2**30]], np.int32)
    np.testing.assert_array_equal(image_of(tmp_path / "a.tif", pixels)[0], pixels)


def test_big_endian_tiff_gives_the_same_values(tmp_path):
    source = saved(tmp_path / "a.tif", Pillow.frombytes("I;16B", (2, 1), b"\x01\x02\x03\x04"))
    data = FORM.read_image(source).data
    assert data.tolist() == [[[0x0102, 0x0304]]]
    assert data.dtype.isnative


def test_one_bit_is_0_and_1(tmp_path):
    source = saved(tmp_path / "a.png", np.array([[0, 255], [255, 0]], np.uint8), "1")
    assert FORM.read_image(source).data.tolist() == [[[0, 1], [1, 0]]]
    assert FORM.read_labels(source).labels.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_a_grey_picture_in_a_lossy_colour_file_is_one_channel(tmp_path, suffix):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    data = image_of(tmp_path / f"a.{suffix}", np.dstack([smooth] * 3), quality=90)
    assert data.shape == (1, 64, 64)
    assert np.abs(data[0].astype(int) - smooth).max() < 12


def test_a_colour_picture_in_a_lossy_file_has_three_channels(tmp_path):
    assert image_of(tmp_path / "a.webp", np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))).shape == (3, 64, 64)


def test_one_coloured_channel_is_enough_to_stay_colour(tmp_path):
    pixels = np.dstack([GREY, GREY, GREY])
    pixels[3, 3, 2] += 1
    assert image_of(tmp_path / "a.png", pixels).shape == (3, 8, 8)


def test_the_orientation_tag_moves_no_pixel(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(image_of(tmp_path / "a.png", GREY, exif=exif), GREY[np.newaxis])


def test_pages_are_a_stack_and_grey_pages_join_coloured_ones(tmp_path):
    grey = np.dstack([GREY] * 3)
    source = saved(tmp_path / "a.tif", COLOUR, save_all=True, append_images=[Pillow.fromarray(grey)])
    image = FORM.read_image(source)
    assert image.geometry.kind == "stack"
    assert image.data.shape == (3, 2, 8, 8)
    np.testing.assert_array_equal(image.data[:, 0], np.moveaxis(COLOUR, -1, 0))
    np.testing.assert_array_equal(image.data[:, 1], np.stack([GREY] * 3))


def test_pages_of_different_sizes_are_refused(tmp_path):
    source = saved(tmp_path / "a.tif", GREY, save_all=True, append_images=[Pillow.fromarray(GREY[:4])])
    with pytest.raises(UnreadableFileError, match=r"page 2 .* one size and mode"):
        FORM.read_image(source)


def test_an_animation_is_refused(tmp_path):
    source = saved(tmp_path / "a.webp", COLOUR, save_all=True, append_images=[Pillow.fromarray(COLOUR[::-1].copy())])
    with pytest.raises(UnreadableFileError, match=r"animation of 2 frames.*pages of a TIFF"):
        FORM.read_image(source)


def test_the_channel_asked_for_is_the_one_read(tmp_path):
    source = saved(tmp_path / "a.png", COLOUR)
    image = FORM.read_image(Source("png", source.paths, index=1))
    np.testing.assert_array_equal(image.data, 255 - GREY[np.newaxis])


def test_too_many_pixels_are_an_error_before_they_are_decoded(tmp_path):
    path = saved(tmp_path / "a.png", GREY).path
    source = Source("png", (path,), limits=Limits(voxels=GREY.size - 1))
    for method in (FORM.read_image, FORM.read_labels, FORM.describe):
        with pytest.raises(LimitError, match=f"raise the limit: --limit voxels={GREY.size}"):
            method(source)


def test_more_pixels_than_pillow_opens_are_an_error(tmp_path, monkeypatch):
    source = saved(tmp_path / "a.png", GREY)
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    for method in (FORM.read_image, FORM.read_labels, FORM.describe):
        with pytest.raises(LimitError, match="smaller pictures"):
            method(source)


def test_describe_reads_no_pixels(tmp_path, monkeypatch):
    source = saved(tmp_path / "a.png", COLOUR)

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert FORM.describe(source).channels == 3


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        pytest.param(np.array([[0, 3], [7, 255]], np.uint8), [[0, 3], [7, 255]], id="grey values"),
        pytest.param(np.array([[0, 300]], np.uint16), [[0, 300]], id="16 bit values"),
        pytest.param(np.dstack([np.array([[0, 2]], np.uint8)] * 3), [[0, 2]], id="grey written as colour"),
        pytest.param(np.array([[[0, 0, 0], [9, 0, 0], [0, 0, 1]]], np.uint8), [[0, 255, 255]], id="drawn in colour"),
    ],
)
def test_masks_of_every_mode(tmp_path, pixels, expected):
    assert FORM.read_labels(saved(tmp_path / "m.png", pixels)).labels.tolist() == expected


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_lossy_mask_is_cut_at_128(tmp_path, suffix):
    disc = np.hypot(*np.mgrid[-16:16, -16:16]) < 9
    source = saved(tmp_path / f"m.{suffix}", (disc * 255).astype(np.uint8), quality=80)
    read = FORM.read_labels(source)
    assert set(np.unique(read.labels)) == {0, 255}
    assert (read.labels.astype(bool) != disc).mean() < 0.02
    assert read.notes == ("mask compressed with losses: cut at 128 into labelled and not",)


@pytest.mark.parametrize("quality", [10, 50, 95])
def test_a_lossy_mask_of_several_greys_is_refused_and_white_alone_never(tmp_path, quality):
    """Nested discs at a third, two thirds and all of white, as of three classes; and each alone in white."""
    away = np.hypot(*np.mgrid[-32:32, -32:32])
    classes = 85 * sum((away < radius).astype(np.uint8) for radius in (24, 16, 8))
    with pytest.raises(UnreadableFileError, match=r"areas of grey.*Save it as PNG with labels as values"):
        FORM.read_labels(saved(tmp_path / "classes.jpg", classes, quality=quality))
    for radius in (1, 2, 5, 20):
        white = 255 * (away < radius).astype(np.uint8)
        read = FORM.read_labels(saved(tmp_path / "white.jpg", white, quality=quality))
        assert np.count_nonzero(read.labels) == pytest.approx(np.count_nonzero(white), rel=0.2)


def test_a_lossy_mask_drawn_in_a_colour_is_as_sure_as_one_in_white(tmp_path):
    disc = np.hypot(*np.mgrid[-16:16, -16:16]) < 9
    red = np.dstack([255 * disc, 0 * disc, 0 * disc]).astype(np.uint8)
    read = FORM.read_labels(saved(tmp_path / "m.jpg", red, quality=90))
    assert (read.labels.astype(bool) != disc).mean() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 5)])
def test_the_smallest_lossy_masks_are_read(tmp_path, shape):
    read = FORM.read_labels(saved(tmp_path / "m.jpg", np.full(shape, 255, np.uint8)))
    assert read.labels.min() == 255


def test_greys_of_an_earlier_compression_are_noted_and_a_few_labels_are_not(tmp_path):
    ramp = np.tile(np.arange(0, 256, 5, np.uint8), (4, 1))  # 0, 5 ... 255
    (note,) = FORM.read_labels(saved(tmp_path / "m.png", ramp)).notes
    assert "52 greys" in note
    assert "cut them at 128" in note
    few = np.array([[0, 85, 170, 255]], np.uint8)
    assert FORM.read_labels(saved(tmp_path / "few.png", few)).notes == ()


def test_a_lossy_mask_of_small_values_is_refused(tmp_path):
    source = saved(tmp_path / "m.jpg", np.full((16, 16), 3, np.uint8))
    with pytest.raises(UnreadableFileError, match="Save the mask as PNG"):
        FORM.read_labels(source)


def test_a_lossless_webp_mask_keeps_its_values(tmp_path):
    values = np.array([[0, 1], [2, 3]], np.uint8).repeat(8, 0).repeat(8, 1)
    source = saved(tmp_path / "m.webp", np.dstack([values] * 3), lossless=True)
    np.testing.assert_array_equal(FORM.read_labels(source).labels, values)


def test_fractions_are_no_labels(tmp_path):
    source = saved(tmp_path / "m.tif", np.array([[0, 0.25]], np.float32))
    with pytest.raises(UnreadableFileError, match=r"0\.25.*Threshold or round"):
        FORM.read_labels(source)


@pytest.mark.parametrize("value", [-1, 65_536])
def test_intensities_are_no_labels(tmp_path, value):
    source = saved(tmp_path / "m.tif", np.array([[0, value]], np.int32))
    with pytest.raises(UnreadableFileError, match=rf"value {value} is not a label.*0 to 65535"):
        FORM.read_labels(source)


def test_written_labels_are_values_to_programs_and_colours_to_eyes(tmp_path):
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    FORM.write_labels(tmp_path / "out.png", LabelMap(labels, Geometry.of_pixels((1, 4))), Source("png", ()))
    with Pillow.open(tmp_path / "out.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels)
        colours = np.asarray(picture.convert("RGB"))[0]
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[1:].max(axis=1).tolist() == [255, 255, 255]
    assert len({tuple(colour) for colour in colours.tolist()}) == 4


def test_the_palette_has_256_different_colours():
    colours = np.frombuffer(PALETTE, np.uint8).reshape(256, 3)
    assert len(np.unique(colours, axis=0)) == 256


def test_labels_above_255_do_not_fit(tmp_path):
    label_map = LabelMap(np.array([[300]], np.uint16), Geometry.of_pixels((1, 1)))
    with pytest.raises(OutputError, match="up to 255"):
        FORM.write_labels(tmp_path / "out.png", label_map, Source("png", ()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.PNG", ".png"),
        ("a.jpg", ".png"),
        ("a.webp", ".png"),
        ("a.bmp", ".png"),
        ("a.TIF", ".tif"),
        ("a.tiff", ".tif"),
    ],
)
def test_results_are_lossless(tmp_path, name, suffix):
    assert FORM.output_suffix(Source("png", (tmp_path / name,))) == suffix


def test_real_slices_are_one_channel_and_their_masks_binary(real_data):
    image = FORM.read_image(Source("png", (real_data / "cheng" / "images" / "0001.webp",)))
    mask = FORM.read_labels(Source("png", (real_data / "cheng" / "masks" / "0001.png",)))
    assert image.data.shape == (1, *mask.labels.shape) == (1, 512, 512)
    assert set(np.unique(mask.labels)) == {0, 1}


def test_real_tiff_slices_have_three_sequences(real_data):
    folder = real_data / "kaggle_3m" / "TCGA_CS_5396_20010302"
    scan = FORM.read_image(Source("png", (folder / "TCGA_CS_5396_20010302_10.tif",)))
    masks = [FORM.read_labels(Source("png", (path,))).labels for path in sorted(folder.glob("*_mask.tif"))]
    assert scan.data.shape == (3, 256, 256)
    assert set(np.unique(masks)) == {0, 255}


@pytest.mark.parametrize(("highest", "bits"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (15, 4), (16, 8), (255, 8)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 8), (17, 9), (2, 300)])
def test_labels_take_as_few_bits_as_they_need_and_come_back(tmp_path, highest, bits, shape):
    labels = np.random.default_rng(2).integers(0, highest + 1, shape).astype(np.uint8)
    labels.flat[-1] = highest
    FORM.write_labels(tmp_path / "a.png", LabelMap(labels, Geometry.of_pixels(shape)), Source("png", (tmp_path,)))
    content = (tmp_path / "a.png").read_bytes()
    # IHDR holds width, height, bits a pixel and the kind of colour; 3 is a palette.
    assert struct.unpack(">IIBB", content[16:26]) == (shape[1], shape[0], bits, 3)
    with Pillow.open(tmp_path / "a.png") as picture:
        picture.verify()
    with Pillow.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels)
