"""A benchmark as a table, as JSON and as a picture."""

import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segtool.atomic import atomic_path
from segtool.bench.run import Bench, Measured
from segtool.errors import MissingDependencyError, UsageError
from segtool.machine import cores, processor, version_of
from segtool.version import __version__

Cells = tuple[str, ...]

_HEADING = (
    "model",
    "engine",
    "precision",
    "batch",
    "load s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "a second",
    "of fp32 matmul",
)
_CASES = ("s a case", "peak MB", "Dice to fp32", "Dice")
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch", "numpy")


def table(bench: Bench) -> list[Cells]:
    """Heading and rows; columns that no row has anything for are left out."""
    heading = (*_HEADING, *_CASES)
    rows = [_cells(one, bench.limit_gflops) for one in bench.rows]
    kept = [index for index in range(len(heading)) if any(row[index] for row in rows)]
    return [tuple(heading[index] for index in kept), *(tuple(row[index] for index in kept) for row in rows)]


def _cells(one: Measured, limit_gflops: float) -> Cells:
    engine = one.engine.get("engine", one.row.peer or one.row.device)
    start = (one.row.model.stem, engine, str(one.engine.get("precision", one.row.precision)), str(one.row.batch))
    if one.timing is None:
        return (*start, *("",) * (len(_HEADING) + len(_CASES) - len(start)))
    times = one.timing.as_dict()
    limit = "" if one.gflops is None else f"{one.gflops / limit_gflops:.0%}"
    return (
        *start,
        f"{one.engine['load_s']:.2f}",
        *(f"{times[f'p{share}_ms']:.1f}" for share in (50, 90, 99)),
        _number(one.throughput, ".3g"),
        # The limit is the processor's.
        limit if one.engine["device"] == "cpu" else "",
        _number(one.case_s, ".3g"),
        _number(one.peak_mb, ".0f"),
        _number(one.dice_to_first, ".4f"),
        _number(one.reference_dice, ".3f"),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def machine() -> dict[str, Any]:
    """Processor, cores, system and versions, nothing that names the machine."""
    return {
        "processor": processor()[0],
        "cores": cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "segtool": __version__,
        "versions": {name: found for name in _PACKAGES if (found := version_of(name)) is not None},
    }


def as_dict(bench: Bench) -> dict[str, Any]:
    """For JSON; file names of models without their folders."""
    return {
        "machine": machine(),
        "fp32_limit_gflops": bench.limit_gflops,
        "rows": [
            {
                "model": one.row.model.name,
                "batch": one.row.batch,
                "threads": one.row.threads,
                "peer": one.row.peer,
                "asked": {"device": one.row.device, "precision": one.row.precision},
                "engine": one.engine or None,
                "latency": None if one.timing is None else one.timing.as_dict(),
                "throughput_per_s": one.throughput,
                "gflop": one.gflop,
                "gflops": one.gflops,
                "engine_peak_mb": one.engine_mb,
                "case_s": one.case_s,
                "case_runs": one.runs,
                "peak_mb": one.peak_mb,
                "dice_to_fp32": one.dice_to_first,
                "dice_to_reference": one.reference_dice,
                "error": one.error,
            }
            for one in bench.rows
        ],
        "notes": bench.notes,
    }


def check_plot(path: Path) -> None:
    """Before minutes are spent on what is to be drawn.

    Raises:
        UsageError: Not the name of a PNG.
        MissingDependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot {path}: not a .png file", "Name one, such as --plot rows.png.")
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "--plot: matplotlib is not installed, which draws the picture", "Install it with: pip install matplotlib"
        )


def plot(bench: Bench, path: Path) -> None:
    """Write a PNG: a bar of slices or windows a second for every row.

    Raises:
        OutputError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [one for one in bench.rows if one.throughput is not None]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [" ".join(_cells(one, bench.limit_gflops)[:3]) + f" x{one.row.batch}" for one in rows]
    bars = axes.barh(names, [one.throughput or 0.0 for one in rows])
    axes.bar_label(bars, [_number(one.throughput, ".3g") for one in rows], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("slices or windows a second")
    here = machine()
    axes.set_title(f"segtool {here['segtool']}, {here['cores']} cores of {here['processor']}", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
