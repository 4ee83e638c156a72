"""Faults inside single cases, in the engine and in the machine: the batch goes on, and the report names each."""

import json
import mmap
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from PIL import Image
from tiny import bright_spec, disc, volume_spec, write_model

from benchmarks import faulty_run, reliability_faults
from benchmarks.reliability_faults import FAULTS, Bench
from segtool import ensemble, evaluation, finishing, pipeline, stages
from segtool.case import CaseSource, Source
from segtool.commands.predict import run_predict
from segtool.engine_calls import window_extents
from segtool.errors import OutputError
from segtool.evaluation import EvaluateOptions, EvaluateProgress, evaluate_pairs
from segtool.faults import lacks_memory
from segtool.formats import get_format
from segtool.interruption import Interrupted, Interruption, signals_to
from segtool.pairing import Pair, pair_files
from segtool.pipeline import PredictOptions, Progress, predict_folder
from segtool.report import CaseResult, Report
from segtool.side_by_side import side_by_side

ROOT = Path(__file__).resolve().parent.parent
GOOD, SPOILT = 6, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", bright_spec())


@pytest.fixture(scope="module")
def volume_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "bright3d.onnx", volume_spec(16, divisor=4))


@pytest.fixture
def let_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a fault of :mod:`benchmarks.faulty_run` into this process, for one test."""
    for module, name in ((ensemble, "load_backend"), (pipeline, "scan_unpacked"), (stages, "load_case")):
        monkeypatch.setattr(module, name, getattr(module, name))
    return faulty_run.let_in


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Pictures with a disc; those that are spoilt have their highest value in the first pixel."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for index in range(GOOD + SPOILT):
        pixels = np.where(disc(), 200, 30).astype(np.uint8)
        name = f"good_{index}" if index < GOOD else f"spoilt_{index - GOOD}"
        pixels[0, 0] = 30 if index < GOOD else 200
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Three volumes, of which the last is spoilt."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    for name in ("good_0", "good_1", "spoilt_0"):
        voxels = np.full((20, 24, 20), 30, np.uint8)
        voxels[4:12, 5:13, 6:14] = 200
        voxels[0, 0, 0] = 200 if name == "spoilt_0" else 30
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def segment(folder: Path, model: Path, tmp_path: Path, **changes: object) -> Report:
    return predict_folder([folder], PredictOptions(model=model, output=tmp_path / "out", device="cpu", **changes))


def only_spoilt_failed(report: Report, says: str) -> None:
    for case in report.cases:
        assert case.status == ("failed" if "spoilt" in case.name else "done"), case
    for case in report.failures:
        assert re.search(says, case.error or ""), case.error
        assert "\n" not in (case.error or "")


# The engine


@pytest.mark.parametrize(("fault", "says"), [("engine-raises", "the network failed"), ("engine-nan", "NaN")])
def test_a_slice_that_spoils_its_batch_fails_alone(
    let_in: Callable[[str], None], scans: Path, model: Path, tmp_path: Path, fault: str, says: str
) -> None:
    let_in(fault)
    only_spoilt_failed(segment(scans, model, tmp_path, batch=8, threads=1), says)
    assert not list((tmp_path / "out").glob("spoilt*"))


@pytest.mark.parametrize(("fault", "says"), [("engine-raises", "the network failed"), ("engine-nan", "NaN")])
def test_a_volume_that_the_engine_fails_on_fails_alone(
    let_in: Callable[[str], None], volumes: Path, volume_model: Path, tmp_path: Path, fault: str, says: str
) -> None:
    let_in(fault)
    only_spoilt_failed(segment(volumes, volume_model, tmp_path), says)


def test_an_engine_that_always_fails_fails_every_case_and_ends(
    let_in: Callable[[str], None], scans: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    let_in("engine-always-raises")
    report = segment(scans, model, tmp_path)
    assert report.counts["failed"] == GOOD + SPOILT
    assert "Traceback" not in capsys.readouterr().err


def test_onnxruntime_s_own_error_fails_the_case_that_brought_it_up(scans: Path, tmp_path: Path) -> None:
    report = segment(scans, write_picky_model(tmp_path / "picky.onnx"), tmp_path, batch=4)
    only_spoilt_failed(report, r"the network failed \(InvalidArgument: .*indices element out of data bounds")


def write_picky_model(path: Path) -> Path:
    """A model that looks up a table of one row by the first pixel: row 1 of a spoilt case is not there."""
    from onnx import TensorProto, helper, numpy_helper, save

    from segtool.model_file import write_spec

    spec = bright_spec()
    constants = {
        "first": np.zeros((1, 2), np.int64),
        "table": np.zeros((1, 1, 1, 1), np.float32),
        "half": np.array(0.5, np.float32),
    }
    names = [TensorProto.FLOAT, ["batch", 1, "h", "w"]]
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["image", "zeros", "ones", "axes"], ["corner"]),
            helper.make_node("ReduceMax", ["corner"], ["highest"], keepdims=0),
            helper.make_node("Cast", ["highest"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "row"], ["nothing"], axis=0),
            helper.make_node("Sub", ["image", "half"], ["less"]),
            helper.make_node("Add", ["less", "nothing"], ["logits"]),
        ],
        "picky",
        [helper.make_tensor_value_info("image", *names)],
        [helper.make_tensor_value_info("logits", *names)],
        [
            numpy_helper.from_array(constants["table"], "table"),
            numpy_helper.from_array(constants["half"], "half"),
            numpy_helper.from_array(np.array([0, 0]), "zeros"),
            numpy_helper.from_array(np.array([1, 1]), "ones"),
            numpy_helper.from_array(np.array([2, 3]), "axes"),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_spec(path, spec, path)
    return path


# Memory


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Exception, "bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 68719476736"),
        (RuntimeError, "std::bad_alloc"),
        (RuntimeError, "CUDA failure 2: out of memory ; GPU=0"),
        (RuntimeError, "CUDNN_STATUS_ALLOC_FAILED"),
        (RuntimeError, "CUBLAS_STATUS_ALLOC_FAILED"),
        (MemoryError, "Unable to allocate 8.00 EiB for an array"),
        (MemoryError, ""),
    ],
)
def test_words_for_memory_that_does_not_suffice(kind: type[Exception], text: str) -> None:
    assert lacks_memory(kind(text))


@pytest.mark.parametrize("text", ["", "Non-zero status code returned", "invalid allocation of axes", "memory pattern"])
def test_words_for_something_else(text: str) -> None:
    assert not lacks_memory(RuntimeError(text))


def test_a_batch_that_memory_does_not_hold_is_halved_for_the_rest_of_the_run(
    let_in: Callable[[str], None], scans: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def three_slices(run: faulty_run.Run, batch: np.ndarray, _value: int) -> np.ndarray:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("Failed to allocate memory")
        return run(batch)

    monkeypatch.setitem(faulty_run.ENGINE, "engine-memory", three_slices)
    let_in("engine-memory")
    report = segment(scans, model, tmp_path, batch=8, threads=1)
    assert report.counts["done"] == GOOD + SPOILT
    first_that_fits = next(index for index, size in enumerate(sizes) if size <= 3)
    assert max(sizes[first_that_fits:]) <= 3
    note = f"memory did not suffice for the network's batch: {max(sizes[first_that_fits:])} at a time from then on"
    assert any(one.startswith(note) for one in report.notes)
    assert any(one in report.notes for case in report.cases for one in case.notes)


def test_calls_that_memory_does_not_hold_side_by_side_are_made_one_by_one(
    let_in: Callable[[str], None], scans: Path, model: Path, tmp_path: Path
) -> None:
    let_in("engine-memory-for-one-call")
    report = segment(scans, model, tmp_path, batch=1, threads=3)
    assert report.counts["done"] == GOOD + SPOILT
    assert any("one call at a time" in note for note in report.notes)


@pytest.mark.parametrize(
    ("shape", "changes", "extents"),
    [
        ((40, 40, 40), {}, [(16, 16, 16), (8, 16, 16), (8, 8, 16), (8, 8, 8)]),
        ((40, 40, 40), {"divisor": 16}, [(16, 16, 16)]),
        ((30, 20, 20), {"whole": 2**15}, [(32, 20, 20), (16, 16, 16), (8, 16, 16), (8, 8, 16), (8, 8, 8)]),
    ],
)
def test_windows_get_smaller_down_to_half_the_patch(
    shape: tuple[int, ...], changes: dict[str, int], extents: list[tuple[int, ...]]
) -> None:
    spec = volume_spec(16, divisor=changes.get("divisor", 4))
    whole = spec.input.model_copy(update={"whole_case_voxels": changes.get("whole")})
    assert window_extents(shape, spec.model_copy(update={"input": whole})) == extents


def test_a_volume_whose_windows_memory_does_not_hold_is_done_in_smaller_ones_and_says_so(
    let_in: Callable[[str], None], volumes: Path, volume_model: Path, tmp_path: Path
) -> None:
    right = segment(volumes, volume_model, tmp_path)
    expected = [(tmp_path / "out" / f"{case.name}.nii.gz").read_bytes() for case in right.cases]
    let_in("engine-memory:2048")
    report = segment(volumes, volume_model, tmp_path)
    note = "memory did not suffice for windows of 16x16x16: done in windows of 8x16x16"
    assert note in report.notes
    assert [case.notes[-1] for case in report.cases] == [note] * 3
    # The network looks at single voxels, so that windows change nothing.
    assert [(tmp_path / "out" / f"{case.name}.nii.gz").read_bytes() for case in report.cases] == expected


def test_planes_of_a_given_up_attempt_never_join_those_of_the_next(
    let_in: Callable[[str], None], volumes: Path, volume_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good_1", "spoilt_0"):
        (volumes / f"{name}.nii.gz").unlink()
    segment(volumes, volume_model, tmp_path)
    expected = (tmp_path / "out" / "good_0.nii.gz").read_bytes()
    wide = 0

    def fails_late(run: faulty_run.Run, batch: np.ndarray, _value: int) -> np.ndarray:
        nonlocal wide
        wide += batch.shape[2:] == (16, 16, 16)
        if batch.shape[2:] == (16, 16, 16) and wide == 8:  # planes of the first windows have come out
            raise RuntimeError("CUDA out of memory")
        return run(batch)

    begun_anew, take = threading.Event(), stages.Stages._take
    make = stages.VolumeAssembler

    def assembler(*arguments: object) -> object:
        made.append(make(*arguments))
        if len(made) == 2:
            begun_anew.set()
        return made[-1]

    def slow_check(self: stages.Stages, output: object) -> None:
        begun_anew.wait(5)
        time.sleep(0.02)
        take(self, output)

    made: list[object] = []
    monkeypatch.setattr(stages, "VolumeAssembler", assembler)
    monkeypatch.setattr(stages.Stages, "_take", slow_check)
    monkeypatch.setitem(faulty_run.ENGINE, "engine-memory", fails_late)
    let_in("engine-memory")
    assert segment(volumes, volume_model, tmp_path).counts["done"] == 1
    assert len(made) > 1
    assert (tmp_path / "out" / "good_0.nii.gz").read_bytes() == expected


def test_an_engine_of_one_extent_fails_with_what_memory_said_first(
    let_in: Callable[[str], None], volumes: Path, volume_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_extent(_run: faulty_run.Run, batch: np.ndarray, _value: int) -> np.ndarray:
        raise RuntimeError("CUDA out of memory" if batch.shape[2:] == (16, 16, 16) else "static dimension mismatch")

    monkeypatch.setitem(faulty_run.ENGINE, "engine-memory", one_extent)
    let_in("engine-memory")
    report = segment(volumes, volume_model, tmp_path)
    assert report.counts["failed"] == 3
    assert all("CUDA out of memory" in (case.error or "") for case in report.failures)


def test_openvino_leaves_its_output_alone_where_memory_does_not_suffice() -> None:
    from segtool.backends.openvino_engine import _UNWRITTEN, _written

    fresh = np.full((2, 1, 4, 4), _UNWRITTEN.view(np.float32))
    with pytest.raises(MemoryError, match="unwritten"):
        _written(fresh)
    fresh[0] = 1
    with pytest.raises(MemoryError, match="unwritten"):
        _written(fresh)
    computed = np.full((2, 1, 4, 4), np.nan, np.float32)
    assert _written(computed) is computed


def test_a_process_with_little_memory_goes_on_in_smaller_batches(tmp_path: Path) -> None:
    model = write_wide_model(tmp_path / "wide.onnx")
    (tmp_path / "scans").mkdir()
    for index in range(16):
        Image.fromarray(np.where(disc(), 200, 30).astype(np.uint8)).save(tmp_path / "scans" / f"{index}.png")
    # 16 MiB of activations a slice and layer: a batch of 16 does not fit into 300 MiB.
    done = command("address-space:300", tmp_path, model, "--batch", "16", "--threads", "1")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (done.returncode, report["counts"]["done"]) == (0, 16), done.stderr
    assert any("at a time from then on, not 16" in note for note in report["notes"])


def write_wide_model(path: Path) -> Path:
    """A model with 4096 channels in between."""
    from onnx import TensorProto, helper, numpy_helper, save

    from segtool.model_file import write_spec

    shape = [TensorProto.FLOAT, ["batch", 1, "h", "w"]]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["many"]),
            helper.make_node("Sin", ["many"], ["wave"]),
            helper.make_node("ReduceMean", ["wave"], ["logits"], axes=[1]),
        ],
        "wide",
        [helper.make_tensor_value_info("image", *shape)],
        [helper.make_tensor_value_info("logits", *shape)],
        [numpy_helper.from_array(np.ones((4096, 1, 1, 1), np.float32), "weight")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_spec(path, bright_spec(), path)
    return path


def command(fault: str, tmp_path: Path, model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``segtool predict`` in a process of its own, with a fault."""
    words = ["-m", "benchmarks.faulty_run", fault, "predict", tmp_path / "scans", "-m", model, "-o", tmp_path / "out"]
    return subprocess.run(
        [sys.executable, *map(str, words), "--device", "cpu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Readers


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("input-deleted", "was there when the folder was searched"),
        ("input-truncated", "cannot be read as a picture"),
        ("input-becomes-a-pipe", "is no file any more"),
        ("input-becomes-a-socket", "is no file any more"),
        ("input-becomes-a-device", "is no file any more"),
        ("input-becomes-a-folder", "is no file any more"),
        ("input-links-to-itself", "was there when the folder was searched"),
        ("reader-memory", "reading it takes more memory than there is"),
    ],
)
def test_a_case_that_cannot_be_read_fails_alone(
    let_in: Callable[[str], None], scans: Path, model: Path, tmp_path: Path, fault: str, says: str
) -> None:
    let_in(fault)
    only_spoilt_failed(segment(scans, model, tmp_path), says)


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.png"])
def test_no_picture_is_mapped_into_memory_where_cutting_it_short_would_kill(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object, **_options: object) -> None:
        raise AssertionError("mapped")

    Image.fromarray(disc().astype(np.uint8)).save(tmp_path / name)
    monkeypatch.setattr(mmap, "mmap", refused)
    image = get_format("png").read_image(Source("png", (tmp_path / name,)))
    np.testing.assert_array_equal(image.data[0], disc())


def test_a_bug_in_a_reader_is_a_failed_row_with_its_place_and_one_traceback(
    let_in: Callable[[str], None], scans: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    let_in("reader-bug")
    only_spoilt_failed(segment(scans, model, tmp_path), r"KeyError: 'nobody thought of this' at segtool/\w+\.py:\d+")
    assert capsys.readouterr().err.count("Traceback") == 1


def test_a_bug_in_writing_is_a_failed_row(
    scans: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segtool.case_files import CaseFiles

    write = CaseFiles.write

    def buggy(self: CaseFiles, job: object, *others: object) -> object:
        if "spoilt" in job.source.name:
            raise TypeError("a bug")
        return write(self, job, *others)

    monkeypatch.setattr(CaseFiles, "write", buggy)
    only_spoilt_failed(segment(scans, model, tmp_path), r"writing failed .*TypeError: a bug")


def test_a_reader_that_hangs_costs_its_case_alone(
    let_in: Callable[[str], None], scans: Path, model: Path, tmp_path: Path
) -> None:
    let_in("reader-hangs")
    report = segment(scans, model, tmp_path, case_timeout_s=0.6)
    only_spoilt_failed(report, r"not read within 0.6 s .*--case-timeout SECONDS")


def test_what_a_late_reader_brings_is_thrown_away(
    scans: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, late = stages.load_case, threading.Event()

    def slow(source: object, *arguments: object, **options: object) -> object:
        if "spoilt" in source.name:
            time.sleep(1.2)
            late.set()
        return load(source, *arguments, **options)

    monkeypatch.setattr(stages, "load_case", slow)
    told: list[CaseResult] = []
    options = PredictOptions(model=model, output=tmp_path / "out", device="cpu", case_timeout_s=0.5)
    report = predict_folder([scans], options, Progress(on_case=told.append))
    assert late.wait(5)
    time.sleep(0.1)
    only_spoilt_failed(report, "not read within 0.5 s")
    assert len(told) == GOOD + SPOILT
    assert not list((tmp_path / "out").glob("spoilt*"))


@pytest.mark.parametrize("seconds", [1e10, float("inf")])
def test_a_timeout_longer_than_a_thread_can_wait_is_none(
    scans: Path, model: Path, tmp_path: Path, seconds: float
) -> None:
    assert segment(scans, model, tmp_path, case_timeout_s=seconds).counts["done"] == GOOD + SPOILT


def test_an_earlier_result_that_cannot_be_looked_at_in_time_costs_its_case_alone(
    scans: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(scans, model, tmp_path)
    load, forever = finishing.load_reference, threading.Event()

    def hanging(source: CaseSource, *arguments: object, **options: object) -> object:
        return forever.wait() if "spoilt" in source.name else load(source, *arguments, **options)

    monkeypatch.setattr(finishing, "load_reference", hanging)
    report = segment(scans, model, tmp_path, resume=True, case_timeout_s=0.6)
    assert report.counts == {"cases": GOOD + SPOILT, "done": 0, "failed": SPOILT, "skipped": GOOD}
    assert all("not read within 0.6 s" in (case.error or "") for case in report.failures)


def test_a_process_with_a_reader_that_hangs_ends(scans: Path, model: Path, tmp_path: Path) -> None:
    done = command("reader-hangs", tmp_path, model, "--case-timeout", "2")
    assert done.returncode == 1
    assert done.stdout.count("--case-timeout SECONDS") == SPOILT
    assert len(list((tmp_path / "out").glob("good*.png"))) == GOOD


def test_helpers_that_hang_keep_nobody_waiting() -> None:
    forever = threading.Event()
    stuck = [threading.Thread(target=lambda: side_by_side(lambda _: forever.wait(), range(8))) for _ in range(2)]
    for thread in stuck:
        thread.daemon = True
        thread.start()
    time.sleep(0.05)
    assert side_by_side(lambda number: number + 1, range(20)) == list(range(1, 21))
    forever.set()


def test_the_first_error_in_order_is_raised_by_side_by_side() -> None:
    def work(number: int) -> int:
        if number in (3, 5):
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="3"):
        side_by_side(work, range(8))


# Signals


@pytest.fixture(autouse=True)
def sigint_is_on() -> Iterator[None]:
    """A shell switches it off for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, str, int], None]:
    """Sends this process a signal when a function is called."""

    def at(owner: object, name: str, number: int) -> None:
        original = getattr(owner, name)

        def called(*arguments: object, **options: object) -> object:
            os.kill(os.getpid(), number)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, called)

    return at


def test_a_signal_lets_what_is_in_hand_be_finished_and_names_the_rest(
    let_in: Callable[[str], None],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(60):
        Image.fromarray(np.where(disc(), 200, 30).astype(np.uint8)).save(folder / f"{index:02d}.png")
    sent: list[int] = []

    def signalling(run: faulty_run.Run, batch: np.ndarray, _value: int) -> np.ndarray:
        if not sent:
            sent.append(len(batch))
            os.kill(os.getpid(), signal.SIGINT)
        return run(batch)

    monkeypatch.setitem(faulty_run.ENGINE, "engine-memory", signalling)
    let_in("engine-memory")
    with pytest.raises(typer.Exit) as stop:
        run_predict([folder], PredictOptions(model=model, output=tmp_path / "out", batch=1, threads=1))
    assert stop.value.exit_code == 130
    out, said = capfd.readouterr()
    assert re.search(r"^interrupted: finishing \d+ cases in hand; once more to stop at once$", said, re.MULTILINE)
    assert re.search(r"^done    \d+ of 60 in ", out, re.MULTILINE)
    assert "--continue does the others" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    done = {case["name"] for case in report["cases"] if case["status"] == "done"}
    assert 0 < len(done) < 60
    assert done == {path.stem for path in (tmp_path / "out").glob("*.png")}
    left = sorted({f"{index:02d}" for index in range(60)} - done)
    assert report["notes"][-1] == f"interrupted: not all cases were done; {len(left)} left: {', '.join(left)}"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_folder_is_searched_ends_the_run(
    signalled: Callable[[object, str, int], None], scans: Path, model: Path, tmp_path: Path, number: int, code: int
) -> None:
    signalled(pipeline, "scan_unpacked", number)
    with pytest.raises(typer.Exit) as stop:
        run_predict([scans], PredictOptions(model=model, output=tmp_path / "out"))
    assert stop.value.exit_code == code
    assert not (tmp_path / "out").exists()


def test_a_signal_while_the_engine_is_loaded_leaves_a_report_of_nothing_done(
    signalled: Callable[[object, str, int], None], scans: Path, model: Path, tmp_path: Path
) -> None:
    signalled(ensemble, "load_backend", signal.SIGTERM)
    with pytest.raises(typer.Exit) as stop:
        run_predict([scans], PredictOptions(model=model, output=tmp_path / "out"))
    assert stop.value.exit_code == 143
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["notes"][0].startswith(f"interrupted: not all cases were done; {GOOD + SPOILT} left: good_0, good_1")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == set()


def test_a_signal_while_the_report_is_written_lets_it_be_written(
    signalled: Callable[[object, str, int], None], scans: Path, model: Path, tmp_path: Path
) -> None:
    signalled(Report, "write_json", signal.SIGINT)
    with pytest.raises(typer.Exit) as stop:
        run_predict([scans], PredictOptions(model=model, output=tmp_path / "out"))
    assert stop.value.exit_code == 130
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["done"] == GOOD + SPOILT
    assert (tmp_path / "out" / "report.csv").is_file()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT twice", "disk too small for results"])
def test_a_real_run_survives(name: str, bench: Bench) -> None:
    if name.startswith("disk") and not can_mount():
        pytest.skip("nobody may mount a disk here")
    fault = next(one for one in FAULTS if one.name == name)
    row = bench.row(fault)
    assert (row["lost"], row["wrong"], row["exit_code"]) == (0, [], fault.code)


def test_the_table_of_faults_is_made_by_one_call() -> None:
    table = reliability_faults.run(1 / len(FAULTS))
    assert (table["tried"], table["lost"], table["wrong"]) == (1, 0, 0)
    assert table["rows"][0]["survived"] + table["rows"][0]["failed"] == table["cases"]


def test_a_report_that_cannot_be_written_says_where_the_results_lie(scans: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "report.json").mkdir(parents=True)
    with pytest.raises(OutputError) as failed:
        segment(scans, model, tmp_path)
    assert f"the results of {GOOD + SPOILT} cases lie in {tmp_path / 'out'}" in str(failed.value)
    assert failed.value.exit_code == 1
    assert len(list((tmp_path / "out").glob("*.png"))) == GOOD + SPOILT


def can_mount() -> bool:
    tried = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/tmp"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


def test_the_first_signal_asks_and_the_second_raises() -> None:
    asked: list[str] = []

    def finish() -> int:
        asked.append("finish")
        return 3

    interruption = Interruption()
    interruption.finish_with(finish)
    interruption.handle(signal.SIGTERM)
    assert asked == ["finish"]
    with pytest.raises(Interrupted) as stop:
        interruption.handle(signal.SIGINT)
    assert stop.value.exit_code == interruption.exit_code == 143
    interruption.handle(signal.SIGINT)  # the run is being cleared up


def test_a_signal_after_the_last_case_changes_nothing() -> None:
    interruption = Interruption()
    interruption.close()
    interruption.handle(signal.SIGINT)
    assert interruption.exit_code == 130


def test_handlers_are_there_for_the_command_alone() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interruption = Interruption()
    with signals_to(interruption):
        assert signal.getsignal(signal.SIGTERM) == interruption.handle
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    seen: list[object] = []

    def elsewhere() -> None:
        with signals_to(interruption):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before[1]]


def test_signals_that_are_switched_off_stay_off() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_to(Interruption()):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_evaluation_that_is_interrupted_reports_what_it_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in ("predictions", "references"):
        (tmp_path / side).mkdir()
        for index in range(40):
            Image.fromarray(disc().astype(np.uint8)).save(tmp_path / side / f"case_{index:02d}.png")
    interruption, come, score = Interruption(), threading.Event(), evaluation._evaluate

    def interrupt(_result: CaseResult) -> None:
        if interruption.signal is None:
            interruption.handle(signal.SIGINT)
            come.set()

    def unhurried(pair: Pair, *others: object) -> CaseResult:
        assert pair.name == "case_00" or come.wait(30)
        return score(pair, *others)

    monkeypatch.setattr(evaluation, "_evaluate", unhurried)

    report = evaluate_pairs(
        pair_files(tmp_path / "predictions", tmp_path / "references"),
        EvaluateOptions(surface=False),
        EvaluateProgress(interrupt),
        interruption,
    )
    left = 40 - report.counts["done"]
    assert 0 < left < 40
    assert report.notes[-1].startswith(f"interrupted: not all cases were scored; {left} left: case_{40 - left:02d}")
    assert report.left == left
