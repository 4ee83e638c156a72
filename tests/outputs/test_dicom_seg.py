"""DICOM SEG and label map SEG: what other software finds in them."""

from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import PERSONAL, write_volume
from tiny import spec_of

from segtool.case import LabelMap, Source
from segtool.errors import OutputError
from segtool.formats import get_format, read_labels_on
from segtool.formats.dicom.quiet import quiet
from segtool.outputs import Result, get_output
from segtool.spec import Code, LabelCode, LabelSpec

SHAPE = (9, 7, 6)
NCR, ED, ET = (LabelSpec(name=name, value=value) for name, value in (("NCR", 1), ("ED", 2), ("ET", 4)))

_TURN = 0.3
_OBLIQUE = np.array([[np.cos(_TURN), np.sin(_TURN), 0], [-np.sin(_TURN), np.cos(_TURN), 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, np.cos(0.2), np.sin(0.2)], [0, -np.sin(0.2), np.cos(0.2)]]
)
# Columns are the RAS directions of i, j and k.
PLANES = {
    "axial": np.diag([-1.0, -1, 1]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0, 0, -1.0], [-1, 0, 0], [0, -1, 0]]),
    "oblique": _OBLIQUE,
}


def grid(plane: str = "axial", direction: int = 1) -> np.ndarray:
    """0.75 x 1.25 x 2.5 mm."""
    affine = np.eye(4)
    affine[:3, :3] = PLANES[plane] * (0.75, 1.25, 2.5 * direction)
    affine[:3, 3] = 12.5, -7.25, 30.125
    return affine


def result_of(
    folder: Path, affine: np.ndarray, labels: tuple[LabelSpec, ...] = (NCR, ED, ET), **tags: object
) -> Result:
    """A finished case whose files lie in no order, labelled in slices 1, 2 and 4."""
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    paths = write_volume(folder, voxels, affine, names=[f"{k * 5 % 6}.dcm" for k in range(SHAPE[2])], **tags)
    source = Source("dicom", tuple(sorted(paths)))
    geometry = get_format("dicom").read_image(source).geometry
    found = np.zeros(SHAPE, np.uint8)
    for place, label in zip(((slice(2, 5), 3, 1), (slice(2, 8), slice(1, 4), 2), (6, 5, 4)), labels, strict=False):
        found[place] = label.value
    spec = spec_of("t1").model_copy(update={"labels": labels})
    return Result("case", source, LabelMap(found, geometry), spec, "ab" * 32)


def written(path: Path, result: Result, kind: str = "dicom-seg") -> pydicom.Dataset:
    get_output(kind).write(path, result)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-labelmap"])
def test_highdicom_finds_the_voxels_of_the_nifti_result(tmp_path: Path, kind: str, plane: str, direction: int) -> None:
    result = result_of(tmp_path / "in", grid(plane, direction))
    written(tmp_path / "a.dcm", result, kind)
    get_format("dicom").write_labels(tmp_path / "a.nii.gz", result.label_map, result.source)
    nifti = nibabel.load(tmp_path / "a.nii.gz")
    with quiet():
        seg = highdicom.seg.segread(tmp_path / "a.dcm")
        volume = seg.get_volume(combine_segments=True, rescale_fractional=False, allow_missing_positions=True)
    values = {n: int(seg.get_segment_description(n).SegmentDescription.split()[-1]) for n in seg.segment_numbers}
    assert list(values.items()) == [(1, 1), (2, 2), (3 if kind == "dicom-seg" else 4, 4)]
    found = np.array([values.get(n, 0) for n in range(5)])[volume.array]
    labels = np.asarray(nifti.dataobj)
    assert np.count_nonzero(found) == np.count_nonzero(labels) == 22
    lps = np.argwhere(labels) @ nifti.affine[:3, :3].T + nifti.affine[:3, 3]
    indices = np.rint((lps * (-1, -1, 1) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T).astype(int)
    np.testing.assert_array_equal(found[tuple(indices.T)], labels[labels > 0])


def test_each_frame_lies_where_its_source_image_lies(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid("oblique", -1))
    seg = written(tmp_path / "a.dcm", result)
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, result.source.paths)}
    assert seg.NumberOfFrames == 3
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (item,) = frame.DerivationImageSequence[0].SourceImageSequence
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert position == images[item.ReferencedSOPInstanceUID].ImagePositionPatient
    (series,) = seg.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == images.keys()
    (measures,) = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SpacingBetweenSlices == 2.5


def test_segments_say_what_they_are_and_who_found_them(tmp_path: Path) -> None:
    own = LabelCode(
        category=Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"),
        type=Code(value="50960005", scheme="SCT", meaning="Hemorrhage"),
        colour=(255, 0, 0),
    )
    labels = (ET, LabelSpec(name="odd\\name", value=7), LabelSpec(name="blood", value=2, code=own))
    seg = written(tmp_path / "a.dcm", result_of(tmp_path / "in", grid(), labels))
    types = [s.SegmentedPropertyTypeCodeSequence[0] for s in seg.SegmentSequence]
    assert [(t.CodeValue, t.CodingSchemeDesignator) for t in types] == [
        ("C113842", "NCIt"),
        ("52988006", "SCT"),  # nobody knows the name: a lesion
        ("50960005", "SCT"),
    ]
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [
        (1, "ET"),
        (2, "odd/name"),
        (3, "blood"),
    ]
    assert [s.SegmentDescription for s in seg.SegmentSequence] == ["label value 4", "label value 7", "label value 2"]
    first = seg.SegmentSequence[0]
    (algorithm,) = first.SegmentationAlgorithmIdentificationSequence
    assert (first.SegmentAlgorithmType, algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (
        "AUTOMATIC",
        "test",
        "1",
    )
    assert algorithm.AlgorithmParameters == "model_sha256=" + "ab" * 32
    assert first.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert len({s.TrackingUID for s in seg.SegmentSequence}) == 3
    lightness = seg.SegmentSequence[2].RecommendedDisplayCIELabValue[0] / 65535 * 100
    assert lightness == pytest.approx(53.2, abs=0.1)  # of pure red


def test_a_scan_without_a_finding_has_one_empty_frame_a_segment(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid())
    empty = replace(result, label_map=LabelMap(np.zeros(SHAPE, np.uint8), result.label_map.geometry))
    seg = written(tmp_path / "a.dcm", empty)
    assert seg.NumberOfFrames == 3
    assert not seg.pixel_array.any()
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SHAPE[2]
    assert written(tmp_path / "b.dcm", empty, "dicom-labelmap").NumberOfFrames == 1


def test_probabilities_are_written_in_255ths(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid("sagittal", -1), (NCR, ED))
    labels = result.label_map.labels
    shares = np.stack([np.where(labels == 1, 0.6, 0.001), np.where(labels == 2, 1.0, 0.0)]).astype(np.float32)
    seg = written(tmp_path / "a.dcm", replace(result, probabilities=shares))
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert np.unique(seg.pixel_array, return_counts=True)[1].tolist()[1:] == [3, 18]
    assert set(np.unique(seg.pixel_array)) == {0, 153, 255}
    with quiet():
        read = highdicom.seg.segread(tmp_path / "a.dcm").get_volume(allow_missing_positions=True)
    assert read.array.max() == pytest.approx(1)
    assert np.count_nonzero(read.array[..., 0] > 0.5) == 3


def test_probabilities_lie_in_their_slices_where_careless_tools_gave_all_one_uid(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid(), (NCR, ED), SOPInstanceUID="1.2.7.1")
    labels = result.label_map.labels
    shares = np.stack([labels == 1, labels == 2]).astype(np.float32)
    written(tmp_path / "a.seg.dcm", replace(result, probabilities=shares))
    read = read_labels_on(Source("dicom-seg", (tmp_path / "a.seg.dcm",)), result.label_map.geometry)
    np.testing.assert_array_equal(read.labels, labels)


def test_equal_input_gives_equal_bytes_and_another_finding_another_object(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid())
    one, two = (written(tmp_path / name, result) for name in ("1.dcm", "2.dcm"))
    assert (tmp_path / "1.dcm").read_bytes() == (tmp_path / "2.dcm").read_bytes()
    found = result.label_map.labels.copy()
    found[0, 0, 0] = 1
    other = written(tmp_path / "3.dcm", replace(result, label_map=LabelMap(found, result.label_map.geometry)))
    assert one.SOPInstanceUID == two.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID == other.SeriesInstanceUID
    assert one.SOPInstanceUID.is_valid


def test_the_patient_is_that_of_the_scan_or_blank(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid())
    seg = written(tmp_path / "a.dcm", result)
    assert (str(seg.PatientName), seg.PatientID, seg.StudyDate) == ("Geheim^Gerda", "ID987654", "20191231")
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID, seg.ContentDate) == ("1.2.6", "1.2.9", "20191231")
    blank = written(tmp_path / "b.dcm", replace(result, anonymise=True))
    assert (blank.PatientName, blank.PatientID, blank.StudyDate, blank.PatientIdentityRemoved) == ("", "", "", "YES")
    assert (blank.StudyInstanceUID, blank.ContentDate) == ("1.2.6", "19000101")
    content = (tmp_path / "b.dcm").read_bytes()
    assert not [value for value in PERSONAL.values() if value.encode() in content]


def test_headers_that_break_the_standard_still_make_a_valid_file(tmp_path: Path) -> None:
    tags = {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller^Jörg",
        "PatientSex": "W",
        "StudyDate": "31.12.2019",
        "FrameOfReferenceUID": None,
    }
    with quiet():
        result = result_of(tmp_path / "in", grid(), **tags)
        seg = written(tmp_path / "a.dcm", result)
    assert (str(seg.PatientName), seg.SpecificCharacterSet) == ("Müller^Jörg", "ISO_IR 192")
    assert (seg.PatientSex, seg.StudyDate) == ("", "")
    assert seg.FrameOfReferenceUID.startswith("2.25.")


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("frame", [None, "1.2.10"])
@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-labelmap", "rtstruct"])
def test_images_of_one_series_share_a_frame_of_reference(
    tmp_path: Path, kind: str, frame: str | None, place: int
) -> None:
    result = result_of(tmp_path / "in", grid())
    odd = pydicom.dcmread(result.source.paths[place])
    odd.FrameOfReferenceUID = frame
    odd.save_as(result.source.paths[place])
    lenient = replace(result, source=replace(result.source, lenient=True))
    first = frame if frame and place == 0 else "1.2.9"
    assert written(tmp_path / "a.dcm", lenient, kind).FrameOfReferenceUID == first


def test_of_several_patient_names_the_first_is_taken(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid(), PatientName=["Geheim^Gerda", "Geheim^G"])
    assert written(tmp_path / "a.dcm", result).PatientName == "Geheim^Gerda"


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-labelmap"])
def test_other_sources_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    result = replace(result_of(tmp_path / "in", grid()), source=Source("nifti", (tmp_path / "a.nii.gz",)))
    with pytest.raises(OutputError, match=rf"case case is nifti, and {kind} refers to.*Give the series itself"):
        get_output(kind).write(tmp_path / "a.dcm", result)


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid(), StudyInstanceUID=None)
    with pytest.raises(OutputError, match=r"have no StudyInstanceUID.*mend the headers"):
        get_output("dicom-seg").write(tmp_path / "a.dcm", result)


def test_slices_that_repeat_a_position_are_referred_to_and_have_no_frame(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid())
    twin = pydicom.dcmread(result.source.paths[2])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = "1.2.7.99"
    twin.save_as(tmp_path / "in" / "twin.dcm")
    source = Source("dicom", (*result.source.paths, tmp_path / "in" / "twin.dcm"), lenient=True)
    seg = written(tmp_path / "a.dcm", replace(result, source=source))
    assert seg.NumberOfFrames == 3
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SHAPE[2] + 1


def test_a_label_map_has_its_segments_in_ascending_order(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid(), (ET, NCR))
    seg = written(tmp_path / "a.dcm", result, "dicom-labelmap")
    assert [(int(s.SegmentNumber), s.SegmentLabel) for s in seg.SegmentSequence] == [
        (0, "Background"),
        (1, "NCR"),
        (4, "ET"),
    ]
    assert set(np.unique(seg.pixel_array)) == {0, 1, 4}


def test_a_slice_that_was_made_up_has_no_frame(tmp_path: Path) -> None:
    paths = write_volume(tmp_path / "in", np.ones((4, 4, 4), np.int16), grid(), steps=(0, 1, 3, 4))
    source = Source("dicom", tuple(paths), lenient=True)
    geometry = get_format("dicom").read_image(source).geometry
    assert geometry.shape == (4, 4, 5)
    result = Result("a", source, LabelMap(np.ones((4, 4, 5), np.uint8), geometry), spec_of("t1"), "ab" * 32)
    seg = written(tmp_path / "a.dcm", result)
    assert seg.NumberOfFrames == 4
    assert seg.pixel_array.all()


@pytest.mark.parametrize("frame_of_reference", ["1.2.9", None])
def test_a_picture_without_a_place_has_one_frame_without_a_place(
    tmp_path: Path, frame_of_reference: str | None
) -> None:
    nowhere = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    voxels = np.ones((5, 3, 1), np.int16)
    paths = write_volume(tmp_path / "in", voxels, grid(), FrameOfReferenceUID=frame_of_reference, **nowhere)
    source = Source("dicom", tuple(paths))
    found = np.zeros((3, 5), np.uint8)
    found[1, 2:] = 1
    geometry = get_format("dicom").describe(source).geometry
    seg = written(tmp_path / "a.dcm", Result("a", source, LabelMap(found, geometry), spec_of("t1"), "ab" * 32))
    np.testing.assert_array_equal(seg.pixel_array, found)
    assert "PlanePositionSequence" not in seg.PerFrameFunctionalGroupsSequence[0]


def test_directions_that_differ_in_their_last_digits_are_one(tmp_path: Path) -> None:
    result = result_of(tmp_path / "in", grid("oblique"))
    last = pydicom.dcmread(result.source.paths[-1])
    last.ImageOrientationPatient[0] = float(last.ImageOrientationPatient[0]) + 1e-6
    last.save_as(result.source.paths[-1])
    assert written(tmp_path / "a.dcm", result).NumberOfFrames == 3
