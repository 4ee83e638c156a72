"""A benchmark from start to end: load all rows, let them take turns, segment cases, compare masks."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from segtool.bench.limit import fp32_limit_gflops, network_gflop
from segtool.bench.processes import LatencyProcess, RowError, segment_cases
from segtool.bench.rows import Row
from segtool.bench.timing import Timing
from segtool.evaluation import EvaluateOptions, evaluate_pairs
from segtool.model_file import read_spec
from segtool.pairing import pair_files
from segtool.scores import Structure, structures_of


@dataclass(frozen=True)
class BenchOptions:
    """How long and on what.

    Args:
        duration_s: How long a row's calls are timed at least, in all rounds together.
        calls: How many are timed at least.
        rounds: How often the rows take turns.
        cases: A folder of scans that every row segments whole; None leaves that out.
        masks: Its references, where they do not lie beside the scans.
        case_rounds: How often.
    """

    duration_s: float = 3.0
    calls: int = 10
    rounds: int = 3
    cases: Path | None = None
    masks: Path | None = None
    case_rounds: int = 3


@dataclass
class Measured:
    """What one row came to; a row that could not be measured holds the line that says why."""

    row: Row
    engine: dict[str, Any] = field(default_factory=dict)
    timing: Timing | None = None
    gflop: float | None = None
    """Of one slice or window."""
    engine_mb: float | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Of whole cases, as :func:`~segtool.bench.processes.segment_cases` gives them."""
    dice_to_first: float | None = None
    error: str | None = None

    @property
    def throughput(self) -> float | None:
        """Slices or windows a second."""
        return None if self.timing is None else self.row.batch / self.timing.median_s

    @property
    def gflops(self) -> float | None:
        """Billions of operations a second."""
        return None if self.throughput is None or self.gflop is None else self.throughput * self.gflop

    @property
    def case_s(self) -> float | None:
        """Seconds a case, from reading its file to the last written byte; the median of all runs.

        Loading the model is in it for segtool, whose command does that every time, and not for other tools.
        """
        each = [run["elapsed_s"] / run["cases"] for run in self.runs if run["cases"]]
        return median(each) if each else None

    @property
    def peak_mb(self) -> float | None:
        """Of the process that segmented cases, else of the one that only called the engine."""
        return max(run["peak_mb"] for run in self.runs) if self.runs else self.engine_mb

    @property
    def reference_dice(self) -> float | None:
        """Mean over structures, of the cases whose reference has them."""
        return self.runs[0]["reference_dice"] if self.runs else None


@dataclass
class Bench:
    """All rows and what they ran on."""

    rows: list[Measured]
    limit_gflops: float
    notes: list[str]

    @property
    def failures(self) -> list[Measured]:
        """Rows without figures."""
        return [one for one in self.rows if one.error is not None]


def bench(rows: Sequence[Row], options: BenchOptions, on_step: Callable[[str], None] = lambda _line: None) -> Bench:
    """Measure all rows.

    Args:
        rows: As :func:`segtool.bench.rows.plan` gives them.
        options: How long and on what.
        on_step: Told what is being done.

    Raises:
        UsageError: ``cases`` holds no scans, or no row can be measured at all.
    """
    measured = [Measured(row) for row in rows]
    threads = next((row.threads for row in rows), None)
    limit = _time_calls(measured, options, threads, on_step)
    _count_work(measured)
    notes = []
    if options.cases is not None:
        with tempfile.TemporaryDirectory(prefix="segtool-bench-") as name:
            _segment(measured, options, Path(name), on_step)
            notes += _compare_masks(measured, Path(name))
    for one in measured:
        if one.timing is not None and not one.timing.stable:
            notes.append(
                f"{describe(one)}: unstable, its rounds differ by {one.timing.spread:.0%}; "
                "let the machine do nothing else, or raise --duration"
            )
        notes += [f"{describe(one)}: {line}" for run in one.runs[:1] for line in run["failed"]]
    return Bench(measured, limit, notes)


def describe(one: Measured) -> str:
    """A row's name in a line of text."""
    engine = one.engine.get("engine", one.row.peer or one.row.device)
    precision = one.engine.get("precision", one.row.precision)
    return f"{one.row.model.stem} {engine} {precision} batch {one.row.batch}"


def _time_calls(
    measured: Sequence[Measured], options: BenchOptions, threads: int | None, on_step: Callable[[str], None]
) -> float:
    """Load every row, then time them in turns; the processor's limit, which takes its turn in every round, too."""
    limits = []
    with ExitStack() as stack:
        processes: list[tuple[Measured, LatencyProcess, list[tuple[float, ...]]]] = []
        for one in measured:
            on_step(f"load {describe(one)}")
            try:
                process = stack.enter_context(LatencyProcess(one.row))
            except RowError as error:
                one.error = str(error)
                continue
            one.engine = process.engine
            processes.append((one, process, []))
        for turn in range(options.rounds):
            on_step(f"round {turn + 1} of {options.rounds}: limit of the processor")
            limits.append(fp32_limit_gflops(threads))
            for one, process, rounds in processes:
                if one.error is not None:
                    continue
                on_step(f"round {turn + 1} of {options.rounds}: {describe(one)}")
                try:
                    calls, one.engine_mb = process.time_calls(
                        options.duration_s / options.rounds, -(-options.calls // options.rounds)
                    )
                except RowError as error:
                    one.error = str(error)
                    continue
                rounds.append(calls)
        for one, _, rounds in processes:
            if one.error is None:
                one.timing = Timing(tuple(rounds))
    return max(limits)


def _count_work(measured: Sequence[Measured]) -> None:
    """How much each row's network computes; ONNX Runtime tells, and without it nobody does."""
    if find_spec("onnxruntime") is None:
        return
    known: dict[Path, float] = {}
    for one in measured:
        if one.error is None:
            model = one.row.model
            if model not in known:
                known[model] = network_gflop(model, read_spec(model))
            one.gflop = known[model]


def _segment(measured: Sequence[Measured], options: BenchOptions, folder: Path, on_step: Callable[[str], None]) -> None:
    """Every row segments the same cases, in turns; the first turn's label maps are kept."""
    assert options.cases is not None
    for turn in range(options.case_rounds):
        for index, one in enumerate(measured):
            if one.error is not None or not one.engine["segments_cases"]:
                continue
            on_step(f"cases, round {turn + 1} of {options.case_rounds}: {describe(one)}")
            try:
                one.runs.append(segment_cases(one.row, options.cases, folder / f"{index}-{turn}", options.masks))
            except RowError as error:
                one.error = str(error)


def _compare_masks(measured: Sequence[Measured], folder: Path) -> list[str]:
    """Dice of every row's label maps to those of the first fp32 row, the mean over cases and labels."""
    able = [(index, one) for index, one in enumerate(measured) if one.runs and one.runs[0]["cases"]]
    first = next(((index, one) for index, one in able if one.engine["precision"] == "fp32"), None)
    if first is None:
        return ["no row computes in fp32, so that no masks are compared"] if able else []
    structures = tuple(
        # Both sides are predictions, whatever values references have.
        Structure(one.name, one.prediction_values, one.prediction_values)
        for one in structures_of(read_spec(first[1].row.model))
    )
    for index, one in able:
        if index != first[0]:
            one.dice_to_first = agreement(folder / f"{index}-0", folder / f"{first[0]}-0", structures)
    return [f"masks are compared with those of {describe(first[1])}"] if len(able) > 1 else []


def agreement(found: Path, wanted: Path, structures: tuple[Structure, ...]) -> float:
    """Mean Dice over structures and cases of two folders, or files, that the same model made."""
    report = evaluate_pairs(pair_files(found, wanted), EvaluateOptions(structures=structures, surface=False))
    return float(np.mean([summary["dice_mean_all"] for summary in report.summary.values()]))
