"""Timing of engines: arithmetic by hand, rows that fail, figures of a real run."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtool.bench.limit import multiplications, network_gflop
from segtool.bench.processes import LatencyProcess, RowError
from segtool.bench.rows import Row, parse_batches, parse_devices, plan
from segtool.bench.timing import Timing, percentile
from segtool.errors import UsageError
from segtool.model_file import read_spec, write_spec
from tests.quantised import quantise
from tests.shell import segtool
from tests.tiny import bright_spec, volume_spec, write_model

QUICK = ("--duration", 0.02, "--calls", 3, "--rounds", 2)


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(0.0, 1.0), (0.5, 2.5), (0.9, 3.7), (1.0, 4.0)],
)
def test_percentiles_are_linear_between_neighbours(share: float, wanted: float) -> None:
    assert percentile([4, 1, 3, 2], share) == pytest.approx(wanted)


def test_rounds_that_differ_by_more_than_a_tenth_are_unstable() -> None:
    steady = Timing(((1.0, 1.0, 9.0), (1.05, 1.05, 1.05)))
    shaken = Timing(((1.0, 1.0), (1.2, 1.2)))
    assert steady.stable
    assert not shaken.stable
    assert shaken.spread == pytest.approx(0.2)
    assert shaken.as_dict()["p50_ms"] == pytest.approx(1100)


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "wanted"),
    [
        # 2 x 4 outputs of 8 x 8, each from 3 channels of 3 x 3.
        ("Conv", [[2, 3, 8, 8], [4, 3, 3, 3]], [2, 4, 8, 8], 2 * 4 * 64 * 27),
        # Depthwise: each output from one channel.
        ("Conv", [[1, 6, 8, 8], [6, 1, 3, 3]], [1, 6, 8, 8], 6 * 64 * 9),
        # Each of 3 x 16 inputs goes into 5 channels of 2 x 2.
        ("ConvTranspose", [[1, 3, 4, 4], [3, 5, 2, 2]], [1, 5, 8, 8], 48 * 20),
        ("MatMul", [[7, 2, 3], [7, 3, 5]], [7, 2, 5], 7 * 2 * 5 * 3),
        ("Relu", [[1, 3, 8, 8]], [1, 3, 8, 8], 0),
    ],
)
def test_multiplications_of_an_operator(operator: str, inputs: Any, output: list[int], wanted: int) -> None:
    node = {
        "op_name": operator,
        "input_type_shape": [{"float": shape} for shape in inputs],
        "output_type_shape": [{"float": output}],
    }
    assert multiplications([{}, node]) == wanted


def test_work_of_a_whole_graph_counts_additions_and_multiplications(tmp_path: Path) -> None:
    spec = bright_spec(32)
    model = write_model(tmp_path / "model.onnx", spec)
    assert network_gflop(model, spec) == pytest.approx(2 * 32 * 32 / 1e9)


def test_words_for_devices_and_batches() -> None:
    assert parse_devices(["cpu,openvino", "cpu"]) == ("cpu", "openvino")
    assert parse_batches(["1,8", "2"]) == (1, 8, 2)
    with pytest.raises(UsageError, match="Choose some of: cpu, cuda"):
        parse_devices(["auto"])
    for bad in ("0", "two", "1,"):
        with pytest.raises(UsageError, match="--batch 1,8"):
            parse_batches([bad])


def test_rows_are_models_times_devices_times_batches(tmp_path: Path) -> None:
    flat = write_model(tmp_path / "flat.onnx", bright_spec())
    deep = write_model(tmp_path / "deep.onnx", volume_spec())
    rows = plan([flat, deep], ["cpu"], [], [], None)
    assert [(row.model.stem, row.precision, row.batch) for row in rows] == [
        ("flat", "fp32", 1),
        ("flat", "fp32", 8),
        ("deep", "fp32", 1),
    ]
    assert Row.from_dict(json.loads(json.dumps(rows[0].as_dict()))) == rows[0]


def test_files_in_int8_are_left_out_on_openvino_unless_named_or_proved_there(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx", bright_spec())
    quantise(model, tmp_path / "int8.onnx")
    assert plan([tmp_path / "int8.onnx"], ["openvino"], [], [1], None) == ()
    (row,) = plan([tmp_path / "int8.onnx"], ["cpu"], [], [1], None)
    assert row.precision == "int8"
    (row,) = plan([tmp_path / "int8.onnx"], ["openvino"], ["int8"], [1], None)
    assert row.device == "openvino"
    spec = read_spec(model)
    row_of_export = {"engine": "openvino", "computing": "int8+bf16", "passed": True}
    proved = spec.model_copy(update={"provenance": {"export": {"proved_on": [row_of_export]}}})
    write_spec(tmp_path / "int8.onnx", proved, tmp_path / "proved.onnx")
    (row,) = plan([tmp_path / "proved.onnx"], ["openvino"], [], [1], None)
    assert row.precision == "bf16"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slices with their references: a bright square, which the tiny model finds."""
    folder = tmp_path_factory.mktemp("scans")
    for name in ("a", "b"):
        pixels = np.zeros((32, 32), np.uint8)
        pixels[8:16, 8:20] = 200
        Image.fromarray(pixels).save(folder / f"{name}.png")
        Image.fromarray((pixels > 0).astype(np.uint8) * 255).save(folder / f"{name}_mask.png")
    return folder


def test_a_benchmark_gives_speed_memory_and_masks(
    tmp_path: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_model(tmp_path / "good.onnx", bright_spec())
    # It labels nothing.
    bad = write_model(tmp_path / "bad.onnx", bright_spec(), np.zeros((1, 1)))
    answer = segtool(
        capsys, "bench", "-m", good, "-m", bad, "--device", "cpu", "--batch", 1, "--cases", scans, "--json", *QUICK
    )
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    first, second = found["rows"]
    assert first["engine"]["engine"] == "onnxruntime"
    assert first["latency"]["rounds"] == 2
    assert 0 < first["latency"]["min_ms"] <= first["latency"]["p50_ms"] <= first["latency"]["p99_ms"]
    assert first["throughput_per_s"] == pytest.approx(1e3 / first["latency"]["p50_ms"])
    assert first["gflop"] == pytest.approx(2 * 32 * 32 / 1e9)
    assert [run["cases"] for run in first["case_runs"]] == [2, 2]
    assert first["peak_mb"] > 20
    assert first["dice_to_reference"] == 1.0
    assert first["dice_to_fp32"] is None
    assert (second["dice_to_fp32"], second["dice_to_reference"]) == (0.0, 0.0)
    assert found["fp32_limit_gflops"] > 1


def test_a_row_that_cannot_run_says_so_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.onnx", bright_spec())
    answer = segtool(
        capsys, "bench", "-m", model, "--device", "cpu", "--precision", "fp32", "--precision", "int8", "--batch", 1,
        "--no-cases", *QUICK,
    )  # fmt: skip
    assert answer.code == 1
    assert "Export the model with --precision int8" in answer.err
    rows = [line.split() for line in answer.lines("model")]
    assert [row[:3] for row in rows[1:]] == [["onnxruntime", "fp32", "1"], ["cpu", "int8", "1"]]
    assert len(rows[1]) > 6
    assert len(rows[2]) == 3


def test_cases_that_all_fail_are_named_and_cost_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.onnx", bright_spec())
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "half.png").write_bytes(b"half")
    answer = segtool(
        capsys, "bench", "-m", model, "--device", "cpu", "--batch", "1,2", "--cases", scans, "--json", *QUICK
    )
    found = json.loads(answer.out)
    assert all(row["throughput_per_s"] > 0 for row in found["rows"])
    assert sum("half" in note for note in found["notes"]) == 2


def test_a_picture_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    model = write_model(tmp_path / "model.onnx", bright_spec())
    picture = tmp_path / "rows.png"
    answer = segtool(
        capsys, "bench", "-m", model, "--device", "cpu", "--batch", "1,2", "--no-cases", "--plot", picture, *QUICK
    )
    assert answer.code == 0, answer.err
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
    assert answer.lines("plot") == [str(picture)]


def test_a_process_that_is_killed_becomes_an_error_of_its_row(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx", bright_spec())
    with LatencyProcess(Row(model, "cpu", "fp32", 1)) as process:
        assert process.engine["precision"] == "fp32"
        os.kill(process.process_id, signal.SIGKILL)
        with pytest.raises(RowError, match="Try a smaller --batch"):
            process.time_calls(0, 1)


def test_a_peer_that_nobody_knows_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.onnx", bright_spec())
    answer = segtool(
        capsys, "bench", "-m", model, "--device", "cpu", "--batch", 1, "--compare", "caffe", "--no-cases", *QUICK
    )
    assert answer.code == 1
    assert "--compare caffe: nothing of that name" in answer.err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--cases", "nowhere"), "Check the path."),
        (("--plot", "rows.pdf"), "such as --plot rows.png"),
        (("--precision", "fp64"), "Choose some of: fp32"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], remedy: str
) -> None:
    answer = segtool(capsys, "bench", "-m", write_model(tmp_path / "model.onnx", bright_spec()), *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert remedy in answer.err
