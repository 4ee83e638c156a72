"""``segtool evaluate``: label maps made by anyone, compared with references."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segtool.commands.limit_option import HELP as LIMIT_HELP
from segtool.commands.limit_option import limits_of
from segtool.errors import UsageError, printable
from segtool.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from rich.console import Console

    from segtool.evaluation import EvaluateOptions
    from segtool.report import CaseResult, Report, Structure
    from segtool.spec import ModelSpec

_FAILURES_SHOWN = 20


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of label maps (or one file), made by any tool.")],
    references: Annotated[Path, typer.Argument(help="Folder of references of the same names (or one file).")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for report.json and report.csv. [default: none]"),
    ] = None,
    label_map: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM=TO", help="Read value FROM of the predictions as TO, such as 4=3. Repeatable."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUES", help="Score these values as one structure: WT=1,2,4. Repeatable."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Score the labels and regions of this model.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse predictions that do not lie on the reference's grid.")
    ] = False,
    soft_metrics: Annotated[
        bool,
        typer.Option("--soft-metrics", help="Also score the probability maps beside the predictions; needs --model."),
    ] = False,
    patients: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Columns case,patient: confidence intervals then draw whole patients."),
    ] = None,
    limit: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=LIMIT_HELP)] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also follow links that leave the input folders.")
    ] = False,
    no_surface: Annotated[
        bool, typer.Option("--no-surface", help="Skip the distances between surfaces, which take most time.")
    ] = False,
) -> None:
    """Compare label maps with references.

    Gives Dice, IoU, precision, recall, F1, specificity, HD95, normalised surface distance at 1 and 2 mm and
    the difference of volumes by case and structure; and their means with 95 % bootstrap confidence intervals.
    Without --labels or --model every label value is a structure, or all of them are "foreground" where
    predictions and references know but one value each.
    """
    from segtool.evaluation import EvaluateOptions
    from segtool.patients import read_patients

    options = EvaluateOptions(
        structures=_structures(labels or (), model),
        label_map=_value_map(label_map or ()),
        surface=not no_surface,
        strict=strict,
        patients={} if patients is None else read_patients(patients),
        soft=_model_of_probabilities(model, labels) if soft_metrics else None,
    )
    report = run_evaluate(
        predictions,
        references,
        options,
        output=output,
        as_json=json,
        follow_links=follow_links,
        limits=limits_of(limit),
    )
    if report.failures:
        raise typer.Exit(1)


def _structures(labels: Sequence[str], model: str | None) -> "tuple[Structure, ...] | None":
    from segtool.report import Structure, structures_of

    if labels and model:
        raise UsageError("--labels and --model both say what to score", "Give one of them.")
    if model:
        from segtool.bundled import find_model
        from segtool.model_file import read_spec

        return structures_of(read_spec(find_model(model)))
    found = {}
    for text in labels:
        name, _, values = text.partition("=")
        parts = values.split(",")
        if not name or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise UsageError(f"--labels {text}: wanted NAME=VALUES", "For instance: --labels WT=1,2,4")
        if name in found:
            raise UsageError(f"--labels {text}: {name!r} is given twice", f"Give all its values at once: {name}=1,2")
        both = tuple(int(part) for part in parts)
        found[name] = Structure(name, both, both)
    return tuple(found.values()) or None


def _model_of_probabilities(model: str | None, labels: Sequence[str] | None) -> "ModelSpec":
    if not model or labels:
        raise UsageError("--soft-metrics: which labels the probabilities mean is not said", "Give --model MODEL.")
    from segtool.bundled import find_model
    from segtool.model_file import read_spec

    return read_spec(find_model(model))


def _value_map(texts: Sequence[str]) -> dict[int, int]:
    values: dict[int, int] = {}
    for text in texts:
        old, _, new = text.partition("=")
        if not (old.strip().isdecimal() and new.strip().isdecimal()):
            raise UsageError(f"--label-map {text}: wanted FROM=TO", "For instance: --label-map 4=3")
        if int(old) in values:
            raise UsageError(f"--label-map {text}: value {old} is given twice", "Give each value once.")
        values[int(old)] = int(new)
    return values


def run_evaluate(
    predictions: Path,
    references: Path,
    options: "EvaluateOptions",
    *,
    output: Path | None = None,
    as_json: bool = False,
    follow_links: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> "Report":
    """Evaluate and show it: progress on stderr where it is a terminal, results on stdout.

    The first SIGINT or SIGTERM lets the pairs in hand be scored; a second one stops at once.

    Raises:
        UsageError: Nothing to compare.
        OutputError: The report cannot be written.
        Exit: Interrupted, after everything that is there has been shown.
    """
    from rich.console import Console

    from segtool.evaluation import EvaluateProgress, evaluate_pairs
    from segtool.interruption import Interrupted, Interruption, signals_to
    from segtool.output_folder import check_writable
    from segtool.pairing import pair_files

    out = Console(highlight=False, soft_wrap=True)
    failed: list[CaseResult] = []

    def say(text: str) -> None:
        if not as_json:
            out.print(printable(text), markup=False)

    def on_case(result: "CaseResult") -> None:
        if result.status == "failed":
            failed.append(result)
            if len(failed) <= _FAILURES_SHOWN:
                say(f"failed  {result.name}: {result.error}")

    pairing = pair_files(predictions, references, follow_links, limits)
    if output is not None:
        check_writable(output)
    pairs = sum(pair.prediction is not None for pair in pairing.pairs)
    say(f"pairs   {pairs} of {len(pairing.pairs)} references")
    for remark in pairing.remarks:
        say(f"note    {remark}")
    interruption = Interruption()
    try:
        with signals_to(interruption):
            report = evaluate_pairs(pairing, options, EvaluateProgress(on_case, _track), interruption)
            if output is not None:
                report.write_json(output / "report.json")
                report.write_csv(output / "report.csv")
    except Interrupted as stop:
        raise typer.Exit(stop.exit_code) from None
    if as_json:
        typer.echo(report.to_json())
    else:
        _show(report, failed, say, out, output)
    if interruption.exit_code is not None:
        raise typer.Exit(interruption.exit_code)
    return report


def _show(
    report: "Report", failed: "Sequence[CaseResult]", say: Callable[[str], None], out: "Console", output: Path | None
) -> None:
    from segtool.commands.show import case_notes

    if len(failed) > _FAILURES_SHOWN:
        say(f"failed  and {len(failed) - _FAILURES_SHOWN} more; the report has them all (--output, --json)")
    for note in case_notes(report):
        say(f"note    {note}")
    report.print_table(out)
    counts = report.counts
    where = "" if output is None else f"   {output / 'report.json'}"
    say(f"done    {counts['done']} of {counts['cases'] + report.left} in {report.elapsed_s:.1f} s{where}")


def _track(results: Iterator[Any], what: str, total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import track

    return iter(
        track(
            results,
            what,
            total=total,
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
    )
