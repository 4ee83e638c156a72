"""Runs targets in processes of their own, watches them, and counts."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.common import machine, versions
from benchmarks.fuzz import GROWTH_MB, HEADROOM_MB, SECONDS
from benchmarks.fuzz.probe import Counters, keep_finding
from benchmarks.fuzz.target import load

FINDINGS = Path(tempfile.gettempdir()) / "fuzz" / "findings"
_HANGS_S = 60.0
"""Of wall clock, after which an input is said to hang."""
_DEATHS = 20
_LIFE = 20_000
"""Inputs of one process: libraries in C keep a few kilobytes of many a broken file, and its memory is bounded."""
_ROOT = Path(__file__).resolve().parents[2]


def engines() -> tuple[str, ...]:
    """What there is here: hypothesis, and atheris where it is installed."""
    return ("hypothesis", "atheris") if importlib.util.find_spec("atheris") else ("hypothesis",)


def fuzz(names: Sequence[str], inputs: int, seed: int = 0, findings: Path = FINDINGS) -> dict[str, Any]:
    """Try ``inputs`` inputs on each target, half of them by each engine.

    Raises:
        RuntimeError: A target itself fails, such as by a seed that its reader refuses.
    """
    targets = {name: _target(name, inputs, seed, findings / name) for name in names}
    return {
        "machine": machine(),
        "versions": versions("hypothesis", "atheris", "pillow", "nibabel", "h5py", "pydicom", "numpy"),
        "settings": {
            "inputs": inputs,
            "seed": seed,
            "seconds": SECONDS,
            "growth_mb": GROWTH_MB,
            "headroom_mb": HEADROOM_MB,
        },
        **totals(targets),
        "targets": targets,
    }


def totals(targets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over targets."""
    return {
        "inputs": sum(one["inputs"] for one in targets.values()),
        "findings": sum(len(one["findings"]) for one in targets.values()),
        "fixed": sum(len(one["fixed"]) for one in targets.values()),
        "elapsed_s": round(sum(one["elapsed_s"] for one in targets.values()), 1),
    }


def _target(name: str, inputs: int, seed: int, findings: Path) -> dict[str, Any]:
    started = time.perf_counter()
    shutil.rmtree(findings, ignore_errors=True)
    share, rest = divmod(inputs, len(engines()))
    figures = {
        engine: _engine(name, engine, share + (rest if number == 0 else 0), seed, findings)
        for number, engine in enumerate(engines())
    }
    kept = sorted(findings.glob("*.json"))
    both = figures.values()
    return {
        "inputs": sum(one.tried for one in both),
        "by_engine": {engine: one.tried for engine, one in figures.items()},
        "accepted": sum(one.accepted for one in both),
        "refused": sum(one.refused for one in both),
        "findings": [json.loads(path.read_text(encoding="utf-8"))["kind"] for path in kept],
        "fixed": list(load(name).fixed),
        "slowest_s": round(max(one.slowest_s for one in both), 3),
        "largest_growth_mb": round(max(one.growth_mb for one in both), 1),
        "elapsed_s": round(time.perf_counter() - started, 1),
        "inputs_a_second": round(sum(one.tried for one in both) / (time.perf_counter() - started)),
    }


def _engine(name: str, engine: str, inputs: int, seed: int, findings: Path) -> Counters:
    """The figures of one engine; a process that dies is started again until all inputs are tried."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder below it is new and ours
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
        counters = Counters(Path(folder) / "counters")
        deaths = 0
        for life in count():
            goal = min(inputs, counters.tried + _LIFE)
            code = _live(name, engine, goal, seed + life * 1_000_003, Path(folder), findings, counters)
            if counters.tried >= inputs or deaths == _DEATHS:
                break
            if counters.tried >= goal and not counters.since:
                continue
            if not counters.since:
                log = (Path(folder) / "log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{name}: the worker ended by itself ({code}) after {counters.tried}: {log[-3000:]}")
            _keep_culprit(Path(folder) / "files", findings, code)
            deaths += 1
            counters.since = 0.0
            counters.write()
        return counters


def _live(
    name: str, engine: str, inputs: int, seed: int, folder: Path, findings: Path, counters: Counters
) -> int | None:
    """Run one process to its end; its exit code, or None where it hung and was ended."""
    given = (name, engine, inputs, seed, folder, findings)
    command = [sys.executable, "-m", "benchmarks.fuzz.worker", *map(str, given)]
    # Large blocks go back to the system at once, or the growth of the next input would not show.
    quiet = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20), "PYTHONHASHSEED": "0"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=_ROOT, env=os.environ | quiet, stdout=log, stderr=log)
        try:
            while True:
                try:
                    code = process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    counters.read()
                    if counters.since and time.monotonic() - counters.since > _HANGS_S:
                        return None
                else:
                    counters.read()
                    return code
        finally:
            process.kill()
            process.wait()


def _keep_culprit(folder: Path, findings: Path, code: int | None) -> None:
    """Keep the input during which a process ended; the newest file of its folder."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    said = "hangs" if code is None else f"the process died with {code}"
    keep_finding(findings, said, files[-1].read_bytes() if files else b"")
