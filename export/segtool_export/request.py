"""What `segtool export` was asked for, and its answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtool.errors import UsageError
from segtool_export.bundle import write_metadata
from segtool_export.exporting import PLAIN, Conversion, Exported, export_run
from segtool_export.folds import ensemble_command, export_folds, export_home, fold_runs
from segtool_export.from_onnx import export_onnx
from segtool_export.parity import GATES
from segtool_export.proving import OnEngine, Tried
from segtool_export.triton import write_repository

OPSET = 17
"""Has all operators of our networks, and is what the oldest parser in use, that of TensorRT 8.5, reads."""


@dataclass(frozen=True)
class Request:
    """The options of the command.

    Args:
        path: A run, weights in it, folds, or an ONNX file.
        output: The file to write; None takes the run's folder.
        cases: Scans to compare on.
        opset: Operator set; None takes :data:`OPSET`.
        spec: TOML of a foreign file's spec.
        min_component_share: For the post-processing.
        conversion: Precision and shapes.
        triton: Repository to add the model to.
        bundle: Whether to write ``metadata.json``.
    """

    path: Path
    output: Path | None = None
    cases: Path | None = None
    opset: int | None = None
    spec: Path | None = None
    min_component_share: float | None = None
    conversion: Conversion = PLAIN
    triton: Path | None = None
    bundle: bool = False


@dataclass(frozen=True)
class Answer:
    """Every model that was written, and further lines."""

    models: list[Exported]
    folds: bool
    lines: list[str]

    def facts(self) -> Any:  # noqa: ANN401 - one table, or one a fold
        """For JSON."""
        facts = [_facts(one) for one in self.models]
        return facts if self.folds else facts[0]

    def table(self) -> str:
        """For people."""
        ensemble = [f"ensemble  {ensemble_command(self.models)}"] if self.folds else []
        *texts, last = map(_lines, self.models)
        # What lies where is the last thing said.
        return "\n".join(line for text in (*texts, [*last[:-1], *self.lines, last[-1]], ensemble) for line in text)


def fulfil(request: Request) -> Answer:
    """Export, and write what else was asked for.

    Raises:
        UserError: It cannot be done.
    """
    folds = fold_runs(request.path)
    if folds and request.output is not None:
        raise UsageError(
            f"--output {request.output}: {len(folds)} folds do not go into one file", "Leave --output out."
        )
    models = _models(request, folds)
    lines = []
    for exported in models:
        if request.bundle:
            lines.append(f"bundle  {write_metadata(exported.path)}")
        if request.triton is not None:
            lines.append(f"triton  {write_repository(exported.path, request.triton)}")
    return Answer(models, bool(folds), lines)


def _models(request: Request, folds: list[Path]) -> list[Exported]:
    share, conversion = request.min_component_share, request.conversion
    if request.path.suffix == ".onnx" and not request.path.is_dir():
        return [_of_onnx(request)]
    if request.spec is not None:
        raise UsageError(
            f"--spec {request.spec}: a run has its own spec", "Leave --spec out, or change the recipe's [spec]."
        )
    opset = request.opset or OPSET
    if folds:
        if request.triton is not None:
            raise UsageError("--triton takes one model", f"Export each fold by itself, such as {folds[0]}.")
        return export_folds(folds, request.cases, opset, share, conversion)
    if request.output is None:
        return [export_home(request.path, request.cases, opset, share, conversion)]
    return [export_run(request.path, request.output, request.cases, opset, share, conversion)]


def _of_onnx(request: Request) -> Exported:
    if request.output is None:
        raise UsageError(f"{request.path}: where the export goes is not said", "Name a file with -o.")
    if request.opset is not None:
        raise UsageError(
            f"--opset {request.opset}: an .onnx file keeps its operator set", "Leave --opset out, or export the run."
        )
    if request.output.resolve() == request.path.resolve():
        raise UsageError(f"--output {request.output}: is the file that is read", "Name another.")
    return export_onnx(
        request.path,
        request.output,
        request.spec,
        request.cases,
        request.min_component_share,
        request.conversion,
    )


def _facts(exported: Exported) -> dict[str, Any]:
    export = exported.spec.provenance["export"]
    return {
        "model": str(exported.path),
        "name": exported.spec.name,
        "size_bytes": exported.size_bytes,
        "sha256": exported.sha256,
        **{key: value for key, value in export.items() if key != "parity"},
        "notes": list(exported.notes),
        "tried": [
            {"name": one.candidate.name, "mask_dice_mean": one.parity.mean_dice, "passed": one.parity.failure() is None}
            for one in exported.tried
        ],
        "parity": exported.parity.to_provenance(),
    }


def _lines(exported: Exported) -> list[str]:
    parity, export = exported.parity, exported.spec.provenance["export"]
    words = [f"opset {export['opset']}", export["precision"]]
    words += [f"{export['kept_in_fp32']} in fp32"] if "kept_in_fp32" in export else []
    words += [f"calibrated by {export['calibration']}"] if "calibration" in export else []
    lines = [f"model   {exported.spec.name}   {'   '.join(words)}   {exported.size_bytes / 1e6:.2f} MB"]
    lines += [f"note    {note}" for note in exported.notes]
    if len(exported.tried) > 1:
        lines += [_tried_line(one, one.parity is parity) for one in exported.tried]
    lines += [
        f"parity  {parity.against} against {parity.engine} on {len(parity.cases)} samples",
        "                        worst        mean    together",
    ]
    for name, label in parity.by_label().items():
        what = "mask Dice" if len(parity.cases[0].labels) == 1 else f"Dice {name}"
        worst = f"   (worst: {parity.worst.case})" if label.worst == parity.worst.mask_dice else ""
        lines.append(f"        {what:12} {label.worst:8.6f}    {label.mean:8.6f}    {label.together:8.6f}{worst}")
    gate = GATES[parity.precision]
    lines.append(f"        {'gate':12} {gate.worst:8.6f}                {gate.together:8.6f}")
    lines.append(f"        logits diff  {parity.max_abs_diff:8.2g}    {parity.mean_abs_diff:8.2g}")
    for name, label in parity.by_label().items():
        if label.before is not None and label.after is not None:
            lines.append(
                f"        {name}: Dice to the reference {label.before:.4f} before, {label.after:.4f} after "
                f"({label.referenced} samples; may lose {gate.loss})"
            )
    lines += [_engine_line(one) for one in exported.also]
    return [*lines, f"done    {exported.path}"]


def _engine_line(one: OnEngine) -> str:
    lowest = min(label.together for label in one.parity.by_label().values())
    failure = one.parity.failure()
    outcome = "`segtool predict` takes it where it can" if failure is None else f"not taken unasked: {failure.reason}"
    return f"also    {one.parity.engine}: mask Dice {lowest:.6f} over all cases, {outcome}"


def _tried_line(tried: Tried, chosen: bool) -> str:
    failure = tried.parity.failure()
    outcome = "taken" if chosen else "passes" if failure is None else "fails"
    return f"tried   {tried.candidate.name}: mask Dice {tried.parity.mean_dice:.6f}, {outcome}"
