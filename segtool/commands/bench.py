"""``segtool bench``: a model on every engine that is here."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from segtool.errors import UsageError, printable

if TYPE_CHECKING:
    from segtool.bench.run import Bench


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A model file, or a name from `segtool models`. Repeatable. [default: the bundled one]",
        ),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Engines: cpu, openvino, cuda, tensorrt. [default: all that are here]")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16, bf16 or int8. Repeatable. [default: all that an engine has for the file]"),
    ] = None,
    batch: Annotated[
        list[str] | None, typer.Option(help="Slices or windows a call, such as 1,8. [default: 1,8; in 3D 1]")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Folder of scans to segment whole. [default: those of `segtool demo`]")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of its references, where they lie elsewhere.")] = None,
    no_cases: Annotated[bool, typer.Option("--no-cases", help="Time the engines alone.")] = False,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Also run the network in other tools: torch, torch-amp; monai, monai-amp and nnunet with whole cases, "
            "too. The model lies in its run."
        ),
    ] = None,
    duration: Annotated[float, typer.Option(min=0.0, help="Seconds for which a row's calls are timed at least.")] = 3.0,
    calls: Annotated[int, typer.Option(min=3, help="Calls that are timed at least.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="How often the rows take turns.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a call. [default: one a core]")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the rows.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a model on every engine, precision and batch that run here, and compare their masks.

    A call is timed from the input in memory to the logits in memory, after 0.2 s of warm-up, for at least 3 s and
    10 calls, as trtexec does; reading and preparing images is in `s a case`, from the first byte read to the last
    written, in which segtool also loads the model. Each row has a process of its own; the rows take turns.
    """
    from segtool.backends.base import Precision
    from segtool.bench.rows import engines_here, parse_batches, parse_devices, peer_rows, plan
    from segtool.bench.run import BenchOptions
    from segtool.bench.run import bench as measure
    from segtool.bench.table import as_dict
    from segtool.bench.table import plot as draw
    from segtool.bundled import default_model, find_model
    from segtool.commands.show import to_json
    from segtool.demo_folder import write_demo_folder

    _check(precision or (), cases, masks, plot)
    here, missing = engines_here()
    wanted = parse_devices(device or ())
    models = [find_model(one) for one in model or ()] or [default_model()]
    batches = parse_batches(batch or ())
    rows = plan(models, wanted or here, cast("list[Precision]", precision or []), batches, threads)
    rows += peer_rows(models, compare or (), wanted or here, batches, threads)
    if not rows:
        raise UsageError(
            f"nothing to time: {'; '.join(missing) or 'no engine has a precision for these files'}",
            "Install an engine with: pip install 'segtool[cpu]', or name a --precision.",
        )
    with tempfile.TemporaryDirectory(prefix="segtool-bench-") as name:
        if cases is None and not no_cases:
            cases = Path(name) / "scans"
            write_demo_folder(cases)
        options = BenchOptions(duration, calls, rounds, None if no_cases else cases, masks, rounds)
        found = measure(rows, options, _step)
    if sys.stderr.isatty():
        typer.echo("\r\x1b[K", err=True, nl=False)
    if json:
        typer.echo(to_json(as_dict(found)))
    else:
        _print(found, () if wanted else missing)
    if plot is not None:
        draw(found, plot)
        if not json:
            typer.echo(f"plot    {plot}")
    for one in found.failures:
        where = f"{one.row.model.stem} on {one.row.peer or one.row.device}"
        typer.echo(f"failed  {printable(f'{where}: {one.error}')}", err=True)
    if found.failures:
        raise typer.Exit(1)


def _check(precisions: Sequence[str], cases: Path | None, masks: Path | None, plot: Path | None) -> None:
    """What cannot work is said before minutes are spent."""
    from segtool.backends import PRECISIONS
    from segtool.bench.table import check_plot

    for word in precisions:
        if word not in PRECISIONS:
            raise UsageError(f"--precision {word}: not a precision", f"Choose some of: {', '.join(PRECISIONS)}.")
    for folder, flag in ((cases, "--cases"), (masks, "--masks")):
        if folder is not None and not folder.exists():
            raise UsageError(f"{flag} {folder}: no such folder", "Check the path.")
    if plot is not None:
        check_plot(plot)


def _print(found: "Bench", missing: Sequence[str]) -> None:
    """Machine, rows, and what to know of them."""
    from segtool.bench.table import table
    from segtool.commands.show import print_columns

    _print_head(found)
    print_columns(table(found))
    for line in missing:
        typer.echo(f"lacks   {printable(line)}")
    for line in found.notes:
        typer.echo(f"note    {printable(line)}")


def _step(line: str) -> None:
    """What is being done, on one line of a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{printable(line)}", err=True, nl=False)


def _print_head(found: "Bench") -> None:
    from segtool.bench.table import machine

    here = machine()
    versions = "  ".join(f"{name} {version}" for name, version in here["versions"].items())
    typer.echo(f"machine {here['cores']} cores of {here['processor']}, {here['system']}, Python {here['python']}")
    typer.echo(f"tools   segtool {here['segtool']}  {versions}")
    typer.echo(f"matmul  {found.limit_gflops:.0f} GFLOP/s in fp32, of a large matrix product in numpy")
