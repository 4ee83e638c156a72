"""``segtool evaluate`` with DICOM SEG and RTSTRUCT on either side."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_series import write_volume
from tiny import spec_of

from segtool.case import LabelMap, Source
from segtool.errors import GridError
from segtool.evaluation import EvaluateOptions, evaluate_pairs
from segtool.geometry import Geometry
from segtool.outputs import Result, get_output
from segtool.pairing import Pairing, pair_files
from segtool.regrid import around, fit_labels
from segtool.report import CaseResult

SHAPE = (8, 8, 6)
GRID = Geometry.of_volume(SHAPE, np.diag([-1.0, -1, 2, 1]))
MARKED = np.zeros(SHAPE, np.uint8)
MARKED[2:4, 2:4, 2:4] = 1
"""8 voxels."""
WRONG = MARKED.copy()
WRONG[2:4, 2:4, 0:2] = 1
"""8 more, in slices where the reference has none."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    paths = write_volume(tmp_path_factory.mktemp("scan"), np.ones(SHAPE, np.int16), GRID.affine)
    return Result("a", Source("dicom", tuple(paths)), LabelMap(MARKED, GRID), spec_of("t1"), "ab" * 32)


def put(folder: Path, result: Result, kind: str, labels: np.ndarray) -> None:
    """The label map of case ``a``; as NIfTI in another orientation."""
    folder.mkdir(exist_ok=True)
    if kind == "nifti":
        move = GRID.reorientation_to("RAS")
        nibabel.save(nibabel.Nifti1Image(move.apply(labels), GRID.moved(move).affine), folder / "a.nii.gz")
        return
    output = get_output(kind)
    output.write(folder / f"a{output.suffix(result.source)}", replace(result, label_map=LabelMap(labels, GRID)))


def scored(pairing: Pairing) -> CaseResult:
    (case,) = evaluate_pairs(pairing, EvaluateOptions(surface=False)).cases
    return case


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("dicom-seg", "nifti"),
        ("nifti", "dicom-seg"),
        ("dicom-seg", "dicom-labelmap"),
        ("rtstruct", "nifti"),
        ("nifti", "rtstruct"),
    ],
)
def test_what_lies_beyond_the_slices_of_the_reference_counts(
    tmp_path: Path, result: Result, prediction: str, reference: str
) -> None:
    put(tmp_path / "p", result, prediction, WRONG)
    put(tmp_path / "r", result, reference, MARKED)
    case = scored(pair_files(tmp_path / "p", tmp_path / "r"))
    assert not case.error
    assert case.scores["foreground"].dice == pytest.approx(2 * 8 / (16 + 8))


def test_a_seg_against_one_that_reaches_further_loses_nothing(tmp_path: Path, result: Result) -> None:
    put(tmp_path / "p", result, "dicom-seg", MARKED)
    put(tmp_path / "r", result, "dicom-labelmap", WRONG)
    assert scored(pair_files(tmp_path / "p", tmp_path / "r")).scores["foreground"].dice == pytest.approx(16 / 24)


def test_two_files_pair_whatever_their_names(tmp_path: Path, result: Result) -> None:
    put(tmp_path / "p", result, "dicom-seg", MARKED)
    put(tmp_path / "r", result, "nifti", MARKED)
    assert scored(pair_files(tmp_path / "p/a.seg.dcm", tmp_path / "r/a.nii.gz")).scores["foreground"].dice == 1


def test_one_result_in_several_kinds_counts_once(tmp_path: Path, result: Result) -> None:
    for kind in ("nifti", "dicom-seg", "rtstruct"):
        put(tmp_path / "p", result, kind, MARKED)
    for kind in ("dicom-labelmap", "rtstruct"):
        put(tmp_path / "r", result, kind, MARKED)
    pairing = pair_files(tmp_path / "p", tmp_path / "r")
    (pair,) = pairing.pairs
    assert pair.prediction is not None
    assert (pair.name, pair.prediction.format, pair.reference.format) == ("a", "nifti", "dicom-seg")
    assert pairing.notes == (
        "2 files of the predictions passed over: the same in another kind of file",
        "1 file of the references passed over: the same in another kind of file",
    )


def test_contours_on_both_sides_are_refused(tmp_path: Path, result: Result) -> None:
    for side in ("p", "r"):
        put(tmp_path / side, result, "rtstruct", MARKED)
    case = scored(pair_files(tmp_path / "p", tmp_path / "r"))
    assert "are no label map without the scan" in str(case.error)


BOX = (slice(1, 7), slice(0, 8), slice(2, 4))


@pytest.mark.parametrize("orientation", ["LPS", "RAI"])
def test_a_part_of_the_voxels_takes_its_place_without_interpolation(orientation: str) -> None:
    part = GRID.cropped(BOX)
    move = part.reorientation_to(orientation)
    labels = LabelMap(move.apply(MARKED[BOX]), part.moved(move))
    fitted, notes = fit_labels(labels, GRID, names=("reference", "scan"), where="a", strict=True, is_part=True)
    np.testing.assert_array_equal(fitted.labels, MARKED)
    assert notes == ()
    # Of other kinds of file a smaller one may be of another scan.
    with pytest.raises(GridError, match="on the grid of its scan"):
        fit_labels(labels, GRID, names=("reference", "scan"), where="a", strict=False)


def test_a_part_on_another_grid_is_resampled_unless_told_not_to() -> None:
    affine = GRID.affine @ np.diag([1, 1, 0.5, 1])  # two slices for each one of the scan
    labels = LabelMap(np.repeat(MARKED, 2, axis=2), Geometry.of_volume((8, 8, 12), affine))
    fitted, notes = fit_labels(labels, GRID, names=("reference", "scan"), where="a", strict=False, is_part=True)
    np.testing.assert_array_equal(fitted.labels, MARKED)
    assert notes == ("reference resampled onto the scan (nearest voxel, moved from another grid)",)
    for strict, is_part in ((True, True), (False, False)):
        with pytest.raises(GridError, match="on the grid of its scan"):
            fit_labels(labels, GRID, names=("reference", "scan"), where="a", strict=strict, is_part=is_part)


def test_an_affine_that_says_nothing_places_no_part_but_that_of_a_seg() -> None:
    whole = Geometry.of_volume(SHAPE, np.eye(4))
    part = LabelMap(MARKED[:, :, 1:], whole.cropped((slice(0, 8), slice(0, 8), slice(1, 6))))
    fitted, notes = fit_labels(part, whole, names=("reference", "scan"), where="a", strict=True, is_part=True)
    np.testing.assert_array_equal(fitted.labels, MARKED)
    assert notes == ()
    with pytest.raises(GridError, match="on the grid of its scan"):
        fit_labels(part, whole, names=("reference", "scan"), where="a", strict=False)


def test_labels_beyond_the_scan_are_counted() -> None:
    part = GRID.cropped((slice(0, 8), slice(0, 8), slice(3, 6)))
    whole = LabelMap(MARKED, GRID)
    fitted, notes = fit_labels(whole, part, names=("reference", "scan"), where="a", strict=True, is_part=True)
    np.testing.assert_array_equal(fitted.labels, MARKED[:, :, 3:])
    assert notes == ("4 labelled voxels of the reference lie outside the scan",)


def test_a_grid_around_two_covers_both_or_is_the_first() -> None:
    low, high = (
        GRID.cropped((slice(0, 2), slice(0, 8), slice(0, 2))),
        GRID.cropped((slice(1, 8), slice(3, 4), slice(4, 6))),
    )
    assert around(low, high).same_grid(GRID)
    assert around(high, low).same_grid(GRID)
    between = Geometry.of_volume(SHAPE, GRID.affine + np.array([[0, 0, 0, 0.5]] + [[0.0] * 4] * 3))
    assert around(low, between).same_grid(low)
