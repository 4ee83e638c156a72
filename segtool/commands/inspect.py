"""``segtool inspect``: what the tool sees in a folder of scans, or in a model file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segtool.commands.limit_option import HELP as LIMIT_HELP
from segtool.commands.limit_option import limits_of
from segtool.errors import CaseError, UsageError, printable

if TYPE_CHECKING:
    from segtool.case import CaseSource, Source
    from segtool.formats.base import Description
    from segtool.scan import Problem, ScanOptions, Unpacked
    from segtool.scan.judged import Study
    from segtool.scan.sets import Recognition
    from segtool.spec import ModelSpec

_PROBLEMS_FOUND = 1
_KINDS_SHOWN = 8


def inspect(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Folders and files of scans, or one model file.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Check the scans against this model: a file, or a bundled model's name."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="Look at one folder as a training set: auto, or a layout's name such as coco or brats."),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATTERN", help="As for predict: which files or series are a channel. Repeatable."),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Tell DICOM series apart by these rules (TOML) in place of the built-in ones."
        ),
    ] = None,
    identify: Annotated[
        bool, typer.Option("--identify", help="Show what DICOM headers say of patients, studies and series.")
    ] = False,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="As for predict: repair DICOM series where it can be done.")
    ] = False,
    limit: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=LIMIT_HELP)] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also follow links that leave the input folders.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the tool sees, and every problem with its remedy.

    Of scans: cases, channels, grids, spacing, orientation and the label values of references; of DICOM studies
    which series is which channel, and the evidence. Of a model file: its spec. Without --model only headers and
    references are read; with it every scan is, as for a prediction. With --layout: items, patients, folds and
    classes of a training set, and what is broken in it. The exit code is 1 where there are problems.
    """
    from segtool.bundled import find_model
    from segtool.commands.channel_option import channel_patterns
    from segtool.commands.inspect_set import describe_set, print_set, recognised, recognition_facts
    from segtool.commands.inspect_studies import study_facts
    from segtool.commands.model_facts import describe_model, model_text
    from segtool.commands.show import to_json
    from segtool.interruption import Interrupted, Interruption, signals_to
    from segtool.model_file import read_spec
    from segtool.scan import ScanOptions, unpacked

    files = [path for path in paths if path.suffix.lower() == ".onnx"]
    if files and len(paths) > 1:
        raise UsageError(f"{files[0]}: a model among {len(paths)} paths", "Give a model file alone.")
    if files:
        facts = describe_model(files[0])
        typer.echo(to_json(facts) if json else model_text(facts))
        return
    spec = None if model is None else read_spec(find_model(model))
    if layout is not None:
        facts = describe_set(paths, layout, spec)
        typer.echo(to_json(facts)) if json else print_set(facts)
        if facts["broken"]:
            raise typer.Exit(_PROBLEMS_FOUND)
        return
    options = ScanOptions(
        channels=channel_patterns(channel),
        rules=rules,
        identify=identify,
        lenient=lenient,
        limits=limits_of(limit),
        follow_links=follow_links,
    )
    try:
        # A process that a signal ends would leave what it has unpacked.
        with signals_to(Interruption()), unpacked(paths, options.limits) as folders:
            cases, problems, studies = look(folders, spec, options)
            seen_as = recognised(folders.inputs)
    except Interrupted as stop:
        raise typer.Exit(stop.exit_code) from None
    if json:
        layout_facts = recognition_facts(seen_as[0]) if len(seen_as) == 1 else None
        told = [_problem_facts(problem) for problem in problems]
        facts = {"cases": cases, "layout": layout_facts, "studies": study_facts(studies), "problems": told}
        typer.echo(to_json(facts))
    else:
        _print_cases(cases, problems, seen_as, studies)
    if problems:
        raise typer.Exit(_PROBLEMS_FOUND)


def look(
    folders: "Unpacked", spec: "ModelSpec | None", options: "ScanOptions"
) -> tuple[list[dict[str, Any]], list["Problem"], tuple["Study", ...]]:
    """The facts of every case below ``folders``, all problems, and what was made of DICOM studies.

    Raises:
        UsageError: Nothing there that segtool reads.
    """
    from segtool.scan import scan_unpacked
    from segtool.scan.cases import survey

    found = scan_unpacked(folders, spec, options, survey)
    problems = list(found.problems)
    facts = [_case_facts(source, spec, problems) for source in found.cases]
    # A broken file that holds image and reference is broken once.
    told = dict.fromkeys(problem.told(found.privacy.plain) for problem in problems)
    return facts, list(told), found.studies


def _case_facts(source: "CaseSource", spec: "ModelSpec | None", problems: list["Problem"]) -> dict[str, Any]:
    from segtool.formats import get_format
    from segtool.scan import Problem

    before = len(problems)
    described: dict[str, Description] = {}
    for name, image in source.channels.items():
        try:
            described[name] = get_format(image.format).describe(image)
        except CaseError as error:
            problems.append(Problem(source.name, error.problem, error.remedy))
    notes = list(source.notes)
    if source.first.format == "dicom":
        # Series of one study seldom share a grid; they share the patient's coordinates.
        notes += [f"{problem.problem}; `segtool predict` resamples it" for problem in _grid_problems("", described)]
    else:
        problems += _grid_problems(source.name, described)
    first = next(iter(described.values()), None)
    reference = _reference_facts(source.name, source.reference, first, problems)
    if spec is not None and len(problems) == before:
        stops, doubts = _trial_load(source, spec)
        problems += stops
        notes += doubts
    return {
        "name": source.name,
        "format": source.first.format,
        "channels": {name or "image": _image_facts(one) for name, one in described.items()},
        "reference": reference,
        "notes": notes,
    }


def _image_facts(one: "Description") -> dict[str, Any]:
    physical = one.geometry.is_physical
    return {
        "grid": one.geometry.describe(),
        "shape": list(one.geometry.shape),
        "spacing_mm": list(one.geometry.spacing_mm) if physical else None,
        "orientation": one.geometry.orientation if physical else None,
        "dtype": one.dtype,
        "channels": one.channels,
        "channel_names": list(one.channel_names),
        "details": list(one.details),
    }


def _grid_problems(case: str, described: dict[str, "Description"]) -> list["Problem"]:
    """Channels that do not lie on the grid of the first."""
    from segtool.scan import Problem

    grids = [(name, one.geometry) for name, one in described.items()]
    return [
        Problem(
            case,
            f"{name} lies on another grid ({grid.describe()}) than {grids[0][0]} ({grids[0][1].describe()})",
            "`segtool predict` resamples it onto the first, or refuses the case with --strict.",
        )
        for name, grid in grids[1:]
        if not grid.same_grid(grids[0][1])
    ]


def _trial_load(source: "CaseSource", spec: "ModelSpec") -> tuple[list["Problem"], list[str]]:
    """What stops `segtool predict` from reading the case for this model, and what it would warn of."""
    from segtool.loading import load_case
    from segtool.quality import Quality
    from segtool.scan import Problem

    try:
        case = load_case(source, spec)
    except CaseError as error:
        return [Problem(source.name, error.problem.removeprefix(f"case {source.name!r} "), error.remedy)], []
    return [], Quality(spec).of_scan(case).lines


def _reference_facts(
    case: str, reference: "Source | None", image: "Description | None", problems: list["Problem"]
) -> dict[str, Any] | None:
    """Label values of a reference, which is read; None where there is none."""
    import numpy as np

    from segtool.formats import is_placed, label_reader, read_labels_on
    from segtool.scan import Problem

    if reference is None:
        return None
    try:
        if image is not None:
            label_map = read_labels_on(reference, image.geometry)
        else:
            label_map = label_reader(reference.format).read_labels(reference)
    except CaseError as error:
        problems.append(Problem(case, error.problem, error.remedy))
        return None
    if label_map is None:
        return None
    is_elsewhere = image is not None and not label_map.geometry.same_grid(image.geometry)
    if image is not None and is_elsewhere and not is_placed(reference.format):
        problems.append(
            Problem(
                case,
                f"the reference lies on another grid ({label_map.geometry.describe()}) than the image "
                f"({image.geometry.describe()})",
                "Give the reference that was drawn on this image.",
            )
        )
    values, counts = np.unique(label_map.labels, return_counts=True)
    return {
        "format": reference.format,
        "grid": label_map.geometry.describe(),
        "voxels": {str(value): int(count) for value, count in zip(values, counts, strict=True)},
    }


def _problem_facts(problem: "Problem") -> dict[str, str]:
    return {"where": problem.where, "problem": problem.problem, "remedy": problem.remedy}


def _print_cases(
    cases: Sequence[dict[str, Any]],
    problems: Sequence["Problem"],
    seen_as: "Sequence[Recognition]",
    studies: Sequence["Study"],
) -> None:
    from segtool.commands.inspect_studies import study_lines
    from segtool.commands.show import print_columns

    rows = [("case", "format", "channel", "type", "grid", "reference")]
    for case in cases:
        cells, reference = [case["name"], case["format"]], _reference_text(case["reference"])
        for channel, image in case["channels"].items():
            name = " ".join(image["channel_names"]) or (
                channel if image["channels"] == 1 else f"{image['channels']} channels"
            )
            rows.append((*cells, name, image["dtype"], image["grid"], reference))
            # A case's name and reference stand in its first line only.
            cells, reference = ["", ""], ""
    print_columns(rows)
    for one in seen_as:
        typer.echo(f"layout  {one.layout} ({one.certainty}: {printable(one.reason)})")
    for line in _kinds(cases):
        typer.echo(f"kind    {line}")
    for line in study_lines(studies):
        typer.echo(line)
    for source in cases:
        for note in source["notes"]:
            typer.echo(f"note    {source['name']}: {note}")
    for problem in problems:
        typer.echo(f"problem {problem}")
    with_reference = sum(case["reference"] is not None for case in cases)
    typer.echo(
        f"seen    {_count(len(cases), 'case')}, {with_reference} with a reference, {_count(len(problems), 'problem')}"
    )


def _kinds(cases: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The kinds of images, the most frequent first: one folder of 2,000 slices is told in two lines."""
    counts = Counter(
        ", ".join([case["format"], *image["details"], image["dtype"], image["grid"]])
        for case in cases
        for image in case["channels"].values()
    )
    for kind, number in counts.most_common(_KINDS_SHOWN):
        yield f"{_count(number, 'image')}: {kind}"
    if len(counts) > _KINDS_SHOWN:
        yield f"and {len(counts) - _KINDS_SHOWN} more"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _reference_text(reference: dict[str, Any] | None) -> str:
    return "-" if reference is None else f"labels {' '.join(reference['voxels'])}"
