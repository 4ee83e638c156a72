"""``segtool demo``: generated scans, segmented by the bundled model as ``segtool predict`` would."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from segtool.errors import UsageError

_NOTE = "README.txt"
_SIGNATURE = "Written by `segtool demo`."
_TEXT = f"""{_SIGNATURE}

scans/    Made-up heads with a ring-enhancing lesion as PNG, NIfTI, HDF5 and DICOM, references beside them.
          Drawn from a random seed; no scan of a person is in here.
results/  What the model answers: label maps, overlays (reference green, prediction red), reports.
"""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")] = Path("segtool-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Draws other heads.")] = 0,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A model file, or a bundled model's name. [default: the bundled one]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Segment generated scans and compare with their references.

    Writes made-up heads with a ring-enhancing lesion as PNG, NIfTI, HDF5 and DICOM, then runs
    `segtool predict` on the folder. Nothing is downloaded.
    """
    from segtool.bundled import default_model, find_model
    from segtool.commands.predict import run_predict
    from segtool.demo_folder import write_demo_folder
    from segtool.output_folder import check_writable
    from segtool.pipeline import PredictOptions

    check_own_folder(output)
    file = default_model() if model is None else find_model(model)
    check_writable(output)
    (output / _NOTE).write_text(_TEXT, encoding="utf-8")
    scans, results = output / "scans", output / "results"
    if sys.stderr.isatty():
        typer.echo(f"writing {scans}", err=True)
    write_demo_folder(scans, seed)
    report = run_predict([scans], PredictOptions(model=file, output=results, overlay=True), as_json=json)
    if not json:
        for case in report.cases:
            for structure, scores in case.scores.items():
                typer.echo(f"        {case.name:<14} {structure}  Dice {scores.dice:.3f}  IoU {scores.iou:.3f}")
        typer.echo(f"look    {results / 'overlays'}   reference green, prediction red")
        typer.echo("next    segtool predict FOLDER_OF_YOUR_SCANS --overlay")
    if report.failures:
        raise typer.Exit(1)


def check_own_folder(folder: Path) -> None:
    """Let only a new folder, an empty one or an earlier demo's be written into.

    Raises:
        UsageError: The folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    note = folder / _NOTE
    if not (note.is_file() and note.read_text(encoding="utf-8", errors="replace").startswith(_SIGNATURE)):
        raise UsageError(
            f"{folder}: exists, and `segtool demo` did not write it", "Choose another folder with --output."
        )
