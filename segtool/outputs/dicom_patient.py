"""The patient and the study of a scan, as new objects may carry them: whatever scanners, or somebody, wrote there."""

import re
from unicodedata import category

from pydicom import Dataset
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue

_BLANK = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
"""Must be there and may be empty (type 2)."""

PERSONAL = (*_BLANK, "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod")

_TEXTS = (*PERSONAL, "PositionReferenceIndicator")
_LONGEST, _MOST_GROUPS = 256, 3
"""Characters of a text, and spellings of a name, beyond which it is none. The standard's 16 and 64 many a sound file
passes, and readers take that."""

DATES = tuple((f"{of}Date", f"{of}Time") for of in ("Series", "Acquisition", "Content", "Study"))
_VALID = {
    "PatientSex": re.compile("[MFO]"),
    **{date: re.compile("[0-9]{8}") for date in ("PatientBirthDate", *(pair[0] for pair in DATES))},
    **{time: re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?") for time in (pair[1] for pair in DATES)},
}
"""What else scanners write there would make the new object invalid."""


def make_presentable(first: Dataset) -> list[str]:
    """Texts in UTF-8; values that would make a new object invalid become blank, as do those that are missing.

    Returns:
        The keywords of those that were texts of any length, or held what no reader may show.
    """
    left_out = []
    sets = first.get("SpecificCharacterSet") or ()
    if any(one and one not in python_encoding for one in ([sets] if isinstance(sets, str) else sets)):
        left_out.append("SpecificCharacterSet")
        del first.SpecificCharacterSet
    first.decode()
    for keyword in PERSONAL:
        if dictionary_VR(keyword) == "PN" and first.get(keyword):
            value = first[keyword].value
            setattr(first, keyword, str(value[0] if isinstance(value, MultiValue) else value))
    for keyword, valid in _VALID.items():
        if first.get(keyword) and not valid.fullmatch(str(first[keyword].value)):
            setattr(first, keyword, "")
    for keyword in _TEXTS:
        if keyword in first and not _is_text(first[keyword].value):
            left_out.append(keyword)
            setattr(first, keyword, "")
    first.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _BLANK:
        if first.get(keyword) is None:
            setattr(first, keyword, "")
    return left_out


def _is_text(value: object) -> bool:
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    # Control characters begin escape sequences too, which terminals obey; half a character no file can hold.
    is_shown = not any(category(letter) in ("Cc", "Cs") for letter in text)
    return is_shown and len(text) <= _LONGEST and text.count("=") < _MOST_GROUPS


def blank(first: Dataset) -> None:
    """Take out all that :data:`PERSONAL` names, as far as the standard lets it be away."""
    for keyword in PERSONAL:
        if keyword in _BLANK:
            setattr(first, keyword, "")
        elif keyword in first:
            delattr(first, keyword)
    first.PatientIdentityRemoved = "YES"
    first.DeidentificationMethod = "patient and study left blank, UIDs kept"
