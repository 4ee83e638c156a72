"""Start-up: ``segtool --help`` beside a bare Typer application's, whole processes in turn.

Run: ``python -m benchmarks.startup``
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine, save, spread, versions

BARE = """\
import typer

app = typer.Typer()


@app.command()
def one() -> None:
    "One."


@app.command()
def two() -> None:
    "Two."


app()
"""
RUNS, WARM_UP = 21, 2


def seconds(command: list[str]) -> float:
    """Wall-clock time of a whole process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, save."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        commands = {
            "segtool --help": [sys.executable, "-m", "segtool", "--help"],
            "bare Typer --help": [sys.executable, str(bare), "--help"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(WARM_UP + RUNS):
            for name, command in commands.items():
                elapsed = seconds(command)
                if run >= WARM_UP:
                    times[name].append(elapsed)
    ratio = statistics.median(a / b for a, b in zip(times["segtool --help"], times["bare Typer --help"], strict=True))
    result = {
        "what": "start-up of the command line, whole processes in turn, seconds",
        "machine": machine(),
        "versions": versions("segtool", "typer", "rich"),
        "seconds": {name: spread(values) for name, values in times.items()},
        "ratio_to_bare_typer": ratio,
        "goal": "below 2",
    }
    for name, values in times.items():
        print(f"{name:20} {statistics.median(values) * 1000:7.1f} ms")
    print(f"ratio to bare Typer  {ratio:.2f} (goal: below 2)")
    print(save("startup", result))


if __name__ == "__main__":
    main()
