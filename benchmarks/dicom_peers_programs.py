"""Programs that read DICOM results or series, for :mod:`benchmarks.dicom_peers`: each to voxels in the patient."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from benchmarks.dicom_peers_cases import LABELS, PeerCase
from segtool.case import Source
from segtool.formats import get_format
from segtool.formats.rtstruct import RtStructFormat
from segtool.geometry import Geometry

Points = npt.NDArray[np.float64]
"""``(N, 5)``: x, y and z in mm (LPS), label, and 1 or 255ths."""


def run(*command: str) -> str:
    """What a program prints.

    Raises:
        RuntimeError: It fails; with its last line.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-100:]}")
    return done.stdout


def of_volume(path: Path) -> tuple[Points, npt.NDArray[np.int64]]:
    """Places ``(N, 3)``, LPS, and values of the voxels of a NIfTI file that are not 0."""
    nifti: Any = nibabel.load(path)
    values = np.asarray(nifti.dataobj).astype(np.int64)
    index = np.argwhere(values)
    ras = index @ nifti.affine[:3, :3].T + nifti.affine[:3, 3]
    return ras * (-1, -1, 1), values[tuple(index.T)]


def dcmqi(program: str, case: PeerCase, kind: str, output: Path) -> Points:
    """One volume a group of segments, and what they are in ``meta.json``."""
    run(program, "--inputDICOM", str(case.files[kind]), "--outputDirectory", str(output), "--outputType", "nii")
    meta = json.loads((output / "meta.json").read_text())
    found = []
    for number, group in enumerate(meta["segmentAttributes"], start=1):
        labels = {one["labelID"]: int(one["SegmentDescription"].split()[-1]) for one in group}
        place, values = of_volume(output / f"{number}.nii.gz")
        if kind == "SEG fractional":
            (label,) = labels.values()
            found.append(np.column_stack([place, np.full(len(place), label), values]))
        else:
            found.append(np.column_stack([place, [labels[one] for one in values.tolist()], np.ones(len(place))]))
    return np.concatenate(found)


def plastimatch(program: str, case: PeerCase, kind: str, output: Path) -> Points:
    """One volume a structure, on the grid of the series."""
    run(
        program, "convert", "--input", str(case.files[kind]), "--referenced-ct", str(case.series),
        "--output-prefix", str(output), "--prefix-format", "nii",
    )  # fmt: skip
    found = []
    for label in LABELS:
        place, values = of_volume(output / f"{label.name}.nii")
        found.append(np.column_stack([place, np.full(len(place), label.value), values > 0]))
    return np.concatenate(found)


def own_reader(_: str, case: PeerCase, kind: str, output: Path) -> Points:  # noqa: ARG001 - of all programs
    """What ``segtool evaluate`` reads."""
    geometry = Geometry(case.labels.shape, case.affine, "volume")
    labels = RtStructFormat().read_labels_on(Source("rtstruct", (case.files[kind],)), geometry).labels
    index = np.argwhere(labels)
    ras = index @ case.affine[:3, :3].T + case.affine[:3, 3]
    return np.column_stack([ras * (-1, -1, 1), labels[tuple(index.T)], np.ones(len(index))])


def dsrdump(program: str, case: PeerCase, kind: str, output: Path) -> Points:  # noqa: ARG001 - likewise
    """All volumes in ml, each once: they stand twice, the second time with the centre of mass."""
    said = run(program, "+Pn", str(case.files[kind]))
    return np.array(sorted({float(one) for one in re.findall(r'"Volume"\)="([\d.]+)" \(ml', said)}))


def dcm2niix_difference(program: str, case: PeerCase, kind: str, output: Path) -> str | None:  # noqa: ARG001 - likewise
    """How its volume of the series differs from ours after its flips; None where it does not."""
    run(program, "-z", "n", "-b", "n", "-o", str(output), str(case.series))
    theirs: Any = nibabel.load(next(output.glob("*.nii")))
    ours = get_format("dicom").read_image(Source("dicom", tuple(sorted(case.series.iterdir()))))
    if theirs.shape != ours.geometry.shape:
        return f"{theirs.shape} voxels for {ours.geometry.shape}"
    steps = np.linalg.inv(case.affine) @ theirs.affine
    flips = np.sign(np.rint(np.diag(steps)[:3])).astype(int)
    wanted = case.affine @ _flip(flips, theirs.shape)
    off = float(np.abs(theirs.affine - wanted).max())
    if off > 1e-4:
        return f"affines differ by {off:.1e}"
    voxels = np.asarray(theirs.dataobj)[tuple(slice(None, None, int(one)) for one in flips)]
    count = int((voxels != ours.data[0]).sum())
    return f"{count} voxels differ" if count else None


def _flip(flips: npt.NDArray[np.int_], shape: tuple[int, ...]) -> Points:
    """From indices of a flipped volume to those before."""
    matrix = np.diag([*flips.astype(float), 1.0])
    matrix[:3, 3] = [extent - 1 if one < 0 else 0 for one, extent in zip(flips, shape, strict=True)]
    return matrix
