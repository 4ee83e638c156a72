"""What somebody wrote into a header goes into results as text that any reader may show, or not at all."""

import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_volume
from tiny import spec_of

from segtool.case import LabelMap, Source
from segtool.formats import get_format
from segtool.formats.dicom.quiet import quiet
from segtool.outputs import Result, get_output

KINDS = ["dicom-seg", "dicom-labelmap", "rtstruct", "dicom-sr"]


def with_text(folder: Path, keyword: str, value: bytes, character_set: bytes = b"ISO_IR 192") -> Result:
    """A case whose first file has ``value``, byte by byte, for a tag of group 8 or more."""
    paths = write_volume(folder, np.zeros((5, 4, 2), np.int16), np.diag([-1.0, -1, 2, 1]))
    source = Source("dicom", tuple(sorted(paths)))
    path = source.path
    content, values = path.read_bytes(), {"SpecificCharacterSet": character_set} | {keyword: value}
    place, parts = 132, [content[:132]]
    added = {int(pydicom.tag.Tag(name)): encoded(name, text) for name, text in values.items()}
    while place < len(content):
        group, number, kind, length = struct.unpack_from("<HH2sH", content, place)
        end = place + 8 + length
        if kind in (b"OB", b"OW", b"SQ", b"UN"):
            end = place + 12 + struct.unpack_from("<I", content, place + 8)[0]
        tag = group << 16 | number
        parts += [added.pop(one) for one in sorted(added) if one < tag and group > 2]
        parts.append(added.pop(tag, content[place:end]))
        place = end
    path.write_bytes(b"".join(parts))
    geometry = get_format("dicom").describe(source).geometry
    labels = np.zeros((5, 4, 2), np.uint8)
    labels[1:4, 1:3] = 1
    return Result("case", source, LabelMap(labels, geometry), spec_of("t1"), "ab" * 32)


def encoded(keyword: str, value: bytes) -> bytes:
    tag = pydicom.tag.Tag(keyword)
    value += b" " * (len(value) % 2)
    return (
        struct.pack("<HH2sH", tag.group, tag.element, pydicom.datadict.dictionary_VR(tag).encode(), len(value)) + value
    )


def read(path: Path) -> pydicom.Dataset:
    """As pydicom has it, which warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = pydicom.dcmread(path)
        assert all(str(element) for element in dataset.iterall())
    return dataset


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("keyword", "value", "character_set"),
    [
        ("PatientName", b"Gerda\x1b[2J\x1b]0;owned\x07", b"ISO_IR 192"),
        ("PatientName", b"Yamada\x1b$B;", b"\\ISO 2022 IR 87"),
        ("PatientName", b"y" * 64_000, b"ISO_IR 100"),
        ("PatientName", b"a=b=c=d=e", b"ISO_IR 100"),
        ("PatientID", b"7\r\n8", b"ISO_IR 100"),
        ("StudyID", b"1\0002", b"ISO_IR 192"),
        ("AccessionNumber", b"\\" * 60_000, b"ISO_IR 192"),
        ("ReferringPhysicianName", b"a\xc2\x85b", b"ISO_IR 192"),
    ],
)
def test_what_is_no_text_is_left_blank_and_said_so(
    tmp_path: Path, kind: str, keyword: str, value: bytes, character_set: bytes
) -> None:
    result = with_text(tmp_path / "in", keyword, value, character_set)
    get_output(kind).write(tmp_path / "a.dcm", result)
    assert not read(tmp_path / "a.dcm")[keyword].value
    assert result.warnings == [f"the header's {keyword}: too long or no text, left blank in DICOM results"]


@pytest.mark.parametrize(
    ("value", "character_set", "shown"),
    [
        (b"M\xfcller^J\xf6rg", b"ISO_IR 100", "Müller^Jörg"),
        (b"Yamada=\x1b$B;3ED\x1b(B=", b"\\ISO 2022 IR 87", "Yamada=山田"),
        ("محمد\u200cرضا".encode(), b"ISO_IR 192", "محمد\u200cرضا"),
        (b"abc\xff", b"ISO_IR 192", "abc�"),
        (b"a" * 70, b"ISO_IR 100", "a" * 70),
    ],
)
def test_texts_in_any_character_set_come_out_in_utf_8(
    tmp_path: Path, value: bytes, character_set: bytes, shown: str
) -> None:
    result = with_text(tmp_path / "in", "PatientName", value, character_set)
    get_output("dicom-seg").write(tmp_path / "a.dcm", result)
    with quiet():
        found = pydicom.dcmread(tmp_path / "a.dcm")
        assert (str(found.PatientName).rstrip("="), found.SpecificCharacterSet) == (shown, "ISO_IR 192")
    assert result.warnings == []


def test_a_character_set_that_there_is_not_is_named(tmp_path: Path) -> None:
    result = with_text(tmp_path / "in", "PatientName", b"Gerda", b"KLINGON")
    get_output("dicom-seg").write(tmp_path / "a.dcm", result)
    assert read(tmp_path / "a.dcm").PatientName == "Gerda"
    (said,) = result.warnings
    assert "SpecificCharacterSet" in said


def test_nothing_is_said_of_a_patient_who_is_left_out_anyway(tmp_path: Path) -> None:
    result = replace(with_text(tmp_path / "in", "PatientName", b"a\x1b[2J"), anonymise=True)
    get_output("dicom-seg").write(tmp_path / "a.dcm", result)
    assert result.warnings == []
