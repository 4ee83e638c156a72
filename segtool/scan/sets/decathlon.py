"""A task of the Medical Segmentation Decathlon: 4D images in ``imagesTr/``, listed by ``dataset.json``."""

from segtool.scan.dataset_json import FILE_NAME
from segtool.scan.sets.base import Listing, Recognition, Tree, line, not_in
from segtool.scan.sets.numbered import IMAGES, find_tasks, list_task, only_task, read_json, to_listing, training_files
from segtool.spec import ModelSpec


def recognise(tree: Tree) -> Recognition | None:
    """Certain where ``dataset.json`` lists files for training by names that are there."""
    task = next(iter(find_tasks(tree)), None)
    if task is None:
        return None
    listed = training_files(read_json(tree, task))
    # nnU-Net 1 lists the files too, but without the number of the channel that their names carry.
    if not any(f"{task}{file}" in tree.known for file in listed):
        return None
    return Recognition("decathlon", "certain", f"{FILE_NAME} lists {len(listed)} files of {task}{IMAGES}/")


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a file that ``dataset.json`` lists for training.

    Raises:
        UsageError: No ``imagesTr/``, or no ``dataset.json`` that lists its files.
    """
    task = only_task(tree)
    content = None if task is None else read_json(tree, task)
    listed = training_files(content)
    if task is None or not listed:
        raise not_in(
            "decathlon",
            tree,
            f"imagesTr/, labelsTr/ and a {FILE_NAME} that lists training files",
            "Give the folder of the task, or copy its dataset.json again.",
        )
    cases, broken = list_task(tree, task, spec)
    broken += (
        line(f"{task}{FILE_NAME}", f"lists {file}, which is not there", "Copy it again, or take it out of the list.")
        for file in listed
        if f"{task}{file}" not in tree.known
    )
    wanted = {file.rpartition("/")[2] for file in listed}
    chosen = [case for case in cases if case.first.path.name in wanted]
    listing = to_listing(chosen, broken, content, spec)
    if len(chosen) == len(cases):
        return listing
    note = f"{len(cases) - len(chosen)} of {len(cases)} files in {IMAGES}/ stand not in {FILE_NAME}: left out"
    return Listing(listing.items, (*listing.notes, note), listing.broken)
