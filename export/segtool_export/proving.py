"""Ways to write a model, tried until one passes the gates of its precision."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtool.errors import ModelError
from segtool.spec import ModelSpec
from segtool_export.cases import Sample
from segtool_export.parity import Original, Parity, compare
from segtool_export.precision import Precision


@dataclass(frozen=True)
class Candidate:
    """A way to write the model.

    Args:
        name: In words, for the table.
        write: Writes it to a path.
        facts: What the spec's provenance says of it.
    """

    name: str
    write: Callable[[Path], None]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A candidate as written, and how it segments."""

    candidate: Candidate
    path: Path
    parity: Parity


@dataclass(frozen=True)
class Proof:
    """The candidate that passed, and all that were tried, itself included."""

    chosen: Tried
    tried: tuple[Tried, ...]


def prove(
    original: Original,
    rounds: Iterable[Sequence[Candidate]],
    spec: ModelSpec,
    samples: Sequence[Sample],
    precision: Precision,
    output: Path,
) -> Proof:
    """Write and compare the candidates of each round, until one of a round passes.

    Args:
        original: What they are held against; its folder takes their files.
        rounds: Candidates side by side, of which the one whose masks agree best is meant; a later round is for where
            the earlier ones fail.
        spec: Of the model.
        samples: To compare on.
        precision: Whose gates hold.
        output: Named in the refusal.

    Raises:
        ModelError: All fail; the line says which gate the best of them fails, on which case, and what to try.
    """
    tried: list[Tried] = []
    refused: list[str] = []
    for candidates in rounds:
        results = []
        for candidate in candidates:
            path = original.folder / f"candidate-{len(tried) + len(refused)}.onnx"
            candidate.write(path)
            try:
                parity = compare(original, path, spec, samples, precision)
            except ModelError as error:  # no engine takes it; the next candidate is another graph
                refused.append(f"{candidate.name}: {error.problem.replace(str(path), 'it')}")
                continue
            one = Tried(candidate, path, parity)
            results.append(one)
            tried.append(one)
        passing = [one for one in results if one.parity.failure() is None]
        if passing:
            return Proof(max(passing, key=_agreement), tuple(tried))
    if not tried:
        raise ModelError(
            f"{output}: not written, {'; '.join(refused)}", "Try another --opset, or another version of onnxruntime."
        )
    best = max(tried, key=_agreement)
    failure = best.parity.failure()
    assert failure is not None
    names = [*(one.candidate.name for one in tried), *refused]
    also = f" (best of: {'; '.join(names)})" if len(names) > 1 else ""
    raise ModelError(f"{output}: not written, {failure.reason}{also}", failure.remedy)


def _agreement(tried: Tried) -> float:
    return tried.parity.mean_dice
