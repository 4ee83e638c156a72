"""Splits a DICOM series that holds several volumes.

A header counts much that tells no volumes apart, such as an acquisition for each slice. So a tag splits a series only
where slices lie on one another, and only where the parts that it makes are volumes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segtool.formats.dicom.index import FileFacts
from segtool.formats.dicom.private import private_b_value
from segtool.formats.dicom.texts import b_value, plane_of

_SAME_DIRECTION = 1e-3
_SAME_POSITION_MM = 1e-3
"""As where a volume is read."""

_FAR_MM = 1e6

_WHOLE = 0.9
"""Share of the places that the largest part of a split covers; less is a piece of a volume."""


_FEW, _MANY = 2, 5
"""So few slices beside so many are none of another volume."""

_MOST_DIRECTIONS = 1000
"""With which each slice is compared."""

_Stack = tuple[int, tuple[int, int] | None]
"""Number of the direction, -1 for none, and size."""


@dataclass(frozen=True, eq=False)
class Part:
    """Slices of one orientation and size.

    Args:
        files: In natural order.
        places: ``(N,)``, counts the places along the normal; equal where slices lie on one another.
        plane: The nearest one; empty where files say nowhere in the patient they lie.
        labels: What tells the part from others of its stack.
    """

    files: Sequence[FileFacts]
    places: npt.NDArray[np.intp]
    plane: str = ""
    labels: tuple[str, ...] = ()

    @property
    def covered(self) -> int:
        """How many places have a slice."""
        return len(np.unique(self.places))

    @property
    def doubled(self) -> int:
        """How many slices lie where another one lies."""
        return len(self.files) - self.covered

    def only(self, members: Sequence[int], label: str) -> "Part":
        """The part of these members, which is called so."""
        files = [self.files[member] for member in members]
        return Part(files, self.places[list(members)], self.plane, (*self.labels, label))


def by_place(files: Sequence[FileFacts]) -> list[Part]:
    """Slices by orientation, then by size."""
    stacks: dict[_Stack, list[FileFacts]] = {}
    directions: list[tuple[float, ...]] = []
    known: dict[bytes, int] = {}
    for file in files:
        raw = file.values.get("ImageOrientationPatient", b"")
        if raw not in known:
            known[raw] = _direction(file.numbers("ImageOrientationPatient", 6), directions)
        number = known[raw]
        if number >= 0 and file.numbers("ImagePositionPatient", 3) is None:
            number = -1
        stacks.setdefault((number, file.size), []).append(file)
    _keep_together(stacks, files)
    return [_stack(members, directions[number] if number >= 0 else None) for (number, _), members in stacks.items()]


def _keep_together(stacks: dict[_Stack, list[FileFacts]], files: Sequence[FileFacts]) -> None:
    """A slice or two of another size, or without a place, are damage and no volume: reading the series says so.

    Set aside, they could leave a scan a slice short. Those of another orientation may be a localizer.
    """
    largest = max(stacks, key=lambda stack: len(stacks[stack]))
    if largest[0] < 0 or len(stacks[largest]) < _MANY:
        return
    odd = [
        one for one, members in stacks.items() if one[0] in (-1, largest[0]) and len(members) <= _FEW and one != largest
    ]
    if odd:
        taken = {id(file) for one in (largest, *odd) for file in stacks[one]}
        for one in odd:
            del stacks[one]
        stacks[largest] = [file for file in files if id(file) in taken]


def _direction(found: tuple[float, ...] | None, known: list[tuple[float, ...]]) -> int:
    """The number of a direction among those known, to which a new one is added; -1 for none."""
    if found is None:
        return -1
    for number, direction in enumerate(known):
        if max(abs(one - other) for one, other in zip(found, direction, strict=True)) <= _SAME_DIRECTION:
            return number
    if len(known) < _MOST_DIRECTIONS:
        known.append(found)
    # Beyond, reading the volume says that its slices are turned.
    return len(known) - 1


def _stack(files: Sequence[FileFacts], directions: tuple[float, ...] | None) -> Part:
    plane = plane_of(directions)
    if directions is None or not plane:
        return Part(files, np.arange(len(files)))
    normal = np.cross(directions[:3], directions[3:])
    found = [file.numbers("ImagePositionPatient", 3) for file in files]
    # One without a place counts as beside all others: reading the series says that it has none.
    nowhere = (*(_FAR_MM * normal),)
    positions = np.array([nowhere if place is None else place for place in found], np.float64) @ normal
    order = np.argsort(positions, kind="stable")
    places = np.empty(len(files), np.intp)
    places[order] = np.cumsum(np.diff(positions[order], prepend=positions[order[0]]) > _SAME_POSITION_MM)
    return Part(files, places, plane)


def untangled(stack: Part) -> list[Part]:
    """The volumes of a stack; one where nothing explains why slices lie on one another."""
    if not stack.doubled:
        return [stack]
    for name, key in _KEYS:
        parts = _parts(stack, name, key)
        if parts:
            return [volume for part in parts for volume in untangled(part)]
    return _by_instance(stack) or [stack]


def _parts(stack: Part, name: str, key: Callable[[FileFacts], Hashable]) -> list[Part]:
    """The stack split by a tag; empty where the tag does not tell volumes apart."""
    groups: dict[Hashable, list[int]] = {}
    for number, file in enumerate(stack.files):
        groups.setdefault(key(file), []).append(number)
    most = int(np.bincount(stack.places).max())
    if not 1 < len(groups) <= most:
        return []
    values = sorted(groups, key=lambda value: (value is None, value))
    labels = [_label(name, value, rank) for rank, value in enumerate(values, 1)]
    if len(set(labels)) < len(labels):
        labels = [f"{name}-{rank}" for rank in range(1, len(labels) + 1)]
    parts = [stack.only(groups[value], label) for value, label in zip(values, labels, strict=True)]
    is_better = sum(part.doubled for part in parts) < stack.doubled
    return parts if is_better and max(part.covered for part in parts) >= _WHOLE * stack.covered else []


def _label(name: str, value: Hashable, rank: int) -> str:
    if name == "b" and isinstance(value, float):
        return f"b-{value:.0f}"
    if name == "type" and isinstance(value, tuple):
        words = [_TYPES[part] for part in value[2:] if part in _TYPES]
        return words[0] if words else f"type-{rank}"
    if name in ("acquisition", "time") and isinstance(value, float) and value.is_integer() and value >= 0:
        return f"{name}-{value:.0f}"
    return f"{name}-{rank}"


_TYPES = {
    "M": "magnitude", "P": "phase", "R": "real", "I": "imaginary", "M_FFE": "magnitude", "M_SE": "magnitude",
    "M_IR": "magnitude", "PHASE MAP": "phase", "REAL": "real", "IMAGINARY": "imaginary", "MAGNITUDE": "magnitude",
    "PHASE": "phase",
}  # fmt: skip
"""What ImageType says from its third value on."""


def _by_instance(stack: Part) -> list[Part]:
    """Volumes one after another, or slice by slice, where every place has as many slices as the others."""
    counts = np.bincount(stack.places)
    times, places = int(counts[0]), len(counts)
    numbers = {member: file.number("InstanceNumber") for member, file in enumerate(stack.files)}
    known = [number for number in numbers.values() if number is not None]
    if counts.min() != counts.max() or len(set(known)) < len(numbers):
        return []
    order = sorted(numbers, key=lambda member: numbers[member] or 0)
    by_time = stack.places[order].reshape(times, places)
    by_place = stack.places[order].reshape(places, times)
    if (np.sort(by_time, axis=1) == np.arange(places)).all():
        members = np.reshape(order, (times, places))
    elif (by_place == by_place[:, :1]).all():
        members = np.reshape(order, (places, times)).T
    else:
        return []
    return [stack.only(sorted(row.tolist()), f"time-{number}") for number, row in enumerate(members, 1)]


def _echo(file: FileFacts) -> Hashable:
    echo_time = file.number("EchoTime")
    return echo_time is None, echo_time or 0.0, file.number("EchoNumbers") or 0.0


def _number(keyword: str) -> Callable[[FileFacts], Hashable]:
    return lambda file: file.number(keyword)


def _b_value(file: FileFacts) -> Hashable:
    standard = b_value(file)
    return private_b_value(file.path, file.limits) if standard is None else standard


_KEYS: tuple[tuple[str, Callable[[FileFacts], Hashable]], ...] = (
    ("echo", _echo),
    ("acquisition", _number("AcquisitionNumber")),
    ("time", _number("TemporalPositionIdentifier")),
    ("b", _b_value),
    ("trigger", _number("TriggerTime")),
    ("inversion", _number("InversionTime")),
    ("flip", _number("FlipAngle")),
    ("type", lambda file: file.texts("ImageType")),
)
