"""SIGKILL and ``--continue``, many processes on one output folder, and parts: what is lost, doubled or mixed.

Every run is the command line in a process of its own, with a small network made here, on generated scans of three kinds
(PNG, NIfTI, DICOM; every third with a reference). Bytes are held against those of one run that nothing interrupted.

* kills: a run is killed at a random moment (half of them uniform over its time, which begins with Python's start; four
  tenths at a random case; every tenth as its last case is recorded, so that the report is hit too), gone on with
  ``--continue``, which may be killed as well, until one ends. After every kill each visible file is whole; in the end
  every case is there once and nothing else is.
* sharing: processes are held at the folder's gate until all have come, then let go at once. With one killed midway too.
* parts: ``--num-parts``, one killed, then ``--continue`` without parts.

    python -m benchmarks.reliability_share [--scale 0.01]
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import machine, save, versions
from segtool.claims import LockFile

_MODEL = "bright.onnx"
_RUN_FILE = ".segtool-run"
_GATE, _LAST_SEAT = 2**30, 2**30 + 2 + 1023  # as segtool.shared_run has them
_PIXELS, _VOLUME = 96, (64, 64, 5)
_REPORTS = ("report.json", "report.csv")


def run(scale: float = 1.0) -> dict[str, Any]:
    """Try everything; 1.0 is 100 kills of a 200-case run, and 8 processes on 500 cases.

    Raises:
        AssertionError: Something was lost, doubled or mixed; the message says what.
    """
    with tempfile.TemporaryDirectory(prefix="segtool-share-") as folder:
        work = Path(folder)
        write_model(work / _MODEL)
        kills = _kills(work, cases=_scaled(200, scale, 12), kills=_scaled(100, scale, 2))
        sharing = _sharing(work, cases=_scaled(500, scale, 16), processes=_scaled(8, scale * 20, 3))
        parts = _parts(work, cases=_scaled(200, scale, 9), parts=_scaled(4, scale * 100, 3))
    return {"machine": machine(), "versions": versions("segtool", "onnxruntime", "numpy")} | {
        "kills": kills,
        "sharing": sharing,
        "parts": parts,
    }


def write_model(path: Path, size: int = 128, width: int = 16) -> None:
    """Two convolutions that pass a slice on, about a millisecond each, and one that labels its bright half."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    from segtool.model_file import write_spec
    from segtool.spec import ChannelSpec, IntensitySpec, LabelSpec, ModelSpec, SliceSpec

    draw = np.random.default_rng(3)
    nodes, weights, before, last = [], [], 1, "image"
    for number in (1, 2):
        kernel = draw.normal(0, 0.1, (width, before, 3, 3)).astype(np.float32)
        kernel[0] = 0
        kernel[0, 0, 1, 1] = 1
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        before, last = width, f"r{number}"
    passing = np.zeros((1, width, 1, 1), np.float32)
    passing[0, 0] = 1
    weights += [numpy_helper.from_array(passing, "w3"), numpy_helper.from_array(np.array([-0.5], np.float32), "bias")]
    nodes.append(helper.make_node("Conv", [last, "w3", "bias"], ["logits"]))
    shape: list[str | int | None] = ["batch", 1, "h", "w"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "bright", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    spec = ModelSpec(
        name="bright",
        channels=(ChannelSpec(name="t1ce"),),
        labels=(LabelSpec(name="tumour", value=1),),
        input=SliceSpec(size=(size, size)),
        intensity=IntensitySpec(kind="minmax"),
    )
    write_spec(path, spec, path)


def _scaled(full: int, scale: float, least: int) -> int:
    return min(full, max(least, round(full * scale)))


# What is segmented


def write_cases(folder: Path, count: int) -> None:
    """``count`` small cases: of ten seven PNG, two NIfTI and one DICOM; every third has a reference."""
    from PIL import Image

    from segtool.demo_folder import write_dicom
    from segtool.phantom import phantom_slice, phantom_volume

    for number in range(count):
        name, has_reference = f"case_{number:03d}", number % 3 == 0
        if number % 10 < 7:
            image, reference = phantom_slice(number, size=_PIXELS)
            (folder / "png").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "png" / f"{name}.png")
            if has_reference:
                Image.fromarray(reference * 255).save(folder / "png" / f"{name}_mask.png")
            continue
        volume = phantom_volume(number, _VOLUME, (3.5, 3.5, 12.0))
        place = folder / ("nifti" if number % 10 < 9 else "dicom")
        place.mkdir(parents=True, exist_ok=True)
        if place.name == "dicom":
            write_dicom(place / name, volume, number)
        else:
            _write_nifti(place / f"{name}.nii.gz", volume[0], volume[2])
        if has_reference:
            _write_nifti(place / f"{name}_seg.nii.gz", volume[1], volume[2])


def _write_nifti(path: Path, voxels: Any, affine: Any) -> None:  # noqa: ANN401 - arrays
    import nibabel as nib

    nib.save(nib.Nifti1Image(voxels, affine), path)  # type: ignore[no-untyped-call]  # no annotations


# How it is run and looked at


def _start(scans: Path, output: Path, *options: str) -> "subprocess.Popen[bytes]":
    model = scans.with_name(_MODEL)
    command = [sys.executable, "-m", "segtool", "predict", str(scans), "-m", str(model), "-o", str(output), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # The report goes to a file: a pipe that nobody empties would keep a process waiting.
    told = output.with_name(f"{output.name}-{time.monotonic_ns()}.told")
    with told.open("wb") as out, told.with_suffix(".errors").open("wb") as errors:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=errors, env=environment)
    process.told = told  # type: ignore[attr-defined]
    return process


def _report_of(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What a process that ended well said."""
    told: Path = process.told  # type: ignore[attr-defined]
    code = process.wait()
    assert code == 0, f"exit code {code}: {told.with_suffix('.errors').read_text()[-2000:]}"
    report: dict[str, Any] = json.loads(told.read_text())
    return report


def _files(folder: Path) -> dict[str, bytes]:
    """All files that can be seen, but for reports, by their path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".", "report"))
    }


def _hidden(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob(".*")]


def _check_whole(folder: Path, expected: dict[str, bytes]) -> None:
    """After a kill: whatever can be seen is whole."""
    if folder.is_dir():
        for name, content in _files(folder).items():
            assert content == expected.get(name), f"after a kill {name} is not what it should be"


def _check_complete(output: Path, expected: dict[str, bytes], names: Sequence[str]) -> dict[str, int]:
    """At the end: every case once in the report, every file there with the same bytes, and nothing else."""
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    found = [case["name"] for case in report["cases"]]
    assert found == list(names), f"cases of the report: {found}"
    assert report["counts"]["failed"] == 0, report["counts"]
    files = _files(output)
    assert files.keys() == expected.keys(), f"files: {sorted(files.keys() ^ expected.keys())}"
    differing = [name for name in expected if files[name] != expected[name]]
    assert not differing, f"other bytes: {differing}"
    assert not _hidden(output), f"left behind: {_hidden(output)}"
    rows = {line.split(",")[0] for line in (output / "report.csv").read_text(encoding="utf-8").splitlines()[1:]}
    assert rows == set(names), "report.csv"
    counts: dict[str, int] = report["counts"]
    return counts


def _uninterrupted(scans: Path, output: Path) -> tuple[dict[str, bytes], list[str], float]:
    start = time.perf_counter()
    report = _report_of(_start(scans, output))
    seconds = time.perf_counter() - start
    names = [case["name"] for case in report["cases"]]
    assert report["counts"]["done"] == len(names)
    assert not _hidden(output)
    return _files(output), names, seconds


# What is tried


def _kills(work: Path, cases: int, kills: int, seed: int = 7) -> dict[str, Any]:
    start, draw = time.perf_counter(), random.Random(seed)  # noqa: S311 - a benchmark's moments
    scans = work / "kill-scans"
    write_cases(scans, cases)
    expected, names, seconds = _uninterrupted(scans, work / "whole")
    assert len(names) == cases
    killed: list[dict[str, Any]] = []
    trials = kept = 0
    while len(killed) < kills:
        output = work / f"killed-{trials}"
        trials += 1
        options: tuple[str, ...] = ()
        wanted = min(1 + (draw.random() < 0.5) + (draw.random() < 0.1), kills - len(killed))
        for _ in range(wanted):
            process = _start(scans, output, *options)
            moment = _kill(process, output, _moment(len(killed), seconds, cases, draw), draw)
            if moment is not None:
                killed.append({"after_s": round(moment, 3), "cases_there": _recorded(output), "options": options})
            _check_whole(output, expected)
            options = ("--continue",)
        _report_of(_start(scans, output, *options))
        counts = _check_complete(output, expected, names)
        kept += counts["skipped"]
        print(f"{len(killed)} kills survived", file=sys.stderr, flush=True)
        shutil.rmtree(output)
    there = [one["cases_there"] for one in killed]
    return {
        "cases": cases,
        "kills": len(killed),
        "runs_gone_on_with": trials,
        "uninterrupted_s": round(seconds, 2),
        "before_the_first_case": sum(count == 0 for count in there),
        "among_the_cases": sum(0 < count < cases for count in there),
        "after_the_last_case": sum(count >= cases for count in there),
        "of_runs_with_continue": sum(bool(one["options"]) for one in killed),
        "cases_kept_by_the_last_run": kept,
        "survived": trials,
        "lost": 0,
        "seconds": round(time.perf_counter() - start, 1),
        "moments_s": [one["after_s"] for one in killed],
    }


def _moment(number: int, seconds: float, cases: int, draw: random.Random) -> float | int:
    """When to kill: after so many seconds, or as so many cases are recorded, which a busy machine does not shift."""
    if number % 10 == 9:
        return cases
    return draw.uniform(0, seconds) if number % 2 == 0 else draw.randint(1, cases - 1)


def _kill(process: "subprocess.Popen[bytes]", output: Path, moment: float | int, draw: random.Random) -> float | None:
    """SIGKILL at a moment as :func:`_moment` gives it; None where the process was sooner."""
    start, pause = time.perf_counter(), draw.uniform(0, 0.02)
    if isinstance(moment, int):
        while process.poll() is None and _recorded(output) < moment:
            time.sleep(0.001)
        time.sleep(pause)
    else:
        while process.poll() is None and time.perf_counter() < start + moment:
            time.sleep(0.001)
    if process.poll() is not None:
        return None
    process.kill()
    process.wait()
    return time.perf_counter() - start


def _recorded(output: Path) -> int:
    """Cases that the newest run of a run file has."""
    try:
        lines = (output / _RUN_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    last = max((index for index, line in enumerate(lines) if line.startswith(b'{"run"')), default=0)
    return sum(line.startswith(b'{"case"') for line in lines[last:])


def _sharing(work: Path, cases: int, processes: int) -> dict[str, Any]:
    start = time.perf_counter()
    scans = work / "share-scans"
    write_cases(scans, cases)
    expected, names, alone_s = _uninterrupted(scans, work / "alone")
    return {
        "cases": cases,
        "processes": processes,
        "one_process_s": round(alone_s, 2),
        "all_live": _share(scans, work / "shared", expected, names, processes, kill=False),
        "one_killed": _share(scans, work / "shared-killed", expected, names, processes, kill=True),
        "done_twice": 0,
        "lost": 0,
        "seconds": round(time.perf_counter() - start, 1),
    }


def _share(
    scans: Path, output: Path, expected: dict[str, bytes], names: Sequence[str], processes: int, *, kill: bool
) -> dict[str, Any]:
    output.mkdir()
    gate = LockFile(output / _RUN_FILE)
    assert gate.take(_GATE)
    started = [_start(scans, output, "--threads", "1") for _ in range(processes)]
    while not all(_waits(process, output / _RUN_FILE) for process in started):
        time.sleep(0.01)
    begin = time.perf_counter()
    gate.give(_GATE)
    while not _recorded(output):
        time.sleep(0.005)
    # One more seat is taken, so that the file, with a line a case, is still there when all have left.
    assert gate.take(_LAST_SEAT)
    if kill:
        while _recorded(output) < len(names) // 2:
            time.sleep(0.002)
        started[0].kill()
        started[0].wait()
    reports = [_report_of(process) for process in started[1 if kill else 0 :]]
    seconds = time.perf_counter() - begin
    lines = [json.loads(line) for line in (output / _RUN_FILE).read_bytes().splitlines()]
    done = [line["case"]["name"] for line in lines if "case" in line]
    assert sum("run" in line for line in lines) == 1
    assert sorted(done) == sorted(names), "a case was done twice or not at all"
    gate.close(remove=True)
    for path in output.rglob(".partial-*"):
        assert kill, f"left behind: {path}"
        path.unlink()
    _check_complete(output, expected, names)
    own = [report["counts"]["done"] - report.get("done_by_other_processes", 0) for report in reports]
    assert sum(own) + (0 if not kill else len(names) - sum(own)) == len(names)
    return {"cases_by_process": own, "by_the_killed_one": len(names) - sum(own) if kill else 0, "s": round(seconds, 2)}


def _waits(process: "subprocess.Popen[bytes]", path: Path) -> bool:
    """True where the process has the run file open (Linux), or has ended."""
    if process.poll() is not None:
        return True
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if link.resolve() == path.resolve():
                return True
        except OSError:
            continue
    return False


def _parts(work: Path, cases: int, parts: int) -> dict[str, Any]:
    start = time.perf_counter()
    scans, output = work / "part-scans", work / "parts"
    write_cases(scans, cases)
    expected, names, _ = _uninterrupted(scans, work / "undivided")
    for part in range(parts):
        process = _start(scans, output, "--num-parts", str(parts), "--part-id", str(part))
        if part == 1:
            run_file = output / f"{_RUN_FILE}-part-1-of-{parts}"
            while process.poll() is None and not (run_file.is_file() and b'{"case"' in run_file.read_bytes()):
                time.sleep(0.001)
            process.kill()
            process.wait()
            continue
        report = _report_of(process)
        assert [case["name"] for case in report["cases"]] == names[part::parts]
        assert (output / f"report-part-{part}-of-{parts}.json").is_file()
    _check_whole(output, expected)
    _report_of(_start(scans, output, "--continue"))
    kept = _check_complete(output, expected, names)["skipped"]
    return {
        "cases": cases,
        "parts": parts,
        "killed_parts": 1,
        "kept_by_continue": kept,
        "lost": 0,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    """Run and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    result = run(arguments.scale) | {"scale": arguments.scale}
    result["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(result, indent=2))
    print(save("reliability_share", result))


if __name__ == "__main__":
    main()
