"""HDF5 files on which libhdf5 itself crashed or never ended; each is refused, or read without its broken part."""

import json
import os
import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest

from benchmarks.fuzz.hdf5_targets import _with_checksum

IMAGE = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24)

READ = """
import json, sys
from pathlib import Path
from segtool.case import Source
from segtool.errors import SegtoolError
from segtool.formats.hdf5 import Hdf5Format
form, said = Hdf5Format(), {}
for path in map(Path, sys.argv[1:]):
    for name in ("describe", "read_image", "read_labels"):
        try:
            getattr(form, name)(Source("hdf5", (path,)))
            said.setdefault(path.stem, []).append("")
        except SegtoolError as error:
            said.setdefault(path.stem, []).append(str(error))
print(json.dumps(said))
"""


def patched(path, signature, offset, code, value):
    """Another number at an offset behind the last place of a signature, and the checksum that then fits."""
    data = bytearray(path.read_bytes())
    place = bytes(data).rfind(signature)
    struct.pack_into(code, data, place + offset, value)
    path.write_bytes(_with_checksum(bytes(data), place))


def heap_in_a_circle(path):
    with h5py.File(path, "w") as file:
        file["image"] = IMAGE
        file["image"].attrs["channels"] = ["t1"]
    # The first object becomes free space of no size: the library adds 0 to its place for ever.
    patched(path, b"GCOL", 16, "<H", 0)
    patched(path, b"GCOL", 24, "<Q", 0)


def extensible_array_without_end(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("image", data=np.stack([IMAGE] * 6), chunks=(2, 24, 24), maxshape=(None, 24, 24))
    patched(path, b"EAHD", 12 + 4 * 8, "<Q", 2**60)


def fixed_array_smaller_than_the_shape(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("image", data=np.stack([IMAGE] * 3), chunks=(1, 24, 24), fletcher32=True)
    data = path.read_bytes()
    # Both the shape and the largest shape claim 280 rows; the table of chunks has 3 places.
    rows = struct.pack("<3Q", 3, 24, 24)
    start = data.rfind(b"OHDR", 0, data.find(rows))
    path.write_bytes(_with_checksum(data.replace(rows, struct.pack("<3Q", 3, 280, 24)), start))


def header_in_a_circle(path):
    with h5py.File(path, "w") as file:
        file["image"] = IMAGE
        for number in range(40):
            file["image"].attrs[f"a{number}"] = number
    data = path.read_bytes()
    # A continuation of the object's header: its own place in place of the next.
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["image"].id).addr
    place = data.find(struct.pack("<HHB3x", 0x10, 16, 0), address)
    path.write_bytes(data[: place + 8] + struct.pack("<QQ", place - 64, 256) + data[place + 24 :])


CORPUS = {
    make.__name__: make
    for make in (
        heap_in_a_circle,
        extensible_array_without_end,
        fixed_array_smaller_than_the_shape,
        header_in_a_circle,
    )
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What a process of its own says of each file: a crash of the library would end that one."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, make in CORPUS.items():
        make(folder / f"{name}.h5")
    answer = subprocess.run(
        [sys.executable, "-c", READ, *sorted(folder.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.parametrize("name", CORPUS)
def test_what_broke_the_library_no_longer_does(said, name):
    assert len(said[name]) == 3
    assert all("\n" not in line for line in said[name])


@pytest.mark.parametrize("name", ["heap_in_a_circle", "extensible_array_without_end", "header_in_a_circle"])
def test_and_is_refused(said, name):
    assert "copy or export it again" in said[name][1]
