"""``python -m benchmarks.fuzz``: see :mod:`benchmarks.fuzz`."""

import argparse
import json
from pathlib import Path

from benchmarks.common import RESULTS, save
from benchmarks.fuzz import TARGETS
from benchmarks.fuzz.campaign import FINDINGS, fuzz


def main() -> None:
    """Fuzz the targets named, and write the figures beside those of the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all of them by default")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=FINDINGS)
    parser.add_argument("--output", default="fuzz", help="name of the JSON file in benchmarks/results")
    given = parser.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    result = fuzz(given.targets or list(TARGETS), given.inputs, given.seed, given.findings)
    path = RESULTS / f"{given.output}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["targets"] if path.exists() else {}
    shown = result["targets"]
    result["targets"] = {name: (before | shown)[name] for name in TARGETS if name in before | shown}
    for key, count in (("inputs", lambda one: one["inputs"]), ("findings", lambda one: len(one["findings"])),
                       ("fixed", lambda one: len(one["fixed"]))):  # fmt: skip
        result[key] = sum(count(one) for one in result["targets"].values())
    save(given.output, result)
    for name, one in shown.items():
        print(
            f"{name:<12} {one['inputs']:>7} inputs  {one['accepted']:>6} accepted  {one['refused']:>6} refused  "
            f"{len(one['findings'])} findings  {one['slowest_s']} s  {one['largest_growth_mb']} MB  "
            f"{one['inputs_a_second']}/s"
        )
        for kind in one["findings"]:
            print(f"             {kind}   {given.findings / name}")


if __name__ == "__main__":
    main()
