"""MATLAB v7.3 files, which are HDF5 with rows and columns swapped and a header in front."""

import contextlib
import struct
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from segtool.atomic import atomic_path
from segtool.case import LabelMap, Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import NpzProbabilities
from segtool.formats.hdf5 import Hdf5Format, write_mask

_HDF5 = b"\x89HDF\r\n\x1a\n"
_VERSIONS = {b"\x00\x01IM", b"\x01\x00MI"}
"""Bytes 124 to 127 of versions 5 to 7, in either order of bytes."""
_TYPES_OF_4 = 4053

USER_BLOCK_BYTES = 512
"""MATLAB keeps its own header before the HDF5 signature."""

# 116 bytes of text, 8 of a subsystem offset that is unused, version 2.0 and the byte order mark: 128 bytes.
_HEADER = b"MATLAB 7.3 MAT-file, written by segtool. HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\x00\x02IM"


class MatlabFormat(NpzProbabilities, Hdf5Format):
    """``.mat`` files of version 7.3, such as Cheng's: a struct ``cjdata`` with ``image`` and ``tumorMask``.

    Datasets are found by name as in :class:`Hdf5Format`. MATLAB stores by columns, so HDF5 shows an
    ``(H, W)`` array as ``(W, H)``; here it is upright again. ``cjdata.PID`` is never read.
    """

    name: ClassVar[str] = "matlab"
    suffixes: ClassVar[tuple[str, ...]] = (".mat",)
    transposed: ClassVar[bool] = True

    def write_labels(self, path: Path, label_map: LabelMap, source: Source) -> None:  # noqa: ARG002 - Protocol
        """Write ``cjdata.tumorMask`` as MATLAB would, by columns.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_path(path) as temporary:
            with h5py.File(temporary, "w", userblock_size=USER_BLOCK_BYTES) as file:
                struct = file.create_group("cjdata")
                struct.attrs["MATLAB_class"] = np.bytes_("struct")
                mask = write_mask(struct, "tumorMask", np.swapaxes(label_map.labels, -1, -2))
                mask.attrs["MATLAB_class"] = np.bytes_(mask.dtype.name)
            with temporary.open("r+b") as raw:
                raw.write(_HEADER)

    def _unreadable(self, path: Path, error: Exception) -> UnreadableFileError:
        head = b""
        # What cannot even be opened is reported as such, by the error at hand.
        with contextlib.suppress(OSError), path.open("rb") as file:
            head = file.read(USER_BLOCK_BYTES + len(_HDF5))
        if _is_older(head):
            return UnreadableFileError(
                f"{path}: a MATLAB file of an older version, wanted 7.3",
                "Save it again in MATLAB with save(file, 'cjdata', '-v7.3').",
            )
        return UnreadableFileError(
            f"{path}: cannot be read as a MATLAB file of version 7.3 ({error})",
            "It is truncated, corrupt or of another kind: copy it again or save it with '-v7.3'.",
        )


def _is_older(head: bytes) -> bool:
    """True for files of MATLAB 5 to 7, which say so, and of MATLAB 4, which begin with the type of an array."""
    if head.startswith(_HDF5) or head[USER_BLOCK_BYTES:] == _HDF5:
        return False
    if head.startswith(b"MATLAB 5.0") or head[124:128] in _VERSIONS:
        return True
    numbers = [struct.unpack_from(f"{order}5i", head) for order in "<>"] if len(head) >= 20 else []
    return any(
        0 <= kind < _TYPES_OF_4 and kind % 10 < 3 and rows > 0 and columns > 0 and imaginary in (0, 1) and 0 < name < 64
        for kind, rows, columns, imaginary, name in numbers
    )
