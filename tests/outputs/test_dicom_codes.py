"""Codes of labels: terms that DICOM's own lists have."""

import pytest
from pydicom.sr.codedict import codes

from segtool.outputs import dicom_codes
from segtool.outputs.dicom_codes import code_of, code_of_name
from segtool.spec import LabelSpec


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("tumour", "Neoplasm"),
        ("WT", "Neoplasm"),
        ("TC", "Neoplasm"),
        ("ET", "Enhancing Lesion"),
        ("Enhancing_Tumor", "Enhancing Lesion"),
        ("NETC", "Non-Enhancing Lesion"),
        ("NCR", "Necrosis"),
        ("peritumoral edema", "Edema"),
        ("SNFH", "Edema"),
        ("RC", "Lesion"),
        ("whatever", "Lesion"),
    ],
)
def test_names_that_everybody_knows_have_their_codes(name: str, meaning: str) -> None:
    assert code_of_name(name)[1].meaning == meaning


def test_every_code_is_one_of_the_standards_lists() -> None:
    known = {
        (code.value, code.scheme_designator, code.meaning)
        for context in (codes.cid7150, codes.cid7151, codes.cid7159, codes.cid7153)
        for code in context.concepts.values()
    }
    ours = {code for pair in dicom_codes._NAMES.values() for code in pair} | {dicom_codes.BRAIN, dicom_codes.LESION}
    assert {(code.value, code.scheme, code.meaning) for code in ours} <= known


def test_labels_of_different_values_have_different_colours() -> None:
    colours = [code_of(LabelSpec(name=f"l{value}", value=value)).colour for value in range(1, 6)]
    assert len(set(colours)) == 5
