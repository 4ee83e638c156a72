"""Targets: HDF5 with images and masks in every way of storage, and MATLAB v7.3."""

import io
import struct
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import Field, set_field
from benchmarks.fuzz.target import Target, all_of
from segtool.case import Source
from segtool.formats.hdf5 import Hdf5Format
from segtool.formats.matlab import MatlabFormat

_FORM, _MATLAB = Hdf5Format(), MatlabFormat()
_SIGNATURES = (
    b"\x89HDF\r\n\x1a\n", b"TREE", b"HEAP", b"SNOD", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD",
    b"BTLF", b"BTIN", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EADB", b"FSHD", b"FSSE",
)  # fmt: skip
_CODES = ("<B", "<B", "<H", "<H", "<I", "<Q", "<Q")
_SUPERBLOCK_BYTES = 48
_CHECKED = {b"BTHD": 38, b"FAHD": 28, b"EAHD": 72}
"""Length of pieces that end in a checksum and have one length where addresses take 8 bytes."""
_MASK32 = 0xFFFFFFFF
_USER_BLOCK = 512


class Hdf5(Target):
    """Contiguous, chunked, packed and compact datasets, both ages of the format, links and virtual datasets."""

    suffix = ".h5"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.formats",)
    fixed: ClassVar[tuple[str, ...]] = (
        "a chunk of 2 bytes under fletcher32 crashed libhdf5: chunks are held against their sizes first",
        "libhdf5 went round a heap of texts for ever: heaps are walked first",
        "the shape of a virtual dataset made libhdf5 open what it names (a pipe: for ever): layouts are asked first",
        "a stack that claims 262150 slices in 15 kB took 600 MB: claims are held against what is stored",
        "a chunk that unpacks to less than its size left memory of the process among the voxels",
    )

    def seeds(self) -> list[bytes]:
        """See :func:`_files`."""
        return _files()

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A number within 96 bytes of a signature, and the checksum that then fits; or a number of a message."""
        found = _signatures(data)
        if not found:
            return None
        start = choices.one(found)
        field = Field(start + choices.whole(4, 96), choices.one(_CODES))
        changed = set_field(data, field, choices)
        return None if changed is None else _with_checksum(changed, start)

    def read(self, path: Path) -> object:
        """As ``segtool predict`` does, once whole and once one slice of a stack."""
        whole = Source("hdf5", (path,), limits=self.limits)
        one = Source("hdf5", (path,), dataset="x[1]", limits=self.limits)
        return all_of(
            lambda: _FORM.describe(whole),
            lambda: _FORM.read_image(whole),
            lambda: _FORM.read_labels(whole),
            lambda: _FORM.read_image(one),
            lambda: _FORM.contents(path),
        )


class Matlab(Hdf5):
    """The same behind MATLAB's header, and structs as Cheng's."""

    suffix = ".mat"
    fixed: ClassVar[tuple[str, ...]] = ()

    def seeds(self) -> list[bytes]:
        """A struct with an image, a mask and texts; a packed one; a header of an older version."""
        return _matlab_files()

    def read(self, path: Path) -> object:
        """As ``segtool predict`` does."""
        source = Source("matlab", (path,), limits=self.limits)
        return all_of(
            lambda: _MATLAB.describe(source), lambda: _MATLAB.read_image(source), lambda: _MATLAB.read_labels(source)
        )


def _signatures(data: bytes) -> list[int]:
    places = []
    for signature in _SIGNATURES:
        start = data.find(signature)
        while start >= 0:
            places.append(start)
            start = data.find(signature, start + 1)
    return places


def _with_checksum(data: bytes, start: int) -> bytes:
    """``data`` with the right checksum of the piece at ``start``, where its kind has one and its length is known."""
    kind = data[start : start + 4]
    if kind == b"OHDR":
        end = _header_end(data, start)
    elif kind == b"\x89HDF" and data[start + 8 : start + 9] in (b"\2", b"\3"):
        end = start + _SUPERBLOCK_BYTES
    else:
        end = start + _CHECKED.get(kind, 0)
    if not start + 8 <= end <= len(data):
        return data
    return data[: end - 4] + struct.pack("<I", _lookup3(data[start : end - 4])) + data[end:]


def _header_end(data: bytes, start: int) -> int:
    """Where an object header of version 2 ends; before its start where it says nonsense."""
    flags = data[start + 5] if start + 5 < len(data) else 0
    place = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    return place + width + int.from_bytes(data[place : place + width], "little") + 4


def _lookup3(data: bytes) -> int:
    """The checksum of HDF5's metadata. Source: Jenkins, lookup3.c (hashlittle), 2006."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK32
    while len(data) > 12:
        a, b, c = ((x + y) & _MASK32 for x, y in zip((a, b, c), struct.unpack("<3I", data[:12]), strict=True))
        for turn, (x, y, z) in ((4, "acb"), (6, "bac"), (8, "cba"), (16, "acb"), (19, "bac"), (4, "cba")):
            held = {"a": a, "b": b, "c": c}
            held[x] = ((held[x] - held[y]) & _MASK32) ^ _turned(held[y], turn)
            held[y] = (held[y] + held[z]) & _MASK32
            a, b, c = held["a"], held["b"], held["c"]
        data = data[12:]
    if not data:
        return c
    a, b, c = ((x + y) & _MASK32 for x, y in zip((a, b, c), struct.unpack("<3I", data.ljust(12, b"\0")), strict=True))
    for turn, (x, y) in ((14, "cb"), (11, "ac"), (25, "ba"), (16, "cb"), (4, "ac"), (14, "ba"), (24, "cb")):
        held = {"a": a, "b": b, "c": c}
        held[x] = ((held[x] ^ held[y]) - _turned(held[y], turn)) & _MASK32
        a, b, c = held["a"], held["b"], held["c"]
    return c


def _turned(value: int, count: int) -> int:
    return (value << count | value >> 32 - count) & _MASK32


@cache
def _files() -> list[bytes]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (24, 24)).astype(np.uint16)
    mask = (image > 100).astype(np.uint8)

    def pair(file: h5py.File) -> None:
        file.create_dataset("image", data=image, chunks=(8, 8), compression="gzip", shuffle=True)
        file["mask"] = mask
        file["image"].attrs["channels"] = ["t1"]

    def nested(file: h5py.File) -> None:
        group = file.create_group("a/b")
        group["image"] = image.astype(">i2")
        group["mask"] = mask
        group["again"] = group["image"]
        file["a/up"] = file["a"]
        file["soft"] = h5py.SoftLink("/a/b")
        file["outside"] = h5py.ExternalLink("other.h5", "/x")
        file["text"] = "hello"
        file["table"] = np.zeros(3, [("a", "f4"), ("b", "i2")])
        file["refs"] = np.array([file["a"].ref], h5py.ref_dtype)

    def stack(file: h5py.File) -> None:
        data = np.stack([image] * 6).astype(np.float32)
        x = file.create_dataset(
            "x",
            data=data,
            chunks=(2, 12, 24),
            compression="lzf",
            shuffle=True,
            fletcher32=True,
            maxshape=(None, 24, 24),
        )
        x.attrs["channels"] = np.array(["a", "b"], h5py.string_dtype())
        file.create_dataset("y", data=np.stack([mask] * 6), chunks=(6, 24, 24), scaleoffset=0)

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((24, 24), "u2")
        layout[:] = h5py.VirtualSource("other.h5", "image", (24, 24))
        file["data"] = image
        file.create_virtual_dataset("far", layout)
        file.create_dataset("raw", (24, 24), "u1", external=[("other.bin", 0, 24 * 24)])

    def odd(file: h5py.File) -> None:
        file.create_dataset("image", data=np.stack([image] * 4, -1), chunks=(24, 24, 1), compression="szip")
        file.create_dataset(
            "mask", data=np.stack([mask] * 3), chunks=(1, 24, 24), fletcher32=True, maxshape=(9, 48, 48)
        )

    makers = (pair, nested, stack, virtual, odd)
    return [_made(make, **age) for make in makers for age in ({}, {"libver": "latest"})]


@cache
def _matlab_files() -> list[bytes]:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 2000, (24, 20)).astype(np.int16)

    def struct_of(file: h5py.File) -> None:
        group = file.create_group("cjdata")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, value in {
            "PID": np.arange(6, dtype=np.uint16).reshape(6, 1), "image": image, "label": np.ones((1, 1)),
            "tumorBorder": rng.random((1, 40)), "tumorMask": (image > 1000).astype(np.uint8),
        }.items():  # fmt: skip
            group.create_dataset(name, data=value).attrs["MATLAB_class"] = np.bytes_(value.dtype.name)
        file.create_group("#refs#")["a"] = image

    def packed(file: h5py.File) -> None:
        file.create_dataset("image", data=image, chunks=(24, 20), compression="gzip")
        file.create_dataset("mask", data=image > 1000, chunks=(24, 20), compression="gzip")

    header = b"MATLAB 7.3 MAT-file, made by a test. HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\x00\x02IM"
    files = [_made(make, userblock_size=_USER_BLOCK) for make in (struct_of, packed)]
    return [header.ljust(_USER_BLOCK, b"\0") + data[_USER_BLOCK:] for data in files]


def _made(make: Any, **options: Any) -> bytes:  # noqa: ANN401 - whatever h5py takes
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        make(file)
    return memory.getvalue()
