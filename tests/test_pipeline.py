"""The main job on small real files and a small real model."""

import json
import threading
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny import bright_spec, disc, volume_spec, write_model, write_pictures

from segtool.api import load_model
from segtool.errors import OutputError, UsageError
from segtool.geometry import Geometry
from segtool.pipeline import PredictOptions, Progress, predict_folder
from segtool.scan import ScanOptions
from segtool.scores import score, structures_of, with_soft
from segtool.spec import LabelSpec


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "scans")
    return tmp_path / "scans"


def options(model: Path, tmp_path: Path, **changes: object) -> PredictOptions:
    return PredictOptions(model=model, output=tmp_path / "out", **changes)


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_folder_of_pictures_becomes_label_maps_with_dice(model: Path, scans: Path, tmp_path: Path) -> None:
    report = predict_folder([scans], options(model, tmp_path))
    assert report.counts == {"cases": 3, "done": 3, "failed": 0, "skipped": 0}
    for index in range(3):
        np.testing.assert_array_equal(read_png(tmp_path / "out" / f"slice_{index}.png"), disc(32, (8 + index, 16), 5))
    assert report.summary["tumour"]["dice_mean_all"] == 1.0
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [case["name"] for case in written["cases"]] == ["slice_0", "slice_1", "slice_2"]
    assert written["cases"][0]["scores"]["tumour"]["dice"] == 1.0
    assert (tmp_path / "out" / "report.csv").read_text().count("\n") == 4


def test_a_volume_is_cut_into_slices_and_the_result_keeps_its_affine(model: Path, tmp_path: Path) -> None:
    affine = np.array([[0, 0, 2.0, 5], [-1.0, 0, 0, 6], [0, 1.0, 0, 7], [0, 0, 0, 1]])
    volume = np.full((32, 32, 4), 30, np.int16)
    volume[disc()] = 200
    volume[:, :, 3] = 0
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "case_t1ce.nii.gz")
    predict_folder([tmp_path / "case_t1ce.nii.gz"], options(model, tmp_path))
    result = nib.load(tmp_path / "out" / "case.nii.gz")
    np.testing.assert_array_equal(result.affine, affine)
    labels = np.asarray(result.dataobj)
    assert labels.dtype == np.uint8
    for index, expected in enumerate([disc(), disc(), disc(), np.zeros((32, 32))]):
        np.testing.assert_array_equal(labels[:, :, index], expected)


def test_a_3d_model_slides_over_a_volume_larger_and_smaller_than_its_patch(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", volume_spec(16, ("t1", "flair")))
    folder = tmp_path / "scans"
    folder.mkdir()
    volume = np.zeros((40, 20, 9), np.float32)
    volume[10:30, 5:15, 2:7] = 1
    for name in ("t1", "flair"):
        nib.save(nib.Nifti1Image(volume, np.diag([-1.0, 1, 3, 1])), folder / f"p_{name}.nii.gz")
    report = predict_folder([folder], options(model, tmp_path, save_probabilities=True))
    assert report.counts["done"] == 1
    labels = np.asarray(nib.load(tmp_path / "out" / "p.nii.gz").dataobj)
    np.testing.assert_array_equal(labels, volume)
    probabilities = nib.load(tmp_path / "out" / "p_probabilities.nii.gz")
    assert probabilities.shape[:3] == volume.shape


def test_a_stack_is_one_file_scored_slice_by_slice(model: Path, tmp_path: Path) -> None:
    discs = np.stack([disc(32, (10 + i, 16)) for i in range(12)])
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["x"] = np.where(discs, 200, 30).astype(np.uint8)
        file["y"] = discs.astype(np.uint8)
    report = predict_folder([tmp_path / "stack.h5"], options(model, tmp_path))
    assert report.summary["tumour"]["n"] == 12
    with h5py.File(tmp_path / "out" / "stack.h5") as file:
        np.testing.assert_array_equal(file["mask"][:], discs)


def test_one_bad_case_never_stops_the_others(model: Path, scans: Path, tmp_path: Path) -> None:
    (scans / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    report = predict_folder([scans], options(model, tmp_path))
    assert report.counts == {"cases": 4, "done": 3, "failed": 1, "skipped": 0}
    (failed,) = report.failures
    assert failed.name == "broken"
    assert "\n" not in (failed.error or "\n")
    assert "broken.png" in (failed.error or "")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"slice_0.png", "slice_1.png", "slice_2.png", "report.json", "report.csv"}


def test_pictures_fail_one_by_one_under_a_3d_model(scans: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", volume_spec())
    report = predict_folder([scans], options(model, tmp_path))
    assert report.counts["failed"] == 3
    assert "Use a 2D model for pictures" in (report.failures[0].error or "")


def test_continue_keeps_finished_cases_and_scores_them(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    kept = tmp_path / "out" / "slice_0.png"
    before = kept.stat().st_mtime_ns
    (tmp_path / "out" / "slice_1.png").unlink()
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert report.counts == {"cases": 3, "done": 1, "failed": 0, "skipped": 2}
    assert kept.stat().st_mtime_ns == before
    assert report.summary["tumour"]["n_with_reference"] == 3


def test_continue_makes_a_damaged_result_again(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    (tmp_path / "out" / "slice_0.png").write_bytes(b"half")
    report = predict_folder([scans], options(model, tmp_path, resume=True))
    assert report.counts["done"] == 1
    assert read_png(tmp_path / "out" / "slice_0.png").sum() == disc(32, (8, 16), 5).sum()


def test_masks_from_another_folder(model: Path, scans: Path, tmp_path: Path) -> None:
    masks = tmp_path / "references"
    masks.mkdir()
    for path in scans.glob("*_mask.png"):
        path.rename(masks / path.name.replace("_mask", ""))
    report = predict_folder([scans], options(model, tmp_path, scan=ScanOptions(masks=masks)))
    assert report.summary["tumour"]["n_with_reference"] == 3


def test_the_output_never_overwrites_a_scan(model: Path, scans: Path) -> None:
    before = {path.name: path.read_bytes() for path in scans.iterdir()}
    report = predict_folder(sorted(scans.glob("slice_?.png")), PredictOptions(model=model, output=scans))
    assert report.counts["failed"] == 3
    assert "Choose another folder with --output" in (report.failures[0].error or "")
    assert {name: (scans / name).read_bytes() for name in before} == before


def test_the_output_folder_is_no_input(model: Path, scans: Path) -> None:
    with pytest.raises(UsageError, match="Choose another folder with --output"):
        predict_folder([scans], PredictOptions(model=model, output=scans / "." / "sub" / ".."))


def test_the_threshold_moves_the_border(model: Path, tmp_path: Path) -> None:
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    (tmp_path / "in").mkdir()
    Image.fromarray(ramp).save(tmp_path / "in" / "ramp.png")
    areas = []
    for threshold in (0.4, 0.5, 0.6):
        report = predict_folder([tmp_path / "in"], options(model, tmp_path, threshold=threshold))
        areas.append(report.cases[0].scores["tumour"].area_px)
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[2]


def test_batch_size_does_not_change_a_byte(model: Path, scans: Path, tmp_path: Path) -> None:
    results = []
    for batch in (1, 2, 8):
        predict_folder([scans], options(model, tmp_path, batch=batch))
        results.append([(tmp_path / "out" / f"slice_{i}.png").read_bytes() for i in range(3)])
    assert results[0] == results[1] == results[2]


def test_overlays_show_reference_and_prediction(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path, overlay=True))
    with Image.open(tmp_path / "out" / "overlays" / "slice_0.png") as opened:
        picture = np.asarray(opened.convert("RGB"))
    assert (picture == (255, 255, 0)).all(axis=-1).any()  # both contours agree


def test_an_unwritable_output_is_refused_before_any_work(model: Path, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="Choose another one with --output"):
        predict_folder([scans], options(model, tmp_path))


def test_an_empty_folder_says_what_was_looked_for(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"\.nii"):
        predict_folder([tmp_path / "empty"], options(model, tmp_path))


def test_an_interrupt_leaves_a_report_of_what_was_done(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 40, masks=False)
    threads = threading.active_count()

    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder([tmp_path / "scans"], options(model, tmp_path), Progress(on_units=interrupt))
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["notes"][0].startswith("interrupted: not all cases were done; ")
    assert threading.active_count() == threads
    assert not list((tmp_path / "out").rglob(".partial-*"))


def test_a_bug_in_a_stage_is_raised_not_swallowed(model: Path, scans: Path, tmp_path: Path) -> None:
    def explode(_result: object) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        predict_folder([scans], options(model, tmp_path), Progress(on_case=explode))


def test_slices_of_many_cases_share_batches(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 24, masks=False)
    sizes: list[int] = []
    predict_folder([tmp_path / "scans"], options(model, tmp_path, batch=8), Progress(on_units=sizes.append))
    assert sum(sizes) == 24
    assert max(sizes) > 1


def test_a_reference_without_a_scan_is_a_note_and_no_failed_case(model: Path, scans: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(scans / "other_mask.png")
    report = predict_folder([scans], options(model, tmp_path))
    assert report.counts == {"cases": 3, "done": 3, "failed": 0, "skipped": 0}
    assert report.notes == (
        "other_mask.png: a reference without its scan. "
        "Put the scan beside it under the same name, or take the reference away.",
    )


def test_continue_draws_the_overlays_that_an_earlier_run_did_not(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    report = predict_folder([scans], options(model, tmp_path, overlay=True, resume=True))
    assert report.counts["skipped"] == 3
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "out" / "overlays").iterdir()}
    predict_folder([scans], PredictOptions(model=model, output=tmp_path / "other", overlay=True))
    assert drawn == {path.name: path.read_bytes() for path in (tmp_path / "other" / "overlays").iterdir()}


def test_continue_makes_cases_again_whose_probabilities_are_missing(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path, save_probabilities=True))
    (tmp_path / "out" / "slice_1_probabilities.npz").unlink()
    report = predict_folder([scans], options(model, tmp_path, save_probabilities=True, resume=True))
    assert report.counts == {"cases": 3, "done": 1, "failed": 0, "skipped": 2}
    assert (tmp_path / "out" / "slice_1_probabilities.npz").is_file()


def test_a_case_called_like_the_probabilities_of_another_keeps_its_result(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, value in (("a", 1), ("a_probabilities", 0)):
        volume = np.zeros((20, 20, 4), np.int16)
        volume[4:9, 4:9] = 100 * value + 10
        nib.save(nib.Nifti1Image(volume, np.diag([-1.0, -1, 3, 1])), tmp_path / "in" / f"{name}.nii.gz")
    report = predict_folder([tmp_path / "in"], options(model, tmp_path, save_probabilities=True))
    assert [case.name for case in report.cases] == ["a", "a_probabilities_"]
    written = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert written == {f"{name}.nii.gz" for name in (
        "a", "a_probabilities", "a_probabilities_", "a_probabilities__probabilities"
    )}  # fmt: skip


def test_soft_metrics_score_the_probabilities(model: Path, scans: Path, tmp_path: Path) -> None:
    report = predict_folder([scans], options(model, tmp_path, soft_metrics=True))
    scores = report.cases[0].scores["tumour"]
    mask = disc(32, (8, 16), 5)
    inside, outside = (1 / (1 + np.exp(-value)) for value in (0.5, -0.5))
    both, predicted = inside * mask.sum(), inside * mask.sum() + outside * (~mask).sum()
    assert scores.dice == 1.0
    assert scores.soft_recall == pytest.approx(inside, abs=1e-3)
    assert scores.soft_precision == pytest.approx(both / predicted, abs=1e-3)
    assert scores.soft_dice == pytest.approx(2 * both / (predicted + mask.sum()), abs=1e-3)
    assert report.summary["tumour"]["soft_dice_n_with_reference"] == 3
    assert not list((tmp_path / "out").glob("*_probabilities*"))
    assert "soft_iou" in (tmp_path / "out" / "report.csv").read_text().splitlines()[0]
    again = predict_folder([scans], options(model, tmp_path, soft_metrics=True, resume=True))
    assert again.counts["done"] == 3


@pytest.mark.parametrize(("activation", "of_region"), [("sigmoid", 0.6), ("softmax", 0.8)])
def test_the_probability_of_a_region_joins_those_of_its_labels(activation: str, of_region: float) -> None:
    labels = (LabelSpec(name="a", value=1, reference_values=(1,)), LabelSpec(name="b", value=2, reference_values=(2,)))
    spec = bright_spec(labels=labels, regions={"both": (1, 2)}, activation=activation)
    reference = np.array([[1, 2]])
    scores, slices = score(reference, reference, Geometry.of_pixels((1, 2)), structures_of(spec))
    share = np.broadcast_to(np.array([0.6, 0.2], np.float32)[:, None, None], (2, 1, 2))
    soft, _ = with_soft(scores, slices, share, reference, spec)
    assert {name: one.soft_recall for name, one in soft.items()} == pytest.approx(
        {"a": 0.6, "b": 0.2, "both": of_region}
    )
    stack = Geometry.of_pixels((1, 1, 2))
    scores, slices = score(reference[None], reference[None], stack, structures_of(spec))
    _, by_slice = with_soft(scores, slices, share[:, None], reference[None], spec)
    assert by_slice[0]["both"].soft_recall == pytest.approx(of_region)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(
    model: Path, scans: Path, tmp_path: Path, threshold: float
) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        predict_folder([scans], options(model, tmp_path, threshold=threshold))
    with pytest.raises(UsageError, match="between 0 and 1"):
        load_model(model).segment(np.zeros((8, 8), np.uint8), threshold=threshold)


def test_a_label_with_its_own_threshold_is_cut_there_unless_told_otherwise(scans: Path, tmp_path: Path) -> None:
    # The disc has probability 0.62, the rest 0.38.
    spec = bright_spec(labels=(LabelSpec(name="tumour", value=1, threshold=0.3),))
    model = write_model(tmp_path / "own.onnx", spec)
    report = predict_folder([scans], options(model, tmp_path))
    assert report.cases[0].scores["tumour"].area_px == 32 * 32
    assert report.options["threshold"] == {"tumour": 0.3}
    assert predict_folder([scans], options(model, tmp_path, resume=True)).counts["skipped"] == 3
    report = predict_folder([scans], options(model, tmp_path, threshold=0.5))
    assert report.summary["tumour"]["dice_mean_all"] == 1.0
