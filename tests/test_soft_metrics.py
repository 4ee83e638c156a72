"""Soft measures from the command line: while predicting, and from probability maps on disk."""

import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from shell import segtool
from tiny import bright_spec, disc, write_model, write_pictures


def summary(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())["summary"]["tumour"]


def nifti(folder: Path) -> None:
    """A volume with its reference."""
    folder.mkdir()
    mask = np.repeat(disc()[..., None], 3, axis=2)
    for name, data in (("p_t1ce", np.where(mask, 200, 30).astype(np.int16)), ("p_seg", mask.astype(np.uint8))):
        nib.save(nib.Nifti1Image(data, np.diag([-1.0, -1, 3, 1])), folder / f"{name}.nii.gz")


def hdf5(folder: Path) -> None:
    """A stack with its references."""
    folder.mkdir()
    with h5py.File(folder / "s.h5", "w") as file:
        masks = np.stack([disc(32, (10 + i, 16)) for i in range(12)])
        file["x"], file["y"] = np.where(masks, 200, 30).astype(np.uint8), masks.astype(np.uint8)


@pytest.mark.parametrize("write", [write_pictures, nifti, hdf5])
def test_probability_maps_on_disk_score_as_while_predicting(
    write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in")
    model = write_model(tmp_path / "m.onnx", bright_spec())
    run = ("predict", tmp_path / "in", "-m", model, "-o", tmp_path / "out")
    answer = segtool(capsys, *run, "--save-probabilities", "--soft-metrics")
    assert answer.code == 0, answer.err
    assert "soft Dice" in answer.out
    sides = (tmp_path / "out", tmp_path / "in", "-m", model, "-o", tmp_path / "scores")
    answer = segtool(capsys, "evaluate", *sides, "--soft-metrics")
    assert answer.code == 0, answer.err + answer.out
    for measure in ("dice", "iou", "precision", "recall", "accuracy"):
        while_predicting, later = (
            summary(tmp_path / folder)[f"soft_{measure}_mean_with_reference"] for folder in ("out", "scores")
        )
        assert 0 < while_predicting < 1
        assert later == pytest.approx(while_predicting, abs=1e-3)


def test_predictions_without_probability_maps_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in")
    model = write_model(tmp_path / "m.onnx", bright_spec())
    segtool(capsys, "predict", tmp_path / "in", "-m", model, "-o", tmp_path / "out")
    answer = segtool(capsys, "evaluate", tmp_path / "out", tmp_path / "in", "-m", model, "--soft-metrics")
    assert answer.code == 0
    assert answer.lines("note")[-1] == "3 cases: no soft measures: no probability map beside it"


def test_probabilities_of_another_model_fail_the_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in", 1)
    model = write_model(tmp_path / "m.onnx", bright_spec())
    segtool(capsys, "predict", tmp_path / "in", "-m", model, "-o", tmp_path / "out", "--save-probabilities")
    np.savez(tmp_path / "out" / "slice_0_probabilities.npz", probabilities=np.zeros((2, 32, 32)))
    run = ("evaluate", tmp_path / "out", tmp_path / "in", "-m", model, "--soft-metrics")
    assert "the model that is given with --model" in segtool(capsys, *run).out
    (tmp_path / "out" / "slice_0_probabilities.npz").write_bytes(b"PK\x03\x04 and then nothing")
    assert "Predict again with --save-probabilities" in segtool(capsys, *run).out


def test_evaluate_wants_the_model_of_the_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = segtool(capsys, "evaluate", tmp_path, tmp_path, "--soft-metrics")
    assert answer.code == 2
    assert "Give --model MODEL" in answer.err
