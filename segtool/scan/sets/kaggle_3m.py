"""TCGA-LGG slices of Buda et al. (``kaggle_3m``): ``TCGA_x_y_date/..._N.tif`` and ``..._N_mask.tif``."""

import re

from segtool.scan.sets.base import Listing, Recognition, Tree, not_in
from segtool.scan.sets.scanned import bare_name, labelled, of_patients
from segtool.spec import ModelSpec

_SLICE = re.compile(r"(TCGA_[A-Z0-9]{2}_[A-Z0-9]{4})_\d{8}_\d+(_mask)?")


def recognise(tree: Tree) -> Recognition | None:
    """Certain where pictures and masks carry the set's names."""
    matches = [match for file in tree.ending(".tif", ".tiff") if (match := _match(file))]
    masks = sum(match[2] is not None for match in matches)
    if not masks:
        return None
    return Recognition("kaggle_3m", "certain", f"{len(matches) - masks} slices and {masks} masks called TCGA_*")


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a slice. Its patient is the name up to the date, so that two dates of a patient stay together."""
    if recognise(tree) is None:
        raise not_in(
            "kaggle_3m",
            tree,
            "TCGA_xx_xxxx_date_N.tif beside ..._N_mask.tif, none is there",
            "Give the folder that holds the patients' folders.",
        )
    cases, broken = labelled(tree.root, spec)
    return of_patients(cases, broken, _patient)


def _match(file: str) -> re.Match[str] | None:
    return _SLICE.fullmatch(file.rpartition("/")[2].rpartition(".")[0])


def _patient(name: str) -> str:
    match = _SLICE.fullmatch(bare_name(name))
    return match[1] if match else name
