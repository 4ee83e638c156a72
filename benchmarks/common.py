"""What every benchmark shares: the machine, versions, medians, and where results go."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segtool.machine import cores, processor, version_of

RESULTS = Path(__file__).parent / "results"
REAL_DATA = Path(os.environ.get("SEGTOOL_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def machine() -> dict[str, Any]:
    """Processor, cores and system, without anything that names the machine."""
    return {
        "processor": processor()[0],
        "cores": cores(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of ``packages``; those that are not installed are left out."""
    return {package: found for package in packages if (found := version_of(package)) is not None}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and the values themselves."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write ``result`` to ``benchmarks/results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path
