"""Whether other programs find in segtool's DICOM results, voxel by voxel, what its NIfTI result has.

Series are made of a phantom in four planes and both directions of their slices, with a lesion of two labels that has
a hole and a slice without any. Everything that segtool writes of them is read with every peer that is installed.

Run: ``python -m benchmarks.dicom_peers --peers PYTHON --node-modules FOLDER``, of which PYTHON is one that has further
libraries (SimpleITK, itk, rt-utils, dcmqi), and FOLDER has dcmjs.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import dicom_peers_programs as programs
from benchmarks.common import machine, save, versions
from benchmarks.dicom_peers_cases import LABELS, PeerCase, write_cases
from segtool.version import __version__

_HERE = Path(__file__).parent
_SEG = ("SEG binary", "SEG fractional", "SEG label map")
_FRAMES = "pixels of its frames, placed by the file's header, since it knows no segments"
_OFF_GRID = 0.01
"""Voxels by which a place may miss the centre of a voxel."""


@dataclass(frozen=True)
class Peer:
    """What reads some kinds of results.

    Args:
        name: Of the library or program.
        kinds: Which it reads.
        call: How.
        reader: Its name in :mod:`benchmarks.dicom_peers_read`, or empty.
        program: Its executable, or empty.
        read: Of a program its way to voxels.
        note: What is to be known of the comparison.
    """

    name: str
    kinds: tuple[str, ...]
    call: str
    reader: str = ""
    program: str = ""
    read: Callable[[str, PeerCase, str, Path], Any] | None = None
    note: str = ""


PEERS = (
    Peer("highdicom", _SEG, "segread(FILE).get_volume(combine_segments=False, rescale_fractional=False, "
         "allow_missing_positions=True)", "highdicom seg"),
    Peer("pydicom", _SEG, "dcmread(FILE).pixel_array", "pydicom seg"),
    Peer("SimpleITK", _SEG, "GetArrayFromImage(ReadImage(FILE))", "simpleitk seg", note=_FRAMES),
    Peer("ITK", _SEG, "array_from_image(imread(FILE))", "itk seg", note=_FRAMES),
    Peer("dcmqi", _SEG, "segimage2itkimage --inputDICOM FILE --outputDirectory OUTPUT --outputType nii",
         program="segimage2itkimage", read=programs.dcmqi),
    Peer("dcmjs", _SEG, "node dicom_peers_dcmjs.mjs NODE_MODULES FILE", program="node"),
    Peer("plastimatch", ("RTSTRUCT",), "plastimatch convert --input FILE --referenced-ct SERIES --output-prefix OUTPUT "
         "--prefix-format nii", program="plastimatch", read=programs.plastimatch,
         note="fills contours on slices across the patient's z, whatever their plane, and samples those at the series"),
    Peer("rt-utils", ("RTSTRUCT",), "RTStructBuilder.create_from(SERIES, FILE).get_roi_mask_by_name(NAME)",
         "rt-utils rtstruct", note="takes the spacing of rows for that of columns, and the other way round"),
    Peer("pydicom", ("RTSTRUCT",), "dcmread(FILE).ROIContourSequence", "pydicom rtstruct",
         note="its contours, filled by the even-odd rule"),
    Peer("segtool", ("RTSTRUCT",), "RtStructFormat().read_labels_on(FILE, GRID)", read=programs.own_reader,
         note="our own reader"),
    Peer("highdicom", ("SR",), "srread(FILE).content, measurements of Volume", "highdicom sr", note="volumes in ml"),
    Peer("dcmtk", ("SR",), "dsrdump +Pn FILE", program="dsrdump", read=programs.dsrdump, note="volumes in ml"),
    Peer("dcm2niix", ("series",), "dcm2niix -z n -b n -o OUTPUT SERIES", program="dcm2niix",
         read=programs.dcm2niix_difference, note="affine to 1e-4 and voxels of the images, after its flips"),
)  # fmt: skip


def voxel_difference(points: npt.NDArray[np.float64], case: PeerCase, kind: str) -> str | None:
    """The first difference of voxels read from what is wanted, None where there is none.

    Args:
        points: ``(N, 5)`` as :mod:`benchmarks.dicom_peers_read` gives them.
        case: Series and results.
        kind: Of the file that was read.
    """
    wanted = case.wanted(kind)
    inverse = np.linalg.inv(case.affine)
    exact = (points[:, :3] * (-1, -1, 1)) @ inverse[:3, :3].T + inverse[:3, 3]
    index = np.rint(exact).astype(int)
    off = float(np.abs(exact - index).max(initial=0))
    if off > _OFF_GRID:
        return f"voxels lie up to {off:.2f} voxels beside those of the series"
    if ((index < 0) | (index >= case.labels.shape)).any():
        return "voxels outside the series"
    numbers = {label.value: number for number, label in enumerate(LABELS)}
    found = np.zeros(wanted.shape, np.int64)
    found[([numbers[int(one)] for one in points[:, 3]], *index.T)] = points[:, 4]
    wrong = np.argwhere(found != wanted)
    if not len(wrong):
        return None
    label, *place = wrong[0].tolist()
    values = f"{found[tuple(wrong[0])]} for {wanted[tuple(wrong[0])]}"
    total = np.count_nonzero(wanted)
    return f"{len(wrong)} voxels differ of {total}, the first of {LABELS[label].name} at {tuple(place)}: {values}"


def difference(found: Any, case: PeerCase, kind: str) -> str | None:  # noqa: ANN401 - of all readers
    """What differs in one file, None where nothing does."""
    if kind == "series":
        said: str | None = found
        return said
    if kind == "SR":
        volumes = sorted(float(one) for one in found)
        wanted = case.volumes_ml()
        # dsrdump shows what the file has, six decimals.
        same = len(volumes) == len(wanted) and np.allclose(volumes, wanted, rtol=1e-5)
        return None if same else f"volumes {volumes} for {wanted}"
    return voxel_difference(found, case, kind)


def by_library(peer: Peer, pythons: Sequence[str], jobs: list[tuple[PeerCase, str]], folder: Path) -> dict[str, Any]:
    """Read all files with a library in the first Python that has it."""
    listed = [
        [peer.reader, str(case.files[kind]), str(case.series), str(folder / f"{number}.npy")]
        for number, (case, kind) in enumerate(jobs)
    ]
    (folder / "jobs.json").write_text(json.dumps(listed))
    for python in pythons:
        command = [python, str(_HERE / "dicom_peers_read.py"), str(folder / "jobs.json"), str(folder / "answer.json")]
        subprocess.run(command, check=True, capture_output=True)
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
        if answer["version"] is not None:
            said = [
                error or difference(np.load(job[3]), *one)
                for one, job, error in zip(jobs, listed, answer["errors"], strict=True)
            ]
            return {"version": answer["version"], "said": said}
    return {}


def by_program(peer: Peer, program: str, jobs: list[tuple[PeerCase, str]], folder: Path) -> list[str | None]:
    """Read all files with a program."""
    assert peer.read is not None
    said: list[str | None] = []
    for number, (case, kind) in enumerate(jobs):
        output = folder / str(number)
        output.mkdir()
        try:
            said.append(difference(peer.read(program, case, kind, output), case, kind))
        except (RuntimeError, OSError) as error:
            said.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    return said


def by_dcmjs(node: str, modules: str, jobs: list[tuple[PeerCase, str]]) -> list[str | None]:
    """Read all files with dcmjs."""
    files = [case.files[kind] for case, kind in jobs]
    programs.run(node, str(_HERE / "dicom_peers_dcmjs.mjs"), modules, *map(str, files))
    return [
        difference(np.array(json.loads(Path(f"{file}.json").read_text()), np.float64), *job)
        for file, job in zip(files, jobs, strict=True)
    ]


def version_of_program(program: str) -> str:
    """As it says itself."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"v?(\d+\.\d+\.\d+)", done.stdout + done.stderr)
    return match[1] if match else "unknown"


def read_all(peer: Peer, cases: list[PeerCase], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Version and, file by file, what differs; empty where the peer is not installed."""
    jobs = [(case, kind) for kind in peer.kinds for case in cases]
    if peer.reader:
        return by_library(peer, [sys.executable, *([options.peers] if options.peers else [])], jobs, folder)
    if not peer.program:
        return {"version": __version__, "said": by_program(peer, "", jobs, folder)}
    beside = shutil.which(peer.program, path=str(Path(options.peers).parent)) if options.peers else None
    program = shutil.which(peer.program) or beside
    if program is None:
        return {}
    if peer.name == "dcmjs":
        package = Path(options.node_modules or ".", "dcmjs", "package.json")
        if not package.is_file():
            return {}
        said = by_dcmjs(program, options.node_modules, jobs)
        return {"version": json.loads(package.read_text())["version"], "said": said}
    return {"version": version_of_program(program), "said": by_program(peer, program, jobs, folder)}


def rows_of(peer: Peer, cases: list[PeerCase], answer: dict[str, Any]) -> list[dict[str, Any]]:
    """One a kind."""
    rows = []
    for number, kind in enumerate(peer.kinds):
        said = answer["said"][number * len(cases) : (number + 1) * len(cases)]
        different = {case.name: one for case, one in zip(cases, said, strict=True) if one}
        row = {"peer": peer.name, "version": answer["version"], "kind": kind, "call": peer.call, "tried": len(cases)}
        row |= {"equal": len(cases) - len(different), "note": peer.note, "different": different}
        rows.append(row)
    return rows


def main() -> None:
    """Write, read, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="a Python with further libraries")
    parser.add_argument("--node-modules", help="a folder that has dcmjs")
    options = parser.parse_args()
    rows, missing = [], []
    with tempfile.TemporaryDirectory() as name:
        cases = write_cases(Path(name, "cases"))
        for number, peer in enumerate(PEERS):
            folder = Path(name, str(number))
            folder.mkdir()
            answer = read_all(peer, cases, options, folder)
            if not answer:
                missing.append(peer.name)
                print(f"{peer.name}: not installed, left out", flush=True)
                continue
            for row in rows_of(peer, cases, answer):
                print(f"{row['peer']:12} {row['kind']:15} {row['equal']} of {row['tried']}", flush=True)
                for plane, one in row["different"].items():
                    print(f"    {plane}: {one}")
                rows.append(row)
    result = {
        "what": "segtool's DICOM results as other programs read them, against its NIfTI results, voxel by voxel",
        "command": "python -m benchmarks.dicom_peers --peers PYTHON --node-modules FOLDER",
        "machine": machine(),
        "versions": versions("segtool", "highdicom", "pydicom"),
        "cases": [case.name for case in cases],
        "left_out": missing,
        "rows": rows,
    }
    # Messages of peers name files.
    text = json.dumps(result).replace(name, "FOLDER")
    print(save("dicom_peers", json.loads(text)))


if __name__ == "__main__":
    main()
