"""One DICOM file of a series: its place in the patient and its pixels."""

import contextlib
import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray

DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
CONVERT = "Convert it to NIfTI with dcm2niix."

_HIGHEST = 1e9
"""Larger numbers, infinite ones and NaN are damage, whatever the tag."""
_BROKEN = (
    BytesLengthException, InvalidDicomError, OSError, EOFError, ValueError, TypeError, KeyError,
    AttributeError, IndexError, struct.error, NotImplementedError, RuntimeError, OverflowError, MemoryError,
)  # fmt: skip

# pydicom logs the values that it doubts, and a value may be a name.
logging.getLogger("pydicom").setLevel(logging.ERROR)

# warnings.catch_warnings changes the whole process, so one thread at a time.
_QUIET = threading.Lock()


@dataclass(frozen=True)
class Slice:
    """Header of one file. Millimetres, patient axes LPS as DICOM has them.

    Args:
        path: The file.
        size: Rows, columns.
        position: Centre of the first pixel, None where the header has none.
        row: Unit vector along which the column index grows, None where the header has none.
        column: Unit vector along which the row index grows, None where the header has none.
        spacing: Distance of rows, distance of columns.
        thickness: SpacingBetweenSlices, else SliceThickness, else 1; used for a single slice only.
        rescale: Slope and intercept.
        dtype: Stored type.
        inverted_from: Sum of the lowest and the highest value of a MONOCHROME1 image, else None.
        modality: Such as ``MR``.
        syntax: Name of the transfer syntax.
    """

    path: Path
    size: tuple[int, int]
    position: tuple[float, ...] | None
    row: tuple[float, ...] | None
    column: tuple[float, ...] | None
    spacing: tuple[float, ...]
    thickness: float
    rescale: tuple[float, float]
    dtype: str
    inverted_from: int | None
    modality: str
    syntax: str

    @property
    def is_placed(self) -> bool:
        """True where the header says where the slice lies in the patient."""
        return self.position is not None and self.row is not None

    @property
    def is_rescaled(self) -> bool:
        """True where values are not the stored integers."""
        return self.rescale != (1.0, 0.0)


def read_header(path: Path) -> Slice:
    """The header of one file; pixels stay on disk.

    Raises:
        UnreadableFileError: Not DICOM, truncated, or an image of a kind that has no slices.
    """
    with parsing(path):
        return _header(dataset_of(path, pixels=False), path)


def read_slice(path: Path) -> tuple[Slice, AnyArray]:
    """Header and values ``(rows, columns)``: stored integers, or float32 where a rescale applies.

    MONOCHROME1 is turned round within the range of its bits, so that bright stays bright.

    Raises:
        UnreadableFileError: As for :func:`read_header`; pixels missing, truncated or compressed beyond what
            is installed.
    """
    with parsing(path):
        dataset = dataset_of(path, pixels=True)
        header = _header(dataset, path)
        if "PixelData" not in dataset:
            raise UnreadableFileError(f"{path}: a header without pixels", "Export the series again, with images.")
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        if not decoder.is_available:
            raise UnreadableFileError(
                f"{path}: pixels are compressed as {header.syntax}, for which no decoder is installed",
                f"Install one with: {DECODERS}",
            )
        pixels = pixel_array(dataset)
    if header.inverted_from is not None:
        pixels = (header.inverted_from - pixels.astype(np.int64)).astype(pixels.dtype)
    if header.is_rescaled:
        slope, intercept = header.rescale
        pixels = pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return header, pixels


@contextlib.contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Whatever pydicom raises inside the block becomes one line; what it warns of is dropped.

    Its warnings concern values that do not follow the standard to the letter, as scanners write them; those
    that matter are checked here.
    """
    try:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: no such file", "Check the path.") from error
    except _BROKEN as error:
        # Not the message: pydicom quotes values, and a value may be a name.
        raise UnreadableFileError(
            f"{path}: cannot be read as DICOM ({type(error).__name__})",
            "It is truncated, corrupt or of another kind: export or copy it again.",
        ) from error


def dataset_of(path: Path, *, pixels: bool, tags: list[str] | None = None) -> pydicom.Dataset:
    """The parsed file, with or without the standard's preamble; call it inside :func:`parsing`."""
    if not looks_like_dicom(path):
        raise InvalidDicomError
    source = io.BytesIO(path.read_bytes()) if pixels else path
    return pydicom.dcmread(source, force=True, stop_before_pixels=not pixels, specific_tags=tags)


def looks_like_dicom(path: Path) -> bool:
    """True where the file begins like DICOM: ``DICM`` at byte 128, or an element of group 2 or 8 at once.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM":
        return True
    if len(head) < 16 or head[1] or head[0] not in (2, 8):
        return False
    # Explicit: two capital letters name the type. Implicit: a length that fits a text or a number.
    _, element, length = struct.unpack_from("<HHI", head)
    is_type = head[4:6].isalpha() and head[4:6].isupper()
    return element % 2 == 0 and element < 0x2000 and (is_type or length <= 1024)


def _header(dataset: pydicom.Dataset, path: Path) -> Slice:
    _refuse_other_kinds(dataset, path)
    syntax = dataset.file_meta.TransferSyntaxUID if "TransferSyntaxUID" in dataset.file_meta else None
    if syntax is None:
        # A file without meta header is not compressed; pydicom has seen how its elements are written.
        is_implicit, _ = dataset.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian if is_implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    stored, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    directions = _numbers(dataset, "ImageOrientationPatient", 6)
    spacing = _numbers(dataset, "PixelSpacing", 2)
    position = _numbers(dataset, "ImagePositionPatient", 3)
    is_placed = position is not None and directions is not None
    if (is_placed and spacing is None) or min(spacing or (1.0,)) <= 0:
        raise UnreadableFileError(f"{path}: no PixelSpacing above 0", CONVERT)
    thickness = _numbers(dataset, "SpacingBetweenSlices", 1) or _numbers(dataset, "SliceThickness", 1)
    return Slice(
        path=path,
        size=(int(dataset.Rows), int(dataset.Columns)),
        position=position,
        row=directions and directions[:3],
        column=directions and directions[3:],
        spacing=spacing or (1.0, 1.0),
        thickness=abs(thickness[0]) if thickness and thickness[0] else 1.0,
        rescale=(_number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)),
        # Raises for a number of bits that no integer has.
        dtype=np.dtype(f"{'' if signed else 'u'}int{int(dataset.BitsAllocated)}").name,
        inverted_from=(-1 if signed else 2**stored - 1) if _is_inverted(dataset) else None,
        modality=str(dataset.get("Modality", "")) or "unknown",
        syntax=syntax.name,
    )


def _refuse_other_kinds(dataset: pydicom.Dataset, path: Path) -> None:
    kind = getattr(dataset.get("SOPClassUID"), "name", "") or "DICOM"
    if "Rows" not in dataset or "Columns" not in dataset:
        raise UnreadableFileError(
            f"{path}: {kind} without rows and columns, not an image or a truncated one",
            "Leave it out, or export or copy it again.",
        )
    if dataset.get("Modality") == "SEG":
        raise UnreadableFileError(f"{path}: a segmentation (DICOM SEG), not a scan", "Pass the scan that it segments.")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1 or "SharedFunctionalGroupsSequence" in dataset:
        raise UnreadableFileError(f"{path}: {kind} with {frames} frames in one file (enhanced multi-frame)", CONVERT)
    photometric = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or not photometric.startswith("MONOCHROME"):
        raise UnreadableFileError(f"{path}: colours ({photometric}), not grey values", "Pass the scan itself.")
    if "ModalityLUTSequence" in dataset:
        raise UnreadableFileError(f"{path}: intensities behind a table (Modality LUT)", CONVERT)


def _is_inverted(dataset: pydicom.Dataset) -> bool:
    return bool(dataset.get("PhotometricInterpretation") == "MONOCHROME1")


def _numbers(dataset: pydicom.Dataset, tag: str, count: int) -> tuple[float, ...] | None:
    """The ``count`` numbers of a tag; None where it is absent or empty."""
    value: Any = dataset.get(tag)
    if value is None or value == "":
        return None
    numbers = tuple(float(number) for number in np.atleast_1d(value))
    if len(numbers) != count or not all(abs(number) < _HIGHEST for number in numbers):
        raise ValueError(tag)
    return numbers


def _number(dataset: pydicom.Dataset, tag: str, absent: float) -> float:
    numbers = _numbers(dataset, tag, 1)
    return absent if numbers is None else numbers[0]
