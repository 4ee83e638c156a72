"""One model file or several as one model: what must agree, and the engine that averages their probabilities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from segtool.backends import Device, load_backend
from segtool.backends.averaging import averaged
from segtool.backends.base import Backend, Precision
from segtool.errors import ModelError, UsageError
from segtool.model_file import read_spec, sha256
from segtool.spec import FLIP_AXES, Flip, ModelSpec

_NO_FLIPS, _ALL_FLIPS = "none", "flips"


@dataclass(frozen=True)
class Member:
    """A model file and its spec, its test-time flips replaced where others were asked for."""

    path: Path
    spec: ModelSpec

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return sha256(self.path)

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.spec.name} {self.spec.version}"


@dataclass(frozen=True)
class Ensemble:
    """Models that see the same inputs and answer with the same labels; usually one alone.

    The first one's spec decides whatever comes after the network: thresholds, post-processing and regions.
    """

    members: tuple[Member, ...]

    @property
    def spec(self) -> ModelSpec:
        """The first model's."""
        return self.members[0].spec

    @property
    def name(self) -> str:
        """Names and versions of all models."""
        return " + ".join(member.name for member in self.members)

    @property
    def flips(self) -> dict[str, tuple[Flip, ...]]:
        """Test-time flips by model, of those that have any."""
        return {member.name: member.spec.test_time_flips for member in self.members if member.spec.test_time_flips}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know where the models differ in what only one of them can decide."""
        first = self.spec
        others = [member.spec for member in self.members[1:]]
        kinds: dict[str, Callable[[ModelSpec], object]] = {
            "thresholds and post-processing are": lambda spec: (spec.thresholds, spec.postprocess),
            "the temperature of confidence and what scans are held against are": lambda spec: (
                spec.confidence,
                spec.statistics,
            ),
        }
        return tuple(
            f"{what} those of the first model, {first.name}"
            for what, of in kinds.items()
            if any(of(spec) != of(first) for spec in others)
        )

    def load(
        self,
        device: Device = "auto",
        threads: int | None = None,
        *,
        calls: int = 1,
        precision: Precision | None = None,
        log: Callable[[str], None] | None = None,
    ) -> Backend:
        """The engine; one backend, whatever it averages. Arguments and errors as for ``load_backend``."""
        backends = [
            load_backend(member.path, device, threads, calls=calls, precision=precision, log=log)
            for member in self.members
        ]
        return averaged(backends, [member.spec for member in self.members])


def read_models(paths: Sequence[Path], tta: str | None = None) -> Ensemble:
    """Read the specs of one or several models and check that they can be averaged.

    Args:
        paths: The files.
        tta: Test-time augmentation in place of the models' own, as :func:`parse_flips` reads it; None keeps theirs.

    Raises:
        ModelError: Not a model, or one that does not fit the first; the line names the model and the field.
        UsageError: ``tta`` names no axis of the input, or the same file is given twice.
    """
    specs = [read_spec(path) for path in paths]
    for path, spec in zip(paths[1:], specs[1:], strict=True):
        for field, mine, first in _differences(_fixed(spec), _fixed(specs[0])):
            raise ModelError(
                f"{path}: {field} is {mine!r}, but {paths[0]} has {first!r}; models that are averaged agree in it",
                "Average models of one recipe, such as the folds of a cross-validation, or run them one by one.",
            )
    if tta is not None:
        specs = [spec.model_copy(update={"test_time_flips": parse_flips(tta, spec.input.rank)}) for spec in specs]
    members = tuple(Member(path, spec) for path, spec in zip(paths, specs, strict=True))
    if len(members) > 1:
        for index, member in enumerate(members):
            if member.sha256 in {other.sha256 for other in members[:index]}:
                raise UsageError(f"{member.path}: the same model is given twice", "Name every model once.")
    return Ensemble(members)


def parse_flips(text: str, rank: int) -> tuple[Flip, ...]:
    """The axes that ``none``, ``flips`` (all of them) or names with commas between mean for inputs of ``rank``.

    Raises:
        UsageError: A name is not an axis of such an input.
    """
    able = [flip for flip, axis in FLIP_AXES.items() if -axis <= rank]
    if text == _NO_FLIPS:
        return ()
    named = able if text == _ALL_FLIPS else [part.strip() for part in text.split(",")]
    if not set(named) <= set(able) or len(set(named)) != len(named):
        raise UsageError(
            f"test-time augmentation {text!r}: not axes of a {rank}D input",
            f"Choose {_NO_FLIPS}, {_ALL_FLIPS}, or some of: {','.join(able)}.",
        )
    return tuple(flip for flip in able if flip in named)


def _fixed(spec: ModelSpec) -> dict[str, Any]:
    """What every model of an ensemble must share: the network's inputs, and what its outputs mean."""
    return {
        "channels": list(spec.channel_names),
        "activation": spec.activation,
        "labels": [label.model_dump(include={"name", "value", "reference_values"}) for label in spec.labels],
        # Not dumped, which leaves out what is as it always was: a message names both values.
        "input": dict(spec.input),
        "intensity": dict(spec.intensity),
    }


def _differences(
    mine: Mapping[str, Any], first: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Path and both values of every field that differs."""
    for key in dict.fromkeys((*mine, *first)):
        one, other = mine.get(key), first.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{above}{key}.")
        elif one != other:
            yield f"{above}{key}", one, other
