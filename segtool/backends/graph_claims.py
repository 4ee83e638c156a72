"""What a graph claims, held against the bytes that it has: files with weights, sizes of tensors, sizes asked for.

No engine checks all of it before it takes memory, and they differ in what they check. What only shows while a network
runs, such as one bomb inside another, is not to be found here; the engine's own error then fails the case.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segtool.backends.graph_tensors import Tensor
from segtool.errors import ModelError
from segtool.limits import DEFAULT_LIMITS

_LARGEST = DEFAULT_LIMITS.voxels
"""Numbers of one tensor."""
_MOST_PASSES = 1_000_000
_REMEDY = "Export the model again with `segtool export`."
_SIZED_BY: dict[str, int] = {
    "ConstantOfShape": 0,
    "Expand": 1,
    "Loop": 0,
    "OneHot": 1,
    "Range": 1,
    "Resize": 3,
    "Tile": 1,
    "Upsample": 1,
}
"""Operators whose result is as large as an input of theirs says, and which input that is."""
_SCALES = {"Resize": 2}
_SIZED_BY_ATTRIBUTE = frozenset(("RandomNormal", "RandomUniform"))


@dataclass(frozen=True)
class Ask:
    """An operator that makes as many numbers as it is told to.

    Args:
        operator: Its type.
        inputs: Names.
        numbers: Of its attributes.
    """

    operator: str
    inputs: tuple[str, ...]
    numbers: tuple[float, ...]

    @staticmethod
    def is_of(operator: str) -> bool:
        """Whether an operator is of that kind."""
        return operator in _SIZED_BY or operator in _SIZED_BY_ATTRIBUTE


@dataclass
class Sizes:
    """All claims of one file.

    Attributes:
        tensors: Weights and constants.
        dense: Numbers of every sparse tensor.
        asks: Operators that make large results.
        products: By name of a small constant: the product of its numbers, the largest where a name comes twice.
    """

    tensors: list[Tensor] = field(default_factory=list)
    dense: list[int] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    products: dict[str, float] = field(default_factory=dict)

    def add_numbers(self, name: str, numbers: tuple[float, ...]) -> None:
        """Note a constant."""
        if name and numbers:  # an input without a name is one that is left out
            self.products[name] = max(self.products.get(name, 0), product(numbers))


def product(numbers: Iterable[float]) -> float:
    """Of their sizes; infinite where it is beyond all numbers of a machine."""
    found = 1.0
    for number in numbers:
        found *= abs(float(number))
    return found


def check_claims(path: Path, sizes: Sizes, ends: Mapping[str, tuple[int | None, ...]]) -> None:
    """Refuse what is not there or larger than any network for scans.

    Args:
        path: The model, as engines are given it.
        sizes: Its claims.
        ends: Shapes of its inputs and outputs.

    Raises:
        ModelError: Weights outside the model's folder or beyond the end of their file, or a size out of all reason.
    """
    files = _Files(path)
    for tensor in sizes.tensors:
        if tensor.count < 0:
            raise ModelError(f"{path}: tensor {tensor.name!r} has an axis of less than no numbers", _REMEDY)
        if tensor.locations:
            files.check(tensor)
        elif tensor.count > 8 * tensor.held_bytes:
            raise ModelError(
                f"{path}: tensor {tensor.name!r} claims {_short(tensor.count)} numbers in {tensor.held_bytes} bytes",
                _REMEDY,
            )
    for dense in sizes.dense:
        _check_size(path, "a sparse tensor", dense)
    for name, dims in ends.items():
        if any(n is not None and n < 1 for n in dims):
            raise ModelError(f"{path}: {name!r} has an axis of {min(n for n in dims if n is not None)}", _REMEDY)
        _check_size(path, repr(name), math.prod(n for n in dims if n is not None))
    for ask in sizes.asks:
        _check_ask(path, ask, sizes.products)


def _check_ask(path: Path, ask: Ask, products: Mapping[str, float]) -> None:
    if ask.operator in _SIZED_BY_ATTRIBUTE:
        _check_size(path, ask.operator, product(ask.numbers))
        return
    for index in {_SIZED_BY[ask.operator], _SCALES.get(ask.operator, _SIZED_BY[ask.operator])}:
        found = products.get(ask.inputs[index], 0) if index < len(ask.inputs) else 0
        if ask.operator == "Loop" and found > _MOST_PASSES:
            raise ModelError(
                f"{path}: a loop of {_short(found)} passes, wanted {_MOST_PASSES} at most", "Export it without loops."
            )
        _check_size(path, ask.operator, found)


def _check_size(path: Path, what: str, count: float) -> None:
    if not count <= _LARGEST:
        raise ModelError(f"{path}: {what} is of {_short(count)} numbers, wanted {_LARGEST} at most", _REMEDY)


def _short(count: float) -> str:
    return f"{min(count, 1e300):.6g}"


class _Files:
    """The files with weights beside one model.

    Args:
        path: The model.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes: dict[str, int] = {}

    def check(self, tensor: Tensor) -> None:
        """Refuse a tensor that lies outside the folder, nowhere, or beyond the end of its file."""
        for name in tensor.locations:
            if name not in self._bytes:
                self._bytes[name] = self._size(name)
            offset, length = (self._number(text, tensor) for text in tensor.places)
            if (offset or 0) + max(tensor.needed_bytes, length or 0) > self._bytes[name]:
                raise ModelError(
                    f"{self._path}: tensor {tensor.name!r} lies beyond the end of {name!r}", "Copy that file again."
                )

    def _size(self, name: str) -> int:
        path = self._path
        # As engines put it together, links of the model itself not followed; `*` is how ONNX Runtime writes that a
        # place is not in a file but in memory.
        if not name or not name.isprintable() or "*" in name or "\\" in name:
            raise ModelError(f"{path}: keeps weights in {name!r}, which is no file's name", _REMEDY)
        file = path.parent / name
        try:
            # Resolved, so that neither `..` nor a link leads out of the folder.
            inside = not Path(name).is_absolute() and file.resolve().is_relative_to(path.parent.resolve())
            if inside and file.is_file():
                return file.stat().st_size
        except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise ModelError(f"{path}: its weights {name[:80]!r} cannot be read ({reason})", _REMEDY) from error
        if not inside:
            raise ModelError(
                f"{path}: keeps weights in {name!r}, outside its folder",
                "Put the weights beside the model, or into the file.",
            )
        raise ModelError(f"{path}: its weights {name!r} are not beside it", "Copy that file along with the model.")

    def _number(self, text: str, tensor: Tensor) -> int | None:
        if not text:
            return None
        if not (text.isascii() and text.isdecimal()) or len(text) > 20:
            raise ModelError(
                f"{self._path}: tensor {tensor.name!r} lies at {text[:40]!r}, wanted a number of bytes", _REMEDY
            )
        return int(text)
