"""Draws the pictures of the README from ``benchmarks/results/``: engines by network, and whole cases by tool.

Run: ``python -m benchmarks.plots``
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.common import RESULTS

DOCS = Path(__file__).resolve().parent.parent / "docs"
OURS, OTHERS = "#1b7f79", "#9aa5ab"


def panels(titles: list[str], rows: int) -> tuple[Figure, list[Any]]:
    """A figure with a panel a title, side by side, ``rows`` bars high."""
    figure = Figure(figsize=(4.6 * len(titles), 1.1 + 0.32 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for one, title in zip(axes, titles, strict=True):
        one.set_title(title, fontsize=9)
        one.tick_params(labelsize=8)
        one.margins(x=0.15)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    return figure, axes


def bars(axes: Any, names: list[str], values: list[float], ours: list[bool], form: str) -> None:  # noqa: ANN401 - matplotlib's
    """Horizontal bars, the first on top, each with its value."""
    drawn = axes.barh(range(len(names)), values, color=[OURS if one else OTHERS for one in ours])
    axes.set_yticks(range(len(names)), names)
    axes.bar_label(drawn, [form.format(value) for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()


def engines(result: dict[str, Any], path: Path) -> None:
    """Speed of every engine and precision over torch in fp32, at the smallest batch, a panel a network."""
    networks = result["networks"]
    kept = {
        name: [row for row in one["rows"] if row["latency"] is not None and row["batch"] == 1]
        for name, one in networks.items()
    }
    figure, axes = panels(list(networks), max(map(len, kept.values())))
    for panel, rows in zip(axes, kept.values(), strict=True):
        base = next(row for row in rows if row["peer"] == "torch")["latency"]["p50_ms"]
        names = [f"{row['engine']['engine']} {row['engine']['precision']}" for row in rows]
        speeds = [base / row["latency"]["p50_ms"] for row in rows]
        bars(panel, names, speeds, [row["peer"] is None for row in rows], "{:.1f}")
        panel.set_xlabel("times as fast as torch fp32, a call at a time", fontsize=8)
    figure.savefig(path, dpi=90)


def whole_cases(result: dict[str, Any], path: Path) -> None:
    """Seconds of a whole case by every tool, a panel a network."""
    networks = result["networks"]
    figure, axes = panels(list(networks), max(len(one["rows"]) for one in networks.values()))
    for panel, one in zip(axes, networks.values(), strict=True):
        rows = one["rows"]
        seconds = [row["seconds"]["median"] for row in rows.values()]
        bars(panel, list(rows), seconds, [name.startswith("segtool") for name in rows], "{:.1f}")
        panel.set_xlabel("seconds a case", fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Draw and say where."""
    for name, draw in (("engines", engines), ("whole_case", whole_cases)):
        path = DOCS / f"{name}.png"
        draw(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")), path)
        print(path)


if __name__ == "__main__":
    main()
