"""``segtool export``."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from segtool.errors import MissingDependencyError, UsageError


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder that `segtool train` wrote, or its best.safetensors or last.ckpt; of folds, the folder above; "
            "or an .onnx file of any origin."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The .onnx file to write. [default: RUN/model.onnx]")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="Of the arithmetic in the file; it takes and gives fp32.")
    ] = "fp32",
    cases: Annotated[
        Path | None,
        typer.Option(help="Scans to compare original and export on; default the run's validation cases."),
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="Scans from which int8 takes its ranges; default those of the comparison.")
    ] = None,
    calibration: Annotated[
        Literal["entropy", "percentile", "minmax", "best"],
        typer.Option(help="How int8 takes its ranges; best tries all."),
    ] = "best",
    spec: Annotated[
        Path | None, typer.Option(help="TOML that describes an .onnx file without a spec: channels, labels, input.")
    ] = None,
    opset: Annotated[int | None, typer.Option(min=14, max=20, help="ONNX operator set. [default: 17]")] = None,
    static_shape: Annotated[
        bool, typer.Option("--static-shape", help="Fix the batch at 1 and the extent at the spec's.")
    ] = False,
    triton: Annotated[
        Path | None, typer.Option(help="Also add the model to this repository of NVIDIA's Triton server.")
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Also write metadata.json, as MONAI bundles have it, beside the model.")
    ] = False,
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
    tensorrt: Annotated[
        bool,
        typer.Option(
            "--tensorrt",
            help="Of an exported model.onnx: build this machine's TensorRT engine, and compare it. With --triton that "
            "is what is served.",
        ),
    ] = False,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="Of a model.onnx, with -o: add what its training scans, in this folder, are like. Predictions then "
            "name scans that are unlike them."
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a training run or any ONNX file into one .onnx file that carries its spec.

    Masks of the original and of the file are compared on real cases, label by label. The file is written where their
    Dice, over the pixels of all cases together, is 0.9999 or more in fp32, 0.999 in fp16, 0.99 in int8; in no case
    below 0.9999, 0.99, 0.9, unless it differs in no more than 1, 4, 4 pixels; and where the mean Dice to the references
    falls by 0.005 at most. Otherwise a line names the gate, the case and what to try.
    """
    try:
        from segtool_export.exporting import Conversion
        from segtool_export.finish import finish_run
        from segtool_export.folds import fold_runs
        from segtool_export.request import Request, fulfil
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"segtool", "segtool_train", "segtool_export"}:
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed, which export needs",
            "Install it with: pip install 'segtool[export]'",
        ) from error
    conversion = Conversion(precision, static_shape, calibrate, calibration)
    request = Request(run, output, cases, opset, spec, min_component_share, conversion, triton, bundle=bundle)
    if tensorrt:
        from segtool_export.tensorrt import build_engine

        if card or request != Request(run, cases=cases, triton=triton):
            raise UsageError(
                "--tensorrt builds an engine of an exported model into the cache",
                "Give the model, --cases and --triton alone.",
            )
        engine = build_engine(run, cases, lambda line: typer.echo(line, err=True), triton)
        typer.echo(json.dumps(engine.facts()) if json_output else engine.table())
        return
    if statistics is not None:
        from segtool_export.statistics import add_statistics

        if card or output is None or run.suffix != ".onnx" or request != Request(run, output):
            raise UsageError("--statistics adds to a model.onnx", "Give the model, the scans and -o FILE alone.")
        learnt = add_statistics(run, statistics, output, lambda line: typer.echo(line, err=True))
        typer.echo(learnt.model_dump_json() if json_output else f"done    {output}   {learnt.cases} cases")
        return
    if card:
        if folds := fold_runs(run):
            raise UsageError(f"--card is of one run, and {run} holds {len(folds)} folds", f"Give {folds[0]} and so on.")
        if request != Request(run) or run.is_file():
            raise UsageError("--card finishes a run's folder as training does", "Give the folder and --card alone.")
        facts = finish_run(run, learn=learn, log=lambda line: typer.echo(line, err=json_output))
        typer.echo(json.dumps(facts) if json_output else f"done    {run}")
        return
    answer = fulfil(request)
    typer.echo(json.dumps(answer.facts()) if json_output else answer.table())
