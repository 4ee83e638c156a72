"""Finding the volumes of a tree of DICOM files from their headers, in files a second, beside other tools.

The tree has the headers of real series (data set ``dicom`` of the tests), each written again and again with UIDs,
positions and numbers of its own and pixels of 16x16: studies of five series of 200 slices, under names without a
suffix. All sides walk the tree, read what they read of every file and tell its series apart, in turn, several times
over, from warm files. Those in Python run in one process, dcm2niix in its own; it only lists (``-n -1``).

Run: ``python -m benchmarks.dicom_find --files 50000``
"""

import argparse
import io
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID, ExplicitVRLittleEndian

from benchmarks.codecs import dcm2niix_version
from benchmarks.common import REAL_DATA, machine, save, spread, versions
from segtool.scan import scan
from segtool.scan.walk import find_entries

FILES, RUNS = 50_000, 5
SERIES_OF_A_STUDY, SLICES = 5, 200
SIZE = 16
_SERIES = (
    "structural_t1/dicoms", "dicom2nifti/generic/anatomical/001", "dicom2nifti/ge/anatomical/001",
    "dicom2nifti/anatomical/001", "dicom2nifti/hitachi/anatomical/001",
)  # fmt: skip
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "Rows",
    "Columns", "ImagePositionPatient", "ImageOrientationPatient", "EchoTime", "AcquisitionNumber",
]  # fmt: skip
_LISTING = ("dcm2niix", "-n", "-1", "-d", "9", "-b", "n")

Sides = dict[str, Callable[[], Any]]


def write_tree(folder: Path, count: int) -> None:
    """``count`` files, by study and series."""
    pages = [_pages(series) for series in _SERIES]
    for number in range(count):
        series, index = divmod(number, SLICES)
        study = series // SERIES_OF_A_STUDY
        place = folder / f"P{study:04d}" / f"S{series % SERIES_OF_A_STUDY}"
        if not index:
            place.mkdir(parents=True)
        page = pages[series % len(pages)][index]
        for mark, value in ((_STUDY, study), (_IN_SERIES, series)):
            page = page.replace(mark.encode(), f"{mark[:-8]}{value + 10_000_000}".encode())
        (place / f"IM{index + 1:05d}").write_bytes(page)


_STUDY, _IN_SERIES = (f"1.2.826.0.1.3680043.10.9{kind}.99999999" for kind in (1, 2))
"""What stands in a page for UIDs, as long as what takes its place."""


def _pages(series: str) -> list[bytes]:
    """The files of a real series, small and as many as wanted, whose numbers are as long as they come."""
    one: Any = pydicom.dcmread(min((REAL_DATA / "dicom" / series).glob("*")))
    one.StudyInstanceUID, one.SeriesInstanceUID = UID(_STUDY), UID(_IN_SERIES)
    one.Rows = one.Columns = SIZE
    one.PixelData = bytes(SIZE * SIZE * one.BitsAllocated // 8)
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    first = np.array(one.ImagePositionPatient, np.float64)
    normal = np.cross(one.ImageOrientationPatient[:3], one.ImageOrientationPatient[3:])
    pages = []
    for index in range(SLICES):
        position = first + 1.1 * index * normal
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = UID(f"{_IN_SERIES}.{index + 1}")
        one.ImagePositionPatient = [f"{mm:.6f}" for mm in position]
        one.InstanceNumber, one.SliceLocation = str(index + 1), f"{position @ normal:.6f}"
        content = io.BytesIO()
        one.save_as(content, enforce_file_format=True)
        pages.append(content.getvalue())
    return pages


def sides(tree: Path, output: Path) -> Sides:
    """Every tool's way to the series of the tree; each gives how many it has found."""
    found: Sides = {
        "segtool, volumes": lambda: len(find_entries([tree]).entries),
        "segtool, cases": lambda: len(scan([tree]).cases),
        "pydicom, these tags": lambda: _by_pydicom(tree, specific_tags=_TAGS),
        "pydicom, all tags": lambda: _by_pydicom(tree),
    }
    if shutil.which("dcm2niix"):
        found["dcm2niix, listing"] = lambda: _by_dcm2niix(tree, output)
    return found


def _by_pydicom(tree: Path, **options: Any) -> int:  # noqa: ANN401 - of dcmread
    series: dict[str, list[Path]] = {}
    for path in tree.rglob("*"):
        if path.is_file():
            dataset: Any = pydicom.dcmread(path, stop_before_pixels=True, **options)
            series.setdefault(dataset.SeriesInstanceUID, []).append(path)
    return len(series)


def _by_dcm2niix(tree: Path, output: Path) -> int:
    done = subprocess.run([*_LISTING, "-o", str(output), str(tree)], capture_output=True, text=True, check=False)
    return len(set(re.findall(r"^\t(\d+)\t", done.stdout, re.MULTILINE)))


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tree, output = Path(name, "tree"), Path(name, "output")
        output.mkdir()
        write_tree(tree, arguments.files)
        todo = sides(tree, output)
        # Not counted: files are read for the first time, and libraries imported.
        series = {side: act() for side, act in todo.items()}
        seconds: dict[str, list[float]] = {side: [] for side in todo}
        for _ in range(arguments.runs):
            for side, act in todo.items():
                start = time.perf_counter()
                act()
                seconds[side].append(time.perf_counter() - start)
    spreads = {side: spread(values) for side, values in seconds.items()}
    ours = spreads["segtool, volumes"]["median"]
    rows = {
        side: {
            "seconds": values,
            "files_per_s": arguments.files / values["median"],
            "found": series[side],
            "times_of_segtool": values["median"] / ours,
        }
        for side, values in spreads.items()
    }
    for side, row in rows.items():
        print(
            f"{side:22} {row['seconds']['median']:8.3f} s {row['files_per_s']:9,.0f} files/s "
            f"{row['times_of_segtool']:6.2f} times, {row['found']} found",
            flush=True,
        )
    result = {
        "what": f"the series of {arguments.files} DICOM files found from their headers, warm",
        "machine": machine(),
        "versions": versions("segtool", "numpy", "pydicom") | dcm2niix_version(),
        "runs": arguments.runs,
        "commands": {
            "all": f"python -m benchmarks.dicom_find --files {arguments.files} --runs {arguments.runs}",
            "pydicom, these tags": f"dcmread(path, stop_before_pixels=True, specific_tags={_TAGS})",
            "pydicom, all tags": "dcmread(path, stop_before_pixels=True)",
            "dcm2niix, listing": " ".join((*_LISTING, "-o OUTPUT TREE")),
        },
        "rows": rows,
    }
    print(save("dicom_find", result))


if __name__ == "__main__":
    main()
