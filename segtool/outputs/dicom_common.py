"""What all objects share that are written beside a DICOM series: patient, study, equipment, identifiers, dates.

Equal input gives equal bytes: identifiers follow from the source and the content, and the dates of an object are
those of its source. With ``Result.anonymise`` patient and study stay blank as far as the standard lets them. The UIDs
of study, series, images and frame of reference stay in any case: without them nothing says what a result belongs to.
"""

import contextlib
import hashlib
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from segtool.atomic import atomic_path
from segtool.errors import MissingDependencyError, OutputError
from segtool.formats.dicom_elements import OddError, find_in_file
from segtool.formats.dicom_quiet import quiet
from segtool.outputs.base import Result
from segtool.version import __version__

MANUFACTURER = "segtool"

_BLANK = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
"""Must be there and may be empty (type 2)."""

_PERSONAL = (*_BLANK, "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod")

_DATES = tuple((f"{of}Date", f"{of}Time") for of in ("Series", "Acquisition", "Content", "Study"))
_NO_DATE = "19000101", "000000"
"""Where a date must be and none is known, or none may show."""

_OF_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "Rows", "Columns",
)  # fmt: skip
_OF_SERIES = (
    "SpecificCharacterSet", "Modality", "PositionReferenceIndicator", "SeriesNumber",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    *_PERSONAL, *(keyword for pair in _DATES for keyword in pair),
)  # fmt: skip
_WANTED = {int(tag_for_keyword(name) or 0): (name, dictionary_VR(name).encode()) for name in _OF_IMAGE}
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")

_VALID = {
    "PatientSex": re.compile("[MFO]"),
    **{date: re.compile(r"\d{8}") for date in ("PatientBirthDate", *(pair[0] for pair in _DATES))},
    **{time: re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?") for time in (pair[1] for pair in _DATES)},
}
"""What else scanners write there would make the new object invalid."""

_FAULTS = (
    ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, OverflowError, EOFError,
    RuntimeError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """What a new object takes over from the series that it is about.

    Args:
        images: A data set without pixels of each file, in the order of ``Source.paths``: identifiers, place and size.
            The first also has the patient and the study, blank where that was asked for or nothing is known.
        date: ``YYYYMMDD`` of the source, 1900-01-01 where none is known or none may show.
        time: ``HHMMSS`` of the source, likewise midnight.
    """

    images: tuple[Dataset, ...]
    date: str
    time: str

    @property
    def first(self) -> Dataset:
        """The first image."""
        return self.images[0]

    @property
    def is_placed(self) -> bool:
        """True where the images say where in the patient they lie."""
        return "ImagePositionPatient" in self.first


def import_highdicom() -> ModuleType:
    """The library that knows the objects.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import highdicom
        import highdicom.seg
        import highdicom.sr
    except ImportError as error:
        raise MissingDependencyError(
            "writing DICOM needs highdicom, which is not installed", "pip install 'segtool[dicom]'."
        ) from error
    return highdicom


def source_series(result: Result, kind: str) -> SourceSeries:
    """Read the headers of the series that a result is about.

    Args:
        result: Of a case from a DICOM series.
        kind: What is to be written, such as ``dicom-seg``, for messages.

    Raises:
        OutputError: The source is no DICOM series, or its headers cannot be read any more.
    """
    source = result.source
    if source.format != "dicom":
        raise OutputError(
            f"case {result.name} is {source.format}, and {kind} refers to the images of a DICOM series",
            f"Give the series itself, or leave {kind} out.",
        )
    with writing(result, kind):
        first = _header(source.path, (*_OF_IMAGE, *_OF_SERIES))
        _make_presentable(first)
        date, time = next(
            ((first[d].value, first.get(t) or "000000") for d, t in _DATES if first.get(d)), _NO_DATE
        )
        if result.anonymise:
            _blank(first)
            date, time = _NO_DATE
        images = (first, *(_image(path) for path in source.paths[1:]))
        _share_a_frame_of_reference(images)
    return SourceSeries(images, str(date), str(time))


def _header(path: Path, keywords: Sequence[str]) -> Dataset:
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(keywords))
    for keyword in _NEEDED:
        if not dataset.get(keyword):
            raise KeyError(keyword)
    return dataset


def _image(path: Path) -> Dataset:
    """The tags of :data:`_OF_IMAGE`. Hundreds of files by pydicom alone would take longer than all the rest."""
    try:
        values = find_in_file(path, _WANTED).values
    except OddError:
        return _header(path, _OF_IMAGE)
    dataset = Dataset()
    for tag, (keyword, kind) in _WANTED.items():
        value = values.get(keyword)
        if not value:
            continue
        if kind == b"US":
            # The endian of a plain file shows in the length of a row: no image has 2**8 times too many.
            return _header(path, _OF_IMAGE) if len(value) != 2 else dataset
        dataset.add(DataElement(tag, kind.decode(), value.rstrip(b"\0 ").decode("ascii")))
    return dataset
