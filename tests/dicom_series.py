"""Small real DICOM series for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

PERSONAL = {
    "PatientName": "Geheim^Gerda",
    "PatientID": "ID987654",
    "PatientBirthDate": "19610203",
    "StudyDate": "20191231",
    "AccessionNumber": "ACC555",
    "SeriesDescription": "Gerda t1 km",
}
"""What must never leave a header."""


def write_series(folder: Path, volume: np.ndarray, names: Sequence[str], uid: str = "1.2.3") -> np.ndarray:
    """Write ``(I, J, K)`` int16 voxels as axial slices 3 mm apart, slice k under ``names[k]``.

    Returns:
        The affine ``(4, 4)`` from index to RAS millimetres.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1}"
        tags = {
            "SOPClassUID": MRImageStorage,
            "SOPInstanceUID": f"{uid}.{k + 1}",
            "SeriesInstanceUID": uid,
            "FrameOfReferenceUID": "1.2.9",
            "Modality": "MR",
            "Rows": volume.shape[1],
            "Columns": volume.shape[0],
            "ImagePositionPatient": [-10, -20, 3 * k],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "PixelData": np.ascontiguousarray(volume[:, :, k].T, "<i2").tobytes(),
        }
        for tag, value in (PERSONAL | tags).items():
            setattr(dataset, tag, value)
        dataset.save_as(folder / name, enforce_file_format=True)
    return np.array([[-1.0, 0, 0, 10], [0, -1.0, 0, 20], [0, 0, 3.0, 0], [0, 0, 0, 1]])


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
