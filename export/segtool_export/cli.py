"""``segtool export``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segtool.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from segtool_export.exporting import Exported


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder that `segtool train` wrote, or its best.safetensors or last.ckpt; of folds, the folder above."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The .onnx file to write. [default: RUN/model.onnx]")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(help="Scans to compare torch and ONNX on; default the run's validation cases."),
    ] = None,
    opset: Annotated[int, typer.Option(min=14, max=20, help="ONNX operator set.")] = 17,
    min_component_share: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Write into the spec: drop components below this share of a label's largest one."
        ),
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Also measure it on the run's test cases and write RUN/card.md, as training ends."),
    ] = False,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="With --card: choose post-processing on the validation cases.")
    ] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a training run into one .onnx file that carries its spec.

    Refused where its masks differ from those of the trained network.
    """
    try:
        from segtool_export.exporting import export_run
        from segtool_export.finish import export_into_run, finish_run
        from segtool_export.folds import ensemble_command, export_folds, fold_runs
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"segtool", "segtool_train", "segtool_export"}:
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed, which export needs",
            "Install it with: pip install 'segtool[export]'",
        ) from error
    folds = fold_runs(run)
    if card:
        if output or cases or min_component_share is not None or folds or run.is_file():
            raise UsageError("--card finishes a run's folder as training does", "Give the folder and --card alone.")
        facts = finish_run(run, learn=learn, log=lambda line: typer.echo(line, err=json_output))
        typer.echo(json.dumps(facts) if json_output else f"done    {run}")
    elif folds:
        if output is not None:
            raise UsageError(f"--output {output}: {len(folds)} folds do not go into one file", "Leave --output out.")
        models = export_folds(folds, cases, opset, min_component_share)
        if json_output:
            typer.echo(json.dumps([_facts(one) for one in models]))
        else:
            typer.echo("\n".join([*map(_table, models), f"ensemble  {ensemble_command(models)}"]))
    else:
        if output is None:
            exported = export_into_run(run, cases, opset, min_component_share)
        else:
            exported = export_run(run, output, cases, opset, min_component_share)
        typer.echo(json.dumps(_facts(exported)) if json_output else _table(exported))


def _facts(exported: "Exported") -> dict[str, Any]:
    return {
        "model": str(exported.path),
        "name": exported.spec.name,
        "size_bytes": exported.size_bytes,
        "sha256": exported.sha256,
        "opset": exported.spec.provenance["export"]["opset"],
        "parity": exported.parity.to_provenance(),
    }


def _table(exported: "Exported") -> str:
    parity = exported.parity
    worst = parity.worst
    opset = exported.spec.provenance["export"]["opset"]
    return "\n".join(
        (
            f"model   {exported.spec.name}   opset {opset}   {exported.size_bytes / 1e6:.2f} MB",
            f"parity  torch fp32 against {parity.engine} on {len(parity.cases)} samples",
            "                        worst        mean",
            f"        mask Dice    {worst.mask_dice:8.6f}    {parity.mean_dice:8.6f}   (worst: {worst.case})",
            f"        logits diff  {parity.max_abs_diff:8.2g}    {parity.mean_abs_diff:8.2g}",
            f"done    {exported.path}",
        )
    )
