"""Which DICOM volumes are no scans to segment, and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from segtool.errors import UnreadableFileError
from segtool.formats.dicom.elements import OddError, Wanted, values_in_file
from segtool.formats.dicom.facts import DicomVolume
from segtool.formats.dicom.index import FileFacts

REFERENCES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "dicom-seg",
    "1.2.840.10008.5.1.4.1.1.66.7": "dicom-seg",
    "1.2.840.10008.5.1.4.1.1.481.3": "rtstruct",
}
"""By SOP class: segmentation, label map segmentation, RT structure set."""
_REFERENCE_MODALITIES = {"SEG": "dicom-seg", "RTSTRUCT": "rtstruct"}

_OBJECTS = {
    "SR": "structured report", "PR": "presentation state", "KO": "key object selection", "DOC": "document",
    "REG": "registration", "FID": "fiducials", "ANN": "annotations", "PLAN": "plan", "RTPLAN": "radiotherapy plan",
    "RTDOSE": "radiotherapy dose", "RTRECORD": "radiotherapy record", "RTIMAGE": "radiotherapy image",
    "SEG": "segmentation of surfaces", "RWV": "table of values", "ECG": "waveform", "AU": "sound",
}  # fmt: skip
"""By modality: objects that are no scan, some of which have pixels."""

_ENHANCED = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2.1", "2.2", "4.1", "4.3", "4.4", "128.1", "130", "6.2")
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PICTURES = _ENHANCED | {_SECONDARY_CAPTURE, *(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "128"))}

_MAPS = {
    "ADC": "diffusion", "EADC": "diffusion", "EXPONENTIAL": "diffusion", "FA": "diffusion", "TRACEW": "diffusion",
    "TRACE": "diffusion", "COLFA": "diffusion", "TENSOR": "diffusion", "TENSOR_B0": "diffusion", "DTI": "diffusion",
    "CBF": "perfusion", "CBV": "perfusion", "RCBF": "perfusion", "RCBV": "perfusion", "RELCBF": "perfusion",
    "RELCBV": "perfusion", "RELMTT": "perfusion", "RELTTP": "perfusion", "CORRCBV": "perfusion", "MTT": "perfusion",
    "TTP": "perfusion", "PBP": "perfusion", "GBP": "perfusion", "TMAX": "perfusion", "KTRANS": "perfusion",
    "PERFUSION": "perfusion", "PERFUSION_ASL": "perfusion", "ASL": "perfusion", "T0": "perfusion", "AT": "perfusion",
    "SUBTRACTION": "subtraction", "SUBTRACT": "subtraction", "SUB": "subtraction", "T1 MAP": "relaxation",
    "T2 MAP": "relaxation", "T2_STAR MAP": "relaxation", "R2 MAP": "relaxation", "R2_STAR MAP": "relaxation",
    "T1_MAP": "relaxation", "T2_MAP": "relaxation", "FMRI": "activation", "MOCO_T_MAP": "activation",
    "PROJECTION IMAGE": "projection", "MIP": "projection", "MINIP": "projection", "MNIP": "projection",
    "MAXIP": "projection", "CSA MIP": "projection",
}  # fmt: skip
"""By what ImageType says behind DERIVED: PS3.3 C.8.3.1.1.1 and C.8.13.3.1.1, and what scanners write."""
_REFORMATS = frozenset({"MPR", "CSA MPR", "REFORMATTED", "CSARESAMPLED"})

_COLOURS = frozenset({
    "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "HSV", "ARGB", "CMYK",
})  # fmt: skip
"""PS3.3 C.7.6.3.1.2. Whatever else stands there is damage or free text, which is not shown."""

MOSAIC = "Siemens mosaic, all slices in one picture"
_MARKER: Wanted = {0x0019_0010: ("Creator", b"LO"), 0x0019_100A: ("NumberOfImagesInMosaic", b"US")}

MOST_OF_TWO_PLANES, MOST_OF_THREE_PLANES = 5, 20
"""Slices a plane in a localizer; a scan of several planes in one series has more."""


def reference_format(file: FileFacts) -> str:
    """``dicom-seg`` or ``rtstruct``; empty for files that hold no reference."""
    found = REFERENCES.get(file.text("SOPClassUID"), "")
    return found or ("" if file.text("SOPClassUID") else _REFERENCE_MODALITIES.get(file.text("Modality"), ""))


def is_cut(file: FileFacts) -> bool:
    """True where a picture's header ends before it says how large the picture is."""
    return file.size is None and file.text("SOPClassUID") in _PICTURES


def sort_of(file: FileFacts) -> str:
    """Why a file is no slice of a scan; empty where it is one."""
    modality, size = file.text("Modality"), file.size
    if size is None or modality in _OBJECTS:
        what = _OBJECTS.get(modality, "object without pixels")
        return f"{what}{f' ({modality})' if modality else ''}, no scan"
    if file.text("SOPClassUID") in _ENHANCED:
        return "enhanced multi-frame, all slices in one file"
    if file.frames > 1:
        return "multi-frame, all slices in one file"
    photometric = file.text("PhotometricInterpretation")
    if file.integer("SamplesPerPixel") not in (None, 1) or (photometric and not photometric.startswith("MONOCHROME")):
        return f"colours ({photometric}), not grey values" if photometric in _COLOURS else "colours, not grey values"
    return MOSAIC if "MOSAIC" in file.texts("ImageType") else ""


def kind_aside(file: FileFacts) -> str:
    """Why a volume that begins with ``file`` is no scan, as its header says; empty where it is one."""
    image_type = tuple(part.upper() for part in file.texts("ImageType"))
    is_placed = {"ImagePositionPatient", "ImageOrientationPatient"} <= file.values.keys()
    is_captured = file.text("SOPClassUID").startswith(_SECONDARY_CAPTURE) and not is_placed
    if is_captured or {"SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"} & set(image_type):
        return "screenshot (secondary capture)"
    if "LOCALIZER" in image_type:
        return "localizer, as its ImageType says"
    if image_type[:1] == ("DERIVED",):
        found = next((part for part in image_type[1:] if part in _MAPS), None)
        if found:
            return f"derived, no scan: {_MAPS[found]} ({found})"
    return ""


def localizer_aside(slices_by_plane: Counter[str]) -> str:
    """Why slices of several planes in one series are no scan; empty where they are scans, or lie in one plane."""
    planes = len(slices_by_plane)
    most = MOST_OF_THREE_PLANES if planes > 2 else MOST_OF_TWO_PLANES
    if planes < 2 or max(slices_by_plane.values()) > most:
        return ""
    return f"localizer of {slices_by_plane.total()} slices in {planes} planes"


def in_their_study(volumes: Sequence[DicomVolume]) -> list[DicomVolume]:
    """The volumes, those set aside that are no scan in the light of the others of their study.

    These are reformats of a scan that is there itself, and single slices beside whole scans.
    """
    whole: dict[str, list[DicomVolume]] = {}
    for volume in volumes:
        if len(volume.paths) > 1 and not volume.set_aside:
            for uid in {volume.study, volume.series} - {""}:
                whole.setdefault(uid, []).append(volume)
    return [volume if volume.set_aside else _beside(volume, whole) for volume in volumes]


def _beside(volume: DicomVolume, whole: dict[str, list[DicomVolume]]) -> DicomVolume:
    others = [*whole.get(volume.study, ()), *whole.get(volume.series, ())]
    if len(volume.paths) == 1 and others:
        return replace(volume, set_aside="a single slice, while its study has whole scans")
    own = _acquisition(volume)
    if own and _is_reformat(volume) and any(_acquisition(one) == own for one in others if not _is_reformat(one)):
        return replace(volume, set_aside="a reformat (MPR) of another series of its study")
    return volume


def _is_reformat(volume: DicomVolume) -> bool:
    image_type = [part.upper() for part in volume.facts.image_type]
    return image_type[:1] == ["DERIVED"] and not _REFORMATS.isdisjoint(image_type)


def _acquisition(volume: DicomVolume) -> tuple[object, ...] | None:
    """What a reformat has from its source; None where that tells nothing."""
    facts = volume.facts
    times = (facts.echo_time_ms, facts.repetition_time_ms, facts.inversion_time_ms, facts.flip_angle_degrees)
    return (*times, bool(facts.contrast_agent)) if any(times) else None


def has_mosaic_marker(file: FileFacts) -> bool:
    """True where Siemens counts the slices of a picture in a private tag."""
    try:
        values, _ = values_in_file(file.path, _MARKER, 0x0020_0000)
    except (OddError, UnreadableFileError, OSError):
        return False
    return values.get("Creator", b"").startswith(b"SIEMENS") and "NumberOfImagesInMosaic" in values
