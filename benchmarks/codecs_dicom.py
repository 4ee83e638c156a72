"""Tasks of :mod:`benchmarks.codecs` about DICOM series of 384 slices."""

import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

from benchmarks.common import REAL_DATA
from benchmarks.folder import write_series
from segtool.case import Source
from segtool.formats.dicom.index import read_facts
from segtool.formats.dicom.series import DicomFormat
from segtool.scan.walk import find_entries

SLICES = 384
Sides = dict[str, Callable[[], Any]]


def height_mm(one: pydicom.Dataset) -> float:
    """Of a slice, along the normal of its plane."""
    normal = np.cross(one.ImageOrientationPatient[:3], one.ImageOrientationPatient[3:])
    return float(normal @ np.array(one.ImagePositionPatient, np.float64))


def write_real(folder: Path) -> str:
    """A series with a scanner's own headers: one real whole head, placed again and again along its axis."""
    folder.mkdir()
    files = sorted((REAL_DATA / "dicom" / "structural_t1" / "dicoms").glob("*"))
    if not files:
        return write_series(folder)
    heads = sorted((pydicom.dcmread(file) for file in files), key=height_mm)
    first, second = (np.array(one.ImagePositionPatient, np.float64) for one in heads[:2])
    for index in range(SLICES):
        one = heads[index % len(heads)]
        one.ImagePositionPatient = [f"{value:.6f}"[:16] for value in first + index * (second - first)]
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.826.0.1.3680043.10.{index + 1}")
        one.save_as(folder / f"{index:04d}.dcm")
    rows, columns = heads[0].Rows, heads[0].Columns
    return f"1 DICOM series (a scanner's headers, {SLICES} slices of {rows}x{columns}, 16 bit)"


def plain(folder: Path) -> tuple[str, Sides]:
    """Uncompressed, with a scanner's headers, from files to a sorted stack."""
    return _uncompressed(folder, write_real)


def plain_phantom(folder: Path) -> tuple[str, Sides]:
    """As :func:`plain`, of smaller slices with short headers."""
    return _uncompressed(folder, write_series)


def _uncompressed(folder: Path, write: Callable[[Path], str]) -> tuple[str, Sides]:
    what = write(folder / "series")
    files = sorted((folder / "series").rglob("*.dcm"))
    places = [_place(file) for file in files]

    def least() -> Any:  # noqa: ANN401 - an array
        stack = np.empty((len(files), *places[0][1]), np.uint16)
        for index, (file, (offset, shape)) in enumerate(zip(files, places, strict=True)):
            stack[index] = np.frombuffer(file.read_bytes(), np.uint16, shape[0] * shape[1], offset).reshape(shape)
        return stack

    def straight() -> Any:  # noqa: ANN401 - an array
        stack = np.empty((len(files), *places[0][1]), np.uint16)
        for row, file, (offset, _) in zip(stack, files, places, strict=True):
            with file.open("rb", buffering=0) as opened:
                opened.seek(offset)
                opened.readinto(row.data)
        return stack

    bare = {"bytes and their copy into a stack": least, "pixels alone, straight into a stack": straight}
    return what, bare | _readers(folder, files)


def _place(file: Path) -> tuple[int, tuple[int, int]]:
    dataset: Any = pydicom.dcmread(file)
    return dataset.get_item("PixelData").value_tell, (dataset.Rows, dataset.Columns)


def compressed(folder: Path) -> tuple[str, Sides]:
    """JPEG 2000 without losses where its decoder is installed, else RLE."""
    what = write_series(folder / "series")
    files = sorted((folder / "series").rglob("*.dcm"))
    has_decoder = find_spec("openjpeg") is not None
    for file in files:
        dataset = pydicom.dcmread(file)
        # Noise-free phantoms compress to nearly nothing.
        pixels = dataset.pixel_array + np.random.default_rng(0).integers(0, 40, dataset.pixel_array.shape, np.uint16)
        dataset.PixelData = pixels.astype(np.uint16).tobytes()
        dataset.compress(JPEG2000Lossless if has_decoder else RLELossless, generate_instance_uid=False)
        dataset.save_as(file)
    parsed = [pydicom.dcmread(file) for file in files]

    def least() -> Any:  # noqa: ANN401 - an array
        for file in files:
            file.read_bytes()
        return np.stack([pixel_array(dataset) for dataset in parsed])

    name = "JPEG 2000" if has_decoder else "RLE"
    return what.replace("16 bit", f"16 bit, {name}"), {"bytes and pixels decoded": least, **_readers(folder, files)}


def headers(folder: Path) -> tuple[str, Sides]:
    """What finding cases asks of each file, the series to which it belongs among it."""
    write_real(folder / "series")
    files = sorted((folder / "series").rglob("*.dcm"))
    tags = ["SeriesInstanceUID", "SOPClassUID", "Modality", "Rows", "Columns"]
    sides: Sides = {
        "segtool": lambda: read_facts(files),
        "pydicom, these tags": lambda: [
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags) for file in files
        ],
        "pydicom, all tags": lambda: [pydicom.dcmread(file, stop_before_pixels=True) for file in files],
    }
    return f"to which series {SLICES} DICOM files belong", sides


def _readers(folder: Path, files: list[Path]) -> Sides:
    """Every library's way from the files of a series to its volume."""
    source, output = Source("dicom", tuple(files)), folder / "nifti"

    def by_pydicom() -> Any:  # noqa: ANN401 - an array
        datasets = [pydicom.dcmread(file) for file in files]
        return np.stack([one.pixel_array for one in sorted(datasets, key=height_mm)])

    def found() -> Any:  # noqa: ANN401 - an array
        (entry,) = find_entries([folder / "series"]).entries
        return DicomFormat().read_image(Source("dicom", entry.paths)).data

    sides: Sides = {
        "segtool": lambda: DicomFormat().read_image(source).data,
        "segtool, finding included": found,
        "pydicom": by_pydicom,
    }
    if find_spec("SimpleITK"):
        sitk: Any = import_module("SimpleITK")

        def by_sitk() -> Any:  # noqa: ANN401 - an array
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
            return sitk.GetArrayFromImage(reader.Execute())

        sides["SimpleITK"] = by_sitk
    if find_spec("highdicom"):
        highdicom: Any = import_module("highdicom")
        sides["highdicom"] = lambda: (
            highdicom.get_volume_from_series(
                [pydicom.dcmread(file) for file in files], dtype=np.uint16, apply_presentation_lut=False
            ).array
        )
    if shutil.which("dcm2niix"):

        def by_dcm2niix() -> None:
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir()
            command = ["dcm2niix", "-z", "n", "-b", "n", "-o", str(output), str(files[0].parent)]
            subprocess.run(command, check=True, capture_output=True)
            assert list(output.glob("*.nii"))

        sides["dcm2niix, writing .nii"] = by_dcm2niix
    return sides
