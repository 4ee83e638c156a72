"""Any folder that :mod:`segtool.scan` understands, with references beside the scans."""

from pathlib import Path, PurePosixPath

from segtool.case import CaseSource
from segtool.errors import UsageError
from segtool.formats import get_format
from segtool.scan import scan
from segtool.spec import ModelSpec
from segtool_train.data.base import Item, Listing


def list_items(folder: Path, spec: ModelSpec) -> Listing:
    """One item a case; the patient is the first folder of its name where cases lie in several folders.

    Raises:
        UsageError: No cases, or a case without a reference.
    """
    cases = labelled(folder, spec)
    tops = {PurePosixPath(case.name).parts[0] for case in cases if len(PurePosixPath(case.name).parts) > 1}
    if len(tops) > 1:
        items = tuple(Item(case, PurePosixPath(case.name).parts[0]) for case in cases)
        return Listing(items, (f"each of the {len(tops)} folders below {folder} is taken for one patient",))
    return Listing(
        tuple(Item(case, case.name) for case in cases),
        (
            f"nothing below {folder} says which cases belong to one patient: each counts as a patient, "
            "and validation is too good where that is wrong; put each patient into a folder",
        ),
    )


def labelled(folder: Path, spec: ModelSpec) -> tuple[CaseSource, ...]:
    """The cases below ``folder``, all with a reference.

    Raises:
        UsageError: No cases, or a case without a reference.
    """
    cases = scan([folder], spec).cases
    for case in cases:
        if case.reference is None and not get_format(case.first.format).may_hold_reference:
            raise UsageError(
                f"case {case.name!r}: has no reference mask",
                "Put it beside the scan (NAME_mask.*, NAME_seg.* or labels/NAME.*), or take the case out.",
            )
    return cases
