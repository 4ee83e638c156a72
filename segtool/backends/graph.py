"""What an ONNX graph says of itself, read without the onnx package, and what no engine is ever given.

Only the messages that matter are walked; weights are stepped over in a memory map, so that a large file is read in
milliseconds.

Source: onnx.proto3.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from segtool.errors import ModelError
from segtool.protobuf import MalformedError, entry, fields, mapped, messages, text, varint

_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16
_DEEPEST = 16  # graphs within graphs; a network for images has none or one
_STANDARD = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft"))
"""Operator domains that engines know by themselves."""
_QUANTISED = frozenset(("QuantizeLinear", "DequantizeLinear"))
_PREBUILT = frozenset(("EPContext",))
"""Operators that are a compiled engine or name a file with one: machine code of whoever made the model."""
_REMEDY = "Export the model again with `segtool export`."

Dims = tuple[int | None, ...]
"""None where an axis is dynamic."""


@dataclass
class Graph:
    """Facts of one file.

    Attributes:
        inputs: Shapes by name, without those that are weights.
        outputs: Shapes by name.
        domains: Of operators, beside those of the standard; and operators that hold compiled code.
        external: Files beside the model that hold weights, as it names them.
        metadata: Entries of the file.
    """

    inputs: dict[str, Dims] = field(default_factory=dict)
    outputs: dict[str, Dims] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    external: set[str] = field(default_factory=set)
    metadata: dict[str, bytes] = field(default_factory=dict)
    opset: int = 0
    """Newest operator set of the standard that it names."""
    quantised: bool = False
    weights: dict[int, int] = field(default_factory=dict)
    """Numbers by their type in ONNX."""

    @property
    def precision(self) -> str:
        """Of its arithmetic: ``int8`` where it quantises, else the type of most of its weights."""
        if self.quantised:
            return "int8"
        names = {_FLOAT: "fp32", _FLOAT16: "fp16", _BFLOAT16: "bf16"}
        counts = {kind: self.weights.get(kind, 0) for kind in names}
        return names[max(counts, key=lambda kind: counts[kind])]


def read_graph(path: Path) -> Graph:
    """Walk the graph of a model file and refuse what would reach beyond it.

    Raises:
        ModelError: No such file, not an ONNX file, weights outside the file's folder, or operators that only a
            library of somebody's could provide.
    """
    graph = Graph()
    try:
        _model(mapped(path), graph)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    except MalformedError as error:
        raise ModelError(f"{path}: truncated or not an ONNX file", _REMEDY) from error
    _check(path, graph)
    return graph


def _check(path: Path, graph: Graph) -> None:
    if graph.domains:
        raise ModelError(
            f"{path}: has operators of {', '.join(sorted(graph.domains))!r}, which a library would have to bring; "
            "segtool loads no code that belongs to a model",
            "Export it with the standard's operators alone.",
        )
    folder = path.resolve().parent
    for name in sorted(graph.external):
        # Resolved, so that neither `..` nor a link leads out of the folder.
        if Path(name).is_absolute() or not (folder / name).resolve().is_relative_to(folder):
            raise ModelError(
                f"{path}: keeps weights in {name!r}, outside its folder",
                "Put the weights beside the model, or into the file.",
            )
        if not (folder / name).is_file():
            raise ModelError(f"{path}: its weights {name!r} are not beside it", "Copy that file along with the model.")


# The messages of onnx.proto3; numbers are theirs


def _model(data: memoryview, graph: Graph) -> None:
    found = False
    for number, value in messages(data, 7, 8, 14, 25):
        if number == 8:
            graph.opset = max(graph.opset, _operator_set(value))
        elif number == 7:
            found = True
            _graph(value, graph, 0)
        elif number == 14:
            key, content = entry(value)
            graph.metadata[key] = bytes(content)
        else:  # a function of the model's own, made of operators
            for _, node in messages(value, 7):
                _node(node, graph, 1)
    if not found:
        raise MalformedError


def _operator_set(data: memoryview) -> int:
    """Its version; 0 where it is not the standard's."""
    version, domain = 0, ""
    for number, value, _, _ in fields(data):
        if number == 1 and isinstance(value, memoryview):
            domain = text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return version if domain in ("", "ai.onnx") else 0


def _graph(data: memoryview, graph: Graph, depth: int) -> None:
    if depth > _DEEPEST:
        raise MalformedError
    weights: set[str] = set()
    for number, value in messages(data, 1, 5, 11, 12, 15):
        if number == 1:
            _node(value, graph, depth)
        elif number == 5:
            weights.add(_tensor(value, graph))
        elif number == 15:
            _sparse(value, graph)
        elif depth == 0:
            name, dims = _value_info(value)
            (graph.inputs if number == 11 else graph.outputs)[name] = dims
    if depth == 0:
        for name in weights & graph.inputs.keys():  # as files older than IR version 4 list them
            del graph.inputs[name]


def _node(data: memoryview, graph: Graph, depth: int) -> None:
    for number, value in messages(data, 4, 5, 7):
        if number == 4:
            operator = text(value)
            graph.quantised |= operator in _QUANTISED
            graph.domains |= {operator} & _PREBUILT
        elif number == 7:
            graph.domains |= {text(value)} - _STANDARD
        else:
            _attribute(value, graph, depth)


def _attribute(data: memoryview, graph: Graph, depth: int) -> None:
    for number, value in messages(data, 5, 6, 10, 11, 22, 23):
        if number in (5, 10):
            _tensor(value, graph)
        elif number in (6, 11):
            _graph(value, graph, depth + 1)
        else:
            _sparse(value, graph)


def _sparse(data: memoryview, graph: Graph) -> None:
    for _, tensor in messages(data, 1, 2):
        _tensor(tensor, graph)


def _tensor(data: memoryview, graph: Graph) -> str:
    """Count a tensor's numbers and note where they lie; returns its name."""
    dims: list[int] = []
    kind, name = 0, ""
    for number, value, _, _ in fields(data):
        if number == 1:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, memoryview):
            name = text(value)
        elif number == 13 and isinstance(value, memoryview):
            key, where = entry(value)
            if key == "location":
                graph.external.add(text(where))
    graph.weights[kind] = graph.weights.get(kind, 0) + math.prod(dims)
    return name


def _packed(data: memoryview) -> list[int]:
    at, values = 0, []
    while at < len(data):
        value, at = varint(data, at)
        values.append(value)
    return values


def _value_info(data: memoryview) -> tuple[str, Dims]:
    name, dims = "", []
    for number, value in messages(data, 1, 2):
        if number == 1:
            name = text(value)
            continue
        for _, tensor in messages(value, 1):
            for _, shape in messages(tensor, 2):
                dims += [_dim(dim) for _, dim in messages(shape, 1)]
    return name, tuple(dims)


def _dim(data: memoryview) -> int | None:
    fixed = [value for number, value, _, _ in fields(data) if number == 1 and isinstance(value, int)]
    return fixed[0] if fixed else None
