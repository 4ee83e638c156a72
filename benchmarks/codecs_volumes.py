"""Tasks of :mod:`benchmarks.codecs` about NIfTI volumes and HDF5 stacks of a BraTS case's size."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np

from segtool.case import LabelMap, Source
from segtool.formats.hdf5 import Hdf5Format
from segtool.formats.nifti import NiftiFormat
from segtool.phantom import phantom_volume

SHAPE, FILES = (240, 240, 155), 200
MAPPED = (512, 512, 350)
Sides = dict[str, Callable[[], Any]]
Nifti: Any = nibabel.Nifti1Image  # nibabel does not type it


def _volume() -> tuple[Any, Any, Any]:
    """Voxels int16 with noise, labels and affine."""
    voxels, labels, affine = phantom_volume(0, SHAPE, (1.0, 1.0, 1.0))
    return voxels.astype(np.int16), labels.astype(np.uint8), affine


def _nifti(file: Path) -> Source:
    voxels, _, affine = _volume()
    nibabel.save(Nifti(voxels, affine), file)
    return Source("nifti", (file,))


def read_gzip(folder: Path) -> tuple[str, Sides]:
    """A volume packed by gzip."""
    source = _nifti(folder / "a.nii.gz")
    sides: Sides = {
        "segtool": lambda: NiftiFormat().read_image(source).data,
        "nibabel": lambda: np.asarray(nibabel.load(source.path).dataobj),  # type: ignore[attr-defined]
    }
    return f"one .nii.gz read ({'x'.join(map(str, SHAPE))}, 16 bit)", sides


def write_gzip(folder: Path) -> tuple[str, Sides]:
    """A label map of the same size."""
    source = _nifti(folder / "a.nii.gz")
    _, labels, affine = _volume()
    label_map = LabelMap(labels, NiftiFormat().read_image(source).geometry)
    sides: Sides = {
        "segtool": lambda: NiftiFormat().write_labels(folder / "out.nii.gz", label_map, source),
        "nibabel": lambda: nibabel.save(Nifti(labels, affine), folder / "nibabel.nii.gz"),
    }
    return f"one label map written as .nii.gz ({'x'.join(map(str, SHAPE))})", sides


def read_plain(folder: Path) -> tuple[str, Sides]:
    """Not packed: read into memory or mapped, and then looked through, as every case is."""
    source = _nifti(folder / "a.nii")

    def looked_through(data: Any) -> Any:  # noqa: ANN401 - an array
        data.min(), data.max()
        return data.astype(np.float32)

    sides: Sides = {
        "segtool": lambda: looked_through(NiftiFormat().read_image(source).data),
        "nibabel, mapped": lambda: looked_through(np.asarray(nibabel.load(source.path).dataobj)),  # type: ignore[attr-defined]
    }
    return f"one .nii read, looked through, made float32 ({'x'.join(map(str, SHAPE))}, 16 bit)", sides


_ONE = """
import sys
import nibabel, numpy as np
from pathlib import Path
from segtool.case import Source
from segtool.formats.nifti import NiftiFormat
file = Path(sys.argv[2])
if sys.argv[1] == "read":
    data = NiftiFormat().read_image(Source("nifti", (file,))).data
else:
    data = np.asarray(nibabel.load(file).dataobj)
data.min(), data.max()
floats = data.astype(np.float32)
# Not ru_maxrss, which a process inherits from the one that started it.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024 / 1e6)
"""


def mapped_memory() -> dict[str, Any]:
    """Peak resident memory of a process that reads or maps a large ``.nii``, looks through it and makes it float32."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "large.nii"
        nibabel.save(Nifti(np.ones(MAPPED, np.int16), np.eye(4)), file)
        found = {
            how: json.loads(subprocess.check_output([sys.executable, "-c", _ONE, how, str(file)]))
            for how in ("read", "mapped")
        }
    found_mb = {f"{how}_peak_mb": peak for how, peak in found.items()}
    print(found_mb)
    return {"shape": list(MAPPED), **found_mb}


def hdf5_files(folder: Path) -> tuple[str, Sides]:
    """Files of one slice with its mask, both read."""
    voxels, labels, _ = _volume()
    files = []
    for index in range(FILES):
        files.append(folder / f"p{index:03d}.h5")
        with h5py.File(files[-1], "w") as file:
            file.create_dataset("x", data=voxels[:, :, index % SHAPE[2]], compression="gzip")
            file.create_dataset("y", data=labels[:, :, index % SHAPE[2]] > 0, compression="gzip")

    def by_segtool() -> Any:  # noqa: ANN401 - an array
        images = []
        for path in files:
            source = Source("hdf5", (path,))
            Hdf5Format().read_labels(source)
            images.append(Hdf5Format().read_image(source).data[0])
        return np.stack(images)

    def by_h5py() -> Any:  # noqa: ANN401 - an array
        images = []
        for path in files:
            with h5py.File(path) as file:
                file["y"][()]
                images.append(file["x"][()])
        return np.stack(images)

    return f"{FILES} .h5 files of one slice and its mask, gzip, read", {"segtool": by_segtool, "h5py": by_h5py}


def hdf5_stack(folder: Path) -> tuple[str, Sides]:
    """One stack whose chunks hold several slices each, taken slice by slice, as training does."""
    voxels, labels, _ = _volume()
    path = folder / "stack.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.moveaxis(voxels, -1, 0), compression="gzip", chunks=True)
        file.create_dataset("y", data=np.moveaxis(labels, -1, 0) > 0, compression="gzip", chunks=True)

    def by_segtool() -> Any:  # noqa: ANN401 - an array
        images = []
        for number in range(SHAPE[2]):
            Hdf5Format().read_labels(Source("hdf5", (path,), f"y[{number}]"))
            images.append(Hdf5Format().read_image(Source("hdf5", (path,), f"x[{number}]")).data[0])
        return np.stack(images)

    def whole() -> Any:  # noqa: ANN401 - an array
        with h5py.File(path) as file:
            file["y"][()]
            return file["x"][()]

    def slices() -> Any:  # noqa: ANN401 - an array
        with h5py.File(path) as file:
            for number in range(SHAPE[2]):
                file["y"][number]
            return np.stack([file["x"][number] for number in range(SHAPE[2])])

    sides: Sides = {"h5py, whole": whole, "segtool": by_segtool, "h5py, slice by slice": slices}
    return f"one .h5 stack of {SHAPE[2]} slices and masks, gzip, slice by slice", sides
