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
from segtool_train.run_folder import RunFolder

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """``image`` ``(C, *S)`` of a case, ready for the network."""

    name: str
    image: Float32Array


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
    return [Sample(_name(cache.samples[i].item, cache.samples[i].slice), cache.image(i)) for i in chosen]


def folder_samples(folder: Path, spec: ModelSpec, limit: int) -> Sequence[Sample]:
    """Samples of the scans below a folder, through the same reading and preprocessing as inference.

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
            f"--cases {folder}: no case that this model can take ({problem or 'all slices are blank'})",
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
    if spec.input.rank == 3:
        yield Sample(case.name, WindowedCase(case, spec).tensor)
        return
    sliced = SlicedCase(case, spec)
    for index in range(sliced.count):
        if not sliced.is_blank(index):
            yield Sample(_name(case.name, index if sliced.count > 1 else 0), sliced.tensor(index))


def _name(case: str, index: int) -> str:
    return f"{case} slice {index}" if index else case
