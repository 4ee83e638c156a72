"""Faults let into real runs of ``segtool predict``: which cases survive, which are named, which are lost (none).

``python -m benchmarks.reliability_faults [--scale 0.1]`` writes ``benchmarks/results/reliability_faults.json``. Every
fault is one process on a small folder; a case is lost that the fault does not concern and that is not there with the
same bytes as in an undisturbed run, or that neither exists nor is named by the report.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.common import machine, save, versions
from segtool.model_file import write_spec
from segtool.output_folder import RUN_FILE
from segtool.spec import ChannelSpec, IntensitySpec, LabelSpec, ModelSpec, SliceSpec, VolumeSpec

_ROOT = Path(__file__).resolve().parent.parent
_CASES = {"pictures": (17, 3), "volumes": (9, 1)}
"""Good and spoilt ones."""
_DISK_KIB = 100
_LONGEST_S = 120


@dataclass(frozen=True)
class Fault:
    """One fault and what is expected of it.

    Args:
        name: In the table.
        inject: For :mod:`benchmarks.faulty_run`.
        code: The exit code that is right.
        says: Pattern that each failed case's error, or where none fails the report's notes, must match.
        fails: ``spoilt`` cases, ``none``, ``all``, or ``rest``: those after the fault.
        arguments: For ``segtool predict``.
        kind: ``pictures``, or ``volumes`` under a 3D model.
        signals: Sent once two results are there.
        disk: Whether the output lies on a disk of :data:`_DISK_KIB`.
        prepare: Changes scans or output before the run.
        has_report: Whether the run can write its report.
    """

    name: str
    inject: str
    code: int
    says: str
    fails: str = "spoilt"
    arguments: tuple[str, ...] = ()
    kind: str = "pictures"
    signals: tuple[int, ...] = ()
    disk: bool = False
    prepare: Callable[[Path, Path], None] = lambda _scans, _output: None
    has_report: bool = True


def _report_is_a_folder(_scans: Path, output: Path) -> None:
    (output / "report.json").mkdir(parents=True)


def _results_are_folders(_scans: Path, output: Path) -> None:
    for index in range(_CASES["pictures"][1]):
        (output / f"spoilt_{index}.png").mkdir(parents=True)


def _write_volume(path: Path, voxels: npt.NDArray[np.uint8]) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)  # type: ignore[no-untyped-call]


def _noise(scans: Path, _output: Path) -> None:
    """Results that no disk of ours holds."""
    voxels = np.random.default_rng(0).integers(0, 200, (96, 96, 96)).astype(np.uint8)
    for path in scans.glob("spoilt_*"):
        _write_volume(path, voxels)


def _huge(scans: Path, _output: Path) -> None:
    """A volume that takes half a gigabyte."""
    for path in scans.glob("spoilt_*"):
        _write_volume(path, np.zeros((800, 800, 800), np.uint8))


_ONE = ("--batch", "1")
_GONE = "was there when the folder was searched"
_NO_FILE = "is no file any more"
FAULTS = (
    Fault("input deleted after the search", "input-deleted", 1, _GONE),
    Fault("input truncated after the search", "input-truncated", 1, "cannot be read as a picture"),
    Fault("input emptied after the search", "input-emptied", 1, "cannot be read as a picture"),
    Fault("input becomes a pipe", "input-becomes-a-pipe", 1, _NO_FILE),
    Fault("input becomes a socket", "input-becomes-a-socket", 1, _NO_FILE),
    Fault("input becomes a device", "input-becomes-a-device", 1, _NO_FILE),
    Fault("input becomes a folder", "input-becomes-a-folder", 1, _NO_FILE),
    Fault("input becomes a link to itself", "input-links-to-itself", 1, _GONE),
    Fault("input without permission to read", "input-unreadable", 1, "cannot be read|Permission"),
    Fault("reader hangs", "reader-hangs", 1, "--case-timeout", arguments=("--case-timeout", "2")),
    Fault("reader raises what nobody foresaw", "reader-bug", 1, r"KeyError: .* at .*\.py:\d+"),
    Fault("memory runs out in a reader", "reader-memory", 1, "more memory than there is"),
    Fault("engine raises on some slices", "engine-raises", 1, "network failed .*poisoned", arguments=("--batch", "4")),
    Fault("engine answers NaN to some slices", "engine-nan", 1, "NaN", arguments=("--batch", "4")),
    Fault("engine raises on every call", "engine-always-raises", 1, "the network failed", "all"),
    Fault("a case larger than memory", "address-space:300", 1, "memory", kind="volumes", prepare=_huge),
    Fault("memory holds no batch", "engine-memory:1024", 0, "1 at a time", "none", arguments=("--batch", "8")),
    Fault("memory holds one call at a time", "engine-memory-for-one-call", 0, "one call at a time", "none"),
    Fault("memory holds no slice", "engine-memory:1", 1, "more memory than there is", "all"),
    Fault("engine raises on some volumes", "engine-raises", 1, "the network failed", kind="volumes"),
    Fault("engine answers NaN to some volumes", "engine-nan", 1, "NaN", kind="volumes"),
    Fault("memory holds no whole window", "engine-memory:2048", 0, "windows of 8x16x16", "none", kind="volumes"),
    Fault("memory holds no window", "engine-memory:1", 1, "more memory than there is", "all", kind="volumes"),
    Fault("disk too small for results", "none", 1, "cannot be written", kind="volumes", disk=True, prepare=_noise),
    Fault("results cannot take their names", "none", 1, "cannot be written", prepare=_results_are_folders),
    Fault("output folder deleted", "output-deleted", 1, "is not there any more", "rest"),
    Fault("output folder becomes read-only", "output-read-only", 1, "", "rest", has_report=False),
    Fault("output folder becomes a file", "output-becomes-a-file", 1, "", "rest", has_report=False),
    Fault("report cannot be written", "none", 1, "", "none", prepare=_report_is_a_folder, has_report=False),
    Fault("SIGINT", "engine-slow:100", 130, "interrupted", "rest", _ONE, signals=(signal.SIGINT,)),
    Fault("SIGTERM", "engine-slow:100", 143, "interrupted", "rest", _ONE, signals=(signal.SIGTERM,)),
    Fault("SIGINT twice", "engine-slow:100", 130, "interrupted", "rest", _ONE, signals=(signal.SIGINT,) * 2),
)  # fmt: skip


def _write_model(path: Path, spec: ModelSpec) -> None:
    """Logits are the input less one half."""
    from onnx import TensorProto, helper, numpy_helper, save

    axes = ["h", "w"] if spec.input.rank == 2 else ["d", "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Sub", ["image", "half"], ["logits"])],
        "half",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, *axes])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, *axes])],
        [numpy_helper.from_array(np.array(0.5, np.float32), "half")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_spec(path, spec, path)


def _write_folder(folder: Path, kind: str) -> None:
    """Good and spoilt cases: those have their highest value in their first voxel."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    good, bad = _CASES[kind]
    for index in range(good + bad):
        spoilt = index >= good
        name = f"spoilt_{index - good}" if spoilt else f"good_{index:02d}"
        shape = (32, 32) if kind == "pictures" else (20, 24, 20)
        voxels = random.integers(10, 120, shape).astype(np.uint8)
        voxels[tuple(slice(6, 14) for _ in shape)] = 240
        voxels[(0,) * len(shape)] = 250 if spoilt else 0
        if kind == "pictures":
            Image.fromarray(voxels).save(folder / f"{name}.png")
        else:
            _write_volume(folder / f"{name}.nii.gz", voxels)


class Bench:
    """Folders and models in ``work``, and the bytes of undisturbed runs."""

    def __init__(self, work: Path) -> None:
        self._work = work
        common: dict[str, Any] = {
            "name": "half",
            "channels": (ChannelSpec(name="t1ce"),),
            "labels": (LabelSpec(name="tumour", value=1),),
            "intensity": IntensitySpec(kind="minmax"),
            "divisor": 4,
        }
        inputs: dict[str, SliceSpec | VolumeSpec] = {
            "pictures": SliceSpec(size=(32, 32)),
            "volumes": VolumeSpec(patch=(16, 16, 16), overlap=0, crop_to_nonzero=False),
        }
        self._right: dict[str, Mapping[str, bytes]] = {}
        for kind, its in inputs.items():
            _write_model(work / f"{kind}.onnx", ModelSpec(input=its, **common))
            _write_folder(work / kind, kind)

    def right(self, kind: str) -> Mapping[str, bytes]:
        """Results of a run without a fault, by name of the case."""
        if kind not in self._right:
            plain = Fault("none", "none", 0, "", "none", kind=kind)
            code, output, _ = self._run(plain)
            if code != 0:
                raise RuntimeError(f"the undisturbed run of {kind} ended with {code}")
            self._right[kind] = _results(output)
            shutil.rmtree(output.parent)
        return self._right[kind]

    def row(self, fault: Fault) -> dict[str, Any]:
        """Run one fault and judge what it left behind."""
        right = self.right(fault.kind)
        start = time.perf_counter()
        code, output, said = self._run(fault)
        wrong = [] if code == fault.code else [f"exit code {code}, not {fault.code}: {said[-300:]}"]
        found = _results(output) if output.is_dir() else {}
        if output.is_dir():
            # What --continue needs to know stays where no report can tell it.
            left = (path.name for path in output.rglob(".*") if fault.has_report or path.name != RUN_FILE)
            wrong += [f"left behind: {name}" for name in left]
        report = output / "report.json"
        rows: dict[str, Any] = {}
        if fault.has_report:
            content = json.loads(report.read_text())
            rows = {case["name"]: case for case in content["cases"]}
            wrong += _unsaid(fault, rows, content["notes"])
        elif str(output) not in said:
            wrong.append("nothing says where the results lie")
        lost = [name for name in right if not self._is_accounted_for(name, fault, rows, found, said)]
        survived = sum(found.get(name) == data for name, data in right.items())
        if fault.signals:
            wrong += self._unfinished(fault, output)
        _tidy(output)
        return {
            "fault": fault.name,
            "kind": fault.kind,
            "cases": len(right),
            "survived": survived,
            "failed": sum(row["status"] == "failed" for row in rows.values()),
            "lost": len(lost),
            "exit_code": code,
            "wrong": wrong,
            "seconds": round(time.perf_counter() - start, 2),
        }

    def _is_accounted_for(
        self, name: str, fault: Fault, rows: Mapping[str, Any], found: Mapping[str, bytes], said: str
    ) -> bool:
        """Whether a case is there as it should be, or is one that may fail and is named."""
        if found.get(name) == self.right(fault.kind)[name] and rows.get(name, {}).get("status") != "failed":
            return True
        may_fail = fault.fails in ("all", "rest") or (fault.fails == "spoilt" and "spoilt" in name)
        is_named = rows.get(name, {}).get("status") == "failed" or name in said
        return may_fail and is_named and name not in found

    def _unfinished(self, fault: Fault, output: Path) -> list[str]:
        """What ``--continue`` does not mend after an interruption."""
        again = replace(fault, inject="none", signals=(), arguments=("--continue",))
        code, _, said = self._run(again, output)
        missing = [] if _results(output) == self.right(fault.kind) else ["--continue: not the bytes of a whole run"]
        return missing + ([] if code == 0 else [f"--continue: exit code {code}: {said[-300:]}"])

    def _run(self, fault: Fault, output: Path | None = None) -> tuple[int, Path, str]:
        """Exit code, output folder, and all that was said, the report's notes included."""
        place = Path(tempfile.mkdtemp(dir=self._work))
        scans = place / "scans"
        shutil.copytree(self._work / fault.kind, scans)
        before: list[str] = []
        if output is None:
            output = place / "out"
            output.mkdir()
            if fault.disk:
                # A name space of its own lets a normal user mount, too.
                before = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "benchmarks.small_disk"]
                before += [str(_DISK_KIB), str(output)]
            fault.prepare(scans, output)
        command = [*before, sys.executable, "-m", "benchmarks.faulty_run", fault.inject, "predict", str(scans)]
        command += ["--model", str(self._work / f"{fault.kind}.onnx"), "--output", str(output), "--device", "cpu"]
        with subprocess.Popen(
            [*command, *fault.arguments],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        ) as process:
            _send(process, fault.signals, output)
            said, _ = process.communicate(timeout=_LONGEST_S)
        report = output / "report.json" if output.is_dir() else output
        if report.is_file() and report != output:
            said += "\n".join(json.loads(report.read_text())["notes"])
        return process.returncode, output, said


def _send(process: subprocess.Popen[str], signals: tuple[int, ...], output: Path) -> None:
    """Send the signals once two results are there."""
    until = time.monotonic() + _LONGEST_S
    while signals and len(list(output.glob("*.png"))) < 2 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)


def _results(output: Path) -> dict[str, bytes]:
    names = (path for path in output.iterdir() if path.is_file() and not path.name.startswith((".", "report")))
    return {path.name.partition(".")[0]: path.read_bytes() for path in names}


def _unsaid(fault: Fault, rows: Mapping[str, Any], notes: list[str]) -> list[str]:
    """Failed cases whose error is not what it should be; the notes, where none may fail."""
    if fault.fails == "none" or fault.signals:
        return [] if re.search(fault.says, " ".join(notes)) else [f"the report does not say {fault.says!r}: {notes}"]
    errors = [row["error"] for row in rows.values() if row["status"] == "failed"]
    return [f"error without {fault.says!r}: {error}" for error in errors if not re.search(fault.says, error)]


def _tidy(output: Path) -> None:
    if output.is_dir():
        output.chmod(0o755)
    shutil.rmtree(output.parent, ignore_errors=True)


def run(scale: float = 1.0) -> dict[str, Any]:
    """Let faults in; ``scale`` is the share of them that is tried.

    Returns:
        ``rows``, one a fault, and sums of them: ``tried``, ``cases``, ``survived``, ``failed``, ``lost``, ``wrong``.
    """
    # A fault that ends with a core file would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    chosen = FAULTS[:: max(1, round(1 / scale))]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        rows = [bench.row(fault) for fault in chosen]
    sums = {key: sum(row[key] for row in rows) for key in ("cases", "survived", "failed", "lost")}
    return {
        "what": "faults let into a run of `segtool predict` on 20 pictures or 10 volumes",
        "tried": len(rows),
        **sums,
        "wrong": sum(bool(row["wrong"]) for row in rows),
        "machine": machine(),
        "versions": versions("segtool", "numpy", "onnxruntime"),
        "rows": rows,
    }


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    result = run(parser.parse_args().scale)
    for row in result["rows"]:
        print(f"{row['fault']:<40}", *(row[key] for key in ("survived", "failed", "lost", "exit_code")), *row["wrong"])
    print(save("reliability_faults", result))


if __name__ == "__main__":
    main()
