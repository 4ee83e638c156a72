"""Folders into which archives are unpacked are gone however a run ends that still can clear up."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_archives import zipped
from tiny import bright_spec, write_model, write_pictures

from segtool.scan.temporary import temporary_folder

TOLD = """
import os, sys
import segtool.pipeline, segtool.scan.archives, segtool.case_files, segtool.commands.inspect
from segtool.cli import main
numbers, owner, name, *arguments = sys.argv[1:]
owner = eval(owner)
original = getattr(owner, name)
def told(*given, **options):
    done = original(*given, **options)
    print("unpacked", *(path for path, _, files in os.walk(os.environ["TMPDIR"]) if files), flush=True)
    for number in numbers.split():
        os.kill(os.getpid(), int(number))
    return done
setattr(owner, name, told)
main(arguments)
"""
"""A run that gets signals once a function is done, when there are files in the folder for temporary ones."""

PLACES = {
    "unpacking": ("segtool.scan.archives", "unpack_into"),
    "scanning": ("segtool.pipeline", "scan_unpacked"),
    "running": ("segtool.case_files.CaseFiles", "write"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


def run_told(tmp_path: Path, numbers: list[int], place: tuple[str, str], *arguments: object) -> int:
    """The exit code of a command that gets signals while an archive of pictures is unpacked."""
    write_pictures(tmp_path / "scans")
    members = {path.name: path.read_bytes() for path in (tmp_path / "scans").iterdir() if path.is_file()}
    archive, temporary = zipped(tmp_path / "scans.zip", members), tmp_path / "temporary"
    temporary.mkdir()
    wanted = [str(arguments[0]), str(archive), *map(str, arguments[1:])]
    run = subprocess.run(
        [sys.executable, "-c", TOLD, " ".join(map(str, map(int, numbers))), *place, *wanted],
        env=os.environ | {"TMPDIR": str(temporary)},
        # A shell switches it off for what it starts in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert any(line.startswith(f"unpacked {temporary}") for line in run.stdout.splitlines()), run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert run.returncode == -signal.SIGKILL or list(temporary.iterdir()) == [], run.stderr
    return run.returncode


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted_leaves_nothing_unpacked(
    model: Path, tmp_path: Path, place: str, number: int, code: int
) -> None:
    told = "predict", "-m", model, "-o", tmp_path / "out", "--threads", 1
    assert run_told(tmp_path, [number], PLACES[place], *told) == code


def test_a_run_that_is_stopped_at_once_leaves_nothing_unpacked(model: Path, tmp_path: Path) -> None:
    told = "predict", "-m", model, "-o", tmp_path / "out", "--threads", 1
    assert run_told(tmp_path, [signal.SIGTERM] * 2, PLACES["running"], *told) == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_look_that_is_interrupted_leaves_nothing_unpacked(tmp_path: Path, number: int, code: int) -> None:
    assert run_told(tmp_path, [number], PLACES["unpacking"], "inspect") == code


def test_what_a_killed_run_left_unpacked_goes_with_the_next_and_nothing_in_use_does(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        run_told(tmp_path, [signal.SIGKILL], PLACES["running"], "predict", "-m", model, "-o", tmp_path / "out")
        == -signal.SIGKILL
    )
    temporary = tmp_path / "temporary"
    (left,) = temporary.iterdir()
    assert any(left.rglob("*.png"))
    foreign = temporary / "segtool-unpacked-foreign"
    foreign.symlink_to(tmp_path / "scans")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with temporary_folder() as first, temporary_folder() as second:
        assert not left.exists()
        assert first.is_dir()
        assert second.is_dir()
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert list(temporary.iterdir()) == [foreign]
    assert any((tmp_path / "scans").iterdir())
