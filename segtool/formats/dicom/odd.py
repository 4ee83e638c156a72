"""DICOM files that are compressed or otherwise not plain, through pydicom."""

import contextlib
import io
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pydicom.valuerep import TEXT_VR_DELIMS

from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.bounds import HEAD_BYTES, check_elements, inflated
from segtool.formats.dicom.codestreams import check_frames
from segtool.formats.dicom.elements import DEFLATED, begins_like_dicom, deflated_from, syntax_of
from segtool.formats.dicom.plain import HIGHEST
from segtool.formats.dicom.quiet import quiet
from segtool.formats.dicom.slice import TAGS, Slice, slice_of, unreadable
from segtool.limits import DEFAULT_LIMITS, Limits

DECODERS = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), "pylibjpeg-libjpeg"),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pylibjpeg-libjpeg"),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), "pylibjpeg-openjpeg"),
    RLELossless: "pylibjpeg-rle",
}
"""The package of the extra ``dicom`` that decodes each syntax, beside ``pylibjpeg`` itself."""

_HEADER = [keyword for keyword, _ in TAGS.values()]
_PIXELS = [
    "PlanarConfiguration", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "FloatPixelData", "DoubleFloatPixelData", "PixelData",
]  # fmt: skip
_BROKEN = (
    BytesLengthException, InvalidDicomError, OSError, EOFError, ValueError, TypeError, KeyError,
    AttributeError, IndexError, struct.error, NotImplementedError, RuntimeError, OverflowError, MemoryError,
    zlib.error,
)  # fmt: skip


def odd_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> Slice:
    """The header of one file; pixels stay on disk.

    Raises:
        UnreadableFileError: Not DICOM, truncated, or an image of a kind that has no slices.
    """
    with parsing(path):
        return slice_of(_PydicomTags(_head(path, _HEADER, limits)), path, limits)


def odd_slice(path: Path, content: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[Slice, AnyArray]:
    """Header and stored values ``(rows, columns)`` of a file with ``content``.

    Raises:
        UnreadableFileError: As for :func:`odd_header`; pixels missing, truncated or compressed beyond what is
            installed.
    """
    with parsing(path):
        dataset = parsed(path, content, limits, _HEADER + _PIXELS)
        header = slice_of(_PydicomTags(dataset), path, limits)
        if "PixelData" not in dataset:
            raise UnreadableFileError(f"{path}: a header without pixels", "Export the series again, with images.")
        return header, _decoded(dataset, header)


def _decoded(dataset: pydicom.Dataset, header: Slice) -> AnyArray:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableFileError(
            f"{header.path}: pixels are compressed as {header.syntax}, which nothing here decodes",
            "Export the series uncompressed.",
        ) from error
    package = DECODERS.get(syntax)
    missing = UnreadableFileError(
        f"{header.path}: pixels are compressed as {header.syntax}, for which {package} is missing",
        "Install it with: pip install 'segtool[dicom]'",
    )
    if not decoder.is_available:
        raise missing
    check_frames(dataset, (*header.size, 1), np.dtype(header.dtype).itemsize * 8, header.path)
    try:
        pixels = pixel_array(dataset)
    except RuntimeError as error:
        # Pillow decodes some pictures of a syntax, such as those of 8 bits.
        if package and "pylibjpeg" not in decoder.available_plugins:
            raise missing from error
        raise
    if pixels.shape != header.size:
        raise UnreadableFileError(
            f"{header.path}: pixels of shape {pixels.shape}, wanted {header.size}", "Export the series uncompressed."
        )
    return pixels


def odd_elements(
    path: Path, keywords: Collection[str], limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, bytes], str]:
    """Those of ``keywords`` that occur, in any kind of object, as they lie in the file, and their byte order.

    Raises:
        UnreadableFileError: Not DICOM, or truncated.
        LimitError: It claims more than ``limits`` allow.
    """
    with parsing(path):
        dataset = _head(path, list(keywords), limits)
        found: dict[str, bytes] = {}
        for tag in dataset.keys():  # noqa: SIM118 - items() would parse the values
            element: Any = dataset.get_item(tag)
            keyword = keyword_for_tag(tag)
            if keyword in keywords and isinstance(element, RawDataElement):
                found[keyword] = element.value or b""
        is_little = dataset.original_encoding[1] is not False
        return found, "<" if is_little else ">"


def odd_private(path: Path, tags: Collection[int], limits: Limits = DEFAULT_LIMITS) -> tuple[dict[int, bytes], str]:
    """As :func:`odd_elements`, for tags without keywords."""
    with parsing(path):
        dataset = _head(path, list(tags), limits)
        elements = [dataset.get_item(tag) for tag in tags if tag in dataset]
        found = {int(one.tag): one.value or b"" for one in elements if isinstance(one, RawDataElement)}
        is_little = dataset.original_encoding[1] is not False
        return found, "<" if is_little else ">"


def odd_text(value: bytes, character_set: str) -> str:
    """A text in one or several character sets, as SpecificCharacterSet has them."""
    with quiet():
        return decode_bytes(value, convert_encodings(character_set.split("\\")), TEXT_VR_DELIMS)


def odd_references(path: Path, *sequences: str, limits: Limits = DEFAULT_LIMITS) -> frozenset[str]:
    """The SeriesInstanceUIDs that lie anywhere in the sequences called ``sequences``.

    Raises:
        UnreadableFileError: Not DICOM, or truncated.
        LimitError: It claims more than ``limits`` allow.
    """
    with parsing(path):
        dataset = _head(path, list(sequences), limits)
        return frozenset(str(element.value) for element in dataset.iterall() if element.keyword == "SeriesInstanceUID")


class _PydicomTags:
    """A parsed header, as :class:`~segtool.formats.dicom.slice.Tags`."""

    def __init__(self, dataset: pydicom.Dataset) -> None:
        self._dataset = dataset
        self.kind = getattr(dataset.get("SOPClassUID"), "name", "") or "DICOM"

    @property
    def syntax(self) -> str:
        """Name of the transfer syntax, which is set where the file has no meta header."""
        meta = self._dataset.file_meta
        if "TransferSyntaxUID" not in meta:
            # Such a file is not compressed; pydicom has seen how its elements are written.
            is_implicit, _ = self._dataset.original_encoding
            known = pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian
            meta.TransferSyntaxUID = known[not is_implicit]
        return str(meta.TransferSyntaxUID.name)

    def __contains__(self, keyword: str) -> bool:
        """True where the tag is there, be it empty."""
        return keyword in self._dataset

    def get(self, keyword: str, absent: Any = None) -> Any:  # noqa: ANN401 - as of Tags
        """Its value."""
        return self._dataset.get(keyword, absent)

    def words(self, keyword: str) -> tuple[str, ...]:
        """Its texts without blanks around them; none where it is absent or empty."""
        value: Any = self._dataset.get(keyword)
        if value is None or value == "":
            return ()
        return tuple(str(word).strip() for word in ([value] if isinstance(value, str) else value))

    def integer(self, keyword: str) -> int:
        """Its value, of a tag that must be there."""
        return int(getattr(self._dataset, keyword))

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Its ``count`` finite numbers; None where it is absent or empty."""
        value: Any = self._dataset.get(keyword)
        if value is None or value == "":
            return None
        numbers = tuple(float(number) for number in np.atleast_1d(value))
        if len(numbers) != count or not all(abs(number) < HIGHEST for number in numbers):
            raise ValueError(keyword)
        return numbers


@contextlib.contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Whatever pydicom raises inside the block becomes one line; what it warns of is dropped.

    Its warnings concern values that do not follow the standard to the letter, as scanners write them; those
    that matter are checked here.
    """
    try:
        with quiet():
            yield
    except _BROKEN as error:
        raise unreadable(path, error) from error


def parsed(
    path: Path, content: bytes, limits: Limits, tags: Sequence[str | int] | None = None, *, is_head: bool = False
) -> pydicom.Dataset:
    """A file as pydicom parses it, once it is known that this takes no memory that its bytes cannot earn.

    Args:
        path: The file, for messages.
        content: Of the file, with or without the standard's preamble; of a head its beginning.
        limits: What it may claim.
        tags: Those wanted; by default all.
        is_head: Leave out the pixels.

    Raises:
        InvalidDicomError: It does not begin like DICOM; with all else that :func:`parsing` makes one line of.
        LimitError: It claims more than ``limits`` allow.
    """
    if not begins_like_dicom(content[:132]):
        raise InvalidDicomError
    is_deflated = deflated_from(content) is not None
    if not is_deflated and DEFLATED.encode() in content and not syntax_of(content):
        # pydicom might take it for one, and unpack without bound.
        raise InvalidDicomError
    if is_deflated:
        content = inflated(content, path, limits, HEAD_BYTES if is_head else None)
    check_elements(content, path, limits)
    wanted: Any = None if tags is None else list(tags)
    dataset = pydicom.dcmread(io.BytesIO(content), force=True, stop_before_pixels=is_head, specific_tags=wanted)
    if is_deflated:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset


def _head(path: Path, tags: Sequence[str | int], limits: Limits) -> pydicom.Dataset:
    """The wanted tags of a file as far as its pixels, or as its first 16 MB go."""
    with path.open("rb") as file:
        return parsed(path, file.read(HEAD_BYTES), limits, tags, is_head=True)
