"""NIfTI-1 and NIfTI-2, plain and gzipped."""

import contextlib
import io
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from segtool.atomic import atomic_path
from segtool.case import Image, LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray, check_index, narrow, native, one_channel, to_labels
from segtool.formats.base import Description
from segtool.geometry import Geometry

# nibabel prints each header field that it mends; what matters of them is checked below.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)

Nifti: TypeAlias = Any
"""A ``nibabel.Nifti1Image`` or ``Nifti2Image``; nibabel's annotations cover only parts of them."""

# Warning: where the caller turns warnings into errors, nibabel's doubts about a file are faults of that file.
_BROKEN: tuple[type[BaseException], ...] = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
    cast("type[Exception]", isal_zlib.error),
    Warning,
)
_TEXT_FIELDS = {"descrip", "db_name", "aux_file", "intent_name"}
_SCANNER = 1
_HEADER_BYTES = 540
"""Of NIfTI-2; NIfTI-1 has 348."""
_OFFSET_AT = 108
"""Where NIfTI-1 says, as a float, at which byte the voxels begin."""
_CIFTI = range(3000, 3100)
"""Intents of surfaces and their connections, which are no volumes."""
_PACKED_AT_MOST = 1032
"""Bytes out of each byte of deflate: 258 out of two bits (RFC 1951, section 3.2.5)."""


class NiftiFormat:
    """Volumes ``(I, J, K)`` and packs of volumes on one grid; axes as stored, affine as nibabel chooses it.

    nibabel prefers the sform, then the qform, then the voxel sizes alone. A picture ``(I, J)`` is a volume of
    one slice. The fourth (or, after a singleton, fifth) axis is the channel axis.
    """

    name: ClassVar[str] = "nifti"
    suffixes: ClassVar[tuple[str, ...]] = (".nii.gz", ".nii")
    may_hold_reference: ClassVar[bool] = False

    def read_image(self, source: Source) -> Image:
        """``(C, I, J, K)`` in the stored type, or float32 where the header scales.

        Raises:
            UnreadableFileError: Truncated, corrupt, colours or complex numbers, a singular affine.
        """
        with _reading(source.path):
            image = _load(source.path)
            geometry, channels = _grid(image, source)
            check_index(source, channels)
            data = _voxels(image, source.path).reshape((*geometry.shape, channels), order="F")
        return Image(one_channel(np.moveaxis(data, -1, 0), source), geometry)

    def read_labels(self, source: Source) -> LabelMap:
        """The label map; floats that are whole numbers count as labels.

        Raises:
            UnreadableFileError: As for :meth:`read_image`; several volumes; fractions or negative values.
        """
        image = self.read_image(source)
        if len(image.data) != 1:
            raise UnreadableFileError(
                f"{source.path}: {len(image.data)} volumes in one file, a label map has 1",
                "Merge them into one volume of whole numbers.",
            )
        return LabelMap(to_labels(image.data[0], source.path), image.geometry)

    def describe(self, source: Source) -> Description:
        """Grid, stored type and where the affine comes from.

        Raises:
            UnreadableFileError: As for :meth:`read_image`.
        """
        with _reading(source.path):
            image = _load(source.path)
            geometry, channels = _grid(image, source)
            check_index(source, channels)
            dtype = image.get_data_dtype() if _is_unscaled(image) else np.dtype(np.float32)
        codes = int(image.header["sform_code"]), int(image.header["qform_code"])
        return Description(
            geometry=geometry,
            channels=1 if source.index is not None else channels,
            dtype=dtype.newbyteorder("=").name,
            details=(f"sform code {codes[0]}, qform code {codes[1]}",),
        )

    def output_suffix(self, source: Source) -> str:
        """``.nii`` or ``.nii.gz``, as the source."""
        return ".nii" if source.path.suffix.lower() == ".nii" else ".nii.gz"

    def write_labels(self, path: Path, label_map: LabelMap, source: Source) -> None:
        """Write labels with the source's affine, form codes and units, and none of its texts.

        Raises:
            UnreadableFileError: The source's header can no longer be read.
            OutputError: The file cannot be written.
        """
        labels = narrow(label_map.labels)
        with _reading(source.path):
            template = _load(source.path)
        if len(template.shape) == 2:
            labels = labels[..., 0]
        save(path, labels, label_map.geometry, template)

    def probabilities_suffix(self, source: Source) -> str:  # noqa: ARG002 - Protocol
        """Always ``.nii.gz``."""
        return ".nii.gz"

    def write_probabilities(
        self, path: Path, probabilities: npt.NDArray[np.floating[Any]], geometry: Geometry, source: Source
    ) -> None:
        """Write a float32 volume ``(I, J, K, labels)``.

        Raises:
            UnreadableFileError: The source's header can no longer be read.
            OutputError: The file cannot be written.
        """
        with _reading(source.path):
            template = _load(source.path)
        save(path, np.moveaxis(probabilities, 0, -1).astype(np.float32, copy=False), geometry, template)


def save(path: Path, voxels: AnyArray, geometry: Geometry, template: nibabel.Nifti1Image | None = None) -> None:
    """Write ``voxels`` on ``geometry``, whole or not at all; the same voxels give the same bytes.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``, the latter packed at level 1 for speed.
        voxels: ``(I, J, K)`` or ``(I, J, K, C)``.
        geometry: Grid of the first three axes.
        template: Gives form codes, units and NIfTI version where its affine is that of ``geometry``. Without
            it sform and qform are both in scanner coordinates, in millimetres.

    Raises:
        OutputError: The file cannot be written.
    """
    image = _new_image(voxels, geometry, template)
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            # No file name and no time inside, so that bytes depend on voxels alone.
            with cast("Any", igzip.IGzipFile)("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(raw)


def _new_image(voxels: AnyArray, geometry: Geometry, template: Nifti | None) -> Nifti:
    kind: Any = nibabel.Nifti1Image if template is None else type(template)
    header = kind.header_class() if template is None else template.header.copy()
    # An extension may hold a whole DICOM header, and the texts often hold a name.
    header.extensions.clear()
    # NIfTI-2 has no db_name.
    for name in _TEXT_FIELDS & set(header.keys()):
        header[name] = b""
    header["intent_code"], header["cal_min"], header["cal_max"] = 0, 0, float(voxels.max())
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    if template is not None and np.allclose(template.affine, geometry.affine, rtol=0, atol=1e-5):
        # Without an affine nibabel leaves both forms of the header as they are, bit for bit.
        return kind(voxels, None, header)
    image = kind(voxels, geometry.affine, header)
    image.set_sform(geometry.affine, _SCANNER)
    # A qform has no shear: for a sheared grid it is the nearest one, and readers prefer the sform.
    image.set_qform(geometry.affine, _SCANNER, strip_shears=True)
    image.header.set_xyzt_units("mm")
    return image


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever nibabel and its codecs raise inside the block becomes one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: no such file", "Check the path.") from error
    except MemoryError as error:  # what the header claims has been checked
        raise UnreadableFileError(
            f"{path}: its voxels do not fit into memory", "Free memory, or cut the volume into parts."
        ) from error
    except _BROKEN as error:
        raise UnreadableFileError(
            f"{path}: cannot be read as NIfTI ({error})",
            "It is truncated, corrupt or of another kind: copy or convert it again.",
        ) from error


def _load(path: Path) -> Nifti:
    """The header alone, through nibabel. Extensions stay unread: nobody needs them, and they claim any size."""
    with _opened(path) as file:
        head = file.read(_HEADER_BYTES)
    kinds: tuple[Any, ...] = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    kind = next((kind for kind in kinds if kind.header_class.may_contain_header(head)), None)
    if kind is None:
        raise ImageFileError("it is empty" if not head else "it has no NIfTI header")
    holder = FileHolder(fileobj=io.BytesIO(head[: kind.header_class.sizeof_hdr]))
    image = kind.from_file_map({"image": holder}, mmap=False)
    if int(image.header["intent_code"]) in _CIFTI:
        raise ImageFileError("it is CIFTI, no volume")
    if kind is nibabel.Nifti1Image:
        (begin,) = struct.unpack_from(f"{image.header.endianness}f", head, _OFFSET_AT)  # nibabel cuts it
        if not begin.is_integer():
            raise ImageFileError(f"its voxels begin at byte {begin}")
    return image


def _opened(path: Path) -> Any:  # noqa: ANN401 - a binary file, plain or unpacked while it is read
    # Not through nibabel, whose gzip takes twice as long; and the checksum at the end is looked at.
    return cast("Any", igzip).open(path, "rb") if _is_packed(path) else path.open("rb")


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _grid(image: Nifti, source: Source) -> tuple[Geometry, int]:
    """Geometry and number of channels, from the header, whose claims the file can hold."""
    path, dtype = source.path, image.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = "colours" if dtype.names else str(dtype)
        raise UnreadableFileError(
            f"{path}: voxels are {kind}, not one real number each", "Convert the image to grey values."
        )
    axes, shape = int(image.header["dim"][0]), tuple(int(n) for n in image.shape)
    extra = [n for n in shape[3:] if n != 1]
    if axes != len(shape) or axes < 2 or len(extra) > 1 or min(shape) < 1:
        raise UnreadableFileError(
            f"{path}: a grid of {'x'.join(map(str, shape))}, wanted I x J x K or I x J x K x channels",
            "Split the file into volumes.",
        )
    _check_claims(image, shape, source)
    spatial = (*shape, 1) if len(shape) == 2 else shape[:3]
    try:
        geometry = Geometry.of_volume(spatial, image.affine)
    except ValueError as error:
        raise UnreadableFileError(
            f"{path}: the header places voxels nowhere ({error})",
            "Repair its sform or qform (nibabel, fslorient), or convert the scan from DICOM again.",
        ) from error
    return geometry, extra[0] if extra else 1


def _check_claims(image: Nifti, shape: tuple[int, ...], source: Source) -> None:
    """Hold what the header claims against the limits and against the size of the file.

    Raises:
        LimitError: More voxels or bytes than the limits allow.
        EOFError: More than the file can hold.
    """
    where, count = str(source.path), math.prod(shape)
    source.limits.check("voxels", count, where, f"{'x'.join(map(str, shape))} voxels")
    size = source.path.stat().st_size
    needed = count * image.get_data_dtype().itemsize
    end = int(image.dataobj.offset) + needed
    if _is_packed(source.path):
        source.limits.check("unpacked_bytes", end, where, f"{end} bytes unpacked")
        if end > size * _PACKED_AT_MOST:
            raise EOFError(f"it claims {end} bytes, of which {size} packed ones hold {size * _PACKED_AT_MOST} at most")
    elif end > size:
        raise EOFError(f"its voxels end {min(needed, end - size)} bytes early, of {needed}")


def _is_unscaled(image: Nifti) -> bool:
    return bool((image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0))


def _voxels(image: Nifti, path: Path) -> AnyArray:
    """All voxels ``(*S)`` in the stored type, or float32 where the header scales."""
    stored = image.dataobj
    voxels = np.empty(math.prod(stored.shape), stored.dtype)
    with _opened(path) as file:
        file.seek(stored.offset)
        missing = memoryview(cast("Any", voxels)).cast("B")
        while missing and (count := file.readinto(missing)):
            missing = missing[count:]
    if missing:
        raise EOFError(f"its voxels end {len(missing)} bytes early, of {voxels.nbytes}")
    voxels = voxels.reshape(stored.shape, order="F")
    if _is_unscaled(image):
        return native(voxels)
    # float32 holds 24 bits, more than any scanner gives, at half the memory of nibabel's default.
    # What overflows becomes infinite, which preprocessing refuses with the place of the voxel.
    with np.errstate(over="ignore", invalid="ignore"):
        slope, inter = (np.float32(value) for value in (stored.slope, stored.inter))
        return np.asarray(apply_read_scaling(voxels, slope, inter), np.float32)
