"""DICOM series lie where their headers say, uneven ones are refused with numbers, and repaired where that is asked."""

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_volume
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from tiny import spec_of

from segtool.case import CaseSource, Source
from segtool.errors import GridError, UnreadableFileError
from segtool.formats.dicom.series import DicomFormat
from segtool.formats.dicom.slice import Slice
from segtool.formats.dicom.stack import plan_of, stack_plan
from segtool.formats.nifti import NiftiFormat
from segtool.geometry import Geometry, Reorientation
from segtool.loading import load_case

FORM = DicomFormat()
UPRIGHT = np.array([[-1.0, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1]])
"""Columns 1 mm apart, rows 2 mm, slices 3 mm."""


def turned(degrees):
    """A rotation about all three axes."""
    rotation = np.eye(3)
    for axis, angle in enumerate(degrees):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        rotation = rotation @ np.roll(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), (axis, axis), (0, 1))
    return rotation


PLANES = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIR"}


def cut(volume, affine, plane, *, is_reversed):
    """The scan cut in another plane: voxels ``(columns, rows, slices)`` and their affine."""
    if plane == "oblique":
        affine = affine.copy()
        affine[:3] = turned((20, -35, 50)) @ affine[:3]
        move = Reorientation((0, 1, 2), (False, True, False))
    else:
        move = Geometry.of_volume(volume.shape, affine).reorientation_to(PLANES[plane])
    move = Reorientation(move.order, (*move.flipped[:2], move.flipped[2] ^ is_reversed))
    return np.ascontiguousarray(move.apply(volume)), Geometry.of_volume(volume.shape, affine).moved(move).affine


@pytest.fixture(scope="module")
def scan(real_data):
    """A part of a real head, its axes of different lengths and spacings."""
    path = real_data / "progression" / "01_Pre" / "01_Pre_t1ce.nii.gz"
    voxels = NiftiFormat().read_image(Source("nifti", (path,))).data[0]
    affine = np.array([[-0.9, 0, 0, 31], [0, -1.1, 0, 17.5], [0, 0, 2.5, -44], [0, 0, 0, 1]])
    return np.ascontiguousarray(voxels[100:130, 90:116]), affine


def shuffled(count):
    names = [f"{number:03}" for number in range(count)]
    random.Random(count).shuffle(names)
    return names


def source_of(paths, *, lenient=False):
    return Source("dicom", tuple(sorted(paths)), lenient=lenient)


def both(source):
    """Image and description agree."""
    image, description = FORM.read_image(source), FORM.describe(source)
    assert description.geometry.same_grid(image.geometry, 1e-9)
    assert description.dtype == image.data.dtype.name
    assert image.data.shape == (1, *image.geometry.shape)
    return image


def refused(source, match):
    for method in (FORM.read_image, FORM.describe, stack_plan):
        with pytest.raises(UnreadableFileError, match=match) as caught:
            method(source)
        assert "Gerda" not in str(caught.value)


def pixels_of(paths):
    """The pixels of each file alone, ``(N, rows, columns)``."""
    return np.stack([FORM.read_image(Source("dicom", (path,))).data[0, :, :, 0].T for path in paths])


# Where slices lie.


@pytest.mark.parametrize("is_reversed", [False, True], ids=["along", "against"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique"])
def test_a_scan_cut_in_any_plane_lies_where_it_lay(scan, tmp_path, plane, is_reversed):
    voxels, affine = cut(*scan, plane, is_reversed=is_reversed)
    source = source_of(write_volume(tmp_path, voxels, affine, names=shuffled(voxels.shape[2])))
    image = both(source)
    found, meant = image.geometry, Geometry.of_volume(voxels.shape, affine)
    here, there = (each.reorientation_to("RAS") for each in (found, meant))
    np.testing.assert_array_equal(here.apply(image.data[0]), there.apply(voxels))
    np.testing.assert_allclose(found.moved(here).affine, meant.moved(there).affine, atol=1e-6)
    np.testing.assert_array_equal(stack_plan(source).to_slices(image.data[0]), pixels_of(source.paths))


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda syntax: syntax.keyword,
)
def test_a_scan_is_the_same_in_every_uncompressed_syntax(scan, tmp_path, syntax):
    voxels, affine = cut(*scan, "coronal", is_reversed=False)
    image = both(source_of(write_volume(tmp_path, voxels, affine, syntax=syntax)))
    found, meant = image.geometry, Geometry.of_volume(voxels.shape, affine)
    here, there = (each.reorientation_to("RAS") for each in (found, meant))
    np.testing.assert_array_equal(here.apply(image.data[0]), there.apply(voxels))
    np.testing.assert_allclose(found.moved(here).affine, meant.moved(there).affine, atol=1e-6)


# What is refused, and what lenient reading makes of it.


def ramp(count, shape=(5, 4), step=10):
    """Voxels that say how far along the third axis they lie."""
    return np.broadcast_to(np.arange(count, dtype=np.int16) * step, (*shape, count)).copy()


def at(folder, steps, **more):
    """Slices 3 mm apart at these steps, whose value is 10 a step."""
    values = np.broadcast_to(np.rint(np.array(steps) * 10).astype(np.int16), (5, 4, len(steps))).copy()
    return write_volume(folder, values, UPRIGHT, steps=steps, **more)


def test_a_missing_slice_is_refused_with_numbers_and_interpolated(tmp_path):
    paths = at(tmp_path, [0, 1, 2, 3, 4, 7, 8, 9, 10, 11])
    refused(
        source_of(paths),
        r"slices are 3\.00 mm apart, but 9\.00 mm between 12\.0 and 21\.0 mm along the normal \(2 missing\)"
        r".*Add the missing slices, or pass --lenient",
    )
    source = source_of(paths, lenient=True)
    image = both(source)
    np.testing.assert_allclose(image.data[0], ramp(12), atol=1e-4)
    np.testing.assert_allclose(image.geometry.affine, UPRIGHT, atol=1e-9)
    assert image.notes == FORM.describe(source).details[3:]
    assert image.notes[0].startswith("2 of 12 slices interpolated: slices are 3.00 mm apart")
    np.testing.assert_array_equal(stack_plan(source).to_slices(ramp(12)), pixels_of(source.paths))


@pytest.mark.parametrize("present", [[0, 1, 3, *range(4, 12)], [0, 2, 3, *range(4, 12)], [*range(10), 11, 12]])
def test_a_gap_anywhere_is_interpolated(tmp_path, present):
    image = both(source_of(at(tmp_path, present), lenient=True))
    np.testing.assert_allclose(image.data[0], ramp(present[-1] + 1), atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        pytest.param(
            [*range(10), *range(14, 25)], r"15\.00 mm between 27\.0 and 42\.0 mm.*\(4 missing\)", id="in a row"
        ),
        pytest.param([0, 2, 3, 4, 6, 7], r"6\.00 mm between 0\.0 and 6\.0 mm and 6\.00 mm between", id="a third"),
        pytest.param(
            [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16],
            r"between 6\.0 and 12\.0 mm, .* between 15\.0 and 21\.0 mm, .* and 2 gaps more .*\(5 missing\)",
            id="many",
        ),
    ],
)
def test_too_many_missing_slices_are_refused_with_the_limits(tmp_path, steps, match):
    paths = at(tmp_path, steps)
    for lenient in (False, True):
        refused(source_of(paths, lenient=lenient), match)
        with pytest.raises(UnreadableFileError, match=r"at most 3 in a row and 20% of all\. Add the") as caught:
            stack_plan(source_of(paths, lenient=lenient))
        assert "--lenient" not in str(caught.value)


def test_the_distance_that_most_share_is_the_usual_one_however_many_slices_miss(tmp_path):
    refused(source_of(at(tmp_path, [0, 1, 3])), r"3\.00 mm apart, but 6\.00 mm between 3\.0 and 9\.0 mm.*\(1 missing\)")


def test_repeated_slices_are_refused_with_their_places_and_left_out(tmp_path):
    paths = at(tmp_path / "a", [0, 1, 2, 3]) + at(tmp_path / "b", [1, 2])
    refused(source_of(paths), r"2 slices at positions that another one has, at 3\.0, 6\.0 mm.*acquisitions.*--lenient")
    source = source_of(paths, lenient=True)
    image = both(source)
    assert image.data.dtype == np.int16
    np.testing.assert_array_equal(image.data[0], ramp(4))
    assert image.notes == ("2 slices left out that repeat another one to the pixel",)
    np.testing.assert_array_equal(stack_plan(source).to_slices(ramp(4)), pixels_of(source.paths))


def test_of_slices_that_differ_at_one_position_the_first_is_kept(tmp_path):
    other = write_volume(tmp_path / "b", ramp(4) + 500, UPRIGHT)
    source = source_of(at(tmp_path / "a", [0, 1, 2, 3]) + other[2:3], lenient=True)
    image = both(source)
    np.testing.assert_array_equal(image.data[0], ramp(4))
    assert image.notes == ("1 slice left out whose position another one has with other pixels (kept: the first)",)
    # The labels of its position, though its pixels are not in the volume.
    assert (stack_plan(source).to_slices(ramp(4))[:, 0, 0] == [0, 10, 20, 30, 20]).all()


def test_slices_side_by_side_in_one_plane_are_no_repeats(tmp_path):
    beside = UPRIGHT.copy()
    beside[0, 3] -= 5
    paths = at(tmp_path / "a", [0, 1, 2]) + write_volume(tmp_path / "b", ramp(3), beside)
    for lenient in (False, True):
        refused(source_of(paths, lenient=lenient), r"3 slices at positions.*up to 5\.0 mm beside it.*Split")


def test_unequal_spacing_is_refused_with_numbers_and_resampled(tmp_path):
    # Heights 0, 3, 6.6, 9, 12 and 15 mm; the values are those of the heights.
    paths = at(tmp_path, [0, 1, 2.2, 3, 4, 5])
    refused(
        source_of(paths),
        r"slices are 3\.00 mm apart, but 3\.60 mm between 3\.0 and 6\.6 mm and 2\.40 mm between 6\.6 and 9\.0 mm "
        r"along the normal \(unequal spacing\).*--lenient",
    )
    source = source_of(paths, lenient=True)
    image = both(source)
    np.testing.assert_allclose(image.data[0], ramp(6), atol=1e-4)
    np.testing.assert_allclose(image.geometry.affine, UPRIGHT, atol=1e-9)
    assert image.notes[0].startswith("6 slices resampled onto 6, 3.00 mm apart: slices are")
    np.testing.assert_array_equal(stack_plan(source).to_slices(ramp(6)), pixels_of(source.paths) // 10 * 10)


def test_distances_that_creep_are_unequal(tmp_path):
    # Each 0.02 mm more than the last: no two neighbours differ, the middle lies 0.72 mm from an even stack.
    steps = np.cumsum([0, *(1 + 0.02 / 3 * np.arange(17))])
    refused(source_of(at(tmp_path, list(steps))), r"unequal spacing")


def sheared(shift_mm):
    """Each slice lies ``shift_mm`` further back than the one below."""
    affine = UPRIGHT.copy()
    affine[1, 2] = -shift_mm
    return affine


def test_a_tilted_gantry_is_refused_with_its_angle_and_corrected(tmp_path):
    # Row r of slice k lies 2 r + 0.5 k mm to the back, and its value is ten times that.
    rows, slices = np.meshgrid(np.arange(8), np.arange(9), indexing="ij")
    values = np.broadcast_to((20 * rows + 5 * slices).astype(np.int16), (3, 8, 9)).copy()
    paths = write_volume(tmp_path, values, sheared(0.5))
    refused(source_of(paths), r"tilted by 9\.46 degrees.*gantry.*--lenient")
    source = source_of(paths, lenient=True)
    image = both(source)
    assert image.notes == ("gantry tilt of 9.46 degrees corrected by shifting slices in their plane",)
    # The last slice begins 4 mm, two rows, behind the first.
    assert image.geometry.shape == (3, 10, 9)
    np.testing.assert_allclose(image.geometry.affine, UPRIGHT, atol=1e-9)
    for k in range(9):
        inside = slice(int(np.ceil(k / 4)), 8 + k // 4)
        expected = np.broadcast_to(20.0 * np.arange(10)[inside], (3, inside.stop - inside.start))
        np.testing.assert_allclose(image.data[0, :, inside, k], expected, atol=1e-4)
    labels = np.broadcast_to(np.arange(10, dtype=np.uint8)[np.newaxis, :, np.newaxis], (3, 10, 9))
    parted = stack_plan(source).to_slices(labels)
    assert parted.shape == (9, 8, 3)
    for k, begin in enumerate([0, 0, 0, 1, 1, 1, 2, 2, 2]):
        assert parted[k, :, 0].tolist() == list(range(begin, begin + 8))


def test_a_tilt_within_the_rounding_of_tags_is_none(tmp_path):
    slight = sheared(3 * np.tan(np.radians(0.09)))
    np.testing.assert_allclose(both(source_of(write_volume(tmp_path / "a", ramp(300), slight))).geometry.affine, slight)
    # 0.4 degrees, but no more than a fifth of a pixel from the first to the last slice.
    both(source_of(write_volume(tmp_path / "b", ramp(10), sheared(0.02))))
    refused(source_of(write_volume(tmp_path / "c", ramp(100), sheared(0.02))), r"tilted by 0\.38 degrees")


def test_slices_that_wander_are_put_upright(tmp_path):
    paths = []
    for k, side in enumerate([0.0, 2.0, 0.0]):
        affine = UPRIGHT.copy()
        affine[0, 3] -= side
        affine[2, 3] += 3 * k
        paths += write_volume(tmp_path, ramp(1) + 7, affine, names=[f"{k}"])
    refused(source_of(paths), r"straight line, but up to 2\.00 mm beside it.*--lenient")
    image = both(source_of(paths, lenient=True))
    assert image.geometry.shape == (7, 4, 3)
    np.testing.assert_allclose(image.geometry.affine, UPRIGHT, atol=1e-9)
    np.testing.assert_allclose(image.data, 7)


def test_slices_with_nothing_above_each_other_are_refused(tmp_path):
    for lenient in (False, True):
        refused(source_of(write_volume(tmp_path, ramp(9), sheared(2)), lenient=lenient), "too far to shift.*dcm2niix")


def test_several_faults_are_repaired_at_once(tmp_path):
    paths = write_volume(tmp_path / "a", ramp(12), sheared(0.5))
    paths[5].unlink()
    again = write_volume(tmp_path / "b", ramp(12), sheared(0.5))[3:4]
    source = source_of([path for path in paths if path.exists()] + again, lenient=True)
    image = both(source)
    assert image.geometry.shape == (5, 7, 12)
    # Away from the margins.
    np.testing.assert_allclose(image.data[0, :, 3, :], ramp(12)[:, 0], atol=1e-4)
    assert [note.split()[0] for note in image.notes] == ["gantry", "1", "1"]
    assert stack_plan(source).to_slices(ramp(12, (5, 7)))[:, 0, 0].tolist() == [
        0,
        10,
        20,
        30,
        40,
        *range(60, 120, 10),
        30,
    ]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("more", "match"),
    [
        pytest.param(
            {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, r"several orientations.*\(1 unlike", id="turned"
        ),
        pytest.param({"PixelSpacing": [1, 1]}, r"pixel spacings in one series \(2x1 and 1x1 mm\)", id="spacings"),
        pytest.param({"Rows": 2}, r"4x5 \(3 of 4\) and 2x5 \(1 of 4\) pixels", id="sizes"),
    ],
)
def test_slices_of_several_kinds_are_refused_either_way(tmp_path, more, match, lenient):
    paths = at(tmp_path / "a", [0, 1, 2])
    voxels = ramp(1)[:, : more.get("Rows", 4)]
    paths += write_volume(tmp_path / "b", np.ascontiguousarray(voxels), UPRIGHT, steps=[3], **more)
    refused(source_of(paths, lenient=lenient), match)


def test_frames_of_reference_are_not_mixed(tmp_path):
    paths = at(tmp_path / "a", [0, 1]) + at(tmp_path / "b", [2, 3], FrameOfReferenceUID="1.2.10")
    refused(source_of(paths), r"2 frames of reference.*--lenient")
    assert both(source_of(paths, lenient=True)).notes == ("2 frames of reference in one series were taken as one",)


def test_a_picture_is_its_own_slice(tmp_path):
    paths = write_volume(tmp_path, ramp(1), UPRIGHT, ImagePositionPatient=None, ImageOrientationPatient=None)
    labels = np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(stack_plan(source_of(paths)).to_slices(labels), labels[np.newaxis])


angle = st.floats(-180, 180)


@settings(max_examples=150, deadline=None)
@given(
    turns=st.tuples(angle, angle, angle),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    slope=st.tuples(*[st.floats(-0.5, 0.5)] * 2),
    left_out=st.sets(st.integers(1, 12), max_size=2),
    order=st.permutations(range(14)),
)
def test_labels_of_a_pixel_are_those_of_the_nearest_voxel(turns, spacing, origin, slope, left_out, order):
    """Equation C.7.6.2.1-1 of PS3.3 for the place of a pixel, against voxel and affine of a repaired stack."""
    row, column, normal = turned(turns)
    normal = np.cross(row, column)
    down, across, apart = spacing
    rows, columns = 40, 50
    step = apart * (normal + slope[0] * row + slope[1] * column)
    drift = np.abs(slope) * apart * 13
    assume(drift[0] < columns * across and drift[1] < rows * down)
    slices = [
        Slice(
            path=Path("a"), size=(rows, columns), position=tuple(np.array(origin) + k * step), row=tuple(row),
            column=tuple(column), spacing=(down, across), thickness=1, rescale=(1, 0), dtype="int16",
            inverted_from=None, modality="MR", syntax="",
        )
        for k in order
        if k not in left_out
    ]  # fmt: skip
    plan = plan_of(slices, lenient=True)
    voxel = np.arange(np.prod(plan.geometry.shape), dtype=np.int64).reshape(plan.geometry.shape)
    parted = plan.to_slices(voxel)
    assert parted.shape == (len(slices), rows, columns)
    for file, header in enumerate(slices):
        for r, c in ((0, 0), (rows - 1, 3), (7, columns - 1)):
            place = np.array(header.position) + c * across * row + r * down * column
            index = np.unravel_index(parted[file, r, c], plan.geometry.shape)
            found = (plan.geometry.affine @ (*index, 1))[:3] * (-1, -1, 1)
            off = np.abs([(found - place) @ row / across, (found - place) @ column / down, (found - place) @ normal])
            assert (off[:2] < 0.5 + 1e-6).all()
            assert off[2] < 1e-6


# Against another converter.


def converted(folder, out):
    """What dcm2niix makes of a folder: voxels and geometry, whichever way round."""
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed")
    out.mkdir()
    subprocess.run(
        ["dcm2niix", "-b", "n", "-z", "n", "-f", "x", "-o", str(out), str(folder)], check=True, capture_output=True
    )
    (path,) = out.glob("*.nii")
    image = NiftiFormat().read_image(Source("nifti", (path,)))
    return image.data[0], image.geometry


def agree(source, folder, out):
    image = both(source)
    voxels, geometry = converted(folder, out)
    here, there = (each.reorientation_to("RAS") for each in (image.geometry, geometry))
    np.testing.assert_allclose(image.geometry.moved(here).affine, geometry.moved(there).affine, atol=1e-4)
    np.testing.assert_allclose(here.apply(image.data[0]), there.apply(voxels), rtol=1e-6)


@pytest.mark.parametrize("is_reversed", [False, True], ids=["along", "against"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique"])
def test_made_series_lie_where_dcm2niix_puts_them(scan, tmp_path, plane, is_reversed):
    voxels, affine = cut(*scan, plane, is_reversed=is_reversed)
    paths = write_volume(tmp_path / "in", voxels, affine, names=shuffled(voxels.shape[2]))
    agree(source_of(paths), tmp_path / "in", tmp_path / "out")


def test_real_series_lie_where_dcm2niix_puts_them(real_data, tmp_path):
    folders = sorted({path.parent for path in (real_data / "dicom").rglob("*.dcm")})
    # Colours, several frames, and many things of many kinds; dcm2niix may lack JPEG-LS.
    left_out = {"rgb", "hyperfine", "test_files", "compressed_jpegls"}
    kept = [folder for folder in folders if not left_out & set(folder.parts)]
    kept.append(real_data / "dicom" / "structural_t1" / "dicoms")
    for number, folder in enumerate(dict.fromkeys(kept)):
        agree(source_of(folder.iterdir()), folder, tmp_path / str(number))


# Several series of one case.


def case_of(folder, *, lenient=False, **second):
    first = write_volume(folder / "t1", ramp(4), UPRIGHT)
    other = write_volume(folder / "t2", ramp(4), UPRIGHT, **second)
    channels = {"t1": source_of(first, lenient=lenient), "t2": source_of(other, lenient=lenient)}
    return CaseSource("case", channels)


def test_channels_of_other_frames_of_reference_are_refused(tmp_path):
    spec = spec_of("t1", "t2")
    assert load_case(case_of(tmp_path / "a"), spec).notes == ()
    with pytest.raises(GridError, match=r"t2 has another frame of reference than t1 \(\w{8}, not \w{8}\).*--lenient"):
        load_case(case_of(tmp_path / "b", FrameOfReferenceUID="1.2.10"), spec)
    case = load_case(case_of(tmp_path / "b", FrameOfReferenceUID="1.2.10", lenient=True), spec)
    assert case.notes == ("t2 has another frame of reference than t1; positions taken as they are",)
    # A header that says nothing contradicts nothing.
    assert load_case(case_of(tmp_path / "c", FrameOfReferenceUID=None), spec).notes == ()


def test_notes_of_reading_are_those_of_the_case(tmp_path):
    case = load_case(case_of(tmp_path, steps=[0, 1, 1, 2], lenient=True), spec_of("t1", "t2"))
    assert [note[:16] for note in case.notes] == ["t2: 1 slice left", "t2 resampled ont"]
    alone = CaseSource("case", {"": source_of(at(tmp_path / "one", [0, 1, 2, 4, 5]), lenient=True)})
    assert load_case(alone, spec_of("t1")).notes[0].startswith("1 of 6 slices interpolated")
