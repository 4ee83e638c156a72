"""File formats, by name. A class is imported on use, so that none costs anything before."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from segtool.case import LabelMap, Source
from segtool.formats.base import Format, LabelReader, PlacedLabelReader
from segtool.geometry import Geometry

FORMATS: dict[str, str] = {
    "png": "segtool.formats.png:PictureFormat",
    "nifti": "segtool.formats.nifti:NiftiFormat",
    "hdf5": "segtool.formats.hdf5:Hdf5Format",
    "matlab": "segtool.formats.matlab:MatlabFormat",
    "dicom": "segtool.formats.dicom.series:DicomFormat",
}

ANNOTATIONS: dict[str, str] = {
    "coco": "segtool.formats.coco:CocoFormat",
    "dicom-seg": "segtool.formats.dicom.seg:DicomSegFormat",
    "rtstruct": "segtool.formats.rtstruct:RtStructFormat",
}
"""What holds references alone. No suffix tells it: a ``.json`` or ``.dcm`` may be anything."""

SUFFIXES: dict[str, str] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".png": "png",
    ".jpg": "png",
    ".jpeg": "png",
    ".tif": "png",
    ".tiff": "png",
    ".bmp": "png",
    ".webp": "png",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".mat": "matlab",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}
"""Which format reads which suffix. DICOM files often have none; :mod:`segtool.scan` looks at their bytes."""


@cache
def get_format(name: str) -> Format:
    """The format called ``name``, a key of :data:`FORMATS`."""
    instance: Format = _load(FORMATS[name])
    return instance


@cache
def label_reader(name: str) -> LabelReader:
    """What reads references of the kind ``name``, a key of :data:`FORMATS` or :data:`ANNOTATIONS`."""
    if name in FORMATS:
        return get_format(name)
    instance: LabelReader = _load(ANNOTATIONS[name])
    return instance


def is_placed(name: str) -> bool:
    """True for references that lie in the patient and have no grid of a whole scan: what they leave out is background.

    Args:
        name: A key of :data:`FORMATS` or :data:`ANNOTATIONS`.
    """
    return isinstance(label_reader(name), PlacedLabelReader)


def read_labels_on(source: Source, geometry: Geometry, frame_of_reference: str = "") -> LabelMap | None:
    """The labels of a reference as a scan on ``geometry`` needs them: contours on that grid, others on their own.

    Args:
        source: The reference.
        geometry: Of the scan.
        frame_of_reference: Of the scan, as :class:`~segtool.case.Image` has it; empty where it is not known.

    Returns:
        None where a file that may hold a reference has none.

    Raises:
        UnreadableFileError: As for :meth:`LabelReader.read_labels`.
        GridError: The reference was not made on this scan.
    """
    reader = label_reader(source.format)
    if isinstance(reader, PlacedLabelReader):
        return reader.read_labels_on(source, geometry, frame_of_reference)
    return reader.read_labels(source)


def _load(target: str) -> Any:  # noqa: ANN401 - an instance of whatever class the table names
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)()


def suffix_of(path: Path) -> str:
    """The known suffix of a file name (``.nii.gz`` counts as one), lower-case, or an empty string."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
