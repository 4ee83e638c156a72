"""What every inference engine can do. One file an engine; the table is in :mod:`segtool.backends`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy.typing as npt

from segtool.backends.graph import Dims, Graph
from segtool.errors import ModelError
from segtool.spec import ModelSpec

INPUT, OUTPUT = "image", "logits"
"""The one input and the one output of a model's graph."""

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Backend(Protocol):
    """A loaded model on one device.

    ``xp`` is the array module (numpy, or cupy on a GPU) in which :meth:`run` takes and gives arrays.
    """

    @property
    def name(self) -> str:
        """Such as ``onnxruntime``."""
        ...

    version: str
    device: str
    """What is really used, read back from the engine: ``cpu`` or ``cuda``."""
    precision: str
    """Of the arithmetic: ``fp32``, ``fp16``, ``bf16`` or ``int8``; joined by ``+`` where several are in use."""
    why: str
    """Why it is this engine, in a few words; empty where it is just what was asked for."""
    note: str
    """What a reader must know of it, such as a GPU that is there and not used; usually empty."""
    xp: ModuleType

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits ``(N, K, *S)`` float32 of ``batch``, C-contiguous float32 ``(N, C, *S)``.

        A new array, which the caller may write into. May be called by threads.
        """
        ...

    def close(self) -> None:
        """Give back memory and threads; not used any more after that."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs.

    Args:
        threads: CPU threads of one call; None for one a core.
        calls: Calls that are made at the same time, one thread each.
        precision: Of the arithmetic; None for the model file's own, or what its export proved besides.
        log: Told of what takes long, such as building an engine.
    """

    threads: int | None = None
    calls: int = 1
    precision: Precision | None = None
    log: Callable[[str], None] = lambda _line: None


def spec_of(model: Path, graph: Graph) -> ModelSpec | None:
    """What the file says of itself; None where it has no spec.

    Raises:
        ModelError: The spec is none that this version reads.
    """
    text = graph.metadata.get(ModelSpec.KEY)
    return None if text is None else ModelSpec.from_json(text, str(model))


def check_graph(model: Path, graph: Graph) -> None:
    """Refuse a graph that is not one image in, one map of logits out, or that does not do what its spec says.

    Raises:
        ModelError: Other inputs or outputs, or of other shapes than the spec's.
    """
    names = list(graph.inputs), list(graph.outputs)
    if names != ([INPUT], [OUTPUT]):
        raise ModelError(
            f"{model}: inputs {names[0]} and outputs {names[1]}, wanted one input {INPUT!r} and one output {OUTPUT!r}",
            "Export the model with `segtool export`.",
        )
    spec = spec_of(model, graph)
    if spec is None:
        return
    extent = spec.extent
    if spec.in_windows() is not spec and any(n is not None for n in graph.inputs[INPUT][2:]):
        raise ModelError(
            f"{model}: the graph has one extent, and its spec serves whole cases",
            "Export it again with `segtool export`.",
        )
    for name, found, channels in (
        (INPUT, graph.inputs[INPUT], len(spec.channels)),
        (OUTPUT, graph.outputs[OUTPUT], spec.output_channels),
    ):
        wanted = (None, channels, *extent)
        fits = all(n is None or w is None or n == w for n, w in zip(found, wanted, strict=False))
        # No shape at all promises nothing, and breaks no promise.
        if found and not (len(found) == len(wanted) and fits):
            raise ModelError(
                f"{model}: {name} is {_shape(found)} in the graph and {_shape(wanted)} in the spec",
                "Export the model again with `segtool export`.",
            )


def _shape(dims: Dims) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in dims) + ")"
