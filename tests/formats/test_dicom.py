"""Particulars of DICOM series."""

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import filled, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from segtool.case import LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.dicom.elements import looks_like_dicom
from segtool.formats.dicom.index import read_facts
from segtool.formats.dicom.series import DicomFormat
from segtool.formats.dicom.volumes import volumes_of
from segtool.formats.nifti import NiftiFormat

PIXELS = np.arange(12, dtype=np.int16).reshape(3, 4)  # 3 rows, 4 columns
FORM = DicomFormat()


def slice_at(position=(0, 0, 0), **changes):
    """A header and 3x4 pixels; a tag set to None is left out."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    tags = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3",
        "Modality": "MR",
        "PatientName": "Nobody^Known",
        "Rows": 3,
        "Columns": 4,
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [2, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelData": PIXELS.tobytes(),
    }
    return filled(dataset, tags | changes)


def series(folder, *datasets):
    return Source("dicom", tuple(saved(folder / f"{number}.dcm", each) for number, each in enumerate(datasets)))


def stack(folder, heights, **changes):
    return series(folder, *(slice_at((0, 0, height), **changes) for height in heights))


def both(source):
    """Image and description agree, or both refuse with the same line."""
    image, description = FORM.read_image(source), FORM.describe(source)
    assert description.geometry.same_grid(image.geometry)
    assert description.dtype == image.data.dtype.name
    return image


def refused(source, match):
    for method in (FORM.read_image, FORM.describe):
        with pytest.raises(UnreadableFileError, match=match) as caught:
            method(source)
        assert "Nobody" not in str(caught.value)


def test_slices_are_sorted_by_position_and_axes_are_columns_rows_slices(tmp_path):
    source = series(
        tmp_path,
        slice_at((10, 20, 35), PixelData=(PIXELS + 200).tobytes()),
        slice_at((10, 20, 30), PixelData=(PIXELS + 100).tobytes()),
        slice_at((10, 20, 25)),
    )
    image = both(source)
    assert image.data.shape == (1, 4, 3, 3)
    assert image.data[0, 0, 0].tolist() == [0, 100, 200]
    assert image.data[0, :, 1, 0].tolist() == [4, 5, 6, 7]
    # Columns lie 0.5 mm apart towards the left, rows 2 mm towards the back, slices 5 mm towards the head.
    expected = [[-0.5, 0, 0, -10], [0, -2, 0, -20], [0, 0, 5, 25], [0, 0, 0, 1]]
    np.testing.assert_array_equal(image.geometry.affine, expected)
    assert image.geometry.orientation == "LPS"


def test_slice_thickness_does_not_override_positions(tmp_path):
    source = stack(tmp_path, (0, 3.3, 6.6), SliceThickness=3, SpacingBetweenSlices=9)
    assert both(source).geometry.spacing_mm == pytest.approx((0.5, 2, 3.3))


@pytest.mark.parametrize(
    ("changes", "thickness_mm"),
    [
        ({"SpacingBetweenSlices": 6, "SliceThickness": 5}, 6),
        ({"SpacingBetweenSlices": 0, "SliceThickness": 5}, 5),
        ({"SliceThickness": 5}, 5),
        ({}, 1),
    ],
)
def test_a_single_slice_takes_its_thickness_from_the_header(tmp_path, changes, thickness_mm):
    assert both(stack(tmp_path, (7,), **changes)).geometry.spacing_mm == (0.5, 2, thickness_mm)


def test_rescaling_gives_float32_and_identity_does_not(tmp_path):
    scaled = both(stack(tmp_path, (0, 1), RescaleSlope="0.5", RescaleIntercept="-3"))
    assert scaled.data.dtype == np.float32
    np.testing.assert_array_equal(scaled.data[0, :, :, 1], PIXELS.T * 0.5 - 3)
    assert both(stack(tmp_path, (0, 1), RescaleSlope="1", RescaleIntercept="0")).data.dtype == np.int16


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path):
    image = both(series(tmp_path, slice_at((0, 0, 0), RescaleSlope="2"), slice_at((0, 0, 1), RescaleSlope="3")))
    assert image.data[0, 1, 0].tolist() == [2, 3]


def test_bits_that_are_not_stored_do_not_count(tmp_path):
    pixels = np.array([[0x0FFF, 0xF001, 0x0800, 0xF7FF]], np.uint16)
    changes = {"Rows": 1, "BitsStored": 12, "HighBit": 11, "PixelData": pixels.tobytes()}
    unsigned = both(stack(tmp_path, (0,), PixelRepresentation=0, **changes))
    signed = both(stack(tmp_path, (0,), PixelRepresentation=1, **changes))
    assert unsigned.data.ravel().tolist() == [4095, 1, 2048, 2047]
    assert signed.data.ravel().tolist() == [-1, 1, -2048, 2047]


def test_monochrome1_is_turned_round_so_that_bright_stays_bright(tmp_path):
    changes = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    unsigned = both(stack(tmp_path, (0,), PixelRepresentation=0, **changes))
    signed = both(stack(tmp_path, (0,), PixelRepresentation=1, **changes))
    assert unsigned.data[0, :, 0, 0].tolist() == [4095, 4094, 4093, 4092]
    assert signed.data[0, :, 0, 0].tolist() == [-1, -2, -3, -4]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
def test_transfer_syntaxes_give_the_same_voxels(tmp_path, syntax):
    dataset = slice_at()
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless, generate_instance_uid=False)
    source = Source("dicom", (saved(tmp_path / "a.dcm", dataset, syntax),))
    np.testing.assert_array_equal(both(source).data[0, :, :, 0], PIXELS.T)
    assert FORM.describe(source).details == ("MR", syntax.name, "1 slice")


def test_big_endian_gives_native_voxels(tmp_path):
    dataset = slice_at(PixelData=PIXELS.astype(">i2").tobytes())
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    image = both(Source("dicom", (saved(tmp_path / "a.dcm", dataset, ExplicitVRBigEndian),)))
    assert image.data.dtype.isnative
    np.testing.assert_array_equal(image.data[0, :, :, 0], PIXELS.T)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_is_read(tmp_path, implicit):
    path = tmp_path / "IM000001"
    dataset = slice_at()
    del dataset.file_meta
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)
    assert path.read_bytes()[:2] == b"\x08\x00"
    assert looks_like_dicom(path)
    np.testing.assert_array_equal(both(Source("dicom", (path,))).data[0, :, :, 0], PIXELS.T)


def test_a_missing_slice_is_named_by_its_gap(tmp_path):
    refused(stack(tmp_path, (0, 3, 6, 12, 15)), r"3\.00 mm apart, but 6\.00 mm between 6\.0 and 12\.0 mm.*missing")


@pytest.mark.parametrize(("last", "fits"), [(9.05, True), (9.2, False)])
def test_rounded_positions_are_even_enough(tmp_path, last, fits):
    source = stack(tmp_path, (0, 3, 6, last))
    if fits:
        both(source)
    else:
        refused(source, r"3\.20 mm between 6\.0 and 9\.2 mm")


def test_two_acquisitions_in_one_series_are_refused(tmp_path):
    refused(stack(tmp_path, (0, 0, 3, 3, 6, 6)), r"3 slices at positions that another one has.*dcm2niix")


def test_slices_off_the_line_are_refused(tmp_path):
    datasets = [slice_at((side, 0, height)) for side, height in ((0, 0), (4, 3), (0, 6))]
    refused(series(tmp_path, *datasets), "straight line")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        pytest.param({"Rows": 4, "Columns": 3}, r"3x4 \(1 of 2\) and 4x3 \(1 of 2\) pixels", id="sizes"),
        pytest.param(
            {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, r"several orientations.*localizers", id="turned"
        ),
        pytest.param({"PixelSpacing": [1, 1]}, "several pixel spacings", id="spacings"),
        pytest.param({"ImagePositionPatient": None}, "1 say nowhere", id="unplaced"),
    ],
)
def test_slices_that_do_not_fit_are_refused(tmp_path, changes, match):
    refused(series(tmp_path, slice_at((0, 0, 0)), slice_at(**{"position": (0, 0, 1)} | changes)), match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        pytest.param(
            {"SOPClassUID": EnhancedMRImageStorage, "NumberOfFrames": 8}, r"8 frames.*dcm2niix", id="enhanced"
        ),
        pytest.param({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, r"mosaic.*dcm2niix", id="mosaic"),
        pytest.param({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, r"colours \(RGB\)", id="colour"),
        pytest.param({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR", id="palette"),
        pytest.param({"SOPClassUID": SegmentationStorage, "Modality": "SEG"}, "scan that it segments", id="SEG"),
        pytest.param({"Rows": None}, "not an image", id="no rows"),
        pytest.param({"Rows": 60_000, "Columns": 60_000}, "claims 60000x60000 pixels", id="too many pixels"),
        pytest.param({"PixelSpacing": None}, "PixelSpacing", id="no spacing"),
        pytest.param({"PixelSpacing": [0, 1]}, "PixelSpacing", id="spacing of 0"),
        pytest.param({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular", id="parallel"),
        pytest.param({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "perpendicular", id="no direction"),
        pytest.param({"ModalityLUTSequence": []}, "Modality LUT", id="table"),
        pytest.param({"BitsAllocated": 12}, "export or copy it again", id="odd bits"),
        pytest.param({"ImagePositionPatient": [0, 0]}, "export or copy it again", id="half a position"),
        pytest.param({"BitsStored": None}, "export or copy it again", id="no bits"),
    ],
)
def test_what_is_no_slice_is_refused(tmp_path, changes, match):
    refused(stack(tmp_path, (0,), **changes), match)


def test_a_header_without_pixels_is_refused(tmp_path):
    source = stack(tmp_path, (0,), PixelData=None)
    with pytest.raises(UnreadableFileError, match="without pixels"):
        FORM.read_image(source)


def test_describe_reads_no_pixels(tmp_path):
    source = stack(tmp_path, (0, 1))
    for path in source.paths:
        path.write_bytes(path.read_bytes()[:-20])
    assert FORM.describe(source).geometry.shape == (4, 3, 2)
    with pytest.raises(UnreadableFileError, match="truncated"):
        FORM.read_image(source)


def test_a_picture_without_a_place_is_a_picture(tmp_path):
    dataset = slice_at(
        SOPClassUID=SecondaryCaptureImageStorage, ImagePositionPatient=None, ImageOrientationPatient=None
    )
    source = series(tmp_path, dataset)
    image = both(source)
    assert image.geometry.kind == "image"
    np.testing.assert_array_equal(image.data, PIXELS[np.newaxis])
    FORM.write_labels(tmp_path / "out.nii.gz", LabelMap(PIXELS.astype(np.uint8), image.geometry), source)
    back = NiftiFormat().read_labels(Source("nifti", (tmp_path / "out.nii.gz",)))
    assert back.geometry.orientation == "LPS"
    np.testing.assert_array_equal(back.labels[..., 0], PIXELS.T)


def test_masks_in_dicom_are_not_read(tmp_path):
    with pytest.raises(UnreadableFileError, match="Convert the mask to NIfTI"):
        FORM.read_labels(stack(tmp_path, (0,)))


def test_results_name_nobody(tmp_path):
    source = stack(tmp_path, (0, 1))
    image = FORM.read_image(source)
    FORM.write_labels(tmp_path / "out.nii", LabelMap(np.ones((4, 3, 2), np.uint8), image.geometry), source)
    assert b"Nobody" not in (tmp_path / "out.nii").read_bytes()


def test_odd_values_are_neither_warned_of_nor_logged(tmp_path, caplog):
    # A bad person name, a UID that is none and a decimal of 20 characters, as real scanners write them.
    path = stack(tmp_path, (0,), ImagePositionPatient=[0, 0, 0.25]).path
    content = path.read_bytes().replace(b"1.2.3\x00", b"1.b.3\x00")
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        both(Source("dicom", (path,)))
        assert read_facts([path]) != [None]
    assert caplog.records == []


def test_files_of_one_series_share_a_key_that_names_nobody(tmp_path):
    source = series(tmp_path, slice_at((0, 0, 0)), slice_at((0, 0, 1)), slice_at(SeriesInstanceUID="1.2.4"))
    first, second, other = read_facts(source.paths)
    assert first.series == second.series != other.series
    (volume, alone) = volumes_of([first, second, other]).volumes
    assert (len(volume.paths), volume.series, alone.series) == (2, first.series, other.series)
    assert (volume.set_aside, volume.facts.modality) == ("", "MR")
    # The first 8 digits of sha256("1.2.3").
    assert volume.short_name == "series-c47f5b18"
    assert "1.2.3" not in repr(volume)


def test_files_without_a_series_are_each_their_own(tmp_path):
    source = series(tmp_path, slice_at(SeriesInstanceUID=None), slice_at(SeriesInstanceUID=None))
    keys = {facts.series for facts in read_facts(source.paths)}
    assert len(keys) == 2


@pytest.mark.parametrize("modality", ["SEG", "SR"])
def test_other_objects_are_no_images(tmp_path, modality):
    volumes = volumes_of(read_facts(stack(tmp_path, (0,), Modality=modality).paths)).volumes
    assert all(volume.set_aside for volume in volumes)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"hello world, this is a text of more than sixteen bytes",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        bytes(400),
    ],
)
def test_other_files_are_not_dicom(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert not looks_like_dicom(tmp_path / "a")
    assert read_facts([tmp_path / "a"]) == [None]


angles = st.floats(-180, 180)


@settings(max_examples=25, deadline=None)
@given(
    turns=st.tuples(angles, angles, angles),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    is_reversed=st.booleans(),
)
def test_any_placement_puts_every_voxel_where_dicom_says(tmp_path_factory, turns, spacing, origin, is_reversed):
    """Equation C.7.6.2.1-1 of PS3.3 for the patient position of a pixel, against our affine."""
    rotation = np.eye(3)
    for axis, degrees in enumerate(turns):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.roll(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), (axis, axis), (0, 1))
        rotation = rotation @ turn
    row, column, normal = rotation.T * np.array([1, 1, -1 if is_reversed else 1])[:, np.newaxis]
    between_rows, between_columns, between_slices = spacing
    positions = [np.array(origin) + k * between_slices * normal for k in range(3)]
    datasets = [
        slice_at(
            [f"{value:.8f}"[:16] for value in position],
            ImageOrientationPatient=[f"{value:.10f}" for value in (*row, *column)],
            PixelSpacing=[f"{between_rows:.10f}", f"{between_columns:.10f}"],
            PixelData=(PIXELS + 100 * k).tobytes(),
        )
        for k, position in enumerate(positions)
    ]
    image = FORM.read_image(series(tmp_path_factory.mktemp("any"), *datasets))
    for i, j, k in np.ndindex(image.geometry.shape):
        number = int(image.data[0, i, j, k])
        at_slice, at_row, at_column = number // 100, number % 100 // 4, number % 4
        expected = positions[at_slice] + row * between_columns * at_column + column * between_rows * at_row
        found = (image.geometry.affine @ (i, j, k, 1))[:3] * (-1, -1, 1)
        np.testing.assert_allclose(found, expected, atol=1e-4)


TRUTHS = [
    "anatomical/001",
    "anatomical/001_implicit",
    "ge/anatomical/001",
    "ge/anatomical/001_single_slice",
    "generic/anatomical/001",
    "generic/anatomical/002_non_isotropic",
    "generic/compressed",
    "generic/compressed_j2k",
    "generic/compressed_jpeg",
    "generic/compressed_jpegls",
    "generic/compressed_rle",
    "hitachi/anatomical/001",
    "hitachi/anatomical/001_implicit",
]


@pytest.mark.parametrize("name", TRUTHS)
def test_real_series_agree_with_an_independent_conversion(real_data, name):
    folder = real_data / "dicom" / "dicom2nifti" / name
    truth_path = folder.with_name(f"{folder.name}_ground_truth.nii.gz")
    if not truth_path.exists():
        folder, truth_path = folder / "001", folder / "001_ground_truth.nii.gz"
    image = both(Source("dicom", tuple(sorted(folder.iterdir()))))
    truth = NiftiFormat().read_image(Source("nifti", (truth_path,)))
    here, there = (each.geometry.reorientation_to("RAS") for each in (image, truth))
    np.testing.assert_allclose(here.apply(image.data[0]), there.apply(truth.data[0]), atol=1e-4)
    assert image.geometry.moved(here).same_grid(truth.geometry.moved(there), tolerance_mm=1e-2)


def test_a_real_whole_head_series(real_data):
    paths = tuple(path for path in (real_data / "dicom" / "structural_t1" / "dicoms").iterdir())
    image = both(Source("dicom", paths))
    assert image.data.shape == (1, 274, 384, 64)
    assert image.geometry.orientation == "LPS"
    assert image.geometry.spacing_mm == pytest.approx((0.7, 0.6667, 0.6667), abs=1e-3)


def test_real_kinds_that_are_not_read_say_why(real_data):
    folder = real_data / "dicom"
    enhanced = folder / "dicom2nifti" / "hyperfine" / "anatomical" / "001" / "001.dcm"
    colour = folder / "dicom2nifti" / "generic" / "rgb" / "001" / "IM-0001-0001-0001.dcm"
    segmentation = folder / "highdicom" / "data" / "test_files" / "seg_image_ct_binary.dcm"
    for path, match in ((enhanced, "Enhanced MR"), (colour, "RGB"), (segmentation, "DICOM SEG")):
        refused(Source("dicom", (Path(path),)), match)
