"""What all objects share that are written beside a DICOM series: patient, study, equipment, identifiers, dates.

Equal input gives equal bytes: identifiers follow from the source and the content, and the dates of an object are
those of its source. With ``Result.anonymise`` patient and study stay blank as far as the standard lets them. The UIDs
of study, series, images and frame of reference stay in any case: without them nothing says what a result belongs to.
"""

import contextlib
import hashlib
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
from segtool.formats.dicom.elements import OddError, find_in_file
from segtool.formats.dicom.quiet import quiet
from segtool.outputs.base import Result
from segtool.outputs.dicom_patient import DATES, PERSONAL, blank, make_presentable
from segtool.version import __version__

MANUFACTURER = "segtool"

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
    *PERSONAL, *(keyword for pair in DATES for keyword in pair),
)  # fmt: skip
_WANTED = {int(tag_for_keyword(name) or 0): (name, dictionary_VR(name).encode()) for name in _OF_IMAGE}
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")

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
        left_out = make_presentable(first)
        date, time = next(((first[d].value, first.get(t) or "000000") for d, t in DATES if first.get(d)), _NO_DATE)
        if result.anonymise:
            blank(first)
            date, time = _NO_DATE
        elif left_out:
            result.warn(f"the header's {', '.join(left_out)}: too long or no text, left blank in DICOM results")
        images = (first, *(_image(path) for path in source.paths[1:]))
        for keyword in _NEEDED:
            if not all(image.get(keyword) for image in images):
                raise OutputError(
                    f"case {result.name}: its DICOM headers have no {keyword}, which {kind} must refer to",
                    f"Leave {kind} out, or mend the headers.",
                )
        _share_a_frame_of_reference(images)
    return SourceSeries(images, str(date), str(time))


def _header(path: Path, keywords: Sequence[str]) -> Dataset:
    return pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(keywords))


def _image(path: Path) -> Dataset:
    """The tags of :data:`_OF_IMAGE`. Hundreds of files by pydicom alone would take longer than all the rest."""
    try:
        elements = find_in_file(path, _WANTED)
    except OddError:
        return _header(path, _OF_IMAGE)
    dataset = Dataset()
    for tag, (keyword, kind) in _WANTED.items():
        value = elements.values.get(keyword)
        if value:
            dataset.add(DataElement(tag, kind.decode(), _value(value, kind, elements.endian)))
    return dataset


def _value(value: bytes, kind: bytes, endian: str) -> str | int:
    if kind == b"US":
        return int.from_bytes(value, "big" if endian == ">" else "little")
    return value.rstrip(b"\0 ").decode("ascii")


def _share_a_frame_of_reference(images: Sequence[Dataset]) -> None:
    """Give all images the first frame of reference that one of them names, or one that follows from their series.

    The objects must name one, and images of one series share their coordinates: where they name several, reading was
    told to take them as one.
    """
    named = (image.get("FrameOfReferenceUID") for image in images)
    uid = next(filter(None, named), None) or derived_uid("frame of reference", images[0].SeriesInstanceUID)
    for image in images:
        image.FrameOfReferenceUID = uid


def patient_and_study(source: SourceSeries) -> Dataset:
    """A data set with the modules Patient and General Study of the source, to begin a new object with."""
    new = Dataset()
    for keyword in ("SpecificCharacterSet", "StudyInstanceUID", *PERSONAL):
        if keyword in source.first:
            new.add(source.first[keyword])
    return new


def equipment() -> dict[str, Any]:
    """The General Equipment module as keywords of highdicom.

    A program has no serial number, and the module wants one (type 1): the package's name and version say all there is.
    """
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": f"{MANUFACTURER}-{__version__}",
    }


def derived_uid(*parts: str) -> str:
    """A UID that follows from ``parts``: ``2.25.`` and a UUID as a number. Source: PS3.5 B.2.

    The UUID is one of names hashed with SHA-1 (RFC 9562, version 5), the name being the SHA-256 of the parts.
    """
    digest = hashlib.sha256("\0".join((MANUFACTURER, *parts)).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest).int}"


def series_uid(source: SourceSeries, result: Result, kind: str) -> str:
    """UID of the series of results of one kind by one model: the same whenever the scan is segmented again."""
    return derived_uid("series", kind, source.first.SeriesInstanceUID, result.model_sha256)


def instance_uid(source: SourceSeries, result: Result, kind: str, *contents: npt.NDArray[Any]) -> str:
    """UID of an object with these contents: another result never has the same.

    Args:
        source: The series.
        result: What is written.
        kind: As in :func:`series_uid`.
        contents: What goes into the object; by default the labels.
    """
    digest = hashlib.sha256(result.spec.to_json().encode())
    for array in contents or (result.label_map.labels.T,):  # stacks lie in memory the other way round
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return derived_uid(
        "instance", series_uid(source, result, kind), *(str(image.SOPInstanceUID) for image in source.images),
        digest.hexdigest(), str(result.anonymise), __version__,
    )  # fmt: skip


def tracking(source: SourceSeries, result: Result, name: str) -> tuple[str, str]:
    """Tracking ID and UID of a label or region: segments and measurements of one finding share them."""
    uid = derived_uid("tracking", source.first.SeriesInstanceUID, result.model_sha256, name)
    return long_string(f"{result.spec.name[:31]} {name}"), uid


def long_string(text: str) -> str:
    """``text`` as a value of the type LO: at most 64 characters, and no backslash, which would part two values."""
    return "".join(c if c.isprintable() and c != "\\" else "/" for c in text)[:64].strip() or "-"


@contextlib.contextmanager
def writing(result: Result, kind: str) -> Iterator[None]:
    """What pydicom and highdicom raise inside the block becomes one line; what they warn of is dropped.

    Their own texts may quote a name, so they are not shown.
    """
    try:
        with quiet():
            yield
    except OSError as error:
        raise OutputError(
            f"case {result.name}: the files of its series cannot be read any more ({error.strerror or 'I/O error'})",
            "Leave them in place until the run is over.",
        ) from error
    except _FAULTS as error:
        raise OutputError(
            f"case {result.name} cannot be written as {kind} ({type(error).__name__} in its headers)",
            f"Leave {kind} out, or take the NIfTI result.",
        ) from error


def save(path: Path, dataset: Dataset, source: SourceSeries) -> None:
    """Write an object, whole or not at all, with the dates of its source in place of the clock's.

    Raises:
        OutputError: The file cannot be written.
    """
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        if keyword in dataset:
            delattr(dataset, keyword)
    for date, time in (
        ("ContentDate", "ContentTime"),
        ("SeriesDate", "SeriesTime"),
        ("StructureSetDate", "StructureSetTime"),
    ):
        if date in dataset:
            setattr(dataset, date, source.date)
            setattr(dataset, time, source.time)
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
