"""nnU-Net's raw format: ``imagesTr/NAME_0000.nii.gz`` a channel, ``labelsTr/NAME.nii.gz`` and ``dataset.json``."""

import re

from segtool.scan.dataset_json import FILE_NAME
from segtool.scan.sets import decathlon
from segtool.scan.sets.base import Listing, Recognition, Tree, not_in
from segtool.scan.sets.numbered import IMAGES, find_tasks, list_task, only_task, read_json, to_listing
from segtool.spec import ModelSpec

_NUMBERED = re.compile(r".+_\d{4}\.[a-z.]+", re.IGNORECASE)


def recognise(tree: Tree) -> Recognition | None:
    """Certain where files with channel numbers lie below a ``dataset.json``, likely without it."""
    task = next(iter(find_tasks(tree)), None)
    # The Decathlon lists whole files, whatever number their names end in.
    if task is None or decathlon.recognise(tree) is not None:
        return None
    images = [file for file in tree.files if file.startswith(f"{task}{IMAGES}/")]
    numbered = sum(_NUMBERED.fullmatch(file) is not None for file in images)
    if not numbered:
        return None
    described = f"{task}{FILE_NAME}" in tree.known
    reason = f"{numbered} files in {task}{IMAGES}/ with channel numbers" + (f", {FILE_NAME}" if described else "")
    return Recognition("nnunet", "certain" if described else "likely", reason)


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a case of ``imagesTr/``.

    Raises:
        UsageError: No ``imagesTr/``.
    """
    task = only_task(tree)
    if task is None:
        raise not_in(
            "nnunet",
            tree,
            "imagesTr/ and labelsTr/, imagesTr/ is missing",
            "Give the folder of the data set below nnUNet_raw.",
        )
    return to_listing(*list_task(tree, task, spec), read_json(tree, task), spec)
