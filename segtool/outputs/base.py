"""What every kind of result can do. One file a kind; the table is in :mod:`segtool.outputs`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from segtool.case import LabelMap, Source
from segtool.formats.dicom.stack import StackPlan, stack_plan
from segtool.measurements import Measurements
from segtool.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class Result:
    """A finished case, as it is to be written.

    Args:
        name: Of the case, free of patient data.
        source: The image whose grid the labels are on: of a DICOM series all its files.
        label_map: Labels ``(*S)`` on the grid of ``source``.
        spec: Of the model.
        model_sha256: Of the model's file; of several, joined with ``+``.
        probabilities: ``(L, *S)`` in the order of the spec's labels, where they were asked for.
        anonymise: Leave the patient's particulars blank in what must carry them.
        measured: Of each label and region, as :func:`segtool.measurements.measure` has them; None where nobody has
            measured yet.
        warnings: What those that write it found out, without what headers say.
    """

    name: str
    source: Source
    label_map: LabelMap
    spec: ModelSpec
    model_sha256: str
    probabilities: npt.NDArray[np.floating[Any]] | None = None
    anonymise: bool = False
    measured: Mapping[str, Measurements] | None = None
    warnings: list[str] = field(default_factory=list)

    def warn(self, line: str) -> None:
        """Add a line to ``warnings``, once however many kinds of results say it."""
        if line not in self.warnings:
            self.warnings.append(line)

    @cached_property
    def plan(self) -> StackPlan:
        """How the files of a DICOM source stack. Read once for all kinds of results that are written.

        Raises:
            UnreadableFileError: They cannot be read any more.
        """
        return stack_plan(self.source)


class Output(Protocol):
    """Writes one kind of result. Stateless; called from several threads."""

    name: ClassVar[str]

    def suffix(self, source: Source) -> str:
        """Suffix of the file, such as ``.seg.dcm``."""
        ...

    def write(self, path: Path, result: Result) -> None:
        """Write a result, whole or not at all.

        Raises:
            OutputError: The file cannot be written, or the case has not what this kind needs.
        """
        ...
