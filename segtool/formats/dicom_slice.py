"""One DICOM file of a series: its place in the patient, its pixels; and how slices stack into a volume."""

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.geometry import Geometry

DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
CONVERT = "Convert it to NIfTI with dcm2niix."

GAP_TOLERANCE_MM = 0.1
GAP_TOLERANCE = 0.01
"""Positions may miss an even stack by the larger of both: tags are rounded, those of thick slices more."""

_SAME_POSITION_MM = 1e-3
_SAME_DIRECTION = 1e-3
_BROKEN = (
    InvalidDicomError, OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError,
    struct.error, NotImplementedError, RuntimeError, OverflowError, MemoryError,
)  # fmt: skip

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
            raise UnreadableFileError(
                f"{path}: a header without pixels", "Export the series again, with images."
            )
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


def grid_of(slices: Sequence[Slice]) -> tuple[npt.NDArray[np.intp], Geometry]:
    """How slices stack into a volume.

    The affine follows from the positions: columns i, rows j and slices k, the latter in the direction of
    ``row x column``; DICOM's LPS becomes RAS. See PS3.3 C.7.6.2.1.1.

    Returns:
        The order of the slices, and the grid ``(columns, rows, slices)``; for a single slice without a place
        in the patient a picture ``(rows, columns)``.

    Raises:
        UnreadableFileError: The slices do not form one even stack.
    """
    first = slices[0]
    if len(slices) == 1 and not first.is_placed:
        return np.zeros(1, np.intp), Geometry.of_pixels(first.size)
    row, column = _plane(slices)
    positions = np.array([s.position for s in slices], np.float64)
    normal = np.cross(row, column)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    if len(slices) == 1:
        step = normal * first.thickness
    else:
        _check_gaps(positions, normal, _where(slices))
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * first.spacing[1], column * first.spacing[0], step
    affine[:3, 3] = positions[0]
    affine[:2] *= -1
    try:
        return order, Geometry.of_volume((first.size[1], first.size[0], len(slices)), affine)
    except ValueError as error:
        raise UnreadableFileError(f"{_where(slices)}: the header is no grid ({error})", CONVERT) from error


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
    if position is not None and directions is not None and spacing is None:
        raise UnreadableFileError(f"{path}: no PixelSpacing", CONVERT)
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
        dtype=f"{'' if signed else 'u'}int{int(dataset.BitsAllocated)}",
        inverted_from=(-1 if signed else 2**stored - 1) if _is_inverted(dataset) else None,
        modality=str(dataset.get("Modality", "")) or "unknown",
        syntax=syntax.name,
    )


def _refuse_other_kinds(dataset: pydicom.Dataset, path: Path) -> None:
    kind = getattr(dataset.get("SOPClassUID"), "name", "") or "DICOM"
    if "Rows" not in dataset or "Columns" not in dataset:
        raise UnreadableFileError(f"{path}: {kind}, not an image", "Leave it out.")
    if dataset.get("Modality") == "SEG":
        raise UnreadableFileError(
            f"{path}: a segmentation (DICOM SEG), not a scan", "Pass the scan that it segments."
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1 or "SharedFunctionalGroupsSequence" in dataset:
        raise UnreadableFileError(
            f"{path}: {kind} with {frames} frames in one file (enhanced multi-frame)", CONVERT
        )
    photometric = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or not photometric.startswith("MONOCHROME"):
        raise UnreadableFileError(
            f"{path}: colours ({photometric}), not grey values", "Pass the scan itself."
        )
    if "ModalityLUTSequence" in dataset:
        raise UnreadableFileError(f"{path}: intensities behind a table (Modality LUT)", CONVERT)


def _is_inverted(dataset: pydicom.Dataset) -> bool:
    return bool(dataset.get("PhotometricInterpretation") == "MONOCHROME1")


def _numbers(dataset: pydicom.Dataset, tag: str, count: int) -> tuple[float, ...] | None:
    """The ``count`` finite numbers of a tag; None where it is absent or empty."""
    value: Any = dataset.get(tag)
    if value is None or value == "":
        return None
    numbers = tuple(float(number) for number in np.atleast_1d(value))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(tag)
    return numbers


def _number(dataset: pydicom.Dataset, tag: str, absent: float) -> float:
    numbers = _numbers(dataset, tag, 1)
    return absent if numbers is None else numbers[0]


def _where(slices: Sequence[Slice]) -> str:
    return f"{slices[0].path.parent}: series of {len(slices)} files"


def _plane(slices: Sequence[Slice]) -> tuple[AnyArray, AnyArray]:
    """Unit vectors of rows and columns, the same for all slices."""
    where = _where(slices)
    first = slices[0]
    unplaced = sum(not s.is_placed for s in slices)
    if unplaced:
        raise UnreadableFileError(
            f"{where}: {unplaced} say nowhere in the patient they lie", "Leave them out."
        )
    sizes = sorted({s.size for s in slices})
    if len(sizes) > 1:
        found = " and ".join(f"{rows}x{columns}" for rows, columns in sizes[:2])
        raise UnreadableFileError(
            f"{where}: slices of {found} pixels in one series", "Leave out the localizers."
        )
    axes = np.array([(*(s.row or ()), *(s.column or ())) for s in slices], np.float64)
    if np.abs(axes - axes[0]).max() > _SAME_DIRECTION:
        raise UnreadableFileError(
            f"{where}: slices of several orientations in one series", "Leave out the localizers."
        )
    if np.abs(np.array([s.spacing for s in slices]) / first.spacing - 1).max() > _SAME_DIRECTION:
        raise UnreadableFileError(f"{where}: slices of several pixel spacings in one series", CONVERT)
    row, column = axes[0, :3], axes[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise UnreadableFileError(
            f"{where}: ImageOrientationPatient is not two perpendicular directions", CONVERT
        )
    return row / lengths[0], column / lengths[1]


def _check_gaps(positions: npt.NDArray[np.float64], normal: AnyArray, where: str) -> None:
    """Hold sorted ``positions`` ``(N, 3)`` in mm against an even stack along ``normal``."""
    gaps = np.diff(positions @ normal)
    doubled = int((gaps < _SAME_POSITION_MM).sum())
    if doubled:
        raise UnreadableFileError(
            f"{where}: {doubled} slices lie where another one lies (several acquisitions in one series)",
            "Split them, for instance with dcm2niix.",
        )
    usual = float(np.median(gaps))
    tolerance = max(GAP_TOLERANCE_MM, GAP_TOLERANCE * usual)
    worst = int(np.abs(gaps - usual).argmax())
    if abs(gaps[worst] - usual) > tolerance:
        raise UnreadableFileError(
            f"{where}: a gap of {gaps[worst]:.2f} mm after slice {worst + 1}, the others are {usual:.2f} mm",
            "Add the missing slices or convert the series with dcm2niix.",
        )
    even = np.linspace(positions[0], positions[-1], len(positions))
    if np.abs(positions - even).max() > tolerance:
        raise UnreadableFileError(f"{where}: slices do not lie on a straight line", CONVERT)
