"""Folders that lie: links that leave, pipes, names that no disk likes, folders nobody may read, absurd grids."""

import json
import os
import socket
import unicodedata

import h5py
import nibabel
import numpy as np
import pytest
from dicom_series import write_series
from PIL import Image
from shell import files_below, segtool
from tiny import bright_spec, disc, volume_spec, write_model

from segtool.errors import LimitError, UsageError
from segtool.geometry import Geometry
from segtool.regrid import around
from segtool.scan import ScanOptions, scan
from segtool.scan.names import safe_part
from segtool.scan.sets import cheng_mat
from segtool.scan.sets.base import Tree

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes and few links")

PICTURE = np.where(disc(), 200, 30).astype(np.uint8)


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PICTURE).save(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture
def linked(tmp_path):
    """A folder whose links lead to a file, to a folder that leads back, and nowhere, all outside."""
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "store" / "b.png")
    save(tmp_path / "far" / "c.png")
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "store" / "b.png")
    (tmp_path / "in" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "far" / "self").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "in" / "nothing.png")
    (tmp_path / "in" / "round.png").symlink_to(tmp_path / "in" / "round.png")
    return tmp_path / "in"


def named(found):
    return sorted(case.name for case in found.cases)


def test_links_that_leave_the_folder_are_refused_by_name(linked):
    found = scan([linked])
    assert named(found) == ["a"]
    lines = [str(problem) for problem in found.problems]
    assert any("links that leave the folder are not followed: " in line and "b.png" in line and "--follow-links" in line
               for line in lines)  # fmt: skip
    assert any("gone.png" in line and "lead nowhere" in line for line in lines)


def test_with_follow_links_each_target_counts_once_and_circles_end(linked):
    found = scan([linked], options=ScanOptions(follow_links=True))
    assert named(found) == ["a", "b", "far/c"]


def test_references_beside_the_input_are_held_to_the_same(tmp_path):
    save(tmp_path / "data" / "images" / "a.png")
    save(tmp_path / "secret" / "a.png")
    (tmp_path / "data" / "masks").symlink_to(tmp_path / "secret")
    found = scan([tmp_path / "data" / "images"])
    assert found.cases[0].reference is None
    assert any("masks" in str(problem) for problem in found.problems)
    followed = scan([tmp_path / "data" / "images"], options=ScanOptions(follow_links=True))
    assert followed.cases[0].reference is not None


@pytest.mark.parametrize("command", ["predict", "inspect", "evaluate"])
def test_every_command_that_reads_folders_can_follow_links(capsys, model, linked, tmp_path, command):
    given = {
        "predict": (linked, "-m", model, "-o", tmp_path / "out"),
        "inspect": (linked,),
        "evaluate": (linked, linked),
    }[command]
    without = segtool(capsys, command, *given)
    assert "links that leave the folder are not followed" in without.out
    answer = segtool(capsys, command, *given, "--follow-links")
    assert "links that leave" not in answer.out
    said = {"predict": "done    3 of ", "inspect": "far/c", "evaluate": "pairs   3 of 3"}
    assert said[command] in answer.out


def test_pipes_and_sockets_are_named_and_never_opened(tmp_path, monkeypatch):
    save(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    os.mkfifo(tmp_path / "in" / "dataset.json")
    os.mkfifo(tmp_path / "in" / "_annotations.coco.json")
    (tmp_path / "in" / "zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path / "in")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.png")
        found = scan([tmp_path / "in"], options=ScanOptions(follow_links=True))
    assert named(found) == ["a"]
    (line,) = [str(problem) for problem in found.problems]
    assert "never opened: 3" in line
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        scan([tmp_path / "in" / "pipe.png"])


NAMES = [
    "a.png", "A.png", "CON.png", "aux.x.png", "nul .png", "trailing. .png", "new\nline.png", "\x1b[31m.png",
    "\u202egnp.png", "é.png", unicodedata.normalize("NFD", "é.png"), "x" * 251 + ".png", "ü" * 125 + ".png",
    "report.json/a.png", "report.csv/a.png", "overlays/a.png", "a.png.d/b.png", "a.nii.gz/b.png", "-rf.png", "a?*.png",
]  # fmt: skip


def test_names_that_disks_or_terminals_dislike_give_a_result_each_inside_the_output(capsys, model, tmp_path):
    for name in NAMES:
        save(tmp_path / "in" / name)
    raw = os.fsencode(tmp_path / "in") + b"/bad\xff\xfe.png"
    with open(raw, "wb") as file:  # noqa: PTH123 - a name that is no text
        file.write((tmp_path / "in" / "a.png").read_bytes())
    top = tmp_path / "x"
    answer = segtool(
        capsys, "predict", tmp_path / "in", "-m", model, "-o", top / "out", "--overlay", "--save-probabilities"
    )
    assert answer.code == 0, answer.out
    assert all(line.isprintable() for line in answer.out.splitlines())
    cases = json.loads((top / "out" / "report.json").read_text())["cases"]
    outputs = [case["output"] for case in cases]
    assert len(cases) == len(NAMES) + 1
    # On disks that fold case and accents too.
    assert len({unicodedata.normalize("NFC", name).casefold() for name in outputs}) == len(outputs)
    assert files_below(top) == {f"out/{name}" for name in files_below(top / "out")}
    for part in (part for name in outputs for part in name.split("/")):
        stem = part.removesuffix(".png")
        assert safe_part(stem) == stem
        assert part.isprintable()
        assert len(os.fsencode(part)) < 200


def test_the_folder_of_one_case_is_not_the_file_of_another(tmp_path):
    for name in ("a.nii.gz", "a.nii.gz.d/b.nii.gz", "c_probabilities.nii.gz.d/b.nii.gz", "c.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a.nii.gz.d").rename(tmp_path / "a.nii")
    names = named(scan([tmp_path]))
    assert len(set(names)) == 4
    files = {f"{name}{suffix}".casefold() for name in names for suffix in (".nii", ".nii.gz", "_probabilities.nii.gz")}
    folders = {name.rpartition("/")[0].casefold() for name in names if "/" in name}
    assert not files & folders


@pytest.mark.parametrize("identify", [False, True])
def test_headers_name_no_output(capsys, tmp_path, identify):
    write_series(tmp_path / "in" / "s", np.where(np.stack([disc()] * 4, -1), 200, 30).astype(np.int16),
                 [f"{k}.dcm" for k in range(4)], PatientName="../../evil", PatientID="/etc/passwd",
                 SeriesDescription="../../../t1ce", StudyDescription="..\\..\\evil")  # fmt: skip
    model = write_model(tmp_path / "m.onnx", volume_spec(16))
    top = tmp_path / "x" / "y" / "z"
    options = ("--format", "same,dicom-seg", *(["--identify"] if identify else []))
    answer = segtool(capsys, "predict", tmp_path / "in", "-m", model, "-o", top / "out", *options)
    assert answer.code == 0, answer.out
    assert all(name.startswith("y/z/out/") for name in files_below(tmp_path / "x"))
    assert not any("evil" in name or "passwd" in name for name in files_below(tmp_path / "x"))


@pytest.mark.parametrize(
    ("affine", "said"),
    [
        (np.diag([1e-5, 1, 1, 1]), "voxels of 1e-05 x 1 x 1 mm, wanted 0.001 to 10000 mm"),
        (np.diag([1, 1e6, 1, 1]), "voxels of 1 x 1e+06 x 1 mm"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "on top of each other"),
    ],
)
def test_a_grid_that_no_scanner_makes_is_refused_with_its_numbers(capsys, tmp_path, affine, said):
    header = nibabel.Nifti1Header()
    header.set_sform(affine, 1)
    image = nibabel.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), affine, header)
    (tmp_path / "in").mkdir()
    image.to_filename(tmp_path / "in" / "a.nii.gz")
    model = write_model(tmp_path / "m.onnx", volume_spec(16))
    answer = segtool(capsys, "predict", tmp_path / "in", "-m", model, "-o", tmp_path / "out")
    assert answer.code == 1
    (line,) = answer.lines("failed")
    assert said in line
    assert "Repair its sform or qform" in line


def test_a_grid_around_two_that_lie_far_apart_is_refused_before_memory_is_taken():
    def at(place):
        affine = np.diag([0.001, 0.001, 0.001, 1])
        affine[:3, 3] = place
        return Geometry.of_volume((10, 10, 10), affine)

    with pytest.raises(LimitError, match=r"10010x10010x10010 voxels around both grids"):
        around(at(0), at(10))


SIDE_FILES = ["dataset.json", "_annotations.coco.json", "other.json", "1.mat", "a.h5", "index.csv"]


@pytest.mark.parametrize("name", SIDE_FILES)
def test_a_pipe_beside_scans_keeps_nobody_waiting(capsys, tmp_path, name):
    save(tmp_path / "images" / "a_0000.png")
    os.mkfifo(tmp_path / name)
    assert "seen    1 case" in segtool(capsys, "inspect", tmp_path).out


def test_a_set_in_matlab_files_opens_no_other_file(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        for name, value in (("image", [[1]]), ("tumorMask", [[1]]), ("label", [1]), ("PID", [65])):
            file[f"cjdata/{name}"] = value
    (tmp_path / "set").mkdir()
    with h5py.File(tmp_path / "set" / "1.mat", "w") as file:
        file["cjdata"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "cjdata")
    assert cheng_mat.recognise(Tree(tmp_path / "set")) is None
