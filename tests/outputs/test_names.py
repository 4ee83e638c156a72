"""What headers and specs say never becomes a path, and no control characters of theirs come into results."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_volume
from tiny import spec_of

from segtool.case import LabelMap
from segtool.formats import get_format
from segtool.formats.dicom.quiet import quiet
from segtool.outputs import OUTPUTS, Result, get_output
from segtool.scan import scan
from segtool.spec import Code, LabelCode, LabelSpec

HOSTILE = [
    "../../etc/passwd",
    "/etc/x",
    "a\\..\\b",
    "C:\\x",
    "x\x00y",
    "\x1b[31mred",
    "line\nbreak",
    "..",
    ".",
    "\u202egpj",
    "n" * 300,
]
TEXTS = (
    "SeriesDescription", "ProtocolName", "PatientName", "PatientID", "StudyID", "AccessionNumber", "SequenceName",
    "InstitutionName", "StudyDescription",
)  # fmt: skip
AFFINE = np.diag([-1.0, -1, 3, 1])
VOXELS = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
LABELS = np.zeros((4, 5, 3), np.uint8)
LABELS[1:3, 1:4, 1] = 1
TERM = Code(value="1\\2\n", scheme="S\x1b", meaning="a\\b\x00c")


def two_series(folder: Path, text: str) -> list[Path]:
    """Of one study, whose headers hold ``text`` wherever text may be."""
    paths = []
    with quiet():
        for number in range(2):
            tags = {
                **dict.fromkeys(TEXTS, text),
                "SeriesInstanceUID": f"1.2.{number}",
                "SpecificCharacterSet": "ISO_IR 192",
            }
            tags["EchoTime"] = str(3 + 90 * number)
            paths += write_volume(folder / "in" / f"{number}", VOXELS, AFFINE, **tags)
    return paths


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_names_of_cases_and_files_say_nothing_that_a_header_says(tmp_path: Path, text: str) -> None:
    two_series(tmp_path, text)
    found = scan([tmp_path / "in"])
    assert found.cases
    for case in found.cases:
        assert not {"..", ".", ""} & set(case.name.split("/"))
        assert case.name.replace("/", "").replace("-", "").isalnum(), case.name
        for kind in OUTPUTS:
            suffix = get_output(kind).suffix(case.first)
            assert suffix.replace(".", "").replace("-", "").isalnum(), suffix
            path = (tmp_path / "out" / case.output_stem).with_name(case.output_stem.name + suffix)
            assert path.resolve().is_relative_to(tmp_path / "out")


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("text", [HOSTILE[0], "\x1b[31mred\n"], ids=ascii)
def test_results_hold_no_text_of_a_spec_that_parts_values_or_moves_a_terminal(
    tmp_path: Path, kind: str, text: str
) -> None:
    two_series(tmp_path, "plain")
    (case, *_) = scan([tmp_path / "in"]).cases
    label = LabelSpec(name=f"{text}\\b\x00", value=1, code=LabelCode(category=TERM, type=TERM))
    spec = spec_of("t1").model_copy(update={"labels": (label,), "regions": {}, "version": f"1\\{text}"})
    geometry = get_format("dicom").describe(case.first).geometry
    path = tmp_path / "out" / f"a{get_output(kind).suffix(case.first)}"
    path.parent.mkdir()
    get_output(kind).write(path, Result("a", case.first, LabelMap(LABELS, geometry), spec, "ab" * 32))
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name]
    if not path.name.endswith(".dcm"):
        return
    ours = 0
    for element in pydicom.dcmread(path).iterall():
        if element.VR not in ("LO", "SH", "UT", "LT", "ST", "PN", "UC"):
            continue
        assert element.VM <= 1, f"several values: {element}"
        assert str(element.value or "").isprintable(), element
        ours += "etc" in str(element.value) or "red" in str(element.value)
    assert ours
