"""Small real DICOM series for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DS

PERSONAL = {
    "PatientName": "Geheim^Gerda",
    "PatientID": "ID987654",
    "PatientBirthDate": "19610203",
    "StudyDate": "20191231",
    "AccessionNumber": "ACC555",
    "SeriesDescription": "Gerda t1 km",
}
"""What must never leave a header."""


def new_slice(
    uid: object, number: int, size: tuple[int, int], bits: int = 16, *, is_signed: bool = True
) -> dict[str, object]:
    """The tags of slice ``number`` (from 0) of an MR series that all writers below give alike, by keyword."""
    return {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": f"{uid}.{number + 1}",
        "SeriesInstanceUID": uid,
        "StudyInstanceUID": "1.2.6",
        "FrameOfReferenceUID": "1.2.9",
        "Modality": "MR",
        "Rows": size[0],
        "Columns": size[1],
        "PixelSpacing": [1, 1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(is_signed),
    }


def write_series(
    folder: Path,
    volume: np.ndarray,
    names: Sequence[str],
    uid: str = "1.2.3",
    directions: Sequence[float] = (1, 0, 0, 0, 1, 0),
    **more: object,
) -> np.ndarray:
    """Write ``(I, J, K)`` int16 voxels as slices 3 mm apart, slice k under ``names[k]``, k along rows x columns.

    ``directions`` are ImageOrientationPatient, axial by default; ``more`` are further tags by keyword, or others in
    place of those below.

    Returns:
        The affine ``(4, 4)`` from index to RAS millimetres.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.reshape(directions, (2, 3)).astype(float)
    first, normal = np.array([-10.0, -20, 0]), np.cross(row, column)
    for k, name in enumerate(names):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1}"
        tags = new_slice(uid, k, (volume.shape[1], volume.shape[0])) | {
            "ImagePositionPatient": [f"{mm:.6g}" for mm in first + 3 * k * normal],
            "ImageOrientationPatient": [f"{cosine:.10g}" for cosine in directions],
            "PixelData": np.ascontiguousarray(volume[:, :, k].T, "<i2").tobytes(),
        }
        for tag, value in (PERSONAL | tags | more).items():
            setattr(dataset, tag, value)
        dataset.save_as(folder / name, enforce_file_format=True)
    down, across = more.get("PixelSpacing", (1, 1))
    affine = np.eye(4)
    affine[:3] = np.stack([row * across, column * down, 3 * normal, first], axis=1)
    affine[:2] *= -1
    return affine


def write_volume(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    steps: Sequence[float] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    **more: object,
) -> list[Path]:
    """Write ``(I, J, K)`` voxels of any integer type so that they lie where ``affine`` (index to RAS mm) says.

    Slice k, of columns i and rows j, lies at index ``steps[k]`` along the third axis (k by default) under ``names[k]``;
    ``more`` are further tags by keyword, those that are None are left out.

    Returns:
        The paths, slice by slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    across, down = (np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    directions = (*(lps[:3, 0] / across), *(lps[:3, 1] / down))
    uid, paths = more.get("SeriesInstanceUID", "1.2.7"), []
    for k in range(volume.shape[2]):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        position = (lps @ (0, 0, k if steps is None else steps[k], 1))[:3]
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        tags = new_slice(
            uid, k, (volume.shape[1], volume.shape[0]), 8 * volume.dtype.itemsize, is_signed=volume.dtype.kind == "i"
        ) | {
            "InstanceNumber": k + 1,
            "ImagePositionPatient": [DS(float(mm), auto_format=True) for mm in position],
            "ImageOrientationPatient": [DS(float(cosine), auto_format=True) for cosine in directions],
            "PixelSpacing": [DS(float(mm), auto_format=True) for mm in (down, across)],
        }
        filled(dataset, PERSONAL | tags | more)
        dataset.add_new("PixelData", "OW", volume[:, :, k].T.astype(volume.dtype.newbyteorder(order)).tobytes())
        if syntax.is_compressed and not syntax.is_deflated:
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.compress(syntax, generate_instance_uid=False)
        paths.append(saved(folder / (names[k] if names else f"{k:03}.dcm"), dataset, syntax))
    return paths


def write_slices(
    folder: Path,
    slices: Sequence[dict[str, object]],
    names: Sequence[str] = (),
    syntax: UID = ExplicitVRLittleEndian,
    **common: object,
) -> list[Path]:
    """Write slices of 2x3 pixels that each have tags of their own; slice k lies at z = 3 k mm where it does not say.

    Args:
        folder: Is made.
        slices: Tags by keyword for each slice; those that are None are left out.
        names: Of the files; ``IM0001`` onwards without.
        syntax: Uncompressed or deflated.
        common: Tags of all slices.

    Returns:
        The paths, slice by slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, own in enumerate(slices):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        uid = {**common, **own}.get("SeriesInstanceUID", "1.2.7")
        tags = new_slice(uid, k, (2, 3)) | {
            "InstanceNumber": k + 1,
            "ImagePositionPatient": [-10, -20, 3 * k],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        }
        filled(dataset, PERSONAL | tags | common | own)
        dataset.add_new("PixelData", "OW", np.full(6, k, ">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes())
        paths.append(saved(folder / (names[k] if names else f"IM{k + 1:04}"), dataset, syntax))
    return paths


def filled(dataset: pydicom.Dataset, tags: dict[str, object]) -> pydicom.Dataset:
    """The data set with these tags, without those that are None."""
    for name, value in tags.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def saved(path: Path, dataset: pydicom.Dataset, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write a DICOM file of its own meta header; the path."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path
