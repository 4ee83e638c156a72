"""Makes the run of the bundled model: the mean of the weights of runs that started from one another.

Run: ``python -m benchmarks.averaged_run RUN RUN... -o NEW_RUN``, each RUN from ``segtool train cheng-lite0 --init`` the
one before; then ``segtool export NEW_RUN --card`` and ``python -m benchmarks.bundled_model``.
"""

import argparse
from pathlib import Path

from benchmarks.common import REAL_DATA
from segtool_train.averaging import average_runs
from segtool_train.training import Options


def main() -> None:
    """Average, score on the validation part, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    dice = average_runs(arguments.runs, arguments.output, Options(REAL_DATA / "cheng", arguments.output, "cpu"))
    print(f"validation Dice {dice:.4f}   {arguments.output}")


if __name__ == "__main__":
    main()
