"""Targets: NIfTI as it lies, and gzipped."""

import gzip
import io
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import nibabel
import numpy as np
from isal import igzip

from benchmarks.common import REAL_DATA
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import Field, havoc, set_field
from benchmarks.fuzz.target import Target, all_of
from segtool.case import Source
from segtool.formats.nifti import NiftiFormat
from segtool.geometry import Geometry
from segtool.probability_maps import read_probabilities

_FORM = NiftiFormat()
_NIFTI1 = {
    "sizeof_hdr": Field(0, "<i"),
    **{f"dim[{n}]": Field(40 + 2 * n, "<h") for n in range(8)},
    "intent_code": Field(68, "<h"),
    "datatype": Field(70, "<h"),
    "bitpix": Field(72, "<h"),
    **{f"pixdim[{n}]": Field(76 + 4 * n, "<f") for n in range(8)},
    "vox_offset": Field(108, "<f"),
    "scl_slope": Field(112, "<f"),
    "scl_inter": Field(116, "<f"),
    "xyzt_units": Field(123, "<B"),
    "qform_code": Field(252, "<h"),
    "sform_code": Field(254, "<h"),
    **{f"quatern[{n}]": Field(256 + 4 * n, "<f") for n in range(6)},
    **{f"srow[{n}]": Field(280 + 4 * n, "<f") for n in range(12)},
    "extension": Field(348, "<I"),
    "esize": Field(352, "<I"),
}
_NIFTI2 = {
    "sizeof_hdr": Field(0, "<i"),
    "datatype": Field(12, "<h"),
    "bitpix": Field(14, "<h"),
    **{f"dim[{n}]": Field(16 + 8 * n, "<q") for n in range(8)},
    **{f"pixdim[{n}]": Field(104 + 8 * n, "<d") for n in range(8)},
    "vox_offset": Field(168, "<q"),
    "scl_slope": Field(176, "<d"),
    "scl_inter": Field(184, "<d"),
    "qform_code": Field(344, "<i"),
    "sform_code": Field(348, "<i"),
    **{f"quatern[{n}]": Field(352 + 8 * n, "<d") for n in range(6)},
    **{f"srow[{n}]": Field(400 + 8 * n, "<d") for n in range(12)},
    "intent_code": Field(504, "<i"),
}
_TYPES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 255)
_BOMB_BYTES = 2**27


class Nifti(Target):
    """Uncompressed NIfTI-1 and -2: volumes, pictures, packs, with scaling and extensions."""

    suffix = ".nii"
    fixed = (
        "an extension that claims 2 GB was given memory: extensions are not read any more",
        "voxels that begin inside a byte were read from the byte before: refused",
        "voxels that a short file cannot hold were given memory: claims are held against its size first",
    )
    instrument: ClassVar[tuple[str, ...]] = (
        "segtool.formats", "segtool.geometry", "nibabel.nifti1", "nibabel.wrapstruct", "nibabel.arrayproxy",
    )  # fmt: skip

    def seeds(self) -> list[bytes]:
        """Small ones by nibabel, and a real volume cut small."""
        return list(_volumes())

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A field of the header, or where the voxels end."""
        fields = _NIFTI2 if data[4:7] == b"n+2" else _NIFTI1
        match choices.whole(0, 7):
            case 0:
                field = fields["datatype"]
                code = choices.one(_TYPES).to_bytes(2, "little")
                return data[: field.offset] + code + data[field.offset + 2 :]
            case 1:
                return havoc(data[:600], choices) + data[600:]
            case 2:
                return data[: choices.whole(0, len(data))]
            case 3:
                return data + choices.content(64)
            case _:
                return set_field(data, fields[choices.one(tuple(fields))], choices)

    def read(self, path: Path) -> object:
        """All that is asked of a volume, and what is said of its grid."""
        source = Source("nifti", (path,), limits=self.limits)
        return all_of(
            lambda: _FORM.describe(source).geometry.describe(),
            lambda: _FORM.read_image(source).geometry.orientation,
            lambda: _FORM.read_labels(source),
        )


class NiftiGz(Nifti):
    """The same, packed: the header and the stream change, and the stream says more or less than the header."""

    suffix = ".nii.gz"
    fixed = ("a header that claims more than deflate can pack into the file was given memory: refused before",)

    def seeds(self) -> list[bytes]:
        """As of :class:`Nifti`, packed by two libraries."""
        return [_packed(data, number % 2) for number, data in enumerate(_volumes())]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """Mostly what is inside; else the members of the stream."""
        kind = choices.whole(0, 9)
        if kind == 0:
            return data + data[: choices.whole(0, len(data))]
        if kind == 1:
            return data + _bomb()
        inside = _unpacked(data)
        if inside is None:
            return None
        if kind == 2:
            return _packed(inside, 0)[: choices.whole(0, len(data))]
        if kind == 3:
            return _packed(inside, 0) + choices.content(20)
        if kind == 4:
            return _with_zeros(inside)
        changed = super().mutate(inside, choices)
        return None if changed is None else _packed(changed, kind % 2)


class Probabilities(Target):
    """Probability maps beside label maps, as NumPy archives: ``segtool evaluate --soft-metrics`` reads them."""

    suffix = ".npz"
    instrument = ("segtool.probability_maps",)
    fixed = (
        "a broken header of the array came out as TokenError: one line now",
        "an array that claims any size was given memory: its shape is compared first",
    )

    def seeds(self) -> list[bytes]:
        """Packed and plain."""
        return [_archive(_header("<f2", (2, 4, 5)) + bytes(80), packed) for packed in (True, False)]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """The header of the array, or the archive around it."""
        kind = choices.whole(0, 5)
        if kind == 0:
            return set_field(data, Field(choices.whole(0, 30), choices.one(("<H", "<I"))), choices)
        if kind == 1:
            return set_field(data, Field(-choices.whole(4, 90), choices.one(("<H", "<I"))), choices)
        if kind == 2:
            return _archive(havoc(_header("<f2", (2, 4, 5)), choices) + bytes(80), choices.whole(0, 1) == 1)
        numbers = [choices.one((0, 1, 2, 4, 5, -1, 2**31, 2**62, 10**30)) for _ in range(choices.whole(0, 4))]
        code = choices.one(("<f2", "<f8", "|O", "|V9", "<c16", "f4,f4", "<U999999999", "|S0"))
        return _archive(_header(code, tuple(numbers)) + bytes(choices.whole(0, 200)), choices.whole(0, 1) == 1)

    def read(self, path: Path) -> object:
        """Of two labels on a small grid."""
        return read_probabilities(path, Geometry.of_pixels((4, 5)), _Labels)  # type: ignore[arg-type]


class _Labels:
    """As much of a spec as reading asks of it."""

    labels, name = (1, 2), "a model"


def _header(code: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': {code!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _archive(content: bytes, packed: bool) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("probabilities.npy", content)
    return out.getvalue()


@cache
def _volumes() -> tuple[bytes, ...]:
    voxels = np.random.default_rng(2).integers(0, 900, (7, 6, 5)).astype(np.int16)
    labels = (voxels % 3).astype(np.uint8)
    affine = np.array([[-0.9, 0.1, 0, 20], [0, 0.9, 0.2, -30], [0, -0.1, 3, 9], [0, 0, 0, 1]])
    first = nibabel.Nifti1Image(voxels, affine)
    first.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"a comment"))
    scaled = nibabel.Nifti1Image(voxels, affine)
    scaled.header.set_slope_inter(0.5, 3)
    images = [
        first,
        scaled,
        nibabel.Nifti1Image(labels, np.eye(4)),
        nibabel.Nifti1Image(voxels.astype(np.float32), affine),
        nibabel.Nifti1Image(labels.astype(np.float64), affine),
        nibabel.Nifti1Image(np.stack([voxels] * 3, -1), affine),
        nibabel.Nifti1Image(voxels[..., 0], affine),
        nibabel.Nifti2Image(voxels, affine),
    ]
    for path in sorted((REAL_DATA / "progression").glob("*/*_t1ce.nii.gz"))[:1]:
        real = nibabel.load(path)
        images.append(real.slicer[100:120, 100:118, 8:14])
    return tuple(_stream(image) for image in images)


def _stream(image: Any) -> bytes:  # noqa: ANN401 - nibabel has no annotations
    out = io.BytesIO()
    image.to_stream(out)
    return out.getvalue()


def _packed(data: bytes, library: int) -> bytes:
    return gzip.compress(data, 1, mtime=0) if library else bytes(igzip.compress(data, 1))


def _unpacked(data: bytes) -> bytes | None:
    try:
        return zlib.decompressobj(31).decompress(data, 2**20)
    except zlib.error:
        return None


@cache
def _bomb() -> bytes:
    """Zeros packed a thousand times."""
    return gzip.compress(bytes(_BOMB_BYTES), 9, mtime=0)


def _with_zeros(data: bytes) -> bytes:
    """``data`` and many zeros in two members of a stream."""
    return _packed(data, 0) + _bomb()
