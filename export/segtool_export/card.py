"""A model's card as Markdown. Every figure comes from the model file and from measured results."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segtool.model_file import sha256
from segtool.spec import LabelRules, ModelSpec
from segtool_export.summary import mean_and_interval

NOT_A_DEVICE = "**Not a medical device.** For research; a person who can judge the scans must look at every result."
NOT_STATED = "not stated"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """Rounded; a dash where it is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(value: float | None, interval: Sequence[float] | None, digits: int = 3) -> str:
    """Such as ``0.834 (0.812 to 0.853)``."""
    if value is None or interval is None:
        return number(value, digits)
    return f"{number(value, digits)} ({number(interval[0], digits)} to {number(interval[1], digits)})"


def mean_of(summary: Mapping[str, Any], measure: str, digits: int = 3, *, interval: bool = False) -> str:
    """Mean of a measure in :func:`segtool_export.summary.summarise_rows`, a dash where there is none."""
    mean, ends = mean_and_interval(summary, measure)
    return with_interval(mean, ends, digits) if interval else number(mean, digits)


def facts(model: Path, spec: ModelSpec, network: str) -> str:
    """What the file is, as a table: name, checksum, input, output, post-processing, network, licence."""
    rows = [
        ("file", f"`{model.name}`, {_size(model.stat().st_size)}"),
        ("sha256", f"`{sha256(model)}`"),
        ("version", spec.version),
        ("input", _input(spec)),
        ("output", ", ".join(f"{label.value} = {label.name}" for label in spec.labels)),
    ]
    if spec.regions:
        regions = (f"{name} = {' + '.join(str(v) for v in values)}" for name, values in spec.regions.items())
        rows.append(("regions", ", ".join(regions)))
    rows += [
        ("post-processing", postprocessing(spec)),
        ("network", network),
        ("licence of the weights", str(spec.provenance.get("licence", NOT_STATED))),
    ]
    return table(("", ""), rows)


def believed(results: Mapping[str, Any]) -> list[str]:
    """How far probabilities can be believed, from what :func:`segtool_export.confidence.confidence_results` gives.

    Returns:
        Paragraphs of Markdown, but for the heading and the picture.
    """
    sides, ranking = results["sides"], results["ranking"]
    margin = next(iter(sides.values()))["margin_voxels"]
    head = [
        "side",
        "cases",
        "voxels",
        "calibration error, as they are",
        "at the temperature",
        "log likelihood",
        "at the temperature",
    ]
    rows = []
    for name, one in sides.items():
        errors = [f"{one[which]['ece']:.4f}" for which in ("before", "after")]
        likelihoods = [f"{-one[which]['nll']:.4f}" for which in ("before", "after")]
        rows.append([name, str(one["cases"]), f"{one['voxels']:,}", *errors, *likelihoods])
    parts = [
        f"For its confidence alone `segtool predict` divides logits by the temperature {results['temperature']:.4g}, "
        "learnt on the validation cases; label maps are those of the logits as they are. Measured around predicted and "
        f"true structures, {margin} voxels further on each side; calibration error over {_bins(sides)} bins:",
        table(head, rows),
        "What probabilities at the temperature come to, by bin:",
        table(*_reliability(sides)),
    ]
    if ranking is not None:
        share = ranking["worst_tenth_in_first_fifth"]
        correlation = "undefined" if ranking["spearman"] is None else f"{ranking['spearman']:.2f}"
        parts.append(
            f"`--review-worst` ranks by expected Dice. On the {ranking['cases']} measured cases its rank correlation "
            f"with the Dice reached is {correlation}, and {share:.0%} of the worst tenth lie among the first fifth "
            "that it lists, where chance gives 20%."
        )
    return parts


def _bins(sides: Mapping[str, Any]) -> int:
    return len(next(iter(sides.values()))["after"]["bins"])


def _reliability(sides: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    head, count = ["probability"], _bins(sides)
    for name in sides:
        head += [f"{name}: voxels", "mean probability", "true share"]
    rows = []
    for index in range(count):
        row = [f"{index / count:.2f} to {(index + 1) / count:.2f}"]
        for one in sides.values():
            voxels, probability, frequency = one["after"]["bins"][index]
            row += [f"{voxels:,}", *(f"{share:.3f}" if voxels else "-" for share in (probability, frequency))]
        rows.append(row)
    return head, rows


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 10**6 else f"{size_bytes / 1e3:.0f} kB"


def _input(spec: ModelSpec) -> str:
    channels = ", ".join(spec.channel_names)
    if spec.input.rank == 3:
        patch = "x".join(str(n) for n in spec.input.patch)
        spacing = "the scan's own spacing"
        if spec.input.spacing_mm is not None:
            spacing = " x ".join(f"{mm:g}" for mm in spec.input.spacing_mm) + " mm"
        limit = spec.input.whole_case_voxels
        windows = (
            f"windows of {patch}" if limit is None else f"whole cases up to {limit} voxels, else windows of {patch},"
        )
        return f"{channels}, 3D, {windows} at {spacing}"
    size = "x".join(str(n) for n in spec.input.size)
    plane = "any plane; volumes are cut across their widest spacing"
    if spec.input.plane != "acquired":
        plane = f"the {spec.input.plane} plane"
    return f"{channels}, 2D {size}, slices of {plane}"


def postprocessing(spec: ModelSpec) -> str:
    """Thresholds, flips and rules in words."""
    words = []
    if any(threshold != 0.5 for threshold in spec.thresholds):
        named = zip(spec.labels, spec.thresholds, strict=True)
        words.append("thresholds " + ", ".join(f"{label.name} {threshold:g}" for label, threshold in named))
    if spec.test_time_flips:
        words.append(f"probabilities averaged over flips ({', '.join(spec.test_time_flips)})")
    rules = {label.name: _rules(spec.postprocess.rules_of(label.name)) for label in spec.labels}
    if len(set(rules.values())) == 1:
        words.extend(filter(None, set(rules.values())))
    else:
        words += [f"{name}: {one or 'kept as it is'}" for name, one in rules.items()]
    raw = ["`segtool predict --raw` skips the rules"] if any(rules.values()) else []
    return "; ".join([*words, *raw]) or "none"


def _rules(rules: LabelRules) -> str:
    words = []
    if rules.min_component_voxels:
        words.append(f"components below {rules.min_component_voxels} voxels are dropped")
    if rules.min_component_share:
        words.append(f"components below {rules.min_component_share:.0%} of the largest are dropped")
    if rules.largest_component:
        words.append("only the largest component is kept")
    if rules.fill_holes:
        words.append("holes are filled")
    return ", ".join(words)


def data(spec: ModelSpec) -> str:
    """What it was trained on, its licence and whom to cite, as the provenance has it."""
    source = spec.provenance
    if "data" not in source:
        return f"The data set is {NOT_STATED}: set `[spec.provenance] data` and `data_licence` in the recipe."
    lines = [f"{source['data']}, {source.get('data_licence', f'licence {NOT_STATED}')}."]
    if "data_changes" in source:
        lines.append(f"Changes made to it: {source['data_changes']}.")
    if "citation" in source:
        lines.append(f"Please cite {source['citation']}.")
    if "encoder_weights" in source:
        lines.append(f"The encoder started from {source['encoder_weights']}.")
    return " ".join(lines)
