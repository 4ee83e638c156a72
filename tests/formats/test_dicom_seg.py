"""DICOM SEG as references: ours, those of other makers, and where they lie."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_volume
from tiny import spec_of

from segtool.case import CaseSource, LabelMap, Source
from segtool.errors import GridError, UnreadableFileError
from segtool.formats import get_format, label_reader, read_labels_on
from segtool.geometry import Geometry
from segtool.loading import load_reference
from segtool.outputs import Result, get_output
from segtool.spec import LabelSpec

SHAPE = (6, 5, 9)
AFFINE = np.array([[-1.5, 0, 0, 10], [0, -1.5, 0, 20], [0, 0, 3.0, -5], [0, 0, 0, 1]])
FOUND = np.zeros(SHAPE, np.uint8)
FOUND[1:4, 2, 3] = 1
FOUND[4, 1:3, 5] = 4
"""In slices 3 and 5; segment 2 is label 4."""


@pytest.fixture
def scan(tmp_path: Path) -> Source:
    return Source("dicom", tuple(write_volume(tmp_path / "scan", np.ones(SHAPE, np.int16), AFFINE)))


def seg_of(scan: Source, found: np.ndarray = FOUND, kind: str = "dicom-seg", **changes: object) -> Source:
    labels = LabelSpec(name="NCR", value=1), LabelSpec(name="ET", value=4)
    geometry = get_format("dicom").describe(scan).geometry
    spec = spec_of("t1").model_copy(update={"labels": labels})
    path = scan.path.parent.parent / "a.seg.dcm"
    get_output(kind).write(path, replace(Result("a", scan, LabelMap(found, geometry), spec, "ab" * 32), **changes))
    return Source("dicom-seg", (path,))


def read(source: Source) -> LabelMap:
    labels = label_reader("dicom-seg").read_labels(source)
    assert labels is not None
    return labels


def change(source: Source, edit: Callable[[pydicom.Dataset], object]) -> Source:
    dataset = pydicom.dcmread(source.path)
    edit(dataset)
    dataset.save_as(source.path)
    return source


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-labelmap"])
def test_our_labels_come_back_from_the_first_slice_with_any_to_the_last(scan: Source, kind: str) -> None:
    labels = read(seg_of(scan, kind=kind))
    np.testing.assert_array_equal(labels.labels, FOUND[:, :, 3:6])
    assert labels.geometry.same_grid(Geometry.of_volume(SHAPE, AFFINE).cropped((slice(0, 6), slice(0, 5), slice(3, 6))))
    assert labels.notes == ()


@pytest.mark.parametrize("turn", [np.eye(4), np.diag([-1.0, 1, -1, 1])])
def test_a_scan_of_any_orientation_gets_the_labels_on_its_whole_grid(scan: Source, turn: np.ndarray) -> None:
    geometry = Geometry.of_volume(SHAPE, AFFINE)
    move = geometry.reorientation_to("LPS" if turn[0, 0] > 0 else "RPI")
    reference = load_reference(CaseSource("a", {"t1": scan}, seg_of(scan)), geometry.moved(move), strict=True)
    assert reference is not None
    np.testing.assert_array_equal(reference.labels, move.apply(FOUND))


def test_slices_between_frames_are_those_of_the_scan_whatever_the_header_says(scan: Source) -> None:
    def claim(dataset: pydicom.Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 7

    source = change(seg_of(scan), claim)
    assert read(source).labels.shape[2] == 2  # the header is wrong, so the nearest frames are neighbours
    placed = read_labels_on(source, Geometry.of_volume(SHAPE, AFFINE))
    assert placed is not None
    np.testing.assert_array_equal(placed.labels, FOUND)


def test_shares_count_from_a_half_and_the_report_says_so(scan: Source) -> None:
    shares = np.stack([FOUND == 1, FOUND == 4]) * np.array([0.49, 0.51], np.float32)[:, None, None, None]
    labels = read(seg_of(scan, probabilities=shares.astype(np.float32)))
    np.testing.assert_array_equal(labels.labels, np.where(FOUND == 4, 4, 0)[:, :, 3:6])
    assert labels.notes == ("fractional segmentation: taken from a share of 0.5 upwards",)


def test_an_empty_segmentation_is_background(scan: Source) -> None:
    assert not read(seg_of(scan, np.zeros_like(FOUND))).labels.any()


@pytest.mark.parametrize(
    ("name", "shape", "voxels", "note"),
    [
        ("cr_binary", (16, 16), {1: 151}, None),
        ("ct_binary", (16, 16, 3), {1: 638}, None),
        ("ct_binary_fractional", (16, 16, 3), {1: 638}, None),
        ("ct_true_fractional", (16, 16, 3), {1: 638}, "from a share of 0.5"),
        # Three neighbours and one frame 202.5 mm, or 162 slices, below.
        ("ct_binary_overlap", (16, 16, 165), {1: 48, 2: 16}, "16 voxels lie in several segments"),
        ("ct_binary_single_frame", (128, 128, 1), {1: 1832}, None),
    ],
)
def test_files_of_other_makers(
    real_data: Path, name: str, shape: tuple[int, ...], voxels: dict[int, int], note: str | None
) -> None:
    labels = read(Source("dicom-seg", (real_data / f"dicom/highdicom/data/test_files/seg_image_{name}.dcm",)))
    assert labels.labels.shape == labels.geometry.shape == shape
    assert {value: int((labels.labels == value).sum()) for value in np.unique(labels.labels) if value} == voxels
    assert len(labels.notes) == (note is not None)
    assert not note or note in labels.notes[0]


def test_what_is_no_segmentation_of_a_scan_is_refused_by_name(real_data: Path) -> None:
    folder = real_data / "dicom/highdicom/data/test_files"
    slides = list(folder.glob("seg_image_sm_*.dcm"))
    assert len(slides) == 6
    for path in slides:
        with pytest.raises(UnreadableFileError, match="a segmentation of a microscopy slide, not of a scan"):
            read(Source("dicom-seg", (path,)))
    with pytest.raises(UnreadableFileError, match="CT Image Storage, wanted a DICOM segmentation"):
        read(Source("dicom-seg", (folder / "ct_image.dcm",)))


def _apart(dataset: pydicom.Dataset) -> None:
    # A third frame, 2.4 of a slice above the first and so no multiple of any distance.
    for frame, mm in zip(dataset.PerFrameFunctionalGroupsSequence, (0, 6, 7.3), strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, mm]


def _beside(dataset: pydicom.Dataset) -> None:
    for frame, x, z in zip(dataset.PerFrameFunctionalGroupsSequence, (0, 2, 0), (0, 3, 6), strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = [x, 0, z]


def _turned(dataset: pydicom.Dataset) -> None:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frames = dataset.PerFrameFunctionalGroupsSequence
    for frame in frames:
        frame.PlaneOrientationSequence = [pydicom.Dataset()]
        frame.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    del shared.PlaneOrientationSequence
    frames[0].PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def _without_frames(dataset: pydicom.Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence


def _cut(dataset: pydicom.Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:4]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_apart, "frames at uneven distances.*Convert it to NIfTI"),
        (_beside, r"frames up to 2\.00 mm beside an even stack"),
        (_turned, "frames of several directions or spacings"),
        (_without_frames, "without frames"),
        (_cut, "cannot be read as DICOM"),
    ],
)
def test_what_forms_no_stack_is_refused(scan: Source, edit: Callable[[pydicom.Dataset], object], message: str) -> None:
    found = FOUND.copy()
    found[2, 2, 4] = 1
    source = change(seg_of(scan, found), edit)
    with pytest.raises(UnreadableFileError, match=message):
        read(source)


def test_another_frame_of_reference_is_refused(scan: Source) -> None:
    source, geometry = seg_of(scan), Geometry.of_volume(SHAPE, AFFINE)
    own = get_format("dicom").read_image(scan).frame_of_reference
    assert read_labels_on(source, geometry, own) is not None
    with pytest.raises(GridError, match="another frame of reference"):
        read_labels_on(source, geometry, "0" * 64)
