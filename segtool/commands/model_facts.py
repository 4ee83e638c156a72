"""What a model file says about itself, for ``inspect`` and ``models``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtool.errors import printable
from segtool.model_file import read_spec, sha256
from segtool.spec import ModelSpec


def describe_model(path: Path) -> dict[str, Any]:
    """A model file's spec with its size and checksum.

    Raises:
        ModelError: Not a model that this version reads.
    """
    spec = read_spec(path)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "spec": spec.model_dump(mode="json", by_alias=True),
    }


def model_text(facts: dict[str, Any]) -> str:
    """The facts of :func:`describe_model` for a reader."""
    spec = facts["spec"]
    lines = [
        f"model      {spec['name']} {spec['version']}",
        f"file       {facts['path']}  {facts['bytes'] / 1e6:.1f} MB",
        f"sha256     {facts['sha256']}",
    ]
    if spec["description"]:
        lines.append(f"about      {spec['description']}")
    for channel in spec["channels"]:
        also = f"  (also called {', '.join(channel['aliases'])})" if channel["aliases"] else ""
        lines.append(f"channel    {channel['name']}{also}")
    lines.append(f"input      {_pairs(spec['input'])}")
    lines.append(f"intensity  {_pairs(spec['intensity'])}")
    for label in spec["labels"]:
        meant = label["reference_values"]
        source = f"reference values {', '.join(map(str, meant))}" if meant else "any reference value but 0"
        own = f", threshold {label['threshold']:g}" if "threshold" in label else ""
        lines.append(f"label      {label['value']} {label['name']}  ({source}){own}")
    lines += [f"region     {name} = {' + '.join(map(str, values))}" for name, values in spec["regions"].items()]
    lines.append(f"output     {spec['activation']}, threshold {spec['threshold']:g}")
    rules = dict(spec["postprocess"])
    own = rules.pop("labels", {})
    lines.append(f"post       {_pairs(rules)}")
    lines += [f"post       {name}: {_pairs(values)}" for name, values in own.items()]
    if flips := spec.get("test_time_flips"):
        lines.append(f"flips      {' '.join(flips)}: the mean of {2 ** len(flips)} passes")
    if statistics := spec.get("statistics"):
        lines += _statistics_lines(statistics, [channel["name"] for channel in spec["channels"]])
    if confidence := spec.get("confidence"):
        lines.append(_confidence_line(confidence))
    lines += _tree(spec["provenance"], "")
    return "\n".join(map(printable, lines))


def _statistics_lines(statistics: dict[str, Any], channels: list[str]) -> list[str]:
    """What scans and masks are held against."""
    lines = [f"training   {statistics['cases']} cases, which scans and masks are held against"]
    for name, one in zip(channels, statistics["channels"], strict=True):
        values, (usual, _, rare) = one["values"], one["histogram_distance"]
        lines.append(
            f"training   {name}: values {_scalar(values)}, histogram distance {usual:.2f}, rarely above {rare:.2f}"
        )
    if grid := statistics["grid"]:
        spacings = ", ".join(f"{low:.3g}-{high:.3g}" for low, high in grid["spacing_mm"])
        lines.append(
            f"training   spacing {spacings} mm{', slices ' + ' '.join(grid['planes']) if grid['planes'] else ''}"
        )
    if mask := statistics["mask"]:
        low, high = mask["share_of_head"]
        lines.append(
            f"training   masks {low:.1%} to {high:.0%} of the head, empty in {mask['empty']:.0%} of {mask['cases']}"
        )
    return lines


def _confidence_line(confidence: dict[str, Any]) -> str:
    """What logits are divided by before they say how sure the model is."""
    line = f"confidence temperature {confidence['temperature']:.4g}"
    before, after = confidence["ece_before"], confidence["ece_after"]
    if before is None or after is None:
        return line
    return f"{line}, calibration error {before:.4f} -> {after:.4f} of {confidence['cases']} validation cases"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_scalar(value)}" for key, value in values.items() if value is not None)


def _scalar(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_scalar(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _tree(values: Mapping[Any, Any], above: str) -> list[str]:
    """Provenance, one line a leaf, under its path such as ``data.licence``."""
    lines = []
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            lines += _tree(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            lines += _tree(dict(enumerate(value, start=1)), f"{name}.")
        else:
            lines.append(f"from       {name}: {_scalar(value)}")
    return lines


def input_text(spec: ModelSpec) -> str:
    """Such as ``t1ce 2D 256x256`` or ``t1 t1ce t2 flair 3D 128x128x128``."""
    extent = spec.extent
    return f"{' '.join(spec.channel_names)} {spec.input.rank}D {'x'.join(str(n) for n in extent)}"


def test_dice(spec: ModelSpec) -> float | None:
    """The mean Dice on the test part that the provenance records, None where it records none.

    Provenance keeps measurements as ``metrics`` by part of the split: ``{"test": {"dice": 0.83}}``.
    """
    part = spec.provenance.get("metrics")
    for key in ("test", "dice"):
        part = part.get(key) if isinstance(part, dict) else None
    return float(part) if isinstance(part, int | float) else None
