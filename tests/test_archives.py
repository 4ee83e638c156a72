"""Archives as inputs: what comes out of them, and what is refused."""

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from segtool.errors import UsageError
from segtool.limits import DEFAULT_LIMITS, Limits
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


def refused(path: Path, match: str, limits: Limits = DEFAULT_LIMITS) -> None:
    with pytest.raises(UsageError, match=match) as caught, unpacked([path], limits):
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
    ("limits", "match"),
    [
        (Limits(files=2), "more files and folders than the limit of 2 files.*--limit files=20"),
        (Limits(unpacked_bytes=10), "more than the limit of 10 unpacked bytes.*--limit unpacked_bytes="),
    ],
)
def test_what_is_above_a_limit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, match: str
) -> None:
    bomb = {"a.png": bytes(10**6), "b.png": b"", "c.png": b""}
    monkeypatch.setattr(archive_files.shutil, "copyfileobj", lambda *_: pytest.fail("written"))
    refused(zipped(tmp_path / "a.zip", bomb), match, limits)
    refused(tarred(tmp_path / "a.tgz", bomb, "gz"), match, limits)


def test_what_grows_two_hundred_times_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_files, "SPARE_BYTES", 0)
    refused(zipped(tmp_path / "a.zip", {"a.png": bytes(10**6)}), "200 times")


def test_a_small_archive_of_empty_masks_is_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {f"{number}_mask.nii": bytes(10**7) for number in range(12)})
    assert 500 * path.stat().st_size + 10**7 < 12 * 10**7
    with unpacked([path]) as work:
        assert len(list(work.inputs[0].iterdir())) == 12


def test_folders_count_as_files(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"1/2/3/4/5/a.png": b""})
    refused(path, "limit of 5 files", Limits(files=5))
    with unpacked([path], Limits(files=6)):
        pass


@pytest.mark.parametrize(
    "names", [("a.png", "a.png"), ("a.png", "A.PNG"), ("a", "a/b.png"), ("a/b.png", "a"), ("a/b.png", "a//b.png")]
)
def test_two_files_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if names[0] == names[1] else nullcontext():  # noqa: SIM117
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"")
    refused(tmp_path / "a.zip", "two files of one name")
    with tarfile.open(tmp_path / "a.tar", "w") as other:
        for name in names:
            other.addfile(tarfile.TarInfo(name))
    refused(tmp_path / "a.tar", "two files of one name")


@pytest.mark.parametrize(
    "name", ["n" * 10_000, "n" * 256, "ü" * 128, "d/" * 64 + "a.png", "a" * 200 + "/" + "b/" * 2000]
)
def test_names_that_no_file_system_has_are_refused_and_not_repeated(tmp_path: Path, name: str) -> None:
    for path in (zipped(tmp_path / "a.zip", {f"{name}.png": b""}), tarred(tmp_path / "a.tar", {f"{name}.png": b""})):
        with pytest.raises(UsageError, match="no file system") as caught, unpacked([path]):
            pass
        assert len(str(caught.value)) < 400


def test_bombs_of_overlapping_files_and_lies_about_sizes_write_nothing_beyond_what_was_said(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", {"a.png": bytes(10_000)}).read_bytes())
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = struct.pack("<I", 10)
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", "truncated, or no archive")
    # 1000 names for the same bytes.
    entry = bytearray(zipped(tmp_path / "b.zip", {"0000.png": bytes(10**7)}).read_bytes())
    start, end = entry.index(b"PK\1\2"), entry.index(b"PK\5\6")
    many = b"".join(bytes(entry[start:end]).replace(b"0000.png", b"%04d.png" % n) for n in range(1000))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1000, 1000, len(many), start, 0)
    (tmp_path / "b.zip").write_bytes(bytes(entry[:start]) + many + tail)
    refused(tmp_path / "b.zip", "200 times")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_bound_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", b"x")
    refused(tmp_path / "a.zip", "Unpack it yourself")


def test_a_directory_of_a_million_entries_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "a.zip", {f"{n}.png": b"" for n in range(100)})
    monkeypatch.setattr(archive_files.zipfile, "ZipFile", lambda *_: pytest.fail("read"))
    refused(path, "limit of 50 files", Limits(files=50))
    content = path.read_bytes()
    path.write_bytes(content[:-10] + struct.pack("<II", 2**31, 0) + content[-2:])
    refused(path, "truncated, or no archive")


def test_archives_in_archives_stay_packed(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"b.png": b""}).read_bytes()
    with unpacked([zipped(tmp_path / "outer.zip", {"a.png": b"", "inner.zip": inner})]) as work:
        assert sorted(path.name for path in work.inputs[0].iterdir()) == ["a.png", "inner.zip"]


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    """Of a member of a tar, whatever its size is."""
    info = tarfile.TarInfo(name)
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


ENDLESS = {
    "a file that goes back": header(b"0", -(2**20)),
    "a long name of a terabyte": header(tarfile.GNUTYPE_LONGNAME, 2**40),
    "attributes of a terabyte": header(tarfile.XHDTYPE, 2**40),
    "attributes that go back": header(tarfile.XHDTYPE, -512),
    "attributes of nothing but digits": header(tarfile.XHDTYPE, 60_000) + b"1" * 60_416,
    "attributes of attributes": (header(tarfile.XGLTYPE, 0)) * 2000,
    "a file larger than numbers": header(b"0", 2**62),
    "holes without end": header(tarfile.GNUTYPE_SPARSE, 0)[:482] + b"\1" + bytes(29),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_no_header_of_a_tar_takes_time_or_memory_without_end(tmp_path: Path, name: str, suffix: str) -> None:
    content = ENDLESS[name] + bytes(1024)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    start = time.process_time()
    with pytest.raises(UsageError), unpacked([path]):
        pass
    assert time.process_time() - start < 1


def test_an_archive_that_the_disk_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3})())
    refused(zipped(tmp_path / "a.zip"), "Set TMPDIR")
