"""Scanning trees of DICOM files: what is found whatever the files are called and wherever they lie."""

import random
import shutil
from pathlib import Path

import pydicom
import pytest
from corpus.dicom import KIND, PRIVATE, raw
from dicom_series import PERSONAL, filled, saved, write_slices
from pydicom.uid import ExplicitVRBigEndian, RTStructureSetStorage, SegmentationStorage

from segtool.case import Source
from segtool.errors import UnreadableFileError, UsageError
from segtool.formats import get_format
from segtool.limits import Limits
from segtool.scan.found import Entry
from segtool.scan.surroundings import references_around
from segtool.scan.walk import Found, find_entries

AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


def at(*heights: float, **tags: object) -> list[dict[str, object]]:
    return [{"ImagePositionPatient": [-10, -20, height]} | tags for height in heights]


def found(*inputs: Path) -> Found:
    result = find_entries(inputs)
    for entry in result.entries:
        assert not any(word.casefold() in entry.where.casefold() for word in PERSONAL.values())
    return result


def scans(*inputs: Path) -> dict[str, int]:
    """Where each volume is that is a scan, and how many files it has; nothing else may be said."""
    result = found(*inputs)
    assert result.problems == []
    return {entry.where: len(entry.paths) for entry in result.entries if not reason(entry)}


def reason(entry: Entry) -> str:
    assert entry.volume is not None
    return entry.volume.set_aside


@pytest.mark.parametrize(
    "name",
    ["{}.dcm", "{}.DCM", "{}.ima", "IM{}", "1.2.840.{}", "{}.dicom", "{}.mr", "MR.{}.xyz", "slice {} (copy).bak"],
)
def test_files_are_found_by_their_bytes_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    write_slices(tmp_path / "P1", at(0, 3, 6), [name.format(k) for k in range(3)])
    assert scans(tmp_path) == {"P1": 3}
    assert scans(*(tmp_path / "P1").iterdir()) == {"P1": 3}, "the same through its files"


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.pdf", "a.xml", "a.txt", "a.npz"])
def test_files_of_other_kinds_are_not_looked_into(tmp_path: Path, name: str) -> None:
    write_slices(tmp_path / "P1", at(0, 3), [name, "IM1"])
    assert scans(tmp_path) == {"P1": 1}
    with pytest.raises(UsageError, match="not a kind of file"):
        found(tmp_path / "P1" / name)


def test_a_folder_of_bytes_that_mean_nothing_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "P1").mkdir()
    for name in ("README", "x.bin", "7", "DICOMDIR"):
        (tmp_path / "P1" / name).write_bytes(b"nothing " * 50)
    with pytest.raises(UsageError, match="Looked for"):
        found(tmp_path)


def test_interleaved_series_under_shuffled_names_are_told_apart(tmp_path: Path) -> None:
    names = [f"{number:05}" for number in random.Random(3).sample(range(10**5), 12)]
    write_slices(tmp_path / "P1", at(*range(6)), names[::2], SeriesInstanceUID="1.2.3")
    write_slices(tmp_path / "P1", at(*range(6)), names[1::2], SeriesInstanceUID="1.2.4")
    called = scans(tmp_path)
    assert sorted(called.values()) == [6, 6]
    assert all(where.startswith("P1/series-") for where in called)


def test_a_series_over_three_folders_lies_where_they_meet(tmp_path: Path) -> None:
    paths = write_slices(tmp_path, at(*range(9)))
    for number, path in enumerate(paths):
        folder = tmp_path / f"P1/T1/{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    assert scans(tmp_path) == {"P1/T1": 9}
    write_slices(tmp_path / "P1/T1/2", at(0, 1), ["other1", "other2"], SeriesInstanceUID="1.2.8")
    assert list(scans(tmp_path).values()) == [9, 2]
    assert any(where.startswith("P1/T1/series-") for where in scans(tmp_path)), "its folder is no longer its own"


def test_a_series_over_two_inputs_is_one(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "P1/a", at(0, 3, 6))
    (tmp_path / "P1/b").mkdir()
    shutil.move(paths[2], tmp_path / "P1/b")
    assert scans(tmp_path / "P1/a", tmp_path / "P1/b") == {"P1": 3}
    assert scans(tmp_path / "P1", tmp_path / "P1/b") == {"P1": 3}, "a file met twice counts once"
    assert scans(*(tmp_path / "P1").rglob("IM*")) == {"P1": 3}


def test_a_localizer_leaves_its_folder_to_the_scan_beside_it(tmp_path: Path) -> None:
    write_slices(tmp_path / "P1", at(0, 3, 6))
    planes = [{"ImageOrientationPatient": plane, "SeriesInstanceUID": "1.2.8"} for plane in (AXIAL, CORONAL, SAGITTAL)]
    write_slices(tmp_path / "P1", planes, ["x1", "x2", "x3"])
    assert scans(tmp_path) == {"P1": 3}
    (localizer,) = (entry for entry in found(tmp_path).entries if reason(entry))
    assert localizer.where.startswith("P1/series-")
    assert reason(localizer) == "localizer of 3 slices in 3 planes"


def test_echoes_of_one_series_are_called_by_their_parts(tmp_path: Path) -> None:
    write_slices(tmp_path / "P1", at(0, 3, EchoTime=10) + at(0, 3, EchoTime=90))
    called = scans(tmp_path)
    assert [where.rpartition("-")[2] for where in called] == ["1", "2"]
    assert all(where.startswith("P1/series-") and "-echo-" in where for where in called)


def test_copies_count_once_and_are_said_without_losing_a_case(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "P1", at(0, 3, 6))
    (tmp_path / "backup").mkdir()
    for path in paths[:2]:
        shutil.copy(path, tmp_path / "backup")
    result = found(tmp_path)
    assert [(entry.where, len(entry.paths)) for entry in result.entries] == [("P1", 3)]
    (problem,) = result.problems
    assert not problem.loses_case
    assert "2 DICOM files are there again" in str(problem)
    assert "other bytes" not in str(problem)
    write_slices(tmp_path / "backup", at(0), Manufacturer="another program")
    assert "the same SOPInstanceUID, but other bytes" in str(found(tmp_path).problems[0])


def test_links_to_a_file_of_the_input_count_once(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "P1", at(0, 3, 6))
    try:
        (tmp_path / "P1/link").symlink_to(paths[0])
    except OSError:
        pytest.skip("this system makes no links")
    assert [len(entry.paths) for entry in found(tmp_path).entries] == [3]


def test_a_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    write_slices(tmp_path / "P1/IMAGES", at(0, 3))
    (tmp_path / "P1/DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert scans(tmp_path / "P1/DICOMDIR") == {"IMAGES": 2}


def test_a_slice_without_a_header_stays_with_the_only_scan_of_its_folder(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "P1", at(0, 3, 6))
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    assert scans(tmp_path) == {"P1": 3}
    write_slices(tmp_path / "P1", at(0, 3), ["x1", "x2"], SeriesInstanceUID="1.2.8")
    (problem,) = found(tmp_path).problems
    assert "IM0002" in problem.where
    assert "copy it again" in problem.remedy


@pytest.mark.parametrize("bytes_kept", [420, 480, 500])
def test_a_slice_cut_before_its_size_is_missed_at_the_end_of_a_scan_too(tmp_path: Path, bytes_kept: int) -> None:
    paths = write_slices(tmp_path / "P1", at(0, 3, 6))
    paths[2].write_bytes(paths[2].read_bytes()[:bytes_kept])
    assert scans(tmp_path) == {"P1": 3}


def test_a_cut_slice_stays_with_its_series_where_a_folder_has_several(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "P1", at(0, 3, 6))
    write_slices(tmp_path / "P1", at(0, 3), ["x1", "x2"], SeriesInstanceUID="1.2.8")
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[: content.index(b"1.2.7", 400) + 40])
    assert sorted(len(entry.paths) for entry in found(tmp_path).entries) == [2, 3]


@pytest.mark.parametrize("content", [b"", bytes(5000), b"disk full"])
def test_a_file_called_like_the_slices_beside_it_should_have_been_one(tmp_path: Path, content: bytes) -> None:
    paths = write_slices(tmp_path / "P1", at(0, 3, 6))
    paths[2].write_bytes(content)
    (tmp_path / "P1" / "DONE").touch()
    (problem,) = found(tmp_path).problems
    assert problem.where == str(paths[2])
    assert problem.loses_case


def reference(folder: Path, kind: str, **tags: object) -> Path:
    """A file of a segmentation, which refers to the series 1.2.7."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    series = pydicom.Dataset()
    series.SeriesInstanceUID = "1.2.7"
    common = {"SOPInstanceUID": "1.2.5", "SeriesInstanceUID": "1.2.4", "StudyInstanceUID": "1.2.6"}
    if kind == "dicom-seg":
        own = {"SOPClassUID": SegmentationStorage, "Modality": "SEG", "Rows": 2, "Columns": 2}
        own |= {"ReferencedSeriesSequence": [series]}
    else:
        study, frame = pydicom.Dataset(), pydicom.Dataset()
        study.RTReferencedSeriesSequence = [series]
        frame.RTReferencedStudySequence = [study]
        own = {"SOPClassUID": RTStructureSetStorage, "Modality": "RTSTRUCT"}
        own |= {"ReferencedFrameOfReferenceSequence": [frame]}
    return saved(folder, filled(dataset, PERSONAL | common | own | tags))


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
@pytest.mark.parametrize("name", ["P1_seg.dcm", "annotation"])
def test_segmentations_are_references_that_name_their_series(tmp_path: Path, kind: str, name: str) -> None:
    write_slices(tmp_path / "P1", at(0, 3))
    path = reference(tmp_path / name, kind)
    drawn, scan = sorted(found(tmp_path).entries, key=lambda entry: entry.format == "dicom")
    assert (drawn.format, drawn.stem, drawn.paths, drawn.volume) == (kind, name.removesuffix(".dcm"), (path,), None)
    assert scan.volume is not None
    assert drawn.referenced_series == {scan.volume.series}


def test_a_scan_given_alone_finds_the_segmentations_beside_it_and_below(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "P1", at(0, 3))
    reference(tmp_path / "P1/scan_seg.dcm", "dicom-seg")
    (tmp_path / "P1/labels").mkdir()
    reference(tmp_path / "P1/labels/anything.dcm", "rtstruct")
    (tmp_path / "P1/gt").write_bytes(b"nothing " * 50)
    around = references_around(found(*paths))
    assert [(entry.format, entry.stem) for entry in around] == [("dicom-seg", "scan_seg"), ("rtstruct", "anything")]


def test_encodings_may_differ_within_a_series(tmp_path: Path) -> None:
    write_slices(tmp_path / "P1", at(0), ["a"], SOPInstanceUID="1.2.7.91")
    write_slices(tmp_path / "P1", at(3), ["b"], ExplicitVRBigEndian, SOPInstanceUID="1.2.7.92")
    (path,) = write_slices(tmp_path / "P1", at(6), ["c"], SOPInstanceUID="1.2.7.93")
    path.write_bytes(path.read_bytes()[132:])
    assert scans(tmp_path) == {"P1": 3}


def test_the_real_files_are_all_found(real_data: Path) -> None:
    if not (real_data / "dicom").is_dir():
        pytest.skip("no real DICOM files")
    result = found(real_data / "dicom")
    volumes = {
        entry.where: len(entry.paths) for entry in result.entries if entry.format == "dicom" and not reason(entry)
    }
    kinds = ("anatomical/001", "anatomical/001_implicit")
    assert {where: count for where, count in volumes.items() if not where.startswith("highdicom")} == {
        "structural_t1/dicoms": 64,
        "dicom2nifti/generic/anatomical/002_non_isotropic": 4,
        "dicom2nifti/generic/compressed/001": 4,
        **{f"dicom2nifti/{kind}": 4 for kind in kinds},
        **{f"dicom2nifti/{maker}/{kind}": 4 for maker in ("generic", "ge", "hitachi") for kind in kinds},
    }
    assert sum(entry.format == "dicom-seg" for entry in result.entries) == 12
    assert all(entry.referenced_series for entry in result.entries if entry.format == "dicom-seg")
    reasons = {entry.where: reason(entry) for entry in result.entries if entry.format == "dicom"}
    assert reasons["dicom2nifti/hyperfine/anatomical/001"].startswith("enhanced multi-frame")
    assert reasons["dicom2nifti/generic/rgb/001"].startswith("colours (RGB)")
    # Four copies of one series in other encodings, one slice of another, one picture of microscopy.
    assert [problem.loses_case for problem in result.problems] == [False] * 6


@pytest.mark.parametrize(
    "odd",
    [{"Rows": 3}, {"ImagePositionPatient": None}, {"ImageOrientationPatient": None}],
    ids=["another size", "no position", "no orientation"],
)
def test_a_damaged_last_slice_is_no_volume_of_its_own_but_stops_the_scan(
    tmp_path: Path, odd: dict[str, object]
) -> None:
    slices = [*at(0, 3, 6, 9, 12, 15), *at(18, **odd)]
    write_slices(tmp_path / "P1", slices, [f"IM{k}" for k in range(7)])
    assert scans(tmp_path) == {"P1": 7}
    (entry,) = found(tmp_path).entries
    with pytest.raises(UnreadableFileError, match=r"pixels in one series|say nowhere in the patient"):
        get_format("dicom").describe(Source("dicom", entry.paths))


def test_a_file_above_a_limit_is_a_problem_that_names_the_limit_and_none_once_it_is_raised(tmp_path: Path) -> None:
    write_slices(tmp_path / "P1", at(0, 3), ["1.dcm", "2.dcm"])
    (tmp_path / "P2").mkdir()
    raw("dicom-seg", KIND + PRIVATE)(tmp_path / "P2")
    refused = find_entries([tmp_path], limits=Limits(labels=100))
    (problem,) = refused.problems
    assert problem.where == str(tmp_path / "P2" / "a.dcm")
    assert "above 128 for each of 100 labels" in problem.problem
    assert "--limit labels=200" in problem.remedy
    assert [entry.format for entry in refused.entries] == ["dicom"]
    raised = find_entries([tmp_path], limits=Limits(labels=200))
    assert sorted(entry.format for entry in raised.entries) == ["dicom", "dicom-seg"]
    assert not raised.problems
