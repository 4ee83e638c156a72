"""What one file of a DICOM series says: its place in the patient and what its values mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segtool.errors import LimitError, UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.elements import digest
from segtool.limits import DEFAULT_LIMITS, Limits

CONVERT = "Convert it to NIfTI with dcm2niix."


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
        frame_of_reference: SHA-256 of the FrameOfReferenceUID, hexadecimal; empty where the header has none.
        padding: The lowest and the highest stored value of pixels that lie outside what was scanned, else None.
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
    frame_of_reference: str = ""
    padding: tuple[int, int] | None = None

    @property
    def is_placed(self) -> bool:
        """True where the header says where the slice lies in the patient."""
        return self.position is not None and self.row is not None

    @property
    def is_rescaled(self) -> bool:
        """True where values are not the stored integers."""
        return self.rescale != (1.0, 0.0)


class Tags(Protocol):
    """The values of a header by keyword, whoever has parsed it."""

    @property
    def syntax(self) -> str:
        """Name of the transfer syntax."""
        ...

    @property
    def kind(self) -> str:
        """What sort of object it is, for messages."""
        ...

    def __contains__(self, keyword: str) -> bool:
        """True where the tag is there, be it empty."""
        ...

    def get(self, keyword: str, absent: Any = None) -> Any:  # noqa: ANN401 - whatever type the tag has
        """Its value."""
        ...

    def words(self, keyword: str) -> tuple[str, ...]:
        """Its texts without blanks around them; none where it is absent or empty."""
        ...

    def integer(self, keyword: str) -> int:
        """Its value, of a tag that must be there."""
        ...

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Its ``count`` finite numbers; None where it is absent or empty."""
        ...


SLICE_SHARE = 32
"""One slice may have so small a share of the voxels that a limit allows: of 2**31 that is 8192x8192."""
_FINEST_MM, _COARSEST_MM = 1e-6, 1e6

TAGS: dict[int, tuple[str, bytes]] = {
    0x0008_0005: ("SpecificCharacterSet", b"CS"),
    0x0008_0008: ("ImageType", b"CS"),
    0x0008_0016: ("SOPClassUID", b"UI"),
    0x0008_0060: ("Modality", b"CS"),
    0x0018_0050: ("SliceThickness", b"DS"),
    0x0018_0088: ("SpacingBetweenSlices", b"DS"),
    0x0020_0032: ("ImagePositionPatient", b"DS"),
    0x0020_0037: ("ImageOrientationPatient", b"DS"),
    0x0020_0052: ("FrameOfReferenceUID", b"UI"),
    0x0028_0002: ("SamplesPerPixel", b"US"),
    0x0028_0004: ("PhotometricInterpretation", b"CS"),
    0x0028_0008: ("NumberOfFrames", b"IS"),
    0x0028_0010: ("Rows", b"US"),
    0x0028_0011: ("Columns", b"US"),
    0x0028_0030: ("PixelSpacing", b"DS"),
    0x0028_0100: ("BitsAllocated", b"US"),
    0x0028_0101: ("BitsStored", b"US"),
    0x0028_0103: ("PixelRepresentation", b"US"),
    0x0028_0120: ("PixelPaddingValue", b"US SS"),
    0x0028_0121: ("PixelPaddingRangeLimit", b"US SS"),
    0x0028_1052: ("RescaleIntercept", b"DS"),
    0x0028_1053: ("RescaleSlope", b"DS"),
    0x0028_3000: ("ModalityLUTSequence", b"SQ"),
    0x5200_9229: ("SharedFunctionalGroupsSequence", b"SQ"),
}
"""All tags that :func:`slice_of` asks for: number, keyword and type."""


def check_voxels(path: Path, claimed: Sequence[int], what: str, limits: Limits, share: int = 1) -> None:
    """Refuse a header that claims more voxels than a share of the limit.

    Args:
        path: The file.
        claimed: Such as rows and columns, whose product counts.
        what: What they are, such as ``pixels in one slice``.
        limits: Whose voxels count.
        share: 1 for an image, more for a part of one.

    Raises:
        LimitError: It does.
    """
    count = math.prod(claimed)
    if count * share > limits.voxels:
        of_it = f"1/{share} of the limit" if share > 1 else "the limit"
        raise LimitError(
            f"{path}: claims {'x'.join(map(str, claimed))} {what}, above {of_it} of {limits.voxels} voxels",
            f"If the file is sound, raise the limit: --limit voxels={count * share}.",
        )


def slice_of(tags: Tags, path: Path, limits: Limits = DEFAULT_LIMITS) -> Slice:
    """What a header says.

    Raises:
        UnreadableFileError: An image of a kind that has no slices, or none.
        LimitError: It claims more pixels than ``limits`` allow.
    """
    _refuse_other_kinds(tags, path)
    stored, signed = tags.integer("BitsStored"), bool(tags.integer("PixelRepresentation"))
    size = tags.integer("Rows"), tags.integer("Columns")
    check_voxels(path, size, "pixels in one slice", limits, SLICE_SHARE)
    allocated = tags.integer("BitsAllocated")
    if min(size) < 1 or not 1 <= stored <= allocated:
        raise UnreadableFileError(
            f"{path}: claims {size[0]}x{size[1]} pixels of {stored} bits in {allocated}",
            "It is damaged: export or copy it again.",
        )
    directions = tags.numbers("ImageOrientationPatient", 6)
    spacing = tags.numbers("PixelSpacing", 2)
    position = tags.numbers("ImagePositionPatient", 3)
    is_placed = position is not None and directions is not None
    if (is_placed and spacing is None) or min(spacing or (1.0,)) <= 0:
        raise UnreadableFileError(f"{path}: no PixelSpacing above 0", CONVERT)
    if spacing and not _FINEST_MM <= min(spacing) <= max(spacing) <= _COARSEST_MM:
        found = "x".join(f"{mm:g}" for mm in spacing)
        raise UnreadableFileError(f"{path}: PixelSpacing of {found} mm, which no scan has", CONVERT)
    thicknesses = (tags.numbers(keyword, 1) for keyword in ("SpacingBetweenSlices", "SliceThickness"))
    slope, intercept = tags.numbers("RescaleSlope", 1), tags.numbers("RescaleIntercept", 1)
    is_inverted = tags.get("PhotometricInterpretation") == "MONOCHROME1"
    frame = tags.words("FrameOfReferenceUID")
    return Slice(
        path=path,
        size=size,
        position=position,
        row=directions and directions[:3],
        column=directions and directions[3:],
        spacing=spacing or (1.0, 1.0),
        thickness=next((abs(mm[0]) for mm in thicknesses if mm and mm[0]), 1.0),
        rescale=(slope[0] if slope else 1.0, intercept[0] if intercept else 0.0),
        # Raises for a number of bits that no integer has.
        dtype=np.dtype(f"{'' if signed else 'u'}int{allocated}").name,
        inverted_from=(-1 if signed else 2**stored - 1) if is_inverted else None,
        modality=str(tags.get("Modality", "")) or "unknown",
        syntax=tags.syntax,
        frame_of_reference=digest(frame[0]) if frame else "",
        padding=_padding(tags, is_signed=signed),
    )


def _padding(tags: Tags, *, is_signed: bool) -> tuple[int, int] | None:
    """The range of padding in stored values. See PS3.3 C.7.5.1.1.2.

    Both tags have two bytes. Some writers give them the sign that the pixels have not, or leave it out.
    """
    found = [tags.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if found[0] in (None, ""):
        return None
    bits = [int(value) & 0xFFFF for value in found if value not in (None, "")]
    values = [value - 0x10000 if is_signed and value >= 0x8000 else value for value in bits]
    return min(values), max(values)


def _refuse_other_kinds(tags: Tags, path: Path) -> None:
    if "Rows" not in tags or "Columns" not in tags:
        raise UnreadableFileError(
            f"{path}: {tags.kind} without rows and columns, not an image or a truncated one",
            "Leave it out, or export or copy it again.",
        )
    if tags.get("Modality") == "SEG":
        raise UnreadableFileError(f"{path}: a segmentation (DICOM SEG), not a scan", "Pass the scan that it segments.")
    frames = int(tags.get("NumberOfFrames") or 1)
    if frames > 1 or "SharedFunctionalGroupsSequence" in tags:
        raise UnreadableFileError(
            f"{path}: {tags.kind} with {frames} frames in one file (enhanced multi-frame)", CONVERT
        )
    if "MOSAIC" in tags.words("ImageType"):
        raise UnreadableFileError(f"{path}: a mosaic, many slices side by side in one picture (Siemens)", CONVERT)
    photometric = tags.get("PhotometricInterpretation", "MONOCHROME2")
    if int(tags.get("SamplesPerPixel", 1)) != 1 or not photometric.startswith("MONOCHROME"):
        raise UnreadableFileError(f"{path}: colours ({photometric}), not grey values", "Pass the scan itself.")
    if "ModalityLUTSequence" in tags:
        raise UnreadableFileError(f"{path}: intensities behind a table (Modality LUT)", CONVERT)


def intensities(header: Slice, pixels: AnyArray) -> AnyArray:
    """What stored values ``(rows, columns)`` mean: the same integers, or float32 where a rescale applies.

    MONOCHROME1 is turned round within the range of its bits, so that bright stays bright.
    """
    if header.inverted_from is not None:
        pixels = pixels.dtype.type(header.inverted_from) - pixels  # a difference that its type always holds
    if header.is_rescaled:
        slope, intercept = header.rescale
        pixels = pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return pixels


def fill_padding(headers: Sequence[Slice], stack: AnyArray) -> tuple[str, ...]:
    """Give padding, which lies outside what was scanned, the lowest value of the pixels inside.

    Padding that reads 0 stays: that is what models take for nothing.

    Args:
        headers: Of the files.
        stack: ``(N, rows, columns)``, what their values mean, changed in its place.

    Returns:
        What the report must say of it.
    """
    ranges = [_padding_meant(header) for header in headers]
    if not any(ranges):
        return ()
    lowest, where = None, []
    for values, limits in zip(stack, ranges, strict=True):
        padded = None if limits is None else (values >= limits[0]) & (values <= limits[1])
        where.append(padded)
        inside = values if padded is None else values[~padded]
        if inside.size and (lowest is None or inside.min() < lowest):
            lowest = inside.min()
    count = sum(int(padded.sum()) for padded in where if padded is not None)
    if not count or lowest is None:
        return ()
    for values, padded in zip(stack, where, strict=True):
        if padded is not None:
            values[padded] = lowest
    return (
        f"{count} {'pixel' if count == 1 else 'pixels'} of padding set to the lowest value of the scan, {lowest:g}",
    )


def _padding_meant(header: Slice) -> tuple[float, float] | None:
    """The range of padding among intensities; None where there is none, or where it reads 0."""
    if header.padding is None:
        return None
    limits = np.iinfo(header.dtype)
    low, high = max(header.padding[0], limits.min), min(header.padding[1], limits.max)
    if low > high:
        return None
    meant = np.sort(intensities(header, np.array([low, high], header.dtype)))
    return None if meant[0] == meant[1] == 0 else (meant[0], meant[1])


def unreadable(path: Path, error: BaseException) -> UnreadableFileError:
    """One line for whatever went wrong with a file. Not the error's own text, which may quote a name."""
    if isinstance(error, FileNotFoundError):
        return UnreadableFileError(f"{path}: no such file", "Check the path.")
    return UnreadableFileError(
        f"{path}: cannot be read as DICOM ({type(error).__name__})",
        "It is truncated, corrupt or of another kind: export or copy it again.",
    )
