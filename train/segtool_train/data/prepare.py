"""From an item to what the network sees of it: all pixels come from :mod:`segtool.preprocess`, as at inference."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segtool.errors import CaseError, MissingChannelError, VoxelError
from segtool.loading import load_case
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.spec import ModelSpec
from segtool_train.data.base import Item

Float32Array = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Slices = Literal["all", "labelled"]

FULL = 255
"""What a pixel that a label covers wholly is stored as."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What an item gives.

    Args:
        samples: Number of the slice, image ``(C, *S)``, target ``(L, *S)`` of each.
        notes: What reading the item had to decide.
    """

    samples: list[tuple[int, Float32Array, ByteArray]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """What decides the pixels.

    Args:
        spec: Of the model.
        slices: Of volumes under a 2D spec: all that are not blank, or those that show a label.
        background_values: Of references, beside 0.
    """

    spec: ModelSpec
    slices: Slices = "all"
    background_values: tuple[int, ...] = ()


def prepare(item: Item, rule: Rule) -> Prepared:
    """Every sample of an item.

    Raises:
        CaseError: The item cannot be read, has no reference, or one with a value that the rule does not know.
    """
    spec = rule.spec
    try:
        case = load_case(item.source, spec)
    except MissingChannelError as error:
        if not error.channel:
            raise
        # Patterns for names are an option of predict; what a training learns, its model file keeps.
        raise MissingChannelError(
            error.problem,
            f"Name the files so that they end in _{error.channel}, or list the end that they have under aliases of "
            "that channel in the recipe's spec.channels.",
        ) from error
    if case.reference is None:
        raise CaseError(f"{item.name}: has no reference mask", "Add its mask, or take the case out of the folder.")
    labels = case.reference.labels
    _check_values(item, labels, rule)
    if spec.input.rank == 3:
        if case.geometry.kind != "volume":
            raise VoxelError(f"{item.name}: is no volume, and the recipe is 3D", "Give volumes, or a 2D recipe.")
        windowed = WindowedCase(case, spec)
        return Prepared([(0, windowed.tensor, _to_bytes(windowed.target(labels)))], case.notes)
    sliced = SlicedCase(case, spec)
    samples = []
    for index in range(sliced.count):
        if sliced.is_blank(index):
            continue
        target = _to_bytes(sliced.target(labels, index))
        if rule.slices == "labelled" and not target.any():
            continue
        samples.append((index, sliced.tensor(index), target))
    return Prepared(samples, case.notes)


def _to_bytes(share: Float32Array) -> ByteArray:
    return np.rint(share * FULL).astype(np.uint8)


def _check_values(item: Item, labels: npt.NDArray[np.integer[Any]], rule: Rule) -> None:
    """A value that means nothing would train as background without a word.

    Raises:
        VoxelError: There is one.
    """
    if any(not label.reference_values for label in rule.spec.labels):
        return  # takes every value that is not 0
    known = {0, *rule.background_values, *(v for label in rule.spec.labels for v in label.reference_values)}
    found = {int(value) for value in np.unique(labels)}
    if found - known:
        raise VoxelError(
            f"{item.name}: its mask holds the values {_listed(found)}, and the recipe knows {_listed(known)}",
            f"Add {_listed(found - known)} to reference_values of a label in the recipe's spec, or to [data] "
            "background_values.",
        )


def _listed(values: set[int]) -> str:
    # Of a picture that is no mask there are hundreds.
    shown = ", ".join(str(value) for value in sorted(values)[:8])
    return f"{shown} and {len(values) - 8} more" if len(values) > 8 else shown
