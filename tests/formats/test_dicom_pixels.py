"""Compressed pixels, padding, and what stored bits mean."""

import shutil
import struct
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_series import saved, write_volume
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from segtool.case import Source
from segtool.errors import LimitError, UnreadableFileError
from segtool.formats.dicom.series import DicomFormat

FORM = DicomFormat()
AFFINE = np.diag([-1.0, -1, 2, 1])
UNCOMPRESSED = [
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian
]  # fmt: skip


def bumps(dtype, low, high):
    """A smooth surface ``(48, 40, 2)`` between two values, as scans are and noise is not."""
    x, y, z = np.meshgrid(np.linspace(0, 3, 48), np.linspace(0, 2, 40), [0, 0.3], indexing="ij")
    wave = (np.sin(x * 2 + z) * np.cos(y) + 1) / 2
    return np.rint(low + wave * (high - low)).astype(dtype)


KINDS = {
    "12 bits": (bumps("uint16", 0, 4095), {"BitsStored": 12, "HighBit": 11}),
    "16 bits": (bumps("uint16", 0, 65535), {}),
    "with a sign": (bumps("int16", -2000, 3000), {}),
    "bytes": (bumps("uint8", 0, 255), {}),
}


def read(paths, **options):
    source = Source("dicom", tuple(paths), **options)
    image = FORM.read_image(source)
    assert FORM.describe(source).dtype == image.data.dtype.name
    return image


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_compressed_without_losses_are_the_same(tmp_path, syntax, kind):
    voxels, more = KINDS[kind]
    image = read(write_volume(tmp_path, voxels, AFFINE, syntax=syntax, **more))
    assert image.data.dtype == voxels.dtype
    np.testing.assert_array_equal(image.data[0], voxels)


BY_DCMTK = {
    "baseline": ("+eb", JPEGBaseline8Bit, "bytes", 4),
    "extended, 8 bits": ("+ee", JPEGExtended12Bit, "bytes", 4),
    "extended, 12 bits": ("+ee", JPEGExtended12Bit, "12 bits", 64),
    "lossless": ("+el", JPEGLossless, "16 bits", 0),
    "lossless, first order": ("+e1", JPEGLosslessSV1, "16 bits", 0),
    "lossless, first order, 12 bits": ("+e1", JPEGLosslessSV1, "12 bits", 0),
    "lossless with a sign": ("+e1", JPEGLosslessSV1, "with a sign", 0),
}


def by_dcmtk(folder, option, syntax, kind):
    """Paths of a series compressed by another program."""
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg is not installed")
    voxels, more = KINDS[kind]
    paths = []
    for path in write_volume(folder / "plain", voxels, AFFINE, **more):
        paths.append(folder / path.name)
        subprocess.run(["dcmcjpeg", option, str(path), str(paths[-1])], check=True, capture_output=True)
        assert pydicom.dcmread(paths[-1]).file_meta.TransferSyntaxUID == syntax
    return paths


@pytest.mark.parametrize("what", BY_DCMTK)
def test_jpeg_is_what_its_encoder_was_given(tmp_path, what):
    *how, most = BY_DCMTK[what]
    voxels = KINDS[how[-1]][0]
    image = read(by_dcmtk(tmp_path, *how))
    assert image.data.dtype == voxels.dtype
    np.testing.assert_allclose(image.data[0].astype(int), voxels.astype(int), atol=most)


def blank_htj2k(rows, columns):
    """A codestream of 16 bits whose only packet is empty: every pixel is in the middle of the range, 32768.

    Source: ITU-T T.800 annex A, T.814 annex A.
    """
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0x4000, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
    capabilities = struct.pack(">HIH", 8, 0x0002_0000, 0)
    coding = struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 0, 4, 4, 0x40, 1)
    quantisation = struct.pack(">HBB", 4, 0x40, 16 << 3)
    tile = struct.pack(">HHIBB", 10, 0, 12 + 2 + 1, 0, 1)
    segments = {0x51: size, 0x50: capabilities, 0x52: coding, 0x5C: quantisation, 0x90: tile}
    head = b"".join(bytes((0xFF, marker)) + segment for marker, segment in segments.items())
    return b"\xff\x4f" + head + b"\xff\x93" + b"\0" + b"\xff\xd9"


def encapsulated(path, syntax, code):
    dataset = pydicom.dcmread(write_volume(path.parent / "plain", KINDS["16 bits"][0], AFFINE)[0])
    dataset.PixelData = pydicom.encaps.encapsulate([code])
    dataset["PixelData"].VR = "OB"
    return saved(path, dataset, syntax)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K], ids=lambda uid: uid.keyword)
def test_high_throughput_jpeg_2000_is_decoded(tmp_path, syntax):
    image = read([encapsulated(tmp_path / "a.dcm", syntax, blank_htj2k(40, 48))])
    np.testing.assert_array_equal(image.data, np.full((1, 48, 40, 1), 32768, np.uint16))


PACKAGES = {
    JPEGBaseline8Bit: "pylibjpeg-libjpeg",
    JPEGLosslessSV1: "pylibjpeg-libjpeg",
    JPEGLSLossless: "pylibjpeg-libjpeg",
    JPEG2000: "pylibjpeg-openjpeg",
    HTJ2K: "pylibjpeg-openjpeg",
    RLELossless: "pylibjpeg-rle",
}


@pytest.fixture
def without_decoders():
    """Takes decoders from pydicom's register, and puts them back."""
    taken = []

    def take(syntax, *kept):
        decoder = get_decoder(syntax)
        for label, found in list(decoder._available.items()):
            if label not in kept:
                taken.append((decoder, label, found))
                decoder.remove_plugin(label)

    yield take
    for decoder, label, found in taken:
        decoder._available[label] = found


@pytest.mark.parametrize("syntax", PACKAGES, ids=lambda uid: uid.keyword)
def test_a_missing_decoder_is_named_with_its_install_line(tmp_path, syntax, without_decoders):
    path = encapsulated(tmp_path / "a.dcm", syntax, blank_htj2k(40, 48))
    without_decoders(syntax)
    with pytest.raises(UnreadableFileError, match=rf"{PACKAGES[syntax]} is missing.*segtool\[dicom\]") as caught:
        read([path])
    assert syntax.name in str(caught.value)
    # The header needs none.
    assert FORM.describe(Source("dicom", (path,))).geometry.shape == (48, 40, 1)


def test_a_decoder_that_knows_half_of_a_syntax_is_not_enough(tmp_path, without_decoders):
    paths = by_dcmtk(tmp_path, *BY_DCMTK["extended, 12 bits"][:3])
    without_decoders(JPEGExtended12Bit, "pillow")
    with pytest.raises(UnreadableFileError, match="pylibjpeg-libjpeg is missing"):
        read(paths)


def test_a_film_is_refused_by_the_name_of_its_syntax(tmp_path):
    path = encapsulated(tmp_path / "a.dcm", MPEG2MPML, b"\0\0\1\xb3")
    with pytest.raises(UnreadableFileError, match=r"MPEG2.*which nothing here decodes.*uncompressed"):
        read([path])


# Padding.

SCAN = np.array([[[-1024, 40], [300, -900]]], np.int16).transpose(1, 2, 0)


def padded(value, voxels=SCAN, dtype="int16"):
    found = voxels.astype(dtype)
    found[0, 0, 0] = value
    return found


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda uid: uid.keyword)
def test_padding_becomes_the_lowest_value_of_the_scan(tmp_path, syntax):
    image = read(write_volume(tmp_path, padded(-2000), AFFINE, syntax=syntax, PixelPaddingValue=-2000))
    assert image.data.ravel().tolist() == [-900, 40, 300, -900]
    assert image.notes == ("1 pixel of padding set to the lowest value of the scan, -900",)


def test_padding_is_a_range_of_stored_values(tmp_path):
    voxels = np.array([[[0], [1], [2], [63], [64], [900]]], np.uint16)
    more = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 63, "RescaleIntercept": "-1024", "RescaleSlope": "2"}
    image = read(write_volume(tmp_path, voxels, AFFINE, **more))
    assert image.data.ravel().tolist() == [-896, -896, -896, -896, -896, 776]


def test_padding_of_a_scan_with_a_sign_may_be_written_without(tmp_path):
    paths = write_volume(tmp_path, padded(-2000), AFFINE)
    dataset = pydicom.dcmread(paths[0])
    dataset.add_new("PixelPaddingValue", "US", 0x10000 - 2000)
    saved(paths[0], dataset)
    assert read(paths).data[0, 0, 0, 0] == -900


def test_padding_is_turned_round_with_the_scan(tmp_path):
    voxels = np.array([[[4000], [3000], [10]]], np.uint16)
    more = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 4000}
    assert read(write_volume(tmp_path, voxels, AFFINE, **more)).data.ravel().tolist() == [1095, 1095, 4085]


@pytest.mark.parametrize(
    ("voxels", "padding"),
    [
        pytest.param([0, 7, 9], 0, id="nothing is nothing"),
        pytest.param([5, 7, 9], 3, id="none there"),
        pytest.param([5, 5, 5], 5, id="all of it"),
        pytest.param([5, 7, 9], None, id="empty"),
    ],
)
def test_values_that_need_no_filling_stay(tmp_path, voxels, padding):
    paths = write_volume(tmp_path, np.array([[voxels]], np.uint16).transpose(2, 1, 0), AFFINE)
    dataset = pydicom.dcmread(paths[0])
    dataset.add_new("PixelPaddingValue", "US", padding)
    saved(paths[0], dataset)
    image = read(paths)
    assert image.data.ravel().tolist() == voxels
    assert image.notes == ()


# Bits.


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize(("stored", "high"), [(16, 15), (12, 11), (12, 15), (10, 9), (8, 15)])
def test_stored_bits_mean_what_pydicom_takes_them_for(tmp_path, stored, high, sign):
    bits = np.random.default_rng(stored + high).integers(0, 65536, (6, 5, 1), np.uint16)
    more = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": sign}
    (path,) = write_volume(tmp_path, bits, AFFINE, **more)
    np.testing.assert_array_equal(read([path]).data[0, :, :, 0].T, pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize(("slope", "intercept"), [("2", "-1024"), ("0.37", "5.5"), ("-1", "0"), ("1", "-1024")])
def test_rescaled_values_are_those_of_pydicom(tmp_path, slope, intercept):
    (path,) = write_volume(tmp_path, bumps("int16", -50, 4000)[:, :, :1], AFFINE, RescaleSlope=slope,
                           RescaleIntercept=intercept)  # fmt: skip
    dataset = pydicom.dcmread(path)
    expected = pydicom.pixels.apply_rescale(dataset.pixel_array, dataset)
    np.testing.assert_allclose(read([path]).data[0, :, :, 0].T, expected, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("name", ["voxels", "unpacked_bytes"])
def test_a_deflated_file_is_unpacked_as_far_as_limits_allow(tmp_path, monkeypatch, name):
    from segtool.formats.dicom import bounds

    affine = np.diag([-1.0, -1, 3, 1])
    volume = np.zeros((64, 64, 2), np.int16)
    paths = write_volume(tmp_path, volume, affine, syntax=DeflatedExplicitVRLittleEndian)
    assert all(path.stat().st_size < 2000 for path in paths)
    source = Source("dicom", tuple(paths))
    assert DicomFormat().read_image(source).data.shape == (1, 64, 64, 2)
    monkeypatch.setattr(bounds, "_INFLATED_HEADER", 0)
    monkeypatch.setattr(bounds, "_INFLATED_VOXELS", 32)
    small = replace(source, limits=replace(source.limits, **{name: {"voxels": 32 * 64 * 64}.get(name, 8000)}))
    with pytest.raises(LimitError, match=f"unpacks to more than .* raise the limit: --limit {name}="):
        DicomFormat().read_image(small)  # a slice has 8192 bytes
    assert DicomFormat().describe(small).geometry.shape == (64, 64, 2)
