"""Whatever is wrong with the input: one line that names the file and the remedy, and the others are done."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from dicom_series import write_series
from PIL import Image
from shell import files_below, segtool
from tiny import bright_spec, disc, volume_spec, write_model, write_pictures

from segtool.model_file import read_metadata

DISCS = np.stack([disc()] * 4, axis=-1)
VOLUME = np.where(DISCS, 200, 30).astype(np.int16)
PICTURE = VOLUME[..., 0].astype(np.uint8)
GOOD = {"good.png", "report.json", "report.csv"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder that holds one good scan already."""
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.fromarray(PICTURE).save(folder / "good.png")
    return folder


def save_nifti(path: Path, data: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-1.0, -1.0, 2.0, 1.0])), path)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def save_picture(path: Path) -> None:
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(path)


def save_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = VOLUME[..., 0]


def truncated(name: str, save: Callable[[Path], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save(folder / name)
        halve(folder / name)

    return write


def with_nan(folder: Path) -> None:
    voxels = VOLUME.astype(np.float32)
    voxels[3, 3, 3] = np.nan
    save_nifti(folder / "bad.nii.gz", voxels)


def with_a_mask_of_another_shape(folder: Path) -> None:
    save_nifti(folder / "bad.nii.gz", VOLUME)
    save_nifti(folder / "bad_seg.nii.gz", np.zeros((32, 32, 5), np.uint8))


def old_matlab(folder: Path) -> None:
    (folder / "bad.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))


def series_with_short_pixels(folder: Path) -> None:
    write_series(folder / "bad", VOLUME, [f"{k}.dcm" for k in range(4)])
    path = folder / "bad" / "2.dcm"
    path.write_bytes(path.read_bytes()[:-900])


def series_with_a_short_header(folder: Path) -> None:
    # The last slice: nothing but the file itself tells that the scan is incomplete.
    write_series(folder / "bad", VOLUME, [f"{k}.dcm" for k in range(4)])
    path = folder / "bad" / "3.dcm"
    path.write_bytes(path.read_bytes()[:150])


BAD: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "png": (truncated("bad.png", save_picture), "bad.png", "copy or export it again"),
    "jpg": (truncated("bad.jpg", save_picture), "bad.jpg", "copy or export it again"),
    "tif": (truncated("bad.tif", save_picture), "bad.tif", "copy or export it again"),
    "nii": (truncated("bad.nii", lambda p: save_nifti(p, VOLUME)), "bad.nii", "copy or convert it again"),
    "nii.gz": (truncated("bad.nii.gz", lambda p: save_nifti(p, VOLUME)), "bad.nii.gz", "copy or convert it again"),
    "h5": (truncated("bad.h5", save_hdf5), "bad.h5", "copy or export it again"),
    "mat": (truncated("bad.mat", save_hdf5), "bad.mat", "-v7.3"),
    "old mat": (old_matlab, "bad.mat", "-v7.3"),
    "pixels of a slice": (series_with_short_pixels, "2.dcm", "export or copy it again"),
    "header of a slice": (series_with_a_short_header, "3.dcm", "export or copy it again"),
    "empty file": (lambda folder: (folder / "bad.png").touch(), "bad.png", "copy or export it again"),
    "NaN": (with_nan, "bad.nii.gz", "Replace them in the file"),
    "one value": (lambda f: save_nifti(f / "bad.nii.gz", VOLUME * 0), "bad.nii.gz", "Check that the file holds a scan"),
    "4D": (lambda f: save_nifti(f / "bad.nii.gz", np.stack([VOLUME] * 2, -1)), "bad.nii.gz", "Split it into files"),
    "mask of another shape": (with_a_mask_of_another_shape, "bad_seg.nii.gz", "on the grid of its scan"),
    "no t1ce": (lambda f: save_nifti(f / "bad_t2.nii.gz", VOLUME), "bad", "--channel t1ce=PATTERN"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_case_is_one_line_and_the_others_are_done(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, tmp_path: Path, what: str
) -> None:
    spoil, file, remedy = BAD[what]
    spoil(scans)
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out", "--overlay")
    assert answer.code == 1
    assert answer.err == ""
    (line,) = answer.lines("failed")
    assert line.startswith("bad: ")
    assert file in line
    assert remedy in line
    assert "case 'bad'" not in line
    assert answer.out.splitlines()[-1].startswith("done    1 of 2 ")
    assert files_below(tmp_path / "out") == GOOD | {"overlays/good.png"}
    cases = json.loads((tmp_path / "out" / "report.json").read_text())["cases"]
    assert [(case["name"], case["status"]) for case in cases] == [("bad", "failed"), ("good", "done")]


@pytest.mark.parametrize(
    ("strict", "code", "said"),
    [(False, 0, "note    P: t2 resampled onto t1"), (True, 1, "failed  P: ")],
)
def test_another_grid_is_resampled_and_said_or_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, strict: bool, code: int, said: str
) -> None:
    model = write_model(tmp_path / "m.onnx", volume_spec(16, ("t1", "t2")))
    (tmp_path / "scans").mkdir()
    save_nifti(tmp_path / "scans" / "P_t1.nii.gz", VOLUME)
    save_nifti(tmp_path / "scans" / "P_t2.nii.gz", VOLUME[:16, :16])
    options = ["--strict"] if strict else []
    answer = segtool(capsys, "predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "out", *options)
    assert answer.code == code
    assert said in answer.out
    assert ("P_t2.nii.gz" in answer.out) is strict
    assert ("P.nii.gz" in files_below(tmp_path / "out")) is not strict


def test_a_scan_that_lost_its_place_takes_the_voxels_of_its_reference_as_they_lie(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "scans" / "P.nii.gz")
    place = np.array([[0.9, 0, 0, -14], [0, 0.9, 0, -11], [0, 0, 4.0, 3], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(DISCS.astype(np.uint8), place), tmp_path / "scans" / "P_seg.nii.gz")
    answer = segtool(capsys, "predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "out")
    assert answer.lines("note") == [
        "P: reference has another affine than the scan, one of them a placeholder; voxels taken as they lie"
    ]
    scores = json.loads((tmp_path / "out" / "report.json").read_text())["cases"][0]["scores"]
    assert scores["tumour"]["dice"] == 1.0


# What stops the whole run


def with_spec(model: Path, target: Path, change: Callable[[dict], None] | None) -> Path:
    import onnx

    graph = onnx.load(model)
    spec = json.loads(read_metadata(model)["segtool"])
    del graph.metadata_props[:]
    if change:
        change(spec)
        graph.metadata_props.add(key="segtool", value=json.dumps(spec))
    onnx.save(graph, target)
    return target


MODELS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "no spec": (lambda model, to: with_spec(model, to, None), "`segtool export`"),
    "newer": (lambda model, to: with_spec(model, to, lambda spec: spec.update(schema=99)), "pip install -U segtool"),
    "no labels": (lambda model, to: with_spec(model, to, lambda spec: spec.pop("labels")), "Export the model again"),
    "text": (lambda _, to: Path(to.write_text("hello") and to), "`segtool export`"),
    "absent": (lambda _, to: to, "Check the path"),
}


@pytest.mark.parametrize("what", MODELS)
@pytest.mark.parametrize("command", ["predict", "inspect"])
def test_a_model_that_cannot_be_used_stops_the_run_before_it_begins(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, tmp_path: Path, what: str, command: str
) -> None:
    make, remedy = MODELS[what]
    bad = make(model, tmp_path / "bad.onnx")
    answer = segtool(
        capsys, *(("inspect", bad) if command == "inspect" else ("predict", scans, "-m", bad, "-o", tmp_path / "out"))
    )
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert "bad.onnx" in answer.err
    assert remedy in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, "readme.txt"])
def test_an_empty_folder_is_wrong_usage_that_says_what_was_looked_for(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "scans").mkdir()
    if content:
        (tmp_path / "scans" / content).touch()
    answer = segtool(capsys, "predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "out")
    assert answer.code == 2
    assert "Looked for .nii.gz .nii .png" in answer.err
    assert not (tmp_path / "out").exists()


def test_an_output_folder_below_a_file_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "file" / "out")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "Choose another one with --output" in answer.err


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("--threshold", "1.5"), "between 0 and 1"),
        (("--threshold", "nan"), "between 0 and 1"),
        (("--channel", "t1ce"), "t1ce=*_gd.nii.gz"),
        (("--channel", "t2=*"), "Its channels are t1ce"),
        (("--masks", "nowhere"), "Check the path"),
    ],
)
def test_wrong_usage_is_one_line(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, tmp_path: Path, options: tuple[str, ...], remedy: str
) -> None:
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out", *options)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert remedy in answer.err


@pytest.mark.parametrize("name", ["..x.png", "=cmd.png", "[bold]x.png", "overlays/a.png", ".. /a.png", "a:b.png"])
def test_no_name_of_a_scan_leads_out_of_the_output_folder(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "scans" / name
    path.parent.mkdir(parents=True)
    Image.fromarray(PICTURE).save(path)
    Image.fromarray(PICTURE).save(tmp_path / "scans" / "a.png")
    answer = segtool(capsys, "predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "x" / "out", "--overlay")
    assert answer.code == 0
    assert files_below(tmp_path / "x") == {f"out/{name}" for name in files_below(tmp_path / "x" / "out")}
    for case in json.loads((tmp_path / "x" / "out" / "report.json").read_text())["cases"]:
        with Image.open(tmp_path / "x" / "out" / case["output"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), disc())


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT reaches a child of its own group only")
def test_an_interrupt_leaves_whole_files_a_report_and_a_word(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 300, 64, masks=False)
    out = tmp_path / "out"
    run = subprocess.Popen(
        [sys.executable, "-m", "segtool", "predict", tmp_path / "scans", "-m", model, "-o", out, "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    until = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < until and not list(out.glob("*.png")):
        time.sleep(0.002)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    first, *rest = said.splitlines()
    assert re.fullmatch(r"interrupted: finishing \d+ cases? in hand; once more to stop at once", first)
    assert rest == [f"Finished cases stay in {out}; --continue does the others.", "interrupted"]
    report = json.loads((out / "report.json").read_text())
    assert report["notes"][0].startswith("interrupted: not all cases were done; ")
    done = {case["output"] for case in report["cases"]}
    assert 0 < len(done) < 300
    assert files_below(out) == done | {"report.json", "report.csv"}
