"""What an ONNX graph says of itself, read without the onnx package, and what no engine is ever given.

Only the messages that matter are walked; weights are stepped over in a memory map, so that a large file is read in
milliseconds.

Source: onnx.proto3.
"""

from dataclasses import dataclass, field
from pathlib import Path

from segtool.backends.graph_claims import Ask, Sizes, check_claims, product
from segtool.backends.graph_tensors import Tensor, read_attribute_numbers, read_sparse_dims, read_tensor
from segtool.errors import ModelError
from segtool.protobuf import MalformedError, Reader, mapped, signed, text

_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16
_DEEPEST = 16  # graphs within graphs; a network for images has none or one
_STANDARD = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft"))
"""Operator domains that engines know by themselves."""
_QUANTISED = frozenset(("QuantizeLinear", "DequantizeLinear"))
_PREBUILT = frozenset(("EPContext",))
"""Operators that are a compiled engine or name a file with one: machine code of whoever made the model."""
_SUFFIX = ".onnx"
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
    """Walk the graph of a model file and refuse what would reach beyond it or claims more than it has.

    Every engine is given a file only after this.

    Raises:
        ModelError: No such file, not an ONNX file, weights outside the file's folder, operators that only a
            library of somebody's could provide, or tensors larger than their bytes or than any network needs.
    """
    if path.suffix.lower() != _SUFFIX:
        # Engines choose their reader by the name: some of their own formats hold compiled code or name further files.
        raise ModelError(
            f"{path}: ends in {path.suffix or 'no suffix'!r}, wanted {_SUFFIX}: engines tell formats by the name",
            f"Give an ONNX file, named so that it ends in {_SUFFIX}.",
        )
    walk = _Walk()
    try:
        walk.model(mapped(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    except MalformedError as error:
        raise ModelError(f"{path}: {error}", _REMEDY) from error
    graph = walk.graph
    if graph.domains:
        raise ModelError(
            f"{path}: has operators of {', '.join(sorted(graph.domains))!r}, which a library would have to bring; "
            "segtool loads no code that belongs to a model",
            "Export it with the standard's operators alone.",
        )
    check_claims(path, walk.sizes, {**graph.inputs, **graph.outputs})
    return graph


class _Walk:
    """Goes through a model's messages; their numbers are those of onnx.proto3."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.sizes = Sizes()
        self._read = Reader()

    def model(self, data: memoryview) -> None:
        found = False
        for number, value in self._read.messages(data, 7, 8, 14, 20, 25):
            if number == 8:
                self.graph.opset = max(self.graph.opset, self._operator_set(value))
            elif number == 7:
                found = True
                self._graph(value, 0)
            elif number == 14:
                self._read.add_entry(self.graph.metadata, value)
            elif number == 20:  # graphs of a training
                for _, inner in self._read.messages(value, 1, 2):
                    self._graph(inner, 1)
            else:  # a function of the model's own: operators, and attributes that they take where none is given
                for part, inner in self._read.messages(value, 7, 11):
                    if part == 7:
                        self._node(inner, 1)
                    else:
                        self._attribute(inner, 1)
        if not found:
            raise MalformedError

    def _operator_set(self, data: memoryview) -> int:
        """Its version; 0 where it is not the standard's."""
        version, domain = 0, ""
        for number, value, _, _ in self._read.fields(data):
            if number == 1 and isinstance(value, memoryview):
                domain = text(value)
            elif number == 2 and isinstance(value, int):
                version = signed(value)
        return version if domain in ("", "ai.onnx") else 0

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise MalformedError(f"graphs within graphs, more than {_DEEPEST} deep")
        graph = self.graph
        weights: set[str] = set()
        for number, value in self._read.messages(data, 1, 5, 11, 12, 15):
            if number == 1:
                self._node(value, depth)
            elif number == 5:
                tensor = self._tensor(value)
                weights.add(tensor.name)
                self.sizes.add_numbers(tensor.name, tensor.numbers)
            elif number == 15:
                self._sparse(value)
            elif depth == 0:
                name, dims = self._value_info(value)
                (graph.inputs if number == 11 else graph.outputs)[name] = dims
        if depth == 0:
            for name in weights & graph.inputs.keys():  # as files older than IR version 4 list them
                del graph.inputs[name]

    def _node(self, data: memoryview, depth: int) -> None:
        inputs, outputs, operator = [], [], ""
        numbers: tuple[float, ...] = (0,)
        for number, value in self._read.messages(data, 1, 2, 4, 5, 7):
            if number == 1:
                inputs.append(text(value))
            elif number == 2:
                outputs.append(text(value))
            elif number == 4:
                operator = text(value)
                self.graph.quantised |= operator in _QUANTISED
                self.graph.domains |= {operator} & _PREBUILT
            elif number == 7:
                self.graph.domains |= {text(value)} - _STANDARD
            else:
                numbers = max(numbers, self._attribute(value, depth), key=product)
        if operator == "Constant":
            for name in outputs:
                self.sizes.add_numbers(name, numbers)
        elif Ask.is_of(operator):
            self.sizes.asks.append(Ask(operator, tuple(inputs), numbers))

    def _attribute(self, data: memoryview, depth: int) -> tuple[float, ...]:
        """Its numbers, where they are few."""
        numbers = read_attribute_numbers(self._read, data)
        for number, value in self._read.messages(data, 5, 6, 10, 11, 22, 23):
            if number in (5, 10):
                numbers = self._tensor(value).numbers
            elif number in (6, 11):
                self._graph(value, depth + 1)
            else:
                self._sparse(value)
        return numbers

    def _sparse(self, data: memoryview) -> None:
        self.sizes.dense.append(read_sparse_dims(self._read, data))
        for _, tensor in self._read.messages(data, 1, 2):
            self._tensor(tensor)

    def _tensor(self, data: memoryview) -> Tensor:
        """Count a tensor's numbers and note where they lie."""
        tensor = read_tensor(self._read, data)
        self.sizes.tensors.append(tensor)
        self.graph.external |= set(tensor.locations)
        self.graph.weights[tensor.kind] = self.graph.weights.get(tensor.kind, 0) + tensor.count
        return tensor

    def _value_info(self, data: memoryview) -> tuple[str, Dims]:
        name, dims = "", []
        for number, value in self._read.messages(data, 1, 2):
            if number == 1:
                name = text(value)
                continue
            for _, tensor in self._read.messages(value, 1):
                for _, shape in self._read.messages(tensor, 2):
                    dims += [self._dim(dim) for _, dim in self._read.messages(shape, 1)]
        return name, tuple(dims)

    def _dim(self, data: memoryview) -> int | None:
        fixed = [
            signed(value) for number, value, _, _ in self._read.fields(data) if number == 1 and isinstance(value, int)
        ]
        return fixed[-1] if fixed else None
