"""RT Structure Sets of others as references."""

import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import saved
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from segtool.case import LabelMap, Source
from segtool.errors import GridError, UnreadableFileError
from segtool.formats.rtstruct import LABEL, REGION, RtStructFormat
from segtool.geometry import Geometry

GRID = Geometry.of_volume((6, 5, 4), np.diag([-1.0, -1, 2, 1]))
"""So that millimetres in LPS are indices, but for slices 2 mm apart."""

SQUARE = [(0.5, 0.5), (3.5, 0.5), (3.5, 3.5), (0.5, 3.5)]
"""Around columns and rows 1 to 3."""
HOLE = [(1.5, 1.5), (2.5, 1.5), (2.5, 2.5), (1.5, 2.5)]


def structure_set(path: Path, *rois: dict, kind: str = "CLOSED_PLANAR", modality: str = "RTSTRUCT") -> Source:
    """A file of structures with ``number``, ``contours`` (x and y, and z in mm) and perhaps a ``description``."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = RTStructureSetStorage, "1.2.3", modality
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for roi in rois:
        described, drawn = pydicom.Dataset(), pydicom.Dataset()
        described.ROINumber = drawn.ReferencedROINumber = roi["number"]
        described.ROIName, described.ReferencedFrameOfReferenceUID = "Gerda", "1.2.9"
        described.ROIDescription = roi.get("description", "")
        drawn.ContourSequence = []
        for points, z in roi["contours"]:
            contour = pydicom.Dataset()
            contour.ContourGeometricType = roi.get("kind", kind)
            contour.ContourData = [f"{mm:.4f}" for x, y in points for mm in (x, y, z)]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(described)
        dataset.ROIContourSequence.append(drawn)
    return Source("rtstruct", (saved(path / "rt.dcm", dataset, ImplicitVRLittleEndian),))


def read(source: Source, grid: Geometry = GRID, frame: str = "") -> LabelMap:
    return RtStructFormat().read_labels_on(source, grid, frame)


def rows(label_map: LabelMap, k: int) -> list[str]:
    return ["".join(map(str, row)) for row in label_map.labels[:, :, k].T]


def test_a_structure_has_the_number_of_its_roi(tmp_path):
    found = read(structure_set(tmp_path, {"number": 3, "contours": [(SQUARE, 2)]}))
    assert rows(found, 1) == ["000000", "033300", "033300", "033300", "000000"]
    assert not found.labels[..., [0, 2, 3]].any()
    assert found.notes == ()


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_a_contour_inside_another_is_a_hole(tmp_path, kind):
    found = read(structure_set(tmp_path, {"number": 1, "contours": [(SQUARE, 0), (HOLE, 0)]}, kind=kind))
    assert rows(found, 0) == ["000000", "011100", "010100", "011100", "000000"]


def test_a_channel_to_a_hole_has_no_area(tmp_path):
    keyhole = [SQUARE[0], (0.5, 1.5), *HOLE, HOLE[0], (0.5, 1.5), SQUARE[3], SQUARE[2], SQUARE[1]]
    found = read(structure_set(tmp_path, {"number": 1, "contours": [(keyhole, 0)]}))
    assert rows(found, 0) == ["000000", "011100", "010100", "011100", "000000"]


def test_contours_through_the_outermost_centres_include_them(tmp_path):
    found = read(structure_set(tmp_path, {"number": 1, "contours": [([(1, 1), (3, 1), (3, 3), (1, 3)], 6)]}))
    assert rows(found, 3) == ["000000", "011100", "011100", "011100", "000000"]


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "SLA"])
def test_the_grid_may_have_its_axes_in_any_order(tmp_path, orientation):
    source = structure_set(tmp_path, {"number": 1, "contours": [(SQUARE, 2), (HOLE, 2), (HOLE, 6)]})
    move = GRID.reorientation_to(orientation)
    np.testing.assert_array_equal(read(source, GRID.moved(move)).labels, move.apply(read(source).labels))


def test_where_structures_overlap_the_last_wins_with_a_note(tmp_path):
    both = {"number": 2, "contours": [(HOLE, 0)]}, {"number": 1, "contours": [(SQUARE, 0)]}
    found = read(structure_set(tmp_path, *both))
    assert rows(found, 0)[2] == "012100"
    assert found.notes == ("1 voxels lie in several structures and have the label of the last",)


def test_descriptions_of_ours_name_the_label_and_regions_are_passed_over(tmp_path):
    rois = (
        {"number": 1, "contours": [(HOLE, 0)], "description": LABEL.format(4)},
        {"number": 2, "contours": [(SQUARE, 0)], "description": REGION.format("1, 4")},
        {"number": 4, "contours": [(SQUARE, 2)]},  # added by hand, its number taken
    )
    found = read(structure_set(tmp_path, *rois))
    assert rows(found, 0)[2] == "004000"
    assert rows(found, 1)[2] == "011100"
    assert found.notes == ("structure number 4 has the label 1",)


def test_points_and_lines_are_left_out_with_a_note(tmp_path):
    found = read(structure_set(tmp_path, {"number": 1, "contours": [(SQUARE, 0)], "kind": "OPEN_PLANAR"}))
    assert not found.labels.any()
    assert found.notes == ("1 points and lines of the structure set left out, which enclose nothing",)


def test_contours_a_little_beside_a_slice_are_put_into_it_with_a_note(tmp_path):
    found = read(structure_set(tmp_path, {"number": 1, "contours": [(SQUARE, 2.3)]}))
    assert rows(found, 1)[2] == "011100"
    assert found.notes == ("1 contours lie up to 0.15 slices beside the nearest slice, in which they were put",)


TILTED = Geometry.of_volume((6, 5, 4), np.array([[-1, 0, 0, 0], [0, -1, 0.9, 0], [0, 0.5, 2, 0], [0, 0, 0, 1.0]]))


@pytest.mark.parametrize(
    ("grid", "z", "said"),
    [
        (GRID, 3, "1.00 mm beside the nearest slice of the scan, which are 2.00 mm apart"),
        (GRID, 8, "1 of 1 contours lie outside the scan"),
        (TILTED, 0, "no plane of the scan's grid"),
        (Geometry.of_pixels((5, 6)), 0, "without a place"),
    ],
)
def test_contours_of_another_scan_are_refused(tmp_path, grid, z, said):
    source = structure_set(tmp_path, {"number": 1, "contours": [(SQUARE, z)]})
    with pytest.raises(GridError, match=f"{said}.*Give the scan on which the contours were drawn"):
        read(source, grid)


def test_another_frame_of_reference_is_refused(tmp_path):
    source = structure_set(tmp_path, {"number": 1, "contours": [(SQUARE, 0)]})
    assert read(source, frame=hashlib.sha256(b"1.2.9").hexdigest()).labels.any()
    with pytest.raises(GridError, match="another frame of reference"):
        read(source, frame=hashlib.sha256(b"1.2.10").hexdigest())


def test_without_a_scan_there_is_no_label_map(tmp_path):
    source = structure_set(tmp_path, {"number": 1, "contours": [(SQUARE, 0)]})
    with pytest.raises(UnreadableFileError, match="Give the scan beside them"):
        RtStructFormat().read_labels(source)


@pytest.mark.parametrize("how", ["scan", "kind", "numbers", "truncated"])
def test_damaged_files_are_one_line_without_names(tmp_path, how):
    roi = {"number": 1, "contours": [(SQUARE, 0)]}
    if how == "kind":
        roi["kind"] = "GERDA"
    source = structure_set(tmp_path, roi, modality="MR" if how == "scan" else "RTSTRUCT")
    content = source.path.read_bytes()
    if how == "numbers":
        source.path.write_bytes(content.replace(b"0.5000\\0.5000", b"0.5000\\0.5O00", 1))
    if how == "truncated":
        source.path.write_bytes(content[:-40])
    with pytest.raises(UnreadableFileError) as caught:
        read(source)
    assert "gerda" not in str(caught.value).lower()
