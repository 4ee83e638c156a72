"""``segtool export``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segtool.errors import MissingDependencyError

if TYPE_CHECKING:
    from segtool_export.exporting import Exported


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `segtool train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
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
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a training run into one .onnx file that carries its spec.

    Refused where its masks differ from those of the trained network.
    """
    try:
        from segtool_export.exporting import export_run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"segtool", "segtool_train", "segtool_export"}:
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed, which export needs",
            "Install it with: pip install 'segtool[export]'",
        ) from error
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
