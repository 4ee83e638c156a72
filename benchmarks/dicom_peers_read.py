"""Reads DICOM results with one library, in whichever Python has it; a script that needs nothing of segtool.

Run: ``python dicom_peers_read.py JOBS ANSWER``, of which JOBS is JSON ``[[reader, file, series folder, output], ...]``.
An output is a ``.npy`` file: ``(N, 5)``, one row a voxel that is not 0, x, y and z in mm (LPS), the label and 1 or
255ths; of an SR all volumes in ml. ANSWER becomes JSON ``{"version": ..., "errors": [null or a line, ...]}``.
"""

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

_FOLDERS = re.compile(r"/\S*/")
"""Left out of what libraries say."""
Array = Any
"""numpy arrays: this Python's numpy may have other types than ours."""


def label_of(segment: Any) -> int:  # noqa: ANN401 - a segment of pydicom or highdicom
    """The label which a segment's description names."""
    return int(str(segment.SegmentDescription).split()[-1])


def by_frames(file: str, frames: Array) -> Array:
    """Voxels of SEG frames ``(N, rows, columns)``, placed by the header of the file."""
    dataset: Any = pydicom.dcmread(file)
    # A label map has its background as a segment too.
    described = [one for one in dataset.SegmentSequence if "SegmentDescription" in one]
    labels = {int(one.SegmentNumber): label_of(one) for one in described}
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    steps = _steps(orientation, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = []
    frames = np.asarray(frames).reshape(-1, dataset.Rows, dataset.Columns)
    for frame, item in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(frame)
        # ITK gives 255 for a bit that is set.
        values = frame[rows, columns].astype(int) if dataset.BitsAllocated > 1 else np.ones(len(rows), int)
        named = item.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
        if named:
            label = np.full(len(values), labels[int(named[0].ReferencedSegmentNumber)])
        else:
            label, values = np.array([labels[value] for value in values.tolist()]), np.ones_like(values)
        origin = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        place = origin + np.stack([columns, rows], axis=1) @ steps
        found.append(np.column_stack([place, label, values]))
    return np.concatenate(found)


def _steps(orientation: Any, spacing: Any) -> Array:  # noqa: ANN401 - values of pydicom
    """To the next column and the next row, mm, LPS."""
    across, down = np.array(orientation, float).reshape(2, 3)
    return np.stack([across * float(spacing[1]), down * float(spacing[0])])


def pydicom_seg(file: str, series: str) -> Array:  # noqa: ARG001 - of all readers
    """Of the frames' places in the header."""
    return by_frames(file, pydicom.dcmread(file).pixel_array)


def simpleitk_seg(file: str, series: str) -> Array:  # noqa: ARG001 - likewise
    """The frames; ITK knows nothing of segments and of frames that are left out."""
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    return by_frames(file, sitk.GetArrayFromImage(sitk.ReadImage(file)))


def itk_seg(file: str, series: str) -> Array:  # noqa: ARG001 - likewise
    """As :func:`simpleitk_seg`."""
    import itk

    return by_frames(file, itk.array_from_image(itk.imread(file)))


def highdicom_seg(file: str, series: str) -> Array:  # noqa: ARG001 - likewise
    """The volume as highdicom puts it together."""
    from highdicom.seg import segread

    seg: Any = segread(file)
    volume = seg.get_volume(combine_segments=False, rescale_fractional=False, allow_missing_positions=True)
    *index, at = np.nonzero(volume.array)
    labels = np.array([label_of(seg.get_segment_description(number)) for number in seg.segment_numbers])
    place = np.stack(index, axis=1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return np.column_stack([place, labels[at], volume.array[(*index, at)]])


def highdicom_sr(file: str, series: str) -> Array:  # noqa: ARG001 - likewise
    """All volumes of the measurement groups, each once: they stand with the segment and with the centre of mass."""
    from highdicom.sr import srread
    from pydicom.sr.codedict import codes

    content: Any = srread(file).content
    groups = [*content.get_volumetric_roi_measurement_groups(), *content.get_image_measurement_groups()]
    return np.array(
        sorted({float(one.value) for group in groups for one in group.get_measurements(name=codes.SCT.Volume)})
    )


def pydicom_rtstruct(file: str, series: str) -> Array:
    """Voxels whose centres lie in an odd number of the contours on their image."""
    images = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, Path(series).iterdir())}
    dataset: Any = pydicom.dcmread(file)
    contours = {int(item.ReferencedROINumber): item for item in dataset.ROIContourSequence}
    found = []
    for label, roi in _labels(dataset):
        masks: dict[str, Array] = {}
        for contour in contours[int(roi.ROINumber)].get("ContourSequence") or ():
            image: Any = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            steps = _steps(image.ImageOrientationPatient, image.PixelSpacing)
            points = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(image.ImagePositionPatient, float)
            filled = _inside(points @ np.linalg.pinv(steps), image.Rows, image.Columns)
            masks[image.SOPInstanceUID] = masks.get(image.SOPInstanceUID, False) ^ filled
        found += [_of_mask(mask, images[uid], label) for uid, mask in masks.items()]
    return np.concatenate(found)


def _inside(polygon: Array, rows: int, columns: int) -> Array:
    """``(rows, columns)`` by the even-odd rule; the polygon's points are column and row."""
    mask = np.zeros((rows, columns), bool)
    x, y = np.arange(columns), np.arange(rows)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crossed = (y1 > y) != (y2 > y)
        if crossed.any():
            mask[crossed] ^= x < (x1 + (y[crossed] - y1) * (x2 - x1) / (y2 - y1))[:, None]
    return mask


def rt_utils_rtstruct(file: str, series: str) -> Array:
    """The masks on the images in the order of rt-utils."""
    from rt_utils import RTStructBuilder

    structures: Any = RTStructBuilder.create_from(dicom_series_path=series, rt_struct_path=file)
    found = []
    for label, roi in _labels(structures.ds):
        masks = structures.get_roi_mask_by_name(roi.ROIName)
        for k, image in enumerate(structures.series_data):
            found.append(_of_mask(masks[:, :, k], image, label))
    return np.concatenate(found)


def _labels(dataset: Any) -> Iterator[tuple[int, Any]]:  # noqa: ANN401 - data sets
    for roi in dataset.StructureSetROISequence:
        named = re.fullmatch(r"label value (\d+)", str(roi.ROIDescription))
        if named:
            yield int(named[1]), roi


def _of_mask(mask: Array, image: Any, label: int) -> Array:  # noqa: ANN401 - a data set
    rows, columns = np.nonzero(mask)
    steps = _steps(image.ImageOrientationPatient, image.PixelSpacing)
    place = np.array(image.ImagePositionPatient, float) + np.stack([columns, rows], axis=1) @ steps
    return np.column_stack([place, np.full(len(rows), label), np.ones(len(rows))])


READERS: dict[str, tuple[str, Callable[[str, str], Array]]] = {
    "pydicom seg": ("pydicom", pydicom_seg),
    "highdicom seg": ("highdicom", highdicom_seg),
    "highdicom sr": ("highdicom", highdicom_sr),
    "simpleitk seg": ("simpleitk", simpleitk_seg),
    "itk seg": ("itk", itk_seg),
    "pydicom rtstruct": ("pydicom", pydicom_rtstruct),
    "rt-utils rtstruct": ("rt-utils", rt_utils_rtstruct),
}
"""Distribution and function."""


def main() -> None:
    """All jobs, which are of one library."""
    warnings.simplefilter("ignore")
    jobs, answer = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    distribution = READERS[jobs[0][0]][0]
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        answer.write_text(json.dumps({"version": None, "errors": []}))
        return
    errors = []
    for reader, file, series, output in jobs:
        try:
            np.save(output, READERS[reader][1](file, series))
            errors.append(None)
        except Exception as error:  # noqa: BLE001 - whatever a library raises is what is to be known of it
            errors.append(f"{type(error).__name__}: {' '.join(_FOLDERS.sub('', str(error)).split())[-160:]}")
    answer.write_text(json.dumps({"version": version, "errors": errors}))


if __name__ == "__main__":
    main()
