"""``python -m benchmarks.fuzz``: see :mod:`benchmarks.fuzz`."""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, save
from benchmarks.fuzz import TARGETS
from benchmarks.fuzz.campaign import FINDINGS, fuzz, totals


def main() -> None:
    """Fuzz the targets named, and write the figures beside those of the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all of them by default")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=FINDINGS)
    parser.add_argument("--output", default="fuzz", help="name of the JSON file in benchmarks/results")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="put figures of other runs together")
    given = parser.parse_args()
    if given.merge:
        for file in given.merge:
            _add(json.loads(file.read_text(encoding="utf-8")), given.output)
        return
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    for name in given.targets or TARGETS:
        found = fuzz([name], given.inputs, given.seed, given.findings)
        _add(found, given.output)
        _show(name, found["targets"][name], given.findings / name)


def _add(found: dict[str, Any], output: str) -> None:
    """Put the figures of a target beside those that are there."""
    path = RESULTS / f"{output}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["targets"] if path.exists() else {}
    targets = before | found["targets"]
    known = {name: targets[name] for name in TARGETS if name in targets}
    save(output, found | totals(known) | {"targets": known})


def _show(name: str, one: dict[str, Any], findings: Path) -> None:
    print(
        f"{name:<12} {one['inputs']:>7} inputs  {one['accepted']:>6} accepted  {one['refused']:>6} refused  "
        f"{len(one['findings'])} findings  {one['slowest_s']} s  {one['largest_growth_mb']} MB  "
        f"{one['inputs_a_second']}/s",
        flush=True,
    )
    for kind in one["findings"]:
        print(f"             {kind}   {findings}", flush=True)


if __name__ == "__main__":
    main()
