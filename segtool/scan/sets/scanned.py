"""What layouts share whose files :func:`segtool.scan.scan` pairs by name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from segtool.case import CaseSource, Source
from segtool.scan.cases import scan
from segtool.scan.sets.base import UNKNOWN_PATIENTS, Item, Listing, line, place_of
from segtool.spec import ModelSpec

_VISIT = re.compile(
    r"(?P<person>.+)[_\-. ](?:pre|post|baseline|follow[_\-]?up|(?:visit|ses|session|timepoint|tp|fu)[_\-]?\d*)",
    re.IGNORECASE,
)


def labelled(
    folder: Path, spec: ModelSpec | None, adopt: Callable[[CaseSource], Source | None] = lambda _case: None
) -> tuple[list[CaseSource], list[str]]:
    """The cases below ``folder`` that have a reference, and one line for all that is amiss.

    HDF5 and MATLAB files count as labelled, since only reading them tells.

    Args:
        folder: Searched with all its subfolders.
        spec: What the cases are for.
        adopt: Finds the reference of a case for which names tell none.

    Raises:
        UsageError: No case at all.
    """
    found = scan([folder], spec)
    cases, adopted, broken = [], set(), []
    for case in found.cases:
        reference = case.reference or adopt(case)
        if reference is None:
            broken.append(
                line(
                    f"case {case.name!r}",
                    "has no reference mask",
                    "Put it beside the scan (NAME_mask.*, NAME_seg.* or labels/NAME.*), or take the case out.",
                )
            )
            continue
        if case.reference is None:
            adopted.add(reference.path)
            case = replace(case, reference=reference)
        cases.append(case)
    # What one case adopted is no reference without a scan any more.
    problems = [str(one) for one in found.problems if folder / one.where not in adopted]
    return cases, problems + broken


def of_patients(
    cases: Sequence[CaseSource], broken: Sequence[str], patient: Callable[[str], str], *notes: str
) -> Listing:
    """An item a case, whose patient its name tells."""
    return Listing(tuple(Item(case, patient(case.name)) for case in cases), notes, tuple(broken))


def by_folders(folder: Path, cases: Sequence[CaseSource], broken: Sequence[str]) -> Listing:
    """Items whose patients are folders, where there are several, and else nobody knows; folds by folder as well."""
    places = [place_of(case.name) for case in cases]
    tops = {place.folders[0] for place in places if place.folders}
    known = len(tops) > 1
    if known:
        # A case beside the folders is a patient of its own.
        patients = [person_of((place.folders or (case.name,))[0]) for case, place in zip(cases, places, strict=True)]
        note = f"each of the {len(tops)} folders below {folder} is taken for one patient"
        if len(set(patients)) < len(tops):
            note += f", those whose names differ in the visit alone for the same one: {len(set(patients))} patients"
    else:
        note = f"{folder}: {UNKNOWN_PATIENTS.format(what='cases')}; put each patient into a folder"
        patients = [case.name for case in cases]
    items = (Item(case, patient, fold=place.fold) for case, patient, place in zip(cases, patients, places, strict=True))
    return Listing(tuple(items), (note,), tuple(broken), known)


def person_of(name: str) -> str:
    """``P1`` for ``P1_pre``, ``P1-post`` and ``P1_visit2``; other names as they are."""
    match = _VISIT.fullmatch(name)
    return match["person"] if match else name


def bare_name(name: str) -> str:
    """The last part of a case's name."""
    return PurePosixPath(name).name
