"""Archives as inputs: what comes out of them, and what is refused."""

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from segtool.errors import UsageError
from segtool.scan import archive_files, scan
from segtool.scan.archives import unpacked

MEMBERS = {"P1/a_t1.nii.gz": b"one", "P1/a_t2.nii.gz": b"two", "notes.txt": b"three"}


def zipped(path: Path, members: dict[str, bytes] = MEMBERS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes] = MEMBERS, kind: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{kind}") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "scans.zip": zipped,
    "SCANS.ZIP": zipped,
    "scans.tar": tarred,
    "scans.tar.gz": lambda path: tarred(path, kind="gz"),
    "scans.tgz": lambda path: tarred(path, kind="gz"),
    "scans.tar.bz2": lambda path: tarred(path, kind="bz2"),
    "scans.tar.xz": lambda path: tarred(path, kind="xz"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_is_a_folder_of_its_stem_while_the_block_lasts(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name)
    with unpacked([archive]) as work:
        (folder,) = work.inputs
        assert folder.name.casefold() == "scans"
        assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")} == MEMBERS
        (case,) = scan(work.inputs).cases
        assert (case.name, list(case.channels)) == ("P1/a", ["t1", "t2"])
        assert work.mended(f"{case.first.path}: is broken") == f"{archive}/P1/a_t1.nii.gz: is broken"
    assert not folder.exists()
    assert not folder.parent.parent.exists(), "nothing is left of the temporary folder"


def test_the_folder_goes_away_when_the_work_fails(tmp_path: Path) -> None:
    kept = []
    with pytest.raises(ZeroDivisionError), unpacked([zipped(tmp_path / "a.zip")]) as work:
        kept += work.inputs
        raise ZeroDivisionError
    assert not kept[0].exists()


def test_other_inputs_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1/a.png").touch()
    inputs = [tmp_path / "P1", tmp_path / "P1/a.png", tmp_path / "nowhere"]
    with unpacked(inputs) as work:
        assert (list(work.inputs), work.shown, work.problems) == (inputs, {}, ())


def test_a_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").touch()
    with unpacked([tmp_path / "DICOMDIR"]) as work:
        assert work.inputs == (tmp_path,)


def test_archives_below_a_folder_name_their_cases_as_if_they_were_unpacked_there(tmp_path: Path) -> None:
    zipped(tmp_path / "data/trial/P1.zip", {"a_t1.nii.gz": b""})
    tarred(tmp_path / "data/trial/P2.tar", {"a_t1.nii.gz": b""})
    (tmp_path / "data/b_t1.nii.gz").touch()
    with unpacked([tmp_path / "data"]) as work:
        assert [path.name for path in work.inputs] == ["data", "data"]
        assert [case.name for case in scan(work.inputs).cases] == ["b", "trial/P1/a", "trial/P2/a"]
        assert work.mended(str(work.inputs[1] / "trial/P1/x")) == f"{tmp_path / 'data/trial/P1.zip'}/x"
        assert work.problems == ()


def test_a_folder_of_nothing_but_archives_is_no_input_itself(tmp_path: Path) -> None:
    zipped(tmp_path / "data/P1.zip", {"a_t1.nii.gz": b""})
    (tmp_path / "data/README").touch()
    with unpacked([tmp_path / "data"]) as work:
        assert [case.name for case in scan(work.inputs).cases] == ["P1/a"]


def test_what_was_unpacked_before_and_what_holds_no_scans_stays_packed(tmp_path: Path) -> None:
    zipped(tmp_path / "data/P1.zip", {"a_t1.nii.gz": b""})
    zipped(tmp_path / "data/code.zip", {"x.py": b"", ".hidden/a.png": b""})
    (tmp_path / "data/P1").mkdir()
    (tmp_path / "data/P1/a_t1.nii.gz").touch()
    with unpacked([tmp_path / "data"]) as work:
        assert work.inputs == (tmp_path / "data",)
        (problem,) = work.problems
    assert not problem.loses_case
    assert "P1.zip" in str(problem)
    assert "Rename the folder" in str(problem)


def test_a_broken_archive_below_a_folder_is_a_problem_and_the_others_are_work(tmp_path: Path) -> None:
    zipped(tmp_path / "data/P1.zip", {"a_t1.nii.gz": b""})
    (tmp_path / "data/P2.zip").write_bytes(b"PK no")
    with unpacked([tmp_path / "data"]) as work:
        assert len(scan(work.inputs).cases) == 1
        assert ["P2.zip" in problem.where for problem in work.problems] == [True]
        assert work.problems[0].loses_case


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_a_pipe_called_like_an_archive_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    os.mkfifo(tmp_path / "x.zip")
    with unpacked([tmp_path]) as work:
        assert work.inputs == (tmp_path,)


def refused(path: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught, unpacked([path]):
        pass
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "P1/../../out.png", "C:/out.png"])
def test_members_that_would_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "a.zip", {"a.png": b"", name: b""}), "outside its folder")
    refused(tarred(tmp_path / "a.tar", {"a.png": b"", name: b""}), "outside its folder")
    assert not (tmp_path.parent / "out.png").exists()


def test_backslashes_part_folders(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = "P1\\a.png"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"")
    with unpacked([tmp_path / "a.zip"]) as work:
        assert (work.inputs[0] / "P1/a.png").is_file()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(info)
    refused(tmp_path / "a.tar", "a link or a device")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", "a link or a device")


def test_an_encrypted_archive_is_refused_by_name(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": b"x"})
    content = bytearray(path.read_bytes())
    # Bit 0 of the flags, of the file and in the table at the end.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "encrypted.*password")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("keep", [0.0, 0.6])
def test_a_truncated_archive_is_one_line(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    makers = {".tar": "", ".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}
    noise = {"a.png": bytes(range(256)) * 40, "b.png": bytes(range(255, -1, -1)) * 40}
    if path.suffix.lower() == ".zip":
        zipped(path, noise)
    else:
        tarred(path, noise, makers[path.suffix])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    refused(path, "truncated, or no archive")


@pytest.mark.parametrize(
    ("limit", "value", "match"),
    [("MOST_MEMBERS", 2, "more than 2 files"), ("MOST_BYTES", 10, "more than .* unpacked"), ("SPARE_BYTES", 0, "GB")],
)
def test_what_grows_too_much_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, match: str
) -> None:
    monkeypatch.setattr(archive_files, limit, value)
    bomb = {"a.png": bytes(10**6), "b.png": b"", "c.png": b""}
    monkeypatch.setattr(archive_files.shutil, "copyfileobj", lambda *_: pytest.fail("written"))
    refused(zipped(tmp_path / "a.zip", bomb), match)
    refused(tarred(tmp_path / "a.tgz", bomb, "gz"), match)


def test_an_archive_that_the_disk_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3})())
    refused(zipped(tmp_path / "a.zip"), "Set TMPDIR")
