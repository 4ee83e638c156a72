"""What labels mean in the terms of DICOM, and the colours in which viewers show them."""

from pydicom.sr.coding import Code as SrCode

from segtool.formats.png import PALETTE
from segtool.outputs.dicom_common import long_string
from segtool.spec import Code, LabelCode, LabelSpec

ABNORMAL = Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")
"""Of CID 7150, segmentation property categories."""
ANATOMY = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
TISSUE = Code(value="85756007", scheme="SCT", meaning="Tissue")
SUBSTANCE = Code(value="91720002", scheme="SCT", meaning="Body Substance")

LESION = Code(value="52988006", scheme="SCT", meaning="Lesion")
NEOPLASM = Code(value="108369006", scheme="SCT", meaning="Neoplasm")
NECROSIS = Code(value="6574001", scheme="SCT", meaning="Necrosis")
EDEMA = Code(value="79654002", scheme="SCT", meaning="Edema")
CYST = Code(value="367643001", scheme="SCT", meaning="Cyst")
HEMORRHAGE = Code(value="50960005", scheme="SCT", meaning="Hemorrhage")
# SNOMED CT has no term for these two among those that DICOM takes over.
ENHANCING = Code(value="C113842", scheme="NCIt", meaning="Enhancing Lesion")
NON_ENHANCING = Code(value="C81175", scheme="NCIt", meaning="Non-Enhancing Lesion")

BRAIN = Code(value="12738006", scheme="SCT", meaning="Brain")
"""The region of the body in which every label lies."""

_NAMES: dict[str, tuple[Code, Code]] = {
    name: (category, kind)
    for category, kind, names in (
        (ABNORMAL, NEOPLASM, "tumour tumor neoplasm mass wt whole-tumour whole-tumor tc tumour-core tumor-core core"),
        (ABNORMAL, NEOPLASM, "glioma meningioma pituitary metastasis gtv"),
        (ABNORMAL, ENHANCING, "et enhancing enhancing-tumour enhancing-tumor active-tumour active-tumor at"),
        (ABNORMAL, NON_ENHANCING, "netc non-enhancing nonenhancing non-enhancing-tumour non-enhancing-tumor net"),
        # In BraTS the necrotic core and, in its first years, the core that does not enhance are one label.
        (ABNORMAL, NECROSIS, "ncr necrosis necrotic necrotic-core ncr-net"),
        # "Surrounding non-enhancing FLAIR hyperintensity": oedema, and whatever infiltrates it.
        (ABNORMAL, EDEMA, "ed edema oedema peritumoral-edema peritumoural-oedema snfh"),
        # Of the cavity that surgery leaves CID 7151 knows no more than that it is a lesion.
        (ABNORMAL, LESION, "rc resection-cavity cavity lesion"),
        (ABNORMAL, CYST, "cyst cc cystic-component"),
        (ABNORMAL, HEMORRHAGE, "hemorrhage haemorrhage bleeding"),
        (ANATOMY, BRAIN, "brain"),
        (ANATOMY, Code(value="35764002", scheme="SCT", meaning="Brain ventricle"), "ventricle ventricles"),
        (TISSUE, Code(value="389080008", scheme="SCT", meaning="White Matter"), "wm white-matter"),
        (TISSUE, Code(value="389081007", scheme="SCT", meaning="Gray Matter"), "gm gray-matter grey-matter"),
        (SUBSTANCE, Code(value="65216001", scheme="SCT", meaning="Cerebrospinal Fluid"), "csf"),
    )
    for name in names.split()
}
"""By name in lower case with ``-`` for spaces and ``_``."""


def code_of(label: LabelSpec) -> LabelCode:
    """The label's own code, or that of its name; of a name that nobody knows, a lesion of that colour."""
    colour = PALETTE[3 * label.value : 3 * label.value + 3]
    shown = colour[0], colour[1], colour[2]
    if label.code is not None:
        return label.code if label.code.colour else label.code.model_copy(update={"colour": shown})
    category, kind = code_of_name(label.name)
    return LabelCode(category=category, type=kind, colour=shown)


def code_of_name(name: str) -> tuple[Code, Code]:
    """Category and type of the property that a label or region of this name is."""
    return _NAMES.get("-".join(name.lower().replace("_", " ").split()), (ABNORMAL, LESION))


def concept(code: Code) -> SrCode:
    """A code as pydicom and highdicom take it; whoever wrote the spec may have put anything into it."""
    value, scheme, meaning = (long_string(text) for text in (code.value, code.scheme, code.meaning))
    return SrCode(value, scheme, meaning)
