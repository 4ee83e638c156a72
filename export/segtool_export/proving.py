"""Ways to write a model, tried until one passes the gates of its precision."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from segtool.backends.base import Precision as EnginePrecision
from segtool.errors import DeviceError, MissingDependencyError, ModelError
from segtool.spec import ModelSpec
from segtool_export.cases import Sample
from segtool_export.parity import Judged, Original, Parity, compare
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


@dataclass(frozen=True)
class OnEngine:
    """How a file that passed segments on an engine other than the one that it passed on.

    Args:
        engine: Such as ``openvino``.
        version: Of that engine.
        computing: Precision of its arithmetic, as :meth:`segtool.spec.ModelSpec.is_proved` has it.
        parity: What came of it.
    """

    engine: str
    version: str
    computing: str
    parity: Parity

    @property
    def passed(self) -> bool:
        """Whether `segtool predict` may use it unasked."""
        return self.parity.failure() is None

    def to_provenance(self) -> dict[str, Any]:
        """What the model file says about it."""
        row = {
            "engine": self.engine, "version": self.version, "computing": self.computing, "passed": self.passed,
        }  # fmt: skip
        return row | {"parity": self.parity.to_provenance()}


def prove_on_openvino(
    original: Original, path: Path, spec: ModelSpec, samples: Sequence[Sample], precision: Precision
) -> tuple[OnEngine, ...]:
    """Whether OpenVINO may compute a file in less than FP32: one in FP32 in bf16, one in INT8 as it is.

    Args:
        original: What the file was made of.
        path: The file, passed on ONNX Runtime.
        spec: Of the model.
        samples: To compare on; real ones.
        precision: Of the file.

    Returns:
        Nothing where OpenVINO is not installed or does not load the file, where the processor has no bf16 for a file in
        FP32, or where OpenVINO computes an INT8 file wrongly, which it finds by itself: the file is for other engines.
    """
    if precision == "fp16" or find_spec("openvino") is None:
        return ()
    from segtool.backends.openvino_engine import computes_bf16, import_openvino

    ways: dict[str, EnginePrecision] = {"int8": "int8"} if precision == "int8" else {}
    try:
        version = import_openvino().__version__.partition("-")[0]
        if computes_bf16():
            ways = {"bf16" if precision == "fp32" else "int8+bf16": "bf16", **ways}
    except MissingDependencyError:
        return ()
    found: list[OnEngine] = []
    for computing, asked in ways.items():
        gates: Judged = "int8" if precision == "int8" else cast("Judged", computing)
        try:
            parity = compare(original, path, spec, samples, gates, "openvino", asked)
        except (DeviceError, MissingDependencyError, ModelError):
            continue
        found.append(OnEngine("openvino", version, computing, parity))
        if found[-1].passed:
            break
    return tuple(found)


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
