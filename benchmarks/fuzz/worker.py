"""A process that tries inputs of one engine: ``python -m benchmarks.fuzz.worker TARGET ENGINE INPUTS SEED FOLDER OUT``.

The figures lie in ``FOLDER/counters``; findings in ``OUT``.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

_CHUNK = 200
"""Examples after which hypothesis begins anew: it remembers all of a run."""
_LONGEST = 2**16
"""Bytes of an input of libFuzzer at least; what unpacks to much is longer than most files."""
_SEVERAL = 5
"""Inputs of an example, whose own cost is as large as that of an input."""


def main(name: str, engine: str, inputs: int, seed: int, folder: Path, findings: Path) -> None:
    """Try ``inputs`` inputs in all, those counted already included."""
    warnings.simplefilter("ignore")
    if engine == "atheris":
        _atheris(name, inputs, seed, folder, findings)
    else:
        _hypothesis(name, inputs, seed, folder, findings)


def _hypothesis(name: str, inputs: int, seed: int, folder: Path, findings: Path) -> None:
    import hypothesis
    from hypothesis import strategies as st

    from benchmarks.fuzz.choices import Drawn
    from benchmarks.fuzz.probe import Probe
    from benchmarks.fuzz.target import damaged, load

    target = load(name)
    probe, seeds = Probe(target, folder, findings), target.seeds()

    @st.composite
    def files(draw: Any) -> bytes:  # noqa: ANN401 - hypothesis exports no type of it
        choices = Drawn(draw)
        return damaged(target, choices.one(seeds), choices)

    def try_all(examples: list[bytes]) -> None:
        for data in examples:
            probe(data)

    while probe.counters.tried < inputs:
        left = inputs - probe.counters.tried
        several = min(_SEVERAL, left)
        settings = hypothesis.settings(
            max_examples=min(_CHUNK, left // several),
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        lists = st.lists(files(), min_size=several, max_size=several)
        hypothesis.seed(seed + probe.counters.tried)(settings(hypothesis.given(lists)(try_all)))()


def _atheris(name: str, inputs: int, seed: int, folder: Path, findings: Path) -> None:
    import atheris  # type: ignore[import-untyped]

    from benchmarks.fuzz import TARGETS
    from benchmarks.fuzz.choices import Seeded

    module = TARGETS.get(name, name).partition(":")[0]
    with atheris.instrument_imports(include=_instrumented(name), exclude=[module]):
        from benchmarks.fuzz.target import damaged, load

        target = load(name)
    from benchmarks.fuzz.probe import Probe

    probe, corpus = Probe(target, folder, findings), folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    largest = max(map(len, target.seeds()))

    def try_one(data: bytes) -> None:
        if probe.counters.tried < inputs:
            probe(data)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        # Half by libFuzzer's own changes, among them values that comparisons in our code wanted.
        try:
            return bytes(atheris.Mutate(data, most)) if number % 2 else damaged(target, data, Seeded(number))[:most]
        except MemoryError:
            return data[:most]  # parts doubled again and again; the bound is for readers, not for changes

    options = {
        "runs": inputs - probe.counters.tried,
        "seed": seed + 1,
        "max_len": max(2 * largest, _LONGEST),
        "len_control": 0,
        "rss_limit_mb": 0,  # the address space is bounded instead
        "timeout": 10_000,  # processor time is measured, and whoever started this process ends one that hangs
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
    }
    arguments = ["fuzz", *(f"-{key}={value}" for key, value in options.items()), str(corpus)]
    atheris.Setup(arguments, try_one, custom_mutator=mutate)
    atheris.Fuzz()


def _instrumented(name: str) -> list[str]:
    """The packages of a target that are to be instrumented, found without importing it here."""
    import json
    import subprocess

    code = f"import json; from benchmarks.fuzz.target import load; print(json.dumps(load({name!r}).instrument))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    found: list[str] = json.loads(said.splitlines()[-1])
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))
