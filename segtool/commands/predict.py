"""``segtool predict``: a folder of scans in, label maps and a report out."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from segtool.commands.channel_option import channel_patterns
from segtool.commands.limit_option import HELP as LIMIT_HELP
from segtool.commands.limit_option import limits_of
from segtool.errors import UsageError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from segtool.backends.base import Backend
    from segtool.ensemble import Ensemble
    from segtool.pipeline import PredictOptions
    from segtool.report import CaseResult, Report
    from segtool.scan import Scan


def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Folders (searched recursively) and files.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A model file, or a name from `segtool models`. [default: the bundled one] "
            "Repeatable: the probabilities of several models are averaged.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path("segtool-output"),
    masks: Annotated[
        Path | None, typer.Option(help="Folder of references, where they do not lie beside the scans.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATTERN", help="Which files are a channel, such as t1ce=*_gd.nii.gz. Repeatable."),
    ] = None,
    image_dataset: Annotated[str | None, typer.Option(help="HDF5 dataset of the images.")] = None,
    mask_dataset: Annotated[str | None, typer.Option(help="HDF5 dataset of the references.")] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write pictures: reference green, prediction red.")
    ] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write probability maps.")
    ] = False,
    soft_metrics: Annotated[
        bool, typer.Option("--soft-metrics", help="Also score the probabilities themselves against references.")
    ] = False,
    patients: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Columns case,patient: confidence intervals then draw whole patients."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which a voxel is labelled. [default: the model's]")
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(
            metavar="none|flips|AXES",
            help="Average over flips of the input, such as horizontal,vertical. [default: the model's]",
        ),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="KIND",
            help="same (the scan's own kind, NIfTI for DICOM), nifti, png, hdf5, dicom-seg, dicom-labelmap, rtstruct "
            "or dicom-sr. Repeatable, or separated by commas. [default: same]",
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="How the sequences of a DICOM study are told apart, in place of ours."),
    ] = None,
    identify: Annotated[
        bool,
        typer.Option("--identify", help="Let names and messages show what DICOM headers say of patient and study."),
    ] = False,
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Leave the patient blank in DICOM results, which otherwise carry it.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Skip the model's post-processing: keep every component.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--continue", help="Keep the cases that an earlier run finished, unless their files have changed since."
        ),
    ] = False,
    num_parts: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Do every N-th case alone, for runs that share no file locks. "
            "Processes on one output folder share the work by themselves.",
        ),
    ] = 1,
    part_id: Annotated[
        int, typer.Option(metavar="ID", help="Which of the N parts, from 0. [default: 0]", show_default=False)
    ] = 0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse cases on differing grids or with channels without names."),
    ] = False,
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient", help="Repair DICOM series with missing, doubled or tilted slices, and say so, where it can be."
        ),
    ] = False,
    limit: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=LIMIT_HELP)] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also follow links that leave the input folders.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda, tensorrt or openvino (a CPU). What is asked for is used, or an error."),
    ] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, bf16 or int8: bf16 is OpenVINO's, others must be the model file's. "
            "[default: the file's, or bf16 where its export proved that masks stay]"
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Slices or windows the network takes at once. [default: 2 slices on a CPU, 8 on a GPU; 1 window]",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the engine. [default: one a core]")] = None,
    case_timeout: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="A case that is not read by then has failed; the others go on. 0 for no end."
        ),
    ] = 600.0,
    review_worst: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also list the N cases to look at first, and why.")
    ] = 0,
    require_signature: Annotated[
        Path | None,
        typer.Option(metavar="PUBLIC.pem", help="Refuse models not signed with this key, before reading them."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also print where the time went.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Segment scans: PNG, JPEG, TIFF, NIfTI, HDF5, MATLAB v7.3 and DICOM.

    Each label map is written in the kind of file, on the grid and with the affine of its scan. Where references
    are found, the report has Dice, IoU, precision, recall and volume by case, label and region.
    """
    from segtool.backends import DEVICES, PRECISIONS, Device
    from segtool.backends.base import Precision
    from segtool.bundled import find_model
    from segtool.patients import read_patients
    from segtool.pipeline import PredictOptions
    from segtool.predict_options import SAME
    from segtool.scan import ScanOptions

    if strict and lenient:
        raise UsageError("--strict and --lenient contradict each other", "Give one of them.")
    if device not in DEVICES:
        raise UsageError(f"--device {device}: not a device", f"Choose one of: {', '.join(DEVICES)}.")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: not a precision", f"Choose one of: {', '.join(PRECISIONS)}.")
    options = PredictOptions(
        model=[find_model(one) for one in model or ()] or None,
        output=output,
        scan=ScanOptions(
            masks=masks,
            channels=channel_patterns(channel),
            image_dataset=image_dataset,
            mask_dataset=mask_dataset,
            rules=rules,
            lenient=lenient,
            identify=identify,
            follow_links=follow_links,
            limits=limits_of(limit),
        ),
        threshold=threshold,
        tta=tta,
        device=cast("Device", device),
        precision=cast("Precision | None", precision),
        batch=batch,
        threads=threads,
        overlay=overlay,
        save_probabilities=save_probabilities,
        soft_metrics=soft_metrics,
        patients={} if patients is None else read_patients(patients),
        raw=raw,
        resume=resume,
        strict=strict,
        formats=_kinds(kinds or ()) or (SAME,),
        anonymise=anonymise,
        review_worst=review_worst,
        part=(part_id, num_parts),
        case_timeout_s=case_timeout or None,
        require_signature=require_signature,
    )
    report = run_predict(inputs, options, as_json=json, profile=profile)
    if report.failures:
        raise typer.Exit(1)


def _kinds(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))


def run_predict(
    inputs: Sequence[Path], options: "PredictOptions", as_json: bool = False, profile: bool = False
) -> "Report":
    """Run a prediction and show it: progress on stderr where it is a terminal, results on stdout.

    ``profile`` adds where the time went; the JSON report has that always.

    The first SIGINT or SIGTERM lets the cases in hand be finished; a second one stops at once.

    Raises:
        UserError: As :func:`segtool.pipeline.predict_folder`.
        Exit: Interrupted, after everything that is there has been shown.
    """
    from rich.console import Console

    from segtool.interruption import Interrupted, Interruption, signals_to
    from segtool.pipeline import predict_folder

    out = Console(highlight=False, soft_wrap=True)
    view = _View(out, quiet=as_json)
    interruption = Interruption()
    try:
        with signals_to(interruption):
            with view:
                report = predict_folder(inputs, options, view.progress, interruption)
            _show(report, view, out, options, as_json=as_json, profile=profile)
    except Interrupted as stop:
        if options.report.exists():
            typer.echo(_LEFT.format(options.output), err=True)
        raise typer.Exit(stop.exit_code) from None
    if interruption.exit_code is not None:
        if report.left:
            typer.echo(_LEFT.format(options.output), err=True)
        raise typer.Exit(interruption.exit_code)
    return report


_LEFT = "Finished cases stay in {}; --continue does the others."


def _show(
    report: "Report", view: "_View", out: "Console", options: "PredictOptions", *, as_json: bool, profile: bool
) -> None:
    from segtool.commands.show import case_notes, case_warnings

    if as_json:
        typer.echo(report.to_json())
        return
    for line in case_notes(report):
        view.say(f"note    {line}")
    for line in case_warnings(report):
        view.say(f"warning {line}")
    report.print_table(out)
    for place, one in enumerate(report.review, start=1):
        view.say(f"review  {place}. {one['name']}: {one['reason']}")
    if profile:
        for line in profile_lines(report):
            view.say(line)
    counts = report.counts
    finished = counts["done"]
    here = finished - report.elsewhere
    rate = f" ({report.elapsed_s / here:.3g} s a case)" if here > 0 else ""
    skipped = f", {counts['skipped']} kept from before" if counts["skipped"] else ""
    others = (
        f", {counts['cases'] - report.elsewhere} here and {report.elsewhere} by other processes"
        if report.elsewhere
        else ""
    )
    view.say(
        f"done    {finished} of {counts['cases'] + report.left} in {report.elapsed_s:.1f} s"
        f"{rate}{skipped}{others}   {options.report}"
    )


def profile_lines(report: "Report") -> Iterator[str]:
    """Where a run's time went: before the first case, by stage, and how much of it lay behind other work."""
    for what, seconds in report.setup_seconds.items():
        yield f"time    {what:<12} {seconds:8.2f} s   before the cases"
    spent = sum(report.stage_seconds.values())
    for what, seconds in report.stage_seconds.items():
        yield f"time    {what:<12} {seconds:8.2f} s   {seconds / spent:4.0%} of the work on cases"
    elapsed = report.elapsed_s - sum(report.setup_seconds.values())
    if spent > elapsed > 0:
        yield f"time    {'in parallel':<12} {spent - elapsed:8.2f} s   of {spent:.2f} s lay behind other work"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class _View:
    """What a person sees while the run goes on."""

    def __init__(self, out: "Console", quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from segtool import pipeline

        self._out, self._quiet = out, quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("segment", total=None, rate="")
        self.progress = pipeline.Progress(
            self._start, self._case, on_wait=self._wait, on_elsewhere=lambda _result: self._bar.advance(self._task)
        )

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line on stdout, unless JSON goes there."""
        if not self._quiet:
            self._out.print(printable(text), markup=False)

    def _start(self, models: "Ensemble", backend: "Backend", scan: "Scan") -> None:
        channels = " ".join(models.spec.channel_names)
        labels = " ".join(label.name for label in models.spec.labels)
        names = " + ".join(member.spec.name for member in models.members)
        self.say(
            f"model   {names}  {channels} -> {labels}   "
            f"{backend.name} {backend.version} {backend.device} {backend.precision}"
            + (f" ({backend.why})" if backend.why else "")
        )
        for flips in dict.fromkeys(models.flips.values()):
            self.say(f"flips   {' '.join(flips)}: the mean of {2 ** len(flips)} passes a model")
        for note in (*models.notes, *([backend.note] if backend.note else [])):
            self.say(f"note    {note}")
        kinds: dict[str, int] = {}
        for case in scan.cases:
            kinds[case.first.format] = kinds.get(case.first.format, 0) + 1
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lost = sum(problem.loses_case for problem in scan.problems)
        problems = f", {_count(lost, 'problem')}" if lost else ""
        self.say(f"scan    {_count(len(scan.cases), 'case')} ({text}){problems}")
        for problem in scan.problems:
            self.say(f"{'failed' if problem.loses_case else 'note  '}  {problem}")
        self._bar.update(self._task, total=len(scan.cases))

    def _wait(self, line: str) -> None:
        typer.echo(printable(line), err=True)

    def _case(self, result: "CaseResult") -> None:
        if result.status == "failed":
            reason = (result.error or "").removeprefix(f"case {result.name!r}").lstrip(": ")
            self.say(f"failed  {result.name}: {reason}")
        self._bar.advance(self._task)
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, rate=f"{speed:.1f} cases/s" if speed else "")
