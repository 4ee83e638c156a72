"""What ``segtool demo`` segments: phantom scans as PNG, NIfTI, HDF5 and DICOM, references beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.atomic import atomic_path
from segtool.phantom import FIELD_OF_VIEW_MM, PLANES, Plane, phantom_slice, phantom_volume

Float64Array = npt.NDArray[np.float64]
Volume = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], Float64Array]

_HEADS = 5  # a seed draws this many, so that files show different people
_DICOM_SHAPE, _DICOM_SPACING_MM = (192, 192, 20), (1.2, 1.2, 3.5)
_SCOUT_MM = 3.0
_SCOUTS: dict[Plane, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "axial": ((1, 0, 0, 0, 1, 0), (-1, -1, 0)),
    "coronal": ((1, 0, 0, 0, 0, -1), (-1, 0, 1)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (0, -1, 1)),
}
"""Directions of columns and rows (LPS), and the corner of the first pixel in half fields of view."""
_UID_ROOT = "2.25."  # UIDs made from a number, which need no registered root (DICOM PS3.5, B.2)


def write_demo_folder(folder: Path, seed: int = 0) -> None:
    """Write about five megabytes of scans and references, the same bytes of pixels for one seed.

    ::

        png/axial.png coronal.png sagittal.png     16-bit, each with NAME_mask.png
        nifti/head.nii.gz                          thick axial slices, with head_seg.nii.gz
        hdf5/slice_1.h5 slice_2.h5                 image x and reference y in one file
        dicom/head/0001.dcm ...                    a series, with head_seg.nii.gz beside the folder
        dicom/head/scout-axial.dcm ...             a localizer of the same study, in three planes

    Args:
        folder: Made where it does not exist; files of the same names are replaced.
        seed: Draws the heads.

    Raises:
        OutputError: A file cannot be written.
    """
    heads = range(seed * _HEADS, (seed + 1) * _HEADS)
    for plane in PLANES:
        image, reference = phantom_slice(heads[0], plane)
        _write_png(folder / "png" / f"{plane}.png", image)
        _write_png(folder / "png" / f"{plane}_mask.png", reference * np.uint8(255))
    for number in (1, 2):
        picture = phantom_slice(heads[number], size=256)
        _write_hdf5(folder / "hdf5" / f"slice_{number}.h5", *picture)
    volume = phantom_volume(heads[3])
    _write_nifti(folder / "nifti" / "head.nii.gz", volume[0], volume[2])
    _write_nifti(folder / "nifti" / "head_seg.nii.gz", volume[1], volume[2])
    series = phantom_volume(heads[4], _DICOM_SHAPE, _DICOM_SPACING_MM)
    write_dicom(folder / "dicom" / "head", series, seed)
    _write_localizer(folder / "dicom" / "head", heads[4], seed)
    _write_nifti(folder / "dicom" / "head_seg.nii.gz", series[1], series[2])


def _write_png(path: Path, pixels: npt.NDArray[Any]) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, compress_level=1)


def _write_hdf5(path: Path, image: npt.NDArray[Any], reference: npt.NDArray[Any]) -> None:
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("x", data=image, compression="gzip", compression_opts=1)
        file.create_dataset("y", data=reference, compression="gzip", compression_opts=1)


def _write_nifti(path: Path, voxels: npt.NDArray[Any], affine: Float64Array) -> None:
    import nibabel as nib

    image: Any = nib.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]  # no annotations
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def write_dicom(folder: Path, volume: Volume, seed: int) -> None:
    """One DICOM MR series: slices along the third axis, which points to Superior."""
    voxels, _, affine = volume
    series = _series_header(affine, seed)
    for index in range(voxels.shape[2]):
        # Stored rows run along the second voxel axis, (I, J) -> (rows J, columns I).
        plane = np.ascontiguousarray(voxels[:, :, index].T).astype("<u2")
        position = affine[:3, :3] @ [0, 0, index] + affine[:3, 3]
        _write_instance(folder / f"{index + 1:04d}.dcm", plane, position * [-1, -1, 1], index, series)


def _write_localizer(folder: Path, head: int, seed: int) -> None:
    """The coarse slices in three planes with which an examination begins."""
    affine = np.diag([-_SCOUT_MM, -_SCOUT_MM, _SCOUT_MM, 1.0])
    half = FIELD_OF_VIEW_MM / 2
    for index, (plane, (orientation, corner)) in enumerate(_SCOUTS.items()):
        image, _ = phantom_slice(head, plane, round(FIELD_OF_VIEW_MM / _SCOUT_MM))
        header = _series_header(affine, seed) | {
            "SeriesInstanceUID": _uid(seed, 3),
            "SeriesNumber": 0,
            "SeriesDescription": "Localizer",
            "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
            "ImageOrientationPatient": list(orientation),
        }
        position = np.array(corner, np.float64) * half
        _write_instance(folder / f"scout-{plane}.dcm", image.astype("<u2"), position, index, header)


def _series_header(affine: Float64Array, seed: int) -> dict[str, Any]:
    """Attributes that all slices share, by keyword. No attribute describes a person.

    DICOM's frame is LPS: x and y point the other way than in the affine's RAS. ImageOrientationPatient holds
    the direction in which columns grow, then that of rows; PixelSpacing the distance of rows, then columns.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing * np.array([[-1], [-1], [1]])
    return {
        "PatientName": "PHANTOM",
        "PatientID": "PHANTOM",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyInstanceUID": _uid(seed, 0),
        "SeriesInstanceUID": _uid(seed, 1),
        "FrameOfReferenceUID": _uid(seed, 2),
        "StudyDate": "",
        "StudyTime": "",
        "StudyID": "1",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "Manufacturer": "segtool",
        "Modality": "MR",
        "SeriesNumber": 1,
        "SeriesDescription": "T1 post-contrast phantom",
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "EchoTime": 10,
        "RepetitionTime": 500,
        "EchoTrainLength": 1,
        "PositionReferenceIndicator": "",
        "ImageType": ["DERIVED", "PRIMARY", "OTHER"],
        "ImageOrientationPatient": [*cosines[:, 0].tolist(), *cosines[:, 1].tolist()],
        "PixelSpacing": [float(spacing[1]), float(spacing[0])],
        "SliceThickness": float(spacing[2]),
        "SpacingBetweenSlices": float(spacing[2]),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }


def _write_instance(
    path: Path, plane: npt.NDArray[Any], position_mm: Float64Array, index: int, series: dict[str, Any]
) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

    uid = UID(f"{series['SeriesInstanceUID']}{index + 1:03d}")
    dataset = Dataset()
    for keyword, value in series.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, uid
    dataset.InstanceNumber = index + 1
    dataset.ImagePositionPatient = [round(float(mm), 6) for mm in position_mm]
    dataset.Rows, dataset.Columns = plane.shape
    dataset.PixelData = plane.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _uid(seed: int, which: int) -> str:
    """A UID that belongs to the seed: equal seeds write equal files."""
    digits = np.random.default_rng([seed, which, 0xD1C0]).integers(10**16, 10**17)
    return f"{_UID_ROOT}{digits}"
