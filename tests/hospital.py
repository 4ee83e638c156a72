"""A study as an archive exports it: files of all series in one folder, named after the patient and nothing else."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from dicom_series import PERSONAL, filled, saved, write_series
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage

STUDY, FRAME = "1.2.840.99.7", "1.2.840.99.8"

SEQUENCES: dict[str, dict[str, object]] = {
    "t1": {"SeriesDescription": "AX T1 SE", "EchoTime": "12", "RepetitionTime": "550", "ScanningSequence": "SE"},
    "t1ce": {
        "SeriesDescription": "AX T1 SE POST",
        "ContrastBolusAgent": "Gadovist",
        "EchoTime": "12",
        "RepetitionTime": "550",
        "ScanningSequence": "SE",
    },
    "t2": {"SeriesDescription": "AX T2 TSE", "EchoTime": "102", "RepetitionTime": "5200", "ScanningSequence": "SE"},
    "flair": {
        "SeriesDescription": "AX T2 FLAIR FS",
        "EchoTime": "121",
        "RepetitionTime": "9000",
        "InversionTime": "2500",
        "ScanningSequence": ["SE", "IR"],
    },
}
ORIGINAL = ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]


@dataclass(frozen=True)
class Study:
    """What was written.

    Args:
        folder: Holds all files.
        lesion: ``(I, J, K)`` on the grid of the sequences that share one.
        affine: Of that grid, index to RAS mm.
        personal: Words that must not leave the headers.
    """

    folder: Path
    lesion: np.ndarray
    affine: np.ndarray
    personal: tuple[str, ...]


def write_study(folder: Path, *, axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0), number: int = 1) -> Study:
    """A study with the four sequences, T2 on a coarser grid, and what else an archive exports.

    That is a localizer in three planes, an ADC map, a screenshot and a report. The lesion
    is bright in the series with contrast alone.
    """
    lesion = np.zeros((40, 36, 12), np.uint8)
    lesion[10:22, 8:20, 3:8] = 1
    lesion[14:17, 12:15, 5] = 0  # a hole
    head = np.zeros(lesion.shape, np.int16)
    head[4:36, 3:33, 1:11] = 40
    common = {
        **PERSONAL,
        "StudyInstanceUID": f"{STUDY}.{number}",
        "FrameOfReferenceUID": f"{FRAME}.{number}",
        "ImageType": ORIGINAL,
        "InstitutionName": "Klinik am Geheimberg",
    }

    def series(serial: int, volume: np.ndarray, directions: tuple[float, ...] = axes, **tags: object) -> np.ndarray:
        first = str(tags.get("SOPInstanceUID", serial))
        names = [f"{first}-{k}" for k in range(volume.shape[2])]
        uid = f"1.2.840.99.{number}.{serial}"
        return write_series(folder, volume, names, uid, directions, **(common | {"SeriesNumber": serial} | tags))

    scout = {"SeriesDescription": "localizer", "ImageType": ["ORIGINAL", "PRIMARY", "M", "LOCALIZER"]}
    for index, plane in enumerate(((1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1))):
        series(1, head[:, :, :1], plane, SOPInstanceUID=f"1.2.840.99.{number}.1.{index}", **scout)
    affine = np.eye(4)
    for serial, (name, tags) in enumerate(SEQUENCES.items(), start=2):
        if name == "t2":
            series(serial, head[::2, ::2], PixelSpacing=[2, 2], **tags)
            continue
        affine = series(serial, head + 160 * lesion if name == "t1ce" else head, **tags)
    series(6, head, SeriesDescription="ADC", ImageType=["DERIVED", "PRIMARY", "ADC", "ND"])
    _odd_ones(folder, number)
    _shuffle(folder, number)
    personal = (*map(str, PERSONAL.values()), "Geheim", "Gerda", "Geheimberg")
    return Study(folder, lesion, affine, personal)


def _odd_ones(folder: Path, number: int) -> None:
    """A coloured screenshot and a structured report."""
    common = {**PERSONAL, "StudyInstanceUID": f"{STUDY}.{number}"}
    for which, (kind, tags) in enumerate(
        (
            (
                SecondaryCaptureImageStorage,
                {
                    "Modality": "OT",
                    "Rows": 4,
                    "Columns": 4,
                    "SamplesPerPixel": 3,
                    "PlanarConfiguration": 0,
                    "PhotometricInterpretation": "RGB",
                    "BitsAllocated": 8,
                    "BitsStored": 8,
                    "HighBit": 7,
                    "PixelRepresentation": 0,
                    "PixelData": bytes(48),
                },
            ),
            (ComprehensiveSRStorage, {"Modality": "SR", "ValueType": "CONTAINER"}),
        )
    ):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        uid = f"1.2.840.99.{number}.90{which}"
        own = {"SOPClassUID": kind, "SOPInstanceUID": f"{uid}.1", "SeriesInstanceUID": uid}
        saved(folder / f"odd-{which}", filled(dataset, common | own | tags))


def _shuffle(folder: Path, number: int) -> None:
    """Names without a meaning, the patient's among them."""
    files = sorted(folder.iterdir())
    random.Random(number).shuffle(files)
    for index, path in enumerate(files):
        path.rename(folder / f"GEHEIM_GERDA_19610203_{index:05}")
