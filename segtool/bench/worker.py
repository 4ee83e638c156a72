"""One row's process: ``python -m segtool.bench.worker TASK ROW``, a dialogue in lines of JSON.

``latency`` loads the engine, warms it up, says ``{"ready": ...}`` and then answers every line ``{"seconds": S,
"calls": N}`` with the seconds of each call. ``cases`` segments a folder once, as ``segtool predict`` or
another tool does, and answers with what that took. Whatever libraries print goes to stderr.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from segtool.backends import load_backend
from segtool.backends.base import Backend
from segtool.bench.memory import peak_mb
from segtool.bench.peer_cases import failures, segment_by
from segtool.bench.peers import SegmentsCases, load_peer
from segtool.bench.rows import Row
from segtool.errors import UserError
from segtool.model_file import read_spec
from segtool.pipeline import PredictOptions, predict_folder
from segtool.resample import on_host
from segtool.scan import ScanOptions

WARM_UP_S = 0.2
_WARM_UP_CALLS = 2  # the first also plans memory, on a GPU it may choose kernels


def main() -> None:
    """Do the task named on the command line."""
    channel = own_stdout()
    task, row, *rest = sys.argv[1:]
    try:
        if task == "latency":
            _serve(Row.from_dict(json.loads(row)), sys.stdin, channel)
        else:
            _say(channel, _cases(Row.from_dict(json.loads(row)), *(Path(path) for path in rest)))
    except UserError as error:
        _say(channel, {"error": error.problem, "remedy": error.remedy})


def own_stdout() -> TextIO:
    """What stdout was, for our lines alone: descriptor 1 becomes stderr, whoever writes to it."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


def _say(channel: TextIO, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def _serve(row: Row, orders: TextIO, channel: TextIO) -> None:
    """Time calls whenever a line asks for it, until the lines end."""
    start = time.perf_counter()
    backend = (
        load_backend(row.model, row.device, row.threads, precision=row.precision)
        if row.peer is None
        else load_peer(row)
    )
    load_s = time.perf_counter() - start
    batch = _noise(row)
    warm = time.perf_counter()
    done = 0
    while done < _WARM_UP_CALLS or time.perf_counter() - warm < WARM_UP_S:
        _call(backend, batch)
        done += 1
    _say(channel, {
        "ready": {
            "engine": backend.name, "version": backend.version, "device": backend.device,
            "precision": backend.precision, "load_s": load_s,
            "segments_cases": row.peer is None or isinstance(backend, SegmentsCases),
        }
    })  # fmt: skip
    for order in orders:
        wanted = json.loads(order)
        seconds: list[float] = []
        begin = time.perf_counter()
        while len(seconds) < wanted["calls"] or time.perf_counter() - begin < wanted["seconds"]:
            before = time.perf_counter()
            _call(backend, batch)
            seconds.append(time.perf_counter() - before)
        _say(channel, {"seconds": seconds, "peak_mb": peak_mb()})
    backend.close()


def _noise(row: Row) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """A batch ``(N, C, *S)`` like normalised images; speed does not depend on what is in them."""
    spec = read_spec(row.model)
    extent = spec.extent
    shape = (row.batch, len(spec.channels), *extent)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _call(backend: Backend, batch: "np.ndarray[Any, np.dtype[np.float32]]") -> None:
    """From the host's memory to the host's memory, which also waits for a device."""
    on_host(backend.run(backend.xp.asarray(batch)))


def _cases(row: Row, inputs: Path, output: Path, masks: Path | None = None) -> dict[str, Any]:
    """Segment a folder from reading its files to the last written byte."""
    if row.peer is None:
        report = predict_folder(
            [inputs],
            PredictOptions(
                model=row.model,
                output=output,
                scan=ScanOptions(masks=masks),
                device=row.device,
                precision=row.precision,
                batch=row.batch,
                threads=row.threads,
            ),
        )
        peak = peak_mb()
    else:
        peer = load_peer(row)
        assert isinstance(peer, SegmentsCases)
        report, peak = segment_by(peer, read_spec(row.model), inputs, output, masks)
    reference = [one["dice_mean_with_reference"] for one in report.summary.values() if one["dice_n_with_reference"]]
    return {
        "elapsed_s": report.elapsed_s,
        "cases": report.counts["done"],
        "failed": failures(report),
        "stage_seconds": report.stage_seconds,
        "peak_mb": peak,
        "reference_dice": float(np.mean(reference)) if reference else None,
    }


if __name__ == "__main__":
    main()
