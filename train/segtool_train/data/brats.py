"""BraTS folders: one folder a case with t1, t1ce, t2, flair and seg as NIfTI, old names and new."""

import re
from pathlib import Path, PurePosixPath

from segtool.spec import ModelSpec
from segtool_train.data.base import Item, Listing
from segtool_train.data.folder import labelled

# BraTS-GLI-00005-001 is the second scan of patient 00005; BraTS20_Training_001 names a patient.
_VISIT = re.compile(r"(BraTS-[A-Z]+-\d{5})-\d{3}")


def list_items(folder: Path, spec: ModelSpec) -> Listing:
    """One item a case; visits of one patient stay together.

    Raises:
        UsageError: No cases, or a case without a segmentation.
    """
    items = []
    for case in labelled(folder, spec):
        name = PurePosixPath(case.name).name
        match = _VISIT.match(name)
        items.append(Item(case, match[1] if match else name))
    return Listing(tuple(items))
