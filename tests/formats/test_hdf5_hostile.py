"""HDF5 and MATLAB files that lie: refused by one line before memory, time or another file is taken."""

import os
import resource
import struct
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
from h5py import h5pl

from segtool.case import Source
from segtool.errors import LimitError, UnreadableFileError
from segtool.formats import get_format
from segtool.formats.hdf5 import Hdf5Format
from segtool.formats.hdf5_walk import DEEPEST
from segtool.formats.matlab import MatlabFormat
from segtool.limits import Limits

FORM = Hdf5Format()
PICTURE = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)


def made(path, make, **options):
    with h5py.File(path, "w", **options) as file:
        make(file)
    return Source("hdf5", (path,))


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def packed(file, content, shape=(24, 32), dtype="u2", **options):
    """A dataset of one chunk that holds ``content`` as it is."""
    image = file.create_dataset("image", shape, dtype, chunks=shape, **({"compression": "gzip"} | options))
    image.id.write_direct_chunk((0,) * len(shape), content)


def plenty(file):
    file.create_dataset("image", (10**6, 10**6), "u1", chunks=(1000, 1000), compression="gzip")


def zeros(file):
    file.create_dataset("image", (40_000, 40_000), "u1", chunks=(1000, 1000), compression="gzip")


def zeros_in_one_piece(file):
    file.create_dataset("image", (40_000, 40_000), "u1")


def one_large_chunk(file):
    file.create_dataset("image", (10, 10), "u1", chunks=(60_000, 60_000), maxshape=(None, None))


def bomb(file):
    packed(file, zlib.compress(bytes(500_000_000)))


def larger_bomb(file):
    file.create_dataset("image", (8, 8), "f8", chunks=(300_000, 300_000), maxshape=(None, None), compression="gzip")


def short(file):
    packed(file, zlib.compress(bytes(100)))


def short_lzf(file):
    packed(file, bytes((3, 65, 66, 67, 68)), compression="lzf")


def packed_twice(file):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((24, 32))
    properties.set_deflate(9)
    properties.set_deflate(9)
    h5py.h5d.create(
        file.id, b"image", h5py.h5t.NATIVE_UINT16, h5py.h5s.create_simple((24, 32)), properties
    ).write_direct_chunk((0, 0), zlib.compress(zlib.compress(PICTURE.tobytes())))


def tiny_chunk_with_a_checksum(file):
    packed(file, b"\0\0", fletcher32=True)


def unknown_filter(file):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((24, 32))
    properties.set_filter(32_001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 6144))
    h5py.h5d.create(
        file.id, b"image", h5py.h5t.NATIVE_UINT16, h5py.h5s.create_simple((24, 32)), properties
    ).write_direct_chunk((0, 0), PICTURE.tobytes())


def deep(file):
    group = file
    for _ in range(DEEPEST + 10):
        group = group.create_group("g")
    group["image"] = PICTURE


REFUSED = {
    "10^12 voxels": (plenty, "--limit voxels="),
    "1.6 GB of zeros in 2 kB": (zeros, "the file holds 0 bytes of them"),
    "the same in one piece": (zeros_in_one_piece, "the file holds 0 bytes of them"),
    "a chunk of 3.6 GB": (one_large_chunk, "smaller chunks"),
    "a chunk of 500 MB in 24 kB": (bomb, "does not unpack to its size"),
    "a chunk of 720 GB": (larger_bomb, "--limit unpacked_bytes="),
    "a chunk that is too short": (short, "does not unpack to its size"),
    "a chunk of LZF that is too short": (short_lzf, "does not unpack to its size"),
    "packed twice": (packed_twice, "is packed twice"),
    "2 bytes with a checksum": (tiny_chunk_with_a_checksum, "bytes|size"),
    "a filter of somebody": (unknown_filter, "filter 32001, which is not known"),
    "deep groups": (deep, f"deeper than {DEEPEST}"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_file_cannot_hold_is_refused_before_memory_is_taken(tmp_path, what):
    make, said = REFUSED[what]
    source = made(tmp_path / "a.h5", make)
    before, start = peak_mb(), time.perf_counter()
    with pytest.raises(UnreadableFileError, match=said) as caught:
        FORM.read_image(source)
    assert "\n" not in str(caught.value)
    assert peak_mb() - before < 50
    assert time.perf_counter() - start < 2


def test_limits_can_be_raised_and_lowered(tmp_path):
    source = made(tmp_path / "a.h5", lambda file: file.create_dataset("image", data=PICTURE))
    assert FORM.read_image(source).data.size == 768
    small = Source("hdf5", source.paths, limits=Limits(voxels=767))
    with pytest.raises(LimitError, match=r"24x32 voxels, above the limit of 767 voxels.*--limit voxels=768"):
        FORM.read_image(small)
    with pytest.raises(LimitError, match="voxels=768"):
        FORM.describe(small)


def test_one_slice_of_a_stack_is_held_against_the_limits_alone(tmp_path):
    stack = np.stack([PICTURE] * 9)
    source = made(tmp_path / "a.h5", lambda file: file.create_dataset("x", data=stack, chunks=(1, 24, 32)))
    limits = Limits(voxels=24 * 32)
    with pytest.raises(LimitError):
        FORM.read_image(Source("hdf5", source.paths, limits=limits))
    assert FORM.read_image(Source("hdf5", source.paths, "x[3]", limits=limits)).data.shape == (1, 24, 32)


def test_the_search_for_datasets_ends(tmp_path):
    def many(file):
        for number in range(300):
            file.create_group(str(number))
        file["image"] = PICTURE

    source = made(tmp_path / "many.h5", many)
    assert FORM.read_image(source).data.shape == (1, 24, 32)
    with pytest.raises(LimitError, match=r"more than 100 links.*--limit objects="):
        FORM.read_image(Source("hdf5", source.paths, limits=Limits(objects=100)))

    def circles(file):
        group = file.create_group("a/b")
        group["up"] = file["a"]
        file["a/root"] = file["/"]
        group["soft"] = h5py.SoftLink("/a/b")
        group["image"] = PICTURE

    assert FORM.read_image(made(tmp_path / "circles.h5", circles)).data.shape == (1, 24, 32)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("age", [{}, {"libver": "latest"}], ids=["old", "new"])
def test_a_virtual_dataset_is_never_opened_and_so_opens_nothing(tmp_path, age):
    os.mkfifo(tmp_path / "pipe.h5")  # whoever opens it waits for ever
    whole = {"shape": (5, 24, 32), "maxshape": (None, 24, 32)}

    def virtual(file):
        layout = h5py.VirtualLayout(**whole, dtype="u2")
        far = h5py.VirtualSource(tmp_path / "pipe.h5", "x", **whole)
        layout[0 : h5py.h5s.UNLIMITED] = far[0 : h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("preview", layout)
        file["image"] = PICTURE

    source = made(tmp_path / "a.h5", virtual, **age)
    code = "import sys; from pathlib import Path; from segtool.case import Source; from segtool.formats.hdf5 import *; "
    code += "print(Hdf5Format().read_image(Source('hdf5', (Path(sys.argv[1]),))).data.shape)"
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    answer = subprocess.run(
        [sys.executable, "-c", code, source.path], capture_output=True, text=True, timeout=30, env=paths, check=True
    )
    assert answer.stdout.strip() == "(1, 24, 32)"


@pytest.mark.parametrize("age", [{}, {"libver": "latest"}], ids=["old", "new"])
def test_a_mask_that_lies_elsewhere_is_refused_by_its_name(tmp_path, age):
    (tmp_path / "secret.bin").write_bytes(bytes(24 * 32))

    def elsewhere(file):
        file["image"] = PICTURE
        file.create_dataset("mask", (24, 32), "u1", external=[(str(tmp_path / "secret.bin"), 0, 24 * 32)])

    source = made(tmp_path / "a.h5", elsewhere, **age)
    assert FORM.read_image(source).data.shape == (1, 24, 32)
    with pytest.raises(UnreadableFileError, match="the values of mask lie in other files, which are never opened"):
        FORM.read_labels(source)


def test_no_plugin_can_be_found():
    get_format("hdf5")
    assert h5pl.size() == 0


SOUND = {
    "gzip": {"compression": "gzip"},
    "shuffled": {"compression": "gzip", "shuffle": True},
    "with a checksum": {"compression": "gzip", "fletcher32": True},
    "checksum alone": {"fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "scaleoffset": {"scaleoffset": 0},
    "szip": {"compression": "szip"},
    "shuffled alone": {"shuffle": True},
    "plain chunks": {},
}


@pytest.mark.parametrize("age", [{}, {"libver": "latest"}], ids=["old", "new"])
@pytest.mark.parametrize("dtype", ["u1", ">i2", ">f8", "?"])
@pytest.mark.parametrize("what", SOUND)
def test_sound_values_are_those_that_the_library_reads(tmp_path, what, dtype, age):
    if dtype != ">i2" and dtype != "u1" and what in ("scaleoffset", "szip"):
        pytest.skip("made for integers")
    values = (np.random.default_rng(0).random((7, 25, 33)) * 200).astype(dtype)

    def make(file):
        whole = file.create_dataset("x", (7, 25, 33), dtype, chunks=(3, 8, 33), fillvalue=np.ones((), dtype)[()],
                                    maxshape=(None, None, None), **SOUND[what])  # fmt: skip
        whole[:5, 3:] = values[:5, 3:]  # so that chunks at the end are not there

    source = made(tmp_path / "a.h5", make, **age)
    with h5py.File(source.path) as file:
        expected = np.asarray(file["x"][()])
    np.testing.assert_array_equal(FORM.read_image(source).data[0], expected)
    for number in (0, 1, 2, 6):  # all of a block, so that none stays in memory
        one = FORM.read_image(Source("hdf5", source.paths, f"x[{number}]"))
        np.testing.assert_array_equal(one.data[0], expected[number])


OLDER = {
    "5, little": b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x01IM" + bytes(300),
    "5, big": b"a text of another writer".ljust(124) + b"\x01\x00MI" + bytes(300),
    "4": struct.pack("<5i", 0, 24, 32, 0, 6) + b"image\0" + bytes(24 * 32 * 8),
    "4, big": struct.pack(">5i", 1000, 24, 32, 0, 6) + b"image\0" + bytes(24 * 32 * 8),
}


@pytest.mark.parametrize("what", OLDER)
def test_older_versions_of_matlab_files_are_told_how_to_become_readable(tmp_path, what):
    path = tmp_path / "a.mat"
    path.write_bytes(OLDER[what])
    with pytest.raises(UnreadableFileError, match=r"an older version, wanted 7\.3\. .*-v7\.3"):
        MatlabFormat().read_image(Source("matlab", (path,)))


@pytest.mark.parametrize("content", [b"", b"PK\3\4" + bytes(600), b"\x89HDF\r\n\x1a\n" + bytes(600), bytes(600)])
def test_what_is_no_matlab_file_at_all_is_not_called_an_older_one(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(UnreadableFileError, match="truncated, corrupt or of another kind"):
        MatlabFormat().read_image(Source("matlab", (tmp_path / "a.mat",)))


def odd_types(group):
    group["image"] = PICTURE
    group["refs"] = np.full((3, 3), group.ref, h5py.ref_dtype)
    group["regions"] = np.full((3, 3), group["image"].regionref[:2], h5py.regionref_dtype)
    group["texts"] = np.full((3, 3), "x", h5py.string_dtype())
    group["table"] = np.zeros((3, 3), [("a", "f4"), ("b", "i2", (2, 2))])
    group["named"] = np.dtype("f4")
    group["lists"] = np.array([[np.arange(3), np.arange(2)], [np.arange(1), np.arange(4)]], object).astype(
        h5py.vlen_dtype(np.int32)
    )
    group["complex"] = np.zeros((3, 3), complex)
    group["opaque"] = np.zeros((3, 3), "V5")


def test_references_lists_tables_and_texts_are_passed_over(tmp_path):
    source = made(tmp_path / "a.h5", odd_types)
    np.testing.assert_array_equal(FORM.read_image(source).data[0], PICTURE)
    assert FORM.read_labels(source) is None


def test_an_attribute_of_many_or_other_things_names_no_channels(tmp_path):
    def make(file):
        file["image"] = PICTURE
        file["image"].attrs["channels"] = np.zeros(8000)

    assert FORM.read_image(made(tmp_path / "a.h5", make)).channel_names == ()
    dense = made(
        tmp_path / "b.h5",
        lambda f: f.create_dataset("image", data=PICTURE).attrs.create("channels", np.full(100_000, b"x" * 100)),
        libver="latest",
    )
    assert FORM.read_image(dense).channel_names == ()
