"""An output folder that another user can write into: nothing is written elsewhere, nothing waits, nothing crashes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import segtool
from tiny import bright_spec, write_model, write_pictures

from segtool import atomic, claims
from segtool.case_result import CaseResult
from segtool.report import Report

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes and few links")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "scans" / "sub", 2)
    return tmp_path / "scans"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "diary.txt").write_text("mine\n")
    return tmp_path / "victim"


def huge(path: Path) -> None:
    """A file that claims 64 GB and takes no place."""
    path.touch()
    os.truncate(path, 2**36)


def foreign_partial(folder: Path) -> Path:
    return folder / f".partial-{10**30}-{atomic._HOST}00000000-0-x"


Plant = Callable[[Path, Path], object]
ELSEWHERE: dict[str, tuple[Plant, str]] = {
    "a folder of results": (lambda out, victim: (out / "sub").symlink_to(victim), "a link leads out of the output"),
    "the overlays": (lambda out, victim: (out / "overlays").symlink_to(victim), "a link leads out of the output"),
    "the run file, by a link": (
        lambda out, victim: (out / ".segtool-run").symlink_to(victim / "diary.txt"),
        "--output",
    ),
    "the run file, by a hard link": (
        lambda out, victim: (out / ".segtool-run").hardlink_to(victim / "diary.txt"),
        "it is a hard link",
    ),
}
WAITING: dict[str, tuple[Plant, str]] = {
    "a pipe for a report": (lambda out, _: os.mkfifo(out / "report.json"), ""),
    "a device for a report": (lambda out, _: (out / "report.json").symlink_to("/dev/zero"), ""),
    "a report of 64 GB": (lambda out, _: huge(out / "report.json"), "a report of 68719476736 bytes"),
    "a pipe for a run file": (lambda out, _: os.mkfifo(out / ".segtool-run"), "it is no plain file"),
    "a pipe for a part's": (lambda out, _: os.mkfifo(out / ".segtool-run-part-0-of-2"), "it is no plain file"),
    "a run file of 64 GB": (lambda out, _: huge(out / ".segtool-run"), "which segtool never writes"),
    "a process of thirty digits": (lambda out, _: foreign_partial(out).touch(), ""),
    "a half-written file that leads to everything": (lambda out, _: (out / ".partial-x").symlink_to("/"), ""),
}


@pytest.mark.parametrize("name", [*ELSEWHERE, *WAITING])
def test_what_another_user_planted_leads_nowhere_and_stops_nothing_without_a_word(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, victim: Path, tmp_path: Path, name: str
) -> None:
    plant, said = {**ELSEWHERE, **WAITING}[name]
    out = tmp_path / "out"
    out.mkdir()
    plant(out, victim)
    result = segtool(capsys, "predict", scans, "-m", model, "-o", out, "--overlay", "--continue")
    assert [path.name for path in victim.iterdir()] == ["diary.txt"]
    assert (victim / "diary.txt").read_text() == "mine\n"
    text = " ".join((result.out + result.err).split())
    assert (said in text and result.code) if said else "2 of 2" in text


def test_a_result_takes_the_place_of_a_link_and_not_of_its_target(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, victim: Path, tmp_path: Path
) -> None:
    segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out")
    result = next((tmp_path / "out" / "sub").glob("*.png"))
    result.unlink()
    result.symlink_to(victim / "diary.txt")
    segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out")
    assert not result.is_symlink()
    assert (victim / "diary.txt").read_text() == "mine\n"


def test_nobody_can_foretell_a_temporary_name(tmp_path: Path) -> None:
    first, second = (atomic.partial_path(tmp_path / "a.png").name for _ in range(2))
    assert len(set(first.split("-")[3]) | set(second.split("-")[3])) > 4
    assert first.split("-")[3] != second.split("-")[3]


ROWS = {
    "text for a score": {"scores": {"tumour": {"dice": "x"}}},
    "a number of 400 digits": {"confidence": {"expected_dice": 10**400}},
    "text for a confidence": {"confidence": {"expected_dice": "x"}},
    "a list that nests": {"measurements": {"tumour": {"volume_ml": [[[["x"]]]]}}},
    "no index": {"slices": {"x": {}}},
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_that_no_run_writes_is_none(row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a case of a report"):
        CaseResult.from_dict({"name": "a", "status": "done", **row})


def test_a_measure_of_an_unknown_name_is_passed_over() -> None:
    row = {"name": "a", "status": "done", "confidence": {"=cmd()": 1, "mean_entropy": 0.5}}
    assert CaseResult.from_dict(row).confidence == {"mean_entropy": 0.5}


def test_a_row_goes_there_and_back(tmp_path: Path) -> None:
    row = {"name": "a", "status": "done", "measurements": {"t": {"volume_ml": 1.5, "plane": "axial", "slice": None}}}
    (found,) = [CaseResult.from_dict(json.loads(json.dumps(row)))]
    assert found.measurements["t"].plane == "axial"


@pytest.mark.parametrize(
    ("note", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("x;=1+1", "x;'=1+1"),
        ("x; @SUM(1)", "x; '@SUM(1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a-b=c", "a-b=c"),
    ],
)
def test_no_cell_is_run_by_a_spreadsheet_whatever_parts_its_cells(tmp_path: Path, note: str, cell: str) -> None:
    Report("predict", "1", (CaseResult("a", "done", notes=(note,)),), 1.0).write_csv(tmp_path / "r.csv")
    assert cell in (tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()[1].split(",")


def test_a_run_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MOST_AT_ONCE", 8)
    file = claims.LockFile(tmp_path / "run")
    file.append(b"123456\n789\n")
    assert (file.read(0), file.read(7)) == (b"123456\n7", b"789\n")
    file.close()
