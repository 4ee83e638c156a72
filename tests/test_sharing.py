"""Several runs on one output folder, and parts of one."""

import errno
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import files_below, segtool
from tiny import bright_spec, write_model, write_pictures

from segtool import claims, worklist
from segtool.claims import LockFile
from segtool.errors import OutputError, UsageError
from segtool.output_folder import Part, RunIdentity
from segtool.pipeline import PredictOptions, Progress, predict_folder
from segtool.report import CaseResult, Report
from segtool.scan import scan
from segtool.shared_run import SharedRun
from segtool.version import __version__

RUN_FILE = ".segtool-run"
needs_threads = pytest.mark.skipif(
    not claims.THREADS_EXCLUDE_EACH_OTHER, reason="locks of this system do not hold between threads"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "scans", 12)
    return tmp_path / "scans"


def options(model: Path, tmp_path: Path, **changes: object) -> PredictOptions:
    return PredictOptions(model=model, output=tmp_path / "out", **({"threads": 1} | changes))


def names_in(report: Report) -> list[str]:
    return [case.name for case in report.cases]


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# Locks


@needs_threads
def test_one_holder_has_a_byte_until_it_gives_it_back_or_closes(tmp_path: Path) -> None:
    one, other = LockFile(tmp_path / "locks"), LockFile(tmp_path / "locks")
    assert one.take(2**30)
    assert not other.take(2**30)
    assert other.take(2**30 + 1)
    assert not one.take(2**30, 5)
    one.give(2**30)
    assert other.take(2**30)
    other.close()
    assert one.take(2**30, 5)
    one.close(remove=True)
    assert not (tmp_path / "locks").exists()


def test_a_lock_file_that_somebody_has_removed_is_out_of_place(tmp_path: Path) -> None:
    file = LockFile(tmp_path / "locks")
    assert file.is_in_place
    LockFile(tmp_path / "locks").close(remove=True)
    assert not file.is_in_place
    later = LockFile(tmp_path / "locks")
    assert not file.is_in_place
    file.close()
    later.close()


def test_a_line_that_a_killed_process_left_half_written_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'{"case": 1}\n{"ca')
    file = LockFile(tmp_path / "lines")
    file.append(b'{"case": 2}\n')
    file.close()
    assert (tmp_path / "lines").read_bytes() == b'{"case": 1}\n{"ca\n{"case": 2}\n'


def test_a_lock_file_that_has_taken_another_s_place_is_left_alone(tmp_path: Path) -> None:
    file = LockFile(tmp_path / "locks")
    (tmp_path / "locks").unlink()
    later = LockFile(tmp_path / "locks")
    file.close(remove=True)
    assert later.is_in_place
    later.close()


@needs_threads
def test_whoever_is_just_coming_or_going_counts_as_at_work(model: Path, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    coming = LockFile(tmp_path / "out" / RUN_FILE)
    assert coming.take(2**30)
    with pytest.raises(UsageError, match="another process is at work there on all cases"):
        predict_folder([scans], options(model, tmp_path, part=(0, 2)))
    coming.close(remove=True)


# Sharing


@needs_threads
def test_runs_on_one_folder_do_every_case_once(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 40)
    alone = predict_folder([tmp_path / "scans"], PredictOptions(model=model, output=tmp_path / "alone"))
    done: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    reports: list[Report] = []
    together = threading.Barrier(4)

    def come_together(*_: object) -> None:
        together.wait(60)

    def work() -> None:
        progress = Progress(
            on_start=come_together,
            on_case=lambda result: done.update([result.name]),
            on_elsewhere=lambda result: elsewhere.update([result.name]),
        )
        reports.append(predict_folder([tmp_path / "scans"], options(model, tmp_path), progress))

    for thread in [started(work) for _ in range(4)]:
        thread.join()
    assert done == Counter(names_in(alone))
    assert set(elsewhere.values()) == {3}
    assert len(elsewhere) == 40
    assert sum(40 - report.elsewhere for report in reports) == 40
    for report in reports:
        assert names_in(report) == names_in(alone)
        assert report.summary == alone.summary
    assert files_below(tmp_path / "out") == files_below(tmp_path / "alone")
    for path in (tmp_path / "alone").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@needs_threads
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": 0.4}, "threshold 0.5 instead of 0.4"),
        ({"raw": True}, "raw False instead of True"),
        ({"overlay": True}, "label maps alone instead of --overlay"),
    ],
)
def test_another_run_is_kept_out_while_one_is_at_work(
    model: Path, scans: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    go = threading.Event()
    first = started(
        lambda: predict_folder(
            [scans], options(model, tmp_path, threshold=0.5), Progress(on_start=lambda *_: go.wait(60) and None)
        )
    )
    until((tmp_path / "out" / RUN_FILE).exists)
    until(lambda: b'"run"' in (tmp_path / "out" / RUN_FILE).read_bytes())
    try:
        with pytest.raises(UsageError, match="Repeat its options to share its work") as refused:
            predict_folder([scans], options(model, tmp_path, **({"threshold": 0.5} | changes)))
    finally:
        go.set()
        first.join()
    assert said in str(refused.value)
    assert not (tmp_path / "out" / RUN_FILE).exists()


@needs_threads
def test_a_case_is_done_by_another_where_its_process_dies(
    monkeypatch: pytest.MonkeyPatch, model: Path, scans: Path, tmp_path: Path
) -> None:
    predict_folder([scans], options(model, tmp_path))
    identity = identity_of(tmp_path / "out" / "report.json")
    (tmp_path / "out" / "slice_3.png").unlink()
    dying = SharedRun(tmp_path / "out", identity, Part(), resume=False)
    assert dying.claim("slice_3")
    seen: list[str] = []
    reports: list[Report] = []
    told: list[str] = []
    monkeypatch.setattr(worklist, "_SILENT_S", 0.1)
    progress = Progress(on_case=lambda result: seen.append(result.name), on_wait=told.append)
    second = started(lambda: reports.append(predict_folder([scans], options(model, tmp_path), progress)))
    until(lambda: len(seen) == 11 and told == ["wait    for 1 case that other processes have in hand"])
    dying._file.close()  # as the system does when a process is killed
    second.join()
    assert seen[-1] == "slice_3"
    assert reports[0].counts == {"cases": 12, "done": 12, "failed": 0, "skipped": 0}
    assert (tmp_path / "out" / "slice_3.png").is_file()


@needs_threads
def test_other_scans_of_the_same_names_are_not_taken_for_done(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    other = SharedRun(tmp_path / "out", identity_of(tmp_path / "out" / "report.json"), Part(), resume=False)
    assert other.claim("slice_5")
    other.add(CaseResult("slice_5", "done", "slice_5.png", stamp="of another file"))
    with pytest.raises(UsageError, match="Give runs on different scans a folder each"):
        predict_folder([scans], options(model, tmp_path))
    other.leave(None, finished=True)


@needs_threads
def test_a_scan_that_is_gone_once_another_has_done_it_costs_nothing(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    other = SharedRun(tmp_path / "out", identity_of(tmp_path / "out" / "report.json"), Part(), resume=False)
    assert other.claim("slice_5")

    def done_and_gone(*_: object) -> None:
        other.add(CaseResult("slice_5", "done", "slice_5.png", stamp="of its file"))
        (scans / "slice_5.png").unlink()

    report = predict_folder([scans], options(model, tmp_path), Progress(on_start=done_and_gone))
    other.leave(None, finished=True)
    assert (report.counts["done"], report.elsewhere) == (12, 1)


@needs_threads
@pytest.mark.parametrize(
    ("at_work", "comes", "said"),
    [
        (Part(), (0, 2), "all cases"),
        (Part(0, 2), (0, 1), "part 0 of 2"),
        (Part(0, 2), (0, 3), "part 0 of 2"),
        (Part(0, 2), (1, 2), None),
    ],
)
def test_only_parts_of_one_division_are_at_work_at_once(
    model: Path, scans: Path, tmp_path: Path, at_work: Part, comes: tuple[int, int], said: str | None
) -> None:
    (tmp_path / "out").mkdir()
    predict_folder([scans], PredictOptions(model=model, output=tmp_path / "told"))
    other = SharedRun(tmp_path / "out", identity_of(tmp_path / "told" / "report.json"), at_work, resume=False)
    if said is None:
        assert predict_folder([scans], options(model, tmp_path, part=comes)).counts["done"] == 6
    else:
        with pytest.raises(UsageError, match=f"at work there on {said}.*divide the cases as it does"):
            predict_folder([scans], options(model, tmp_path, part=comes))
    other.leave(None, finished=True)


def identity_of(report: Path) -> RunIdentity:
    identity = RunIdentity.from_dict(json.loads(report.read_text()))
    assert identity.version == __version__
    return identity


@needs_threads
def test_the_last_one_tells_of_cases_that_only_others_knew(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path))
    other = SharedRun(tmp_path / "out", identity_of(tmp_path / "out" / "report.json"), Part(), resume=False)
    other.lose([CaseResult("b.png", "failed", error="of no kind.")])
    assert other.claim("elsewhere")
    other.add(CaseResult("elsewhere", "failed", error="too large. Crop it."))
    report = predict_folder([scans], options(model, tmp_path))
    assert names_in(report) == ["b.png", *(f"slice_{index}" for index in range(12)), "elsewhere"]
    assert report.elsewhere == 1
    assert len(report.failures) == 2
    assert (tmp_path / "out" / RUN_FILE).exists()
    other.leave(None, finished=True)


@needs_threads
def test_the_last_line_says_who_did_what(
    capsys: pytest.CaptureFixture[str], model: Path, scans: Path, tmp_path: Path
) -> None:
    predict_folder([scans], options(model, tmp_path))
    other = SharedRun(tmp_path / "out", identity_of(tmp_path / "out" / "report.json"), Part(), resume=False)
    assert other.claim("slice_0")
    other.add(CaseResult("slice_0", "done", "slice_0.png"))
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out")
    other.leave(None, finished=True)
    assert answer.lines("done")[0].startswith("12 of 12 in ")
    assert ", 11 here and 1 by other processes " in answer.lines("done")[0]


def test_without_locks_a_run_says_so_and_does_its_work(
    monkeypatch: pytest.MonkeyPatch, model: Path, scans: Path, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claims, "_set_lock", refuse)
    said: list[str] = []
    report = predict_folder([scans], options(model, tmp_path), Progress(on_wait=said.append))
    assert report.counts["done"] == 12
    (note,) = report.notes
    assert "--num-parts" in note
    assert said == [f"note    {note}"]
    assert not (tmp_path / "out" / RUN_FILE).exists()


def test_a_full_disk_where_results_are_recorded_costs_no_result(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "scans", 60)
    append = LockFile.append

    def full(self: LockFile, lines: bytes) -> tuple[int, int]:
        if b'"case"' in lines:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(self, lines)

    monkeypatch.setattr(LockFile, "append", full)
    report = predict_folder([tmp_path / "scans"], options(model, tmp_path))
    assert report.counts["done"] == 60
    assert any("could not be recorded (No space left on device)" in note for note in report.notes)


def test_a_disk_that_is_full_from_the_start_ends_the_run_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, model: Path, scans: Path, tmp_path: Path
) -> None:
    def full(self: LockFile, lines: bytes) -> tuple[int, int]:
        os.write(self._file, lines[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LockFile, "append", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left"):
        predict_folder([scans], options(model, tmp_path))
    assert not list((tmp_path / "out").iterdir())


def test_label_maps_of_a_run_under_way_are_no_scans(tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 2, masks=False)
    write_pictures(tmp_path / "scans" / "out", 2, masks=False)
    assert len(scan([tmp_path / "scans"]).cases) == 4
    (tmp_path / "scans" / "out" / f"{RUN_FILE}-part-0-of-2").touch()
    assert len(scan([tmp_path / "scans"]).cases) == 2
    (tmp_path / "scans" / "out" / f"{RUN_FILE}-part-0-of-2").unlink()
    Report("predict", "1", (), 0.0).write_json(tmp_path / "scans" / "out" / "report-part-0-of-2.json")
    Report("predict", "1", (), 0.0).write_csv(tmp_path / "scans" / "out" / "report-part-0-of-2.csv")
    assert len(scan([tmp_path / "scans"]).cases) == 2


# Parts


def test_parts_take_every_nth_case_and_make_the_same_files(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 12)
    whole = predict_folder([tmp_path / "scans"], PredictOptions(model=model, output=tmp_path / "whole"))
    done = []
    for part in range(5):
        report = predict_folder([tmp_path / "scans"], options(model, tmp_path, part=(part, 5)))
        assert names_in(report) == names_in(whole)[part::5]
        done += names_in(report)
    assert sorted(done) == sorted(names_in(whole))
    parts = {f"report-part-{part}-of-5.{kind}" for part in range(5) for kind in ("json", "csv")}
    assert files_below(tmp_path / "out") == {path.name for path in (tmp_path / "whole").glob("*.png")} | parts
    for path in (tmp_path / "whole").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    report = predict_folder([tmp_path / "scans"], options(model, tmp_path, resume=True))
    assert report.counts == {"cases": 12, "done": 0, "failed": 0, "skipped": 12}
    assert report.summary == whole.summary


def test_a_part_without_cases_is_no_error(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", 2)
    where = ("predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "out", "--num-parts", "4", "--part-id")
    assert segtool(capsys, *where, 3).code == 0
    written = json.loads((tmp_path / "out" / "report-part-3-of-4.json").read_text())
    assert written["counts"]["cases"] == 0
    answer = segtool(capsys, *where, 1)
    assert answer.code == 0
    assert answer.out.rstrip().endswith("report-part-1-of-4.json")


@pytest.mark.parametrize(
    ("part", "remedy"), [((4, 4), "from 0 to 3"), ((-1, 4), "from 0 to 3"), ((0, 0), "1 or more"), ((1, 1), "0 to 0")]
)
def test_a_part_that_is_none_is_refused(
    model: Path, scans: Path, tmp_path: Path, part: tuple[int, int], remedy: str
) -> None:
    with pytest.raises(UsageError, match=remedy):
        predict_folder([scans], options(model, tmp_path, part=part))
    assert not (tmp_path / "out").exists()


def test_a_broken_file_fails_in_one_part_alone(model: Path, scans: Path, tmp_path: Path) -> None:
    (scans / "broken.png").write_bytes(b"nothing")
    (scans / "lost.dcm").write_bytes(b"nothing")
    reports = [predict_folder([scans], options(model, tmp_path, part=(part, 3))) for part in range(3)]
    failed = sorted(Path(case.name).name for report in reports for case in report.failures)
    assert failed == ["broken", "lost.dcm"]


def test_a_part_is_kept_out_where_another_run_was_killed(model: Path, scans: Path, tmp_path: Path) -> None:
    predict_folder([scans], options(model, tmp_path, threshold=0.4))
    killed = SharedRun(tmp_path / "out", identity_of(tmp_path / "out" / "report.json"), Part(), resume=False)
    killed._file.close()
    with pytest.raises(UsageError, match=r"threshold 0\.4 instead of 0\.5"):
        predict_folder([scans], options(model, tmp_path, threshold=0.5, part=(0, 2)))
