"""Inputs for parity: real samples as the network sees them."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segtool.case import Case
from segtool.errors import CaseError, UsageError
from segtool.loading import load_case
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.scan import scan
from segtool.spec import ModelSpec
from segtool_train.data.base import Item, spread
from segtool_train.data.cache import read_cache
from segtool_train.data.prepare import FULL
from segtool_train.run_folder import RunFolder

Float32Array = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]

_HALF = 0.5  # of a pixel: a reference that covers so much of it has it


@dataclass(frozen=True, eq=False)
class Sample:
    """What the network sees of a case, and what it should find.

    Args:
        name: Of the case, and the slice of it.
        image: ``(C, *S)``, ready for the network.
        reference: ``(L, *S)``, one mask a label; None where the case has no reference.
    """

    name: str
    image: Float32Array
    reference: Masks | None = None


def validation_samples(run: RunFolder, limit: int) -> Sequence[Sample]:
    """Samples of the run's validation cases, of its training cases where none validate, from its cache.

    Raises:
        UsageError: The run or its cache is gone.
    """
    split = run.read_split()
    try:
        folder = Path(json.loads(run.data_file.read_text(encoding="utf-8"))["cache"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{run.data_file}: does not say where the run's cache lies ({error})",
            "Name labelled scans with --cases.",
        ) from error
    cache = read_cache(folder)
    chosen = spread(cache.indices(split.validation or split.train), limit)
    return [
        Sample(_name(cache.samples[i].item, cache.samples[i].slice), cache.image(i), cache.target(i) > FULL // 2)
        for i in chosen
    ]


def folder_samples(folder: Path, spec: ModelSpec, limit: int, option: str = "--cases") -> Sequence[Sample]:
    """Samples of the scans below a folder, through the same reading and preprocessing as inference.

    Args:
        folder: Of scans.
        spec: Decides the pixels.
        limit: How many samples in all, spread over what is there.
        option: Of the command line, that named the folder.

    Raises:
        UsageError: The folder holds no case that the model can take.
    """
    samples: list[Sample] = []
    problem: CaseError | None = None
    for source in scan([folder], spec).cases:
        try:
            samples += _samples(load_case(source, spec), spec)
        except CaseError as error:
            problem = error
    if not samples:
        raise UsageError(
            f"{option} {folder}: no case that this model can take ({problem or 'all slices are blank'})",
            "Name a folder of scans with the model's channels.",
        )
    return spread(samples, limit)


def item_samples(items: Sequence[Item], spec: ModelSpec, limit: int) -> Iterator[Sample]:
    """Samples of the items, read one after the other: no cache is needed, and one case at a time is in memory.

    Args:
        items: At least one.
        spec: Decides the pixels.
        limit: How many samples in all, spread over items and over their slices.

    Raises:
        CaseError: An item cannot be read.
    """
    chosen = spread(items, limit)
    for item in chosen:
        yield from spread(list(_samples(load_case(item.source, spec), spec)), math.ceil(limit / len(chosen)))


def _samples(case: Case, spec: ModelSpec) -> Iterator[Sample]:
    labels = None if case.reference is None else case.reference.labels
    if spec.input.rank == 3:
        windowed = WindowedCase(case, spec)
        yield Sample(case.name, windowed.tensor, None if labels is None else windowed.target(labels) >= _HALF)
        return
    sliced = SlicedCase(case, spec)
    for index in range(sliced.count):
        if not sliced.is_blank(index):
            name = _name(case.name, index if sliced.count > 1 else 0)
            target = None if labels is None else sliced.target(labels, index) >= _HALF
            yield Sample(name, sliced.tensor(index), target)


def _name(case: str, index: int) -> str:
    return f"{case} slice {index}" if index else case
