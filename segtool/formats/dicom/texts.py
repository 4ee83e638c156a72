"""What the first header of a DICOM volume says about its acquisition, in words."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segtool.errors import UnreadableFileError
from segtool.formats.dicom.elements import OddError, Wanted, values_in_file
from segtool.formats.dicom.facts import SeriesFacts
from segtool.formats.dicom.index import HEADER_END, TAGS, FileFacts
from segtool.limits import DEFAULT_LIMITS, Limits

_PERSONAL: Wanted = {
    0x0008_0012: ("InstanceCreationDate", b"DA"),
    0x0008_0020: ("StudyDate", b"DA"),
    0x0008_0021: ("SeriesDate", b"DA"),
    0x0008_0022: ("AcquisitionDate", b"DA"),
    0x0008_0023: ("ContentDate", b"DA"),
    0x0008_002A: ("AcquisitionDateTime", b"DT"),
    0x0008_0050: ("AccessionNumber", b"SH"),
    0x0008_0080: ("InstitutionName", b"LO"),
    0x0008_0081: ("InstitutionAddress", b"ST"),
    0x0008_0090: ("ReferringPhysicianName", b"PN"),
    0x0008_1010: ("StationName", b"SH"),
    0x0008_1040: ("InstitutionalDepartmentName", b"LO"),
    0x0008_1048: ("PhysiciansOfRecord", b"PN"),
    0x0008_1050: ("PerformingPhysicianName", b"PN"),
    0x0008_1060: ("NameOfPhysiciansReadingStudy", b"PN"),
    0x0008_1070: ("OperatorsName", b"PN"),
    0x0010_0010: ("PatientName", b"PN"),
    0x0010_0020: ("PatientID", b"LO"),
    0x0010_0030: ("PatientBirthDate", b"DA"),
    0x0010_1000: ("OtherPatientIDs", b"LO"),
    0x0010_1001: ("OtherPatientNames", b"PN"),
    0x0010_1005: ("PatientBirthName", b"PN"),
    0x0010_1040: ("PatientAddress", b"LO"),
    0x0010_1060: ("PatientMotherBirthName", b"PN"),
    0x0010_2154: ("PatientTelephoneNumbers", b"SH"),
    0x0010_2297: ("ResponsiblePerson", b"PN"),
    0x0018_1000: ("DeviceSerialNumber", b"LO"),
    0x0020_000D: ("StudyInstanceUID", b"UI"),
    0x0020_000E: ("SeriesInstanceUID", b"UI"),
    0x0020_0010: ("StudyID", b"SH"),
}
_PLACES = frozenset((b"LO", b"ST", b"SH"))
_IDENTIFIERS = frozenset(
    ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "PatientTelephoneNumbers", "DeviceSerialNumber")
)
_ACQUISITION: Wanted = {
    0x0008_0005: ("SpecificCharacterSet", b"CS"),
    0x0008_103E: ("SeriesDescription", b"LO"),
    0x0018_0010: ("ContrastBolusAgent", b"LO"),
    0x0018_0015: ("BodyPartExamined", b"CS"),
    0x0018_0020: ("ScanningSequence", b"CS"),
    0x0018_0021: ("SequenceVariant", b"CS"),
    0x0018_0022: ("ScanOptions", b"CS"),
    0x0018_0023: ("MRAcquisitionType", b"CS"),
    0x0018_0024: ("SequenceName", b"SH"),
    0x0018_1030: ("ProtocolName", b"LO"),
    0x0020_0011: ("SeriesNumber", b"IS"),
}
_MATCHED = frozenset(keyword for keyword, _ in _ACQUISITION.values())
_TEXTS: Wanted = {**_PERSONAL, **_ACQUISITION}
_KEYWORDS = frozenset(keyword for keyword, _ in (*_TEXTS.values(), *TAGS.values()))

_CODECS = {
    "": "latin-1", "ISO_IR 6": "latin-1", "ISO_IR 100": "latin-1", "ISO_IR 101": "iso8859-2", "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4", "ISO_IR 144": "iso8859-5", "ISO_IR 127": "iso8859-6", "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8", "ISO_IR 148": "iso8859-9", "ISO_IR 203": "iso8859-15", "ISO_IR 166": "iso8859-11",
    "ISO_IR 13": "shift_jis", "ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk",
}  # fmt: skip
"""PS3.3 C.12.1.1.2. Headers that name no set hold Latin letters all the same."""

_SEPARATORS = re.compile(r"[\s^=\\,;:/_.()-]+")
_FEWEST_DIGITS, _FEWEST_LETTERS, _FEWEST_OF_PLACES = 4, 2, 4
"""Of a word that identifies anybody. There are names of two letters; the number 7 is nobody's own."""
_FEWEST_OF_UIDS = 16
"""Shorter ones are made by hand and tell nobody anything."""
_LONGEST_TEXT, _LONGEST_PERSONAL = 256, 1024
"""Bytes of a text that are looked at: the standard has 64 letters, and 1024 for addresses."""
_DAY = 8
"""Digits of a date and time that are the date."""
_OF_NOBODY = frozenset({
    "am", "an", "and", "auf", "bei", "by", "center", "centre", "clinic", "clinics", "clinique", "das", "de", "dem",
    "den", "department", "der", "des", "di", "die", "dr", "du", "e.v.", "el", "et", "for", "foundation", "fuer",
    "für", "general", "gmbh", "health", "hospital", "hôpital", "im", "imaging", "in", "institut", "institute", "is",
    "it", "kliniken", "klinik", "klinikum", "krankenhaus", "la", "le", "les", "los", "ltd", "med", "medical",
    "medicine", "mr", "mri", "mrs", "ms", "no", "of", "on", "or", "ospedale", "praxis", "private", "prof",
    "radiologie", "radiology", "scanner", "service", "services", "st", "the", "to", "und", "universitair",
    "universitaire", "universität", "universitätsklinikum", "university", "uniklinik", "von", "vom", "y", "zu",
    "zum", "zur",
})  # fmt: skip
"""What stands in names of people and places and tells neither."""

PLANES = ("sagittal", "coronal", "axial")
"""By the axis of the patient to which the normal is nearest: x, y, z."""


def series_facts(first: FileFacts) -> SeriesFacts:
    """The acquisition, from the header of the first file of a volume, which is read once more for its texts."""
    texts = _Texts(first)
    spacing = first.numbers("PixelSpacing", 2)
    number = texts.number("SeriesNumber")
    return SeriesFacts(
        modality=first.text("Modality"),
        image_type=first.texts("ImageType"),
        series_description=texts.text("SeriesDescription"),
        protocol_name=texts.text("ProtocolName"),
        sequence_name=texts.text("SequenceName"),
        scanning_sequence=texts.several("ScanningSequence"),
        sequence_variant=texts.several("SequenceVariant"),
        scan_options=texts.several("ScanOptions"),
        acquisition_type=texts.text("MRAcquisitionType"),
        contrast_agent=texts.text("ContrastBolusAgent"),
        echo_time_ms=first.number("EchoTime"),
        repetition_time_ms=first.number("RepetitionTime"),
        inversion_time_ms=first.number("InversionTime"),
        flip_angle_degrees=first.number("FlipAngle"),
        diffusion_b_value=b_value(first),
        body_part=texts.text("BodyPartExamined"),
        series_number=None if number is None else int(number),
        size=first.size or (0, 0),
        spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        plane=plane_of(first.numbers("ImageOrientationPatient", 6)),
        personal=texts.personal(),
    )


def b_value(file: FileFacts) -> float | None:
    """In s/mm2; None outside diffusion series."""
    value = file.values.get("DiffusionBValue", b"")
    if len(value) != np.dtype(np.float64).itemsize:
        return None
    number = float(np.frombuffer(value, f"{file.endian}f8")[0])
    return number if 0 <= number < _HIGHEST_B_VALUE else None


_HIGHEST_B_VALUE = 1e6


def plane_of(directions: tuple[float, ...] | None) -> str:
    """One of :data:`PLANES`, from the six numbers of ImageOrientationPatient; empty without them."""
    if directions is None:
        return ""
    (a, b, c), (d, e, f) = directions[:3], directions[3:]
    normal = (abs(b * f - c * e), abs(c * d - a * f), abs(a * e - b * d))
    return PLANES[normal.index(max(normal))] if any(normal) else ""


class _Texts:
    """The texts of a header, decoded. What cannot be decoded counts letter by letter as far as it goes."""

    def __init__(self, file: FileFacts) -> None:
        self._values = _values(file.path, file.limits)
        self._set = (
            self._values.get("SpecificCharacterSet", b"")[:_LONGEST_TEXT].strip(b"\0 ").decode("ascii", "replace")
        )

    def text(self, keyword: str) -> str:
        longest = _LONGEST_TEXT if keyword in _MATCHED else _LONGEST_PERSONAL
        value = self._values.get(keyword, b"")[:longest].strip(b"\0 \t\r\n")
        codec = _CODECS.get(self._set)
        if value.isascii() and b"\x1b" not in value:
            return value.decode("ascii")
        if codec:
            return value.decode(codec, "replace")
        # Several sets in one text, as ISO 2022 changes between them.
        from segtool.formats.dicom.odd import odd_text

        return odd_text(value, self._set)

    def several(self, keyword: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(keyword).split("\\") if part.strip())

    def number(self, keyword: str) -> float | None:
        return FileFacts(Path(), self._values).number(keyword)

    def personal(self) -> frozenset[str]:
        """Words and whole values, lower-case."""
        words: set[str] = set()
        for keyword, kind in _PERSONAL.values():
            whole = self.text(keyword).casefold()
            if kind == b"UI":
                words |= {whole} if len(whole) >= _FEWEST_OF_UIDS else set()
                continue
            if kind == b"DT":
                whole = whole[:_DAY]
            is_place = kind in _PLACES and keyword not in _IDENTIFIERS
            shortest = _FEWEST_OF_PLACES if is_place else _FEWEST_LETTERS
            for word in (whole, *_SEPARATORS.split(whole)):
                # Of `#1` the sign is no help: it would hide every 1.
                core = "".join(filter(str.isalnum, word))
                if word not in _OF_NOBODY and len(core) >= (_FEWEST_DIGITS if core.isdecimal() else shortest):
                    words.add(word)
        return frozenset(words)


def personal_words(path: Path, limits: Limits = DEFAULT_LIMITS) -> frozenset[str]:
    """As :attr:`SeriesFacts.personal`, of any file of DICOM, and of a broken one as far as it goes."""
    return _Texts(FileFacts(path, {}, limits=limits)).personal()


def _values(path: Path, limits: Limits) -> Mapping[str, bytes]:
    try:
        return values_in_file(path, _TEXTS, HEADER_END)[0]
    except (OddError, OSError):
        from segtool.formats.dicom.odd import odd_elements

        try:
            return odd_elements(path, _KEYWORDS, limits)[0]
        except UnreadableFileError:
            return {}  # gone or damaged since it was found: reading its pixels says so
