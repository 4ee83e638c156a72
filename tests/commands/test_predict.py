"""``segtool predict`` from the command line: every option, and what a person reads."""

import csv
import gzip
import json
import re
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from dicom_series import PERSONAL, write_series
from PIL import Image
from shell import Answer, files_below, segtool
from tiny import bright_spec, disc, volume_spec, write_model, write_pictures

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
BRATS = ("t1", "t1ce", "t2", "flair")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture(scope="module")
def brats_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sees t1ce alone, so that a wrong order of channels shows."""
    spec = volume_spec(16, BRATS)
    return write_model(tmp_path_factory.mktemp("model") / "four.onnx", spec, np.array([[0, 1, 0, 0]]))


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path):
    def run(*arguments: object, model: Path = model, out: str = "out") -> Answer:
        return segtool(capsys, "predict", *arguments, "-m", model, "-o", tmp_path / out, "--threads", 1)

    return run


def report(tmp_path: Path, out: str = "out") -> dict:
    return json.loads((tmp_path / out / "report.json").read_text())


def bright(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 200, 30).astype(np.int16)


def save_nifti(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def labels_of(path: Path) -> np.ndarray:
    if path.name.endswith(".nii.gz"):
        return np.asarray(nibabel.load(path).dataobj)
    with Image.open(path) as picture:
        return np.asarray(picture)


# What a person reads


def test_the_terminal_says_model_scan_scores_and_where_the_result_lies(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans")
    answer = predict(tmp_path / "scans")
    assert answer.code == 0
    first, second, *_, last = answer.out.splitlines()
    assert first.startswith("model   bright  t1ce -> tumour   ")
    assert re.search(r"(onnxruntime|openvino) [\d.]+ \w+ fp32 \(auto: .+\)", first)
    assert second == "scan    3 cases (3 png)"
    assert answer.lines("tumour")[0].split()[:4] == ["with", "reference", "3", "1.000"]
    assert last.startswith("done    3 of 3 in ")
    assert last.endswith(str(tmp_path / "out" / "report.json"))


def test_one_case_is_not_called_cases(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 1)
    assert predict(tmp_path / "scans").lines("scan") == ["1 case (1 png)"]


def test_what_the_reader_must_know_stands_on_the_terminal_once(predict, tmp_path: Path) -> None:
    for name in ("a", "b"):
        colours = np.stack([bright(disc())] * 3, axis=-1).astype(np.uint8)
        colours[..., 1] //= 2
        (tmp_path / "scans").mkdir(exist_ok=True)
        Image.fromarray(colours).save(tmp_path / "scans" / f"{name}.png")
    assert predict(tmp_path / "scans").lines("note") == ["2 cases: colour picture: its luminance was taken"]


def test_the_profile_says_where_the_time_went(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans")
    assert predict(tmp_path / "scans").lines("time") == []
    lines = predict(tmp_path / "scans", "--profile", out="again").lines("time")
    names = [line.split("  ")[0] for line in lines]
    assert names[:3] == ["find cases", "load model", "read"]
    assert set(names[3:]) - {"in parallel"} == {"preprocess", "check", "infer", "postprocess", "write", "measure"}
    found = report(tmp_path, "again")
    assert set(found["setup_seconds"]) == {"find cases", "load model"}
    assert 0 < sum(found["setup_seconds"].values()) < found["elapsed_s"]


def test_json_alone_stands_on_stdout_and_equals_the_report(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans")
    (tmp_path / "scans" / "broken.png").write_bytes(b"half")
    answer = predict(tmp_path / "scans", "--json")
    assert answer.code == 1
    assert json.loads(answer.out) == report(tmp_path)
    assert json.loads(answer.out)["counts"] == {"cases": 4, "done": 3, "failed": 1, "skipped": 0}


def test_the_csv_has_a_row_a_case_and_adds_up(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans")
    predict(tmp_path / "scans")
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["slice_0", "slice_1", "slice_2"]
    assert {row["dice"] for row in rows} == {"1"}
    assert [row["area_px"] for row in rows] == ["81", "81", "81"]


# Options


def test_overlay_and_probabilities_lie_beside_the_results(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 1)
    predict(tmp_path / "scans", "--overlay", "--save-probabilities")
    assert files_below(tmp_path / "out") == {
        *("slice_0.png", "slice_0_probabilities.npz", "overlays/slice_0.png", "report.json", "report.csv"),
    }
    with np.load(tmp_path / "out" / "slice_0_probabilities.npz") as saved:
        np.testing.assert_array_equal(saved["probabilities"][0] > 0.5, disc(32, (8, 16), 5))


def test_a_higher_threshold_labels_less(predict, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))).save(tmp_path / "scans" / "ramp.png")
    areas = []
    for threshold in (0.4, 0.6):
        predict(tmp_path / "scans", "--threshold", threshold)
        areas.append(report(tmp_path)["cases"][0]["scores"]["tumour"]["area_px"])
    assert areas[0] > areas[1] > 0


def test_continue_does_only_what_is_missing(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans")
    predict(tmp_path / "scans")
    (tmp_path / "out" / "slice_1.png").unlink()
    answer = predict(tmp_path / "scans", "--continue")
    assert answer.out.splitlines()[-1].startswith("done    1 of 3")
    assert "2 kept from before" in answer.out
    assert report(tmp_path)["summary"]["tumour"]["n_with_reference"] == 3


def test_continue_never_mixes_two_thresholds_in_one_report(predict, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 1)
    predict(tmp_path / "scans")
    answer = predict(tmp_path / "scans", "--continue", "--threshold", 0.9)
    assert answer.code == 2
    assert "Repeat its options" in answer.err
    assert report(tmp_path)["options"]["threshold"] == 0.5


@pytest.mark.parametrize("device", ["cuda", "gpu"])
def test_a_device_that_is_not_there_is_an_error(predict, tmp_path: Path, device: str) -> None:
    write_pictures(tmp_path / "scans", 1)
    answer = predict(tmp_path / "scans", "--device", device)
    if answer.code == 0:
        pytest.skip("this machine has CUDA")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: --device {device}: ")
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("where", "options"),
    [("scans/slice_{}_mask.png", ()), ("scans/labels/slice_{}.png", ()), ("drawn/slice_{}.png", ("--masks", "drawn"))],
)
def test_references_are_found_beside_below_and_where_told(
    predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    # 1 is the beginning of 10 and 11, whose discs lie elsewhere.
    for number in (1, 2, 10, 11):
        mask = disc(32, (6 + number, 16), 4)
        for path, pixels in ((f"scans/slice_{number}.png", bright(mask)), (where.format(number), mask * 255)):
            Path(path).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    assert predict("scans", *options).code == 0
    scored = {case["name"]: case["scores"]["tumour"]["dice"] for case in report(tmp_path)["cases"]}
    assert scored == {"slice_1": 1.0, "slice_2": 1.0, "slice_10": 1.0, "slice_11": 1.0}


def test_channel_patterns_choose_the_files(predict, tmp_path: Path) -> None:
    for name in ("a_km", "a_dwi"):
        save_nifti(tmp_path / "scans" / f"{name}.nii.gz", bright(np.stack([disc()] * 3, axis=-1)))
    assert predict(tmp_path / "scans", "--channel", "t1ce=*_km.nii.gz").code == 0
    assert files_below(tmp_path / "out") == {"a.nii.gz", "report.json", "report.csv"}


def test_datasets_are_taken_as_named(predict, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with h5py.File(tmp_path / "scans" / "a.h5", "w") as file:
        file["early"], file["late"], file["drawn"] = bright(~disc()), bright(disc()), disc().astype(np.uint8)
    assert predict(tmp_path / "scans", "--image-dataset", "late", "--mask-dataset", "drawn").code == 0
    assert report(tmp_path)["cases"][0]["scores"]["tumour"]["dice"] == 1.0
    answer = predict(tmp_path / "scans", "--image-dataset", "none")
    assert answer.code == 1
    assert "found: drawn, early, late" in answer.out


# Layouts of several channels: the model sees t1ce alone, wherever it lies


def channels(order: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The disc is bright in t1ce and dark in the others."""
    mask = np.stack([disc(16, (8, 6), 4)] * 5, axis=-1)
    return {name: bright(mask if name == "t1ce" else ~mask) for name in order}


@pytest.mark.parametrize(
    ("names", "output"),
    [
        ({c: f"BraTS20_1/BraTS20_1_{c}.nii.gz" for c in BRATS}, "BraTS20_1/BraTS20_1.nii.gz"),
        (
            dict(
                zip(BRATS, (f"BraTS-GLI-1/BraTS-GLI-1-{c}.nii.gz" for c in ("t1n", "t1c", "t2w", "t2f")), strict=True)
            ),
            "BraTS-GLI-1/BraTS-GLI-1.nii.gz",
        ),
        (
            {c: f"imagesTr/C_000{n}.nii.gz" for n, c in enumerate(("flair", "t1", "t1ce", "t2"))},
            "imagesTr/C.nii.gz",
        ),
    ],
    ids=["BraTS 2020", "BraTS 2023", "nnU-Net"],
)
def test_channels_go_by_name(predict, brats_model: Path, tmp_path: Path, names: dict[str, str], output: str) -> None:
    for channel, voxels in channels(BRATS).items():
        save_nifti(tmp_path / "scans" / names[channel], voxels)
    numbered = {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"}
    (tmp_path / "scans" / "dataset.json").write_text(json.dumps({"channel_names": numbered}))
    assert predict(tmp_path / "scans", model=brats_model).code == 0
    np.testing.assert_array_equal(labels_of(tmp_path / "out" / output), channels(BRATS)["t1ce"] == 200)


def test_channels_of_a_decathlon_file_go_by_name(predict, brats_model: Path, tmp_path: Path) -> None:
    order = ("flair", "t1", "t1ce", "t2")
    save_nifti(tmp_path / "scans" / "imagesTr" / "B.nii.gz", np.stack(list(channels(order).values()), axis=-1))
    (tmp_path / "scans" / "dataset.json").write_text(
        '{"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}'
    )
    assert predict(tmp_path / "scans", model=brats_model).code == 0
    np.testing.assert_array_equal(labels_of(tmp_path / "out" / "imagesTr" / "B.nii.gz"), channels(order)["t1ce"] == 200)


def test_brats_labels_count_as_the_spec_says(predict, tmp_path: Path) -> None:
    volume = np.stack([disc()] * 3, axis=-1)
    save_nifti(tmp_path / "scans" / "P_t1ce.nii.gz", bright(volume))
    reference = np.where(volume, 4, 0).astype(np.uint8)
    reference[12, 18], reference[13, 18] = 1, 2
    save_nifti(tmp_path / "scans" / "P_seg.nii.gz", reference)
    predict(tmp_path / "scans")
    assert report(tmp_path)["cases"][0]["scores"]["tumour"]["dice"] == 1.0


# DICOM


def test_a_shuffled_series_becomes_one_volume_in_its_place_without_a_name(predict, tmp_path: Path) -> None:
    volume = np.stack([disc(32, (8 + 3 * k, 16), 4) for k in range(5)], axis=-1)
    affine = write_series(tmp_path / "scans" / "P1", bright(volume), ["IM3", "IM0", "IM4", "IM1", "IM2"])
    answer = predict(tmp_path / "scans", "--overlay", "--save-probabilities")
    assert answer.code == 0
    np.testing.assert_array_equal(labels_of(tmp_path / "out" / "P1.nii.gz"), volume)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "out" / "P1.nii.gz").affine, affine)
    written = answer.out.encode() + answer.err.encode()
    for path in (tmp_path / "out").rglob("*.*"):
        written += path.name.encode()
        written += gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for value in PERSONAL.values():
        assert value.encode() not in written
    assert b"Gerda" not in written


def test_two_studies_of_one_folder_and_a_nifti_beside_them_are_three_cases(predict, tmp_path: Path) -> None:
    volume = bright(np.stack([disc()] * 3, axis=-1))
    for uid in ("1.2.3", "1.2.4"):
        write_series(
            tmp_path / "scans" / "P1", volume, [f"{uid[-1]}{k}.dcm" for k in range(3)], uid, StudyInstanceUID=f"{uid}.0"
        )
    save_nifti(tmp_path / "scans" / "P1" / "a.nii.gz", volume)
    assert predict(tmp_path / "scans").lines("scan") == ["3 cases (2 dicom, 1 nifti)"]
    assert report(tmp_path)["counts"]["done"] == 3
