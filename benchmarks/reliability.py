"""Every promise of reliability with its figures: faults, kills, sharing, fuzzing, soak, determinism, checks.

Each part is a benchmark of its own, run here in a process of its own; its JSON lies beside the whole. At scale 1 they
take hours, most of it fuzzing: 100,000 inputs a reader.

Run: ``python -m benchmarks.reliability [--scale 0.01] [--only faults share]``; ``--collect`` runs none and puts
together what lies in ``benchmarks/results/``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.common import RESULTS, machine, save

Row = dict[str, Any]
Figures = dict[str, Any]


def row(what: str, tried: int, survived: int, lost: int, more: str = "") -> Row:
    """One line of the table; of what was ``tried``, ``survived`` passed, and ``lost`` was neither done nor named."""
    return {"what": what, "tried": tried, "survived": survived, "lost": lost, "more": more}


def fuzzing(found: Figures) -> list[Row]:
    """All readers together."""
    targets = found["targets"]
    tried = sum(one["inputs"] for one in targets.values())
    findings = sum(len(one["findings"]) for one in targets.values())
    slowest = max(one["slowest_s"] for one in targets.values())
    growth = max(one["largest_growth_mb"] for one in targets.values())
    each = max(one["inputs"] for one in targets.values())
    whole = sum(one["inputs"] == each for one in targets.values())
    more = (
        f"{len(targets)} kinds of file, {whole} of them with {each:,} inputs; slowest {slowest:.2g} s, largest growth "
        f"{growth:.0f} MB; before, {sum(len(one['fixed']) for one in targets.values())} faults were found and mended"
    )
    return [row("damaged inputs to readers (hypothesis, atheris)", tried, tried - findings, findings, more)]


def hostile_models(found: Figures) -> list[Row]:
    """Model files that reach for files, memory or code, or whose signature does not fit."""
    return [row("hostile and falsified model files", found["tried"], found["survived"], found["lost"], "all refused")]


def faults(found: Figures) -> list[Row]:
    """Cases of runs with a fault in them; those that fail are named, which is what surviving a fault means for them."""
    more = f"{found['tried']} kinds of fault; {found['survived']} cases byte for byte, the others named"
    return [row("cases of runs with a fault", found["cases"], found["cases"] - found["lost"], found["lost"], more)]


def share(found: Figures) -> list[Row]:
    """Kills, and many processes on one folder."""
    kills, shared = found["kills"], found["sharing"]
    return [
        row(
            f"SIGKILL at random moments of a run of {kills['cases']} cases, then `--continue`",
            kills["kills"],
            kills["kills"] - kills["lost"],
            kills["lost"],
            f"{kills['survived']} runs to their end, each with the bytes of an uninterrupted one",
        ),
        row(
            f"cases shared by {shared['processes']} processes on one folder, one of them killed",
            2 * shared["cases"],
            2 * shared["cases"] - shared["lost"],
            shared["lost"],
            f"{shared['done_twice']} done twice",
        ),
    ]


def soak(found: Figures) -> list[Row]:
    """Many cases in one process."""
    tried = found["slices"] + found["volumes"]
    left = sum(found["left_behind"].values())
    slopes = [one["slope_mb_per_1000_cases"] for one in found["phases"].values() if one["cases"] < tried]
    more = (
        f"memory grows by at most {max(slopes):.1f} MB in 1,000 cases; "
        f"{left} files, threads and temporary files left behind"
    )
    return [row("slices and volumes in one process", tried, tried - found["failed"], found["failed"], more)]


def determinism(found: Figures) -> list[Row]:
    """Runs that must give the bytes of the first."""
    settings = [one for one in found["held"].values() if "variants" in one]
    runs = [variant for one in settings for variant in one["variants"].values()]
    differing = sum(bool(variant["other_results"]) for variant in runs)
    more = "batch, threads, workers, order, each case alone, repeated, gone on with; " + ", ".join(
        sorted({f"{one['device']} {one['precision']}".replace("cpu", "onnxruntime") for one in settings})
    )
    return [row("runs that must give the first run's bytes", len(runs), len(runs) - differing, differing, more)]


PARTS: dict[str, tuple[str, str, Callable[[Figures], list[Row]] | None]] = {
    "fuzz": ("benchmarks.fuzz", "fuzz", fuzzing),
    "models": ("benchmarks.reliability_models", "reliability_models", hostile_models),
    "faults": ("benchmarks.reliability_faults", "reliability_faults", faults),
    "share": ("benchmarks.reliability_share", "reliability_share", share),
    "soak": ("benchmarks.reliability_soak", "reliability_soak", soak),
    "determinism": ("benchmarks.reliability_determinism", "reliability_determinism", determinism),
    "checks": ("benchmarks.reliability_checks", "reliability_checks", None),
    "confidence": ("benchmarks.reliability_confidence", "reliability_confidence", None),
}
"""Module, JSON beside this one's, and what the table has of it."""


def command(part: str, scale: float) -> list[str]:
    """How a part is run."""
    module = PARTS[part][0]
    if part != "fuzz":
        return [sys.executable, "-m", module, "--scale", str(scale)]
    from benchmarks.fuzz import TARGETS

    return [sys.executable, "-m", module, *TARGETS, "--inputs", str(max(1, round(100_000 * scale)))]


def collect() -> Figures:
    """All parts that have been run, and the table."""
    parts: Figures = {}
    rows: list[Row] = []
    for part, (_, name, tell) in PARTS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts[part] = json.loads(path.read_text(encoding="utf-8"))
            rows += tell(parts[part]) if tell else []
    return {"machine": machine(), "rows": rows, "lost": sum(one["lost"] for one in rows), "parts": parts}


def main() -> None:
    """Run the parts, put their figures together, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--collect", action="store_true", help="run nothing")
    given = parser.parse_args()
    for part in () if given.collect else given.only:
        print(f"{part} ...", flush=True)
        subprocess.run(command(part, given.scale), check=True, stdout=subprocess.DEVNULL)
    found = collect()
    for one in found["rows"]:
        print(f"{one['what']}: {one['survived']} of {one['tried']}, lost {one['lost']}; {one['more']}")
    print(save("reliability", found))


if __name__ == "__main__":
    main()
