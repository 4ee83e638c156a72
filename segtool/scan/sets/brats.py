"""BraTS folders: one folder a case with t1, t1ce, t2, flair and seg as NIfTI, old names and new."""

import re
from pathlib import PurePosixPath

from segtool.case import CaseSource, Source
from segtool.scan.names import ChannelNames, reference_base
from segtool.scan.sets.base import Item, Listing, Recognition, Tree
from segtool.scan.sets.scanned import bare_name, labelled, person_of
from segtool.spec import ModelSpec

# BraTS-GLI-00005-001 is the second scan of patient 00005 and Brats18_TCIA01_131_1 the first of TCIA01_131;
# BraTS20_Training_001 names a patient.
_VISITS = (
    re.compile(r"(BraTS-[A-Z]+-\d{5})-\d{3}.*", re.IGNORECASE),
    re.compile(r"(BraTS1[5-9]_.+)_\d+", re.IGNORECASE),
    re.compile(r"(BraTS_(?:2013|TCIA)_pat\d+)_\d+", re.IGNORECASE),
)
_PATIENT = re.compile(r"BraTS20_.+", re.IGNORECASE)
_GRADES = ("HGG", "LGG")
_WANTED = {"t1", "t1ce", "t2", "flair"}
_SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)


def recognise(tree: Tree) -> Recognition | None:
    """Certain where folders called BraTS hold the four channels and a segmentation, likely under other names."""
    names = ChannelNames(None, {})
    folders: dict[str, set[str]] = {}
    for file in tree.ending(".nii", ".nii.gz"):
        folder, _, name = file.rpartition("/")
        stem = _SUFFIX.sub("", name)
        kind = "seg" if reference_base(stem) is not None else names.split(stem)[1]
        folders.setdefault(folder, set()).add(kind)
    cases = [folder for folder, kinds in folders.items() if kinds >= {*_WANTED, "seg"}]
    if not cases:
        return None
    called = any(PurePosixPath(folder).name.lower().startswith("brats") for folder in (*cases, tree.root.as_posix()))
    reason = f"t1, t1ce, t2, flair and a segmentation in each of {len(cases)} folders"
    return Recognition("brats", "certain" if called else "likely", reason)


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a case; visits of one patient stay together, and the grade is the group where folders tell it."""
    cases, broken = labelled(tree.root, spec, _misnamed)
    names = [bare_name(case.name) for case in cases]
    items = (Item(case, patient_of(name), _grade(case.name)) for case, name in zip(cases, names, strict=True))
    other = [name for name in names if not any(one.fullmatch(name) for one in (*_VISITS, _PATIENT))]
    notes = [f"{name} is no name of BraTS: such a name is taken for a patient, but for a visit" for name in other[:1]]
    return Listing(tuple(items), tuple(notes), tuple(broken))


def patient_of(name: str) -> str:
    """The patient of a case by its BraTS name; a name of another kind is the patient's own, but for the visit."""
    return next((match[1] for pattern in _VISITS if (match := pattern.fullmatch(name))), person_of(name))


def _misnamed(case: CaseSource) -> Source | None:
    """The only file beside a case's channels: BraTS 2020 calls that of patient 355 ``W39_1998.09.19_Segm.nii``."""
    channels = {source.path for source in case.channels.values()}
    beside = [path for path in case.first.path.parent.iterdir() if _SUFFIX.search(path.name) and path not in channels]
    if len(beside) != 1 or reference_base(_SUFFIX.sub("", beside[0].name)) is None:
        return None
    return Source("nifti", (beside[0],))


def _grade(name: str) -> str:
    return next((part for part in PurePosixPath(name).parts if part in _GRADES), "")
