"""Limits before work: every command that reads scans takes ``--limit NAME=VALUE``, and every reader gets it."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from shell import segtool
from tiny import bright_spec, disc, write_model

from segtool.case import Source
from segtool.commands.limit_option import limits_of
from segtool.errors import UsageError
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.pairing import pair_files
from segtool.scan import ScanOptions, scan


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    picture = np.where(disc(), 200, 30).astype(np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    Image.fromarray(disc().astype(np.uint8)).save(folder / "a_mask.png")
    nibabel.save(nibabel.Nifti1Image(np.stack([picture] * 3, -1), np.eye(4)), folder / "b.nii.gz")
    return folder


def test_limits_are_read_from_words() -> None:
    assert limits_of(None) == DEFAULT_LIMITS
    assert limits_of(["voxels=7", "labels=3"]) == Limits(voxels=7, labels=3)


@pytest.mark.parametrize("text", ["voxels", "voxels=", "voxels=-1", "voxels=1e9", "voxels=0", "voxels=٣", "pixels=3"])
def test_a_limit_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"For instance: --limit voxels=|The limits are voxels, "):
        limits_of([text])


@pytest.mark.parametrize("command", ["predict", "inspect", "evaluate"])
def test_commands_hold_files_against_limits_and_say_how_to_raise_them(
    capsys: pytest.CaptureFixture[str], scans: Path, tmp_path: Path, command: str
) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    rest = {"predict": ("-m", model, "-o", tmp_path / "out"), "inspect": ("-m", model), "evaluate": (scans,)}[command]
    few = segtool(capsys, command, scans, *rest, "--limit", "voxels=500")
    assert few.code == 1
    assert "a.png: claims 32x32 pixels, above the limit of 500 voxels" in few.out.replace("_mask", "")
    assert "raise the limit: --limit voxels=1024." in few.out
    if command != "evaluate":
        assert "raise the limit: --limit voxels=3072." in few.out
    assert segtool(capsys, command, scans, *rest, "--limit", "voxels=3072").code == 0


def test_every_source_carries_the_limits(scans: Path) -> None:
    (scans / "_annotations.coco.json").touch()
    (scans / "c.png").touch()
    limits = Limits(voxels=5)
    cases = scan([scans], None, ScanOptions(limits=limits)).cases
    sources: list[Source] = [source for case in cases for source in (*case.channels.values(), case.reference) if source]
    assert {source.format for source in sources} == {"png", "nifti", "coco"}
    assert {source.limits for source in sources} == {limits}
    pairs = pair_files(scans, scans, limits=limits).pairs
    assert {source.limits for pair in pairs for source in (pair.prediction, pair.reference) if source} == {limits}
