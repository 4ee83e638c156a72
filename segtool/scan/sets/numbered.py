"""What nnU-Net and the Decathlon share: ``imagesTr/``, ``labelsTr/`` and a ``dataset.json``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segtool.case import CaseSource
from segtool.errors import UsageError
from segtool.formats import suffix_of
from segtool.scan.dataset_json import FILE_NAME
from segtool.scan.dataset_json import read_json as read_side_file
from segtool.scan.sets.base import Item, Listing, Tree, line
from segtool.scan.sets.brats import patient_of
from segtool.scan.sets.scanned import bare_name, labelled
from segtool.spec import ModelSpec

IMAGES, LABELS = "imagesTr", "labelsTr"


def find_tasks(tree: Tree) -> list[str]:
    """The folders, below the tree and with a ``/`` at their ends, that hold ``imagesTr/``."""
    cut = (file.partition(f"{IMAGES}/") for file in tree.files)
    return list(dict.fromkeys(task for task, found, _ in cut if found and (not task or task.endswith("/"))))


def only_task(tree: Tree) -> str | None:
    """The one folder of :func:`find_tasks`; None without one.

    Raises:
        UsageError: There are several.
    """
    tasks = find_tasks(tree)
    if len(tasks) > 1:
        raise UsageError(
            f"{tree.root}: {len(tasks)} folders hold {IMAGES}/, such as {tasks[0] or './'} and {tasks[1]}",
            "Give the folder of one of them.",
        )
    return tasks[0] if tasks else None


def read_json(tree: Tree, task: str) -> dict[str, Any] | None:
    """``dataset.json`` of a task; None where it is missing or cannot be understood."""
    try:
        content = read_side_file(tree.root / task / FILE_NAME)
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def training_files(content: dict[str, Any] | None) -> list[str]:
    """``imagesTr/x.nii.gz`` of every case that ``dataset.json`` lists for training."""
    rows = (content or {}).get("training")
    if not isinstance(rows, list):
        return []
    files = (row.get("image") if isinstance(row, dict) else None for row in rows)
    return [file.removeprefix("./") for file in files if isinstance(file, str)]


def list_task(tree: Tree, task: str, spec: ModelSpec | None) -> tuple[list[CaseSource], list[str]]:
    """The labelled cases of ``imagesTr/``, and one line for all that is amiss, lone files of ``labelsTr/`` too."""
    cases, broken = labelled(tree.root / task / IMAGES, spec)
    used = {case.reference.path.name for case in cases if case.reference is not None}
    prefix = f"{task}{LABELS}/"
    lone = [
        file
        for file in tree.files
        if file.startswith(prefix) and suffix_of(Path(file)) and file.rpartition("/")[2] not in used
    ]
    broken += (
        line(file, f"matches no image in {IMAGES}/", "Add its image, or take the label map out.") for file in lone
    )
    return cases, broken


def to_listing(
    cases: list[CaseSource], broken: list[str], content: dict[str, Any] | None, spec: ModelSpec | None
) -> Listing:
    """An item a case, which counts as a patient but where BraTS names tell visits."""
    notes = ("names tell cases, not patients: each case is taken for one patient", *_values(content, spec))
    return Listing(tuple(Item(case, patient_of(bare_name(case.name))) for case in cases), notes, tuple(broken))


def _values(content: dict[str, Any] | None, spec: ModelSpec | None) -> Iterator[str]:
    """The names of the values beside what the recipe reads from them: the order is not the same everywhere."""
    labels = (content or {}).get("labels")
    if spec is None or not isinstance(labels, dict):
        return
    pairs = labels.items()
    if not all(str(key).isdecimal() for key in labels):
        # nnU-Net 2 maps a name to its number, or to several for a region; all others map the number to the name.
        pairs = {" ".join(map(str, v)) if isinstance(v, list) else str(v): name for name, v in labels.items()}.items()
    named = [f"{number} {name}" for number, name in pairs if str(number) != "0"]
    read = [f"{one.name} from {', '.join(map(str, one.reference_values)) or 'all of them'}" for one in spec.labels]
    yield f"{FILE_NAME} calls the values {', '.join(named)}; the recipe reads {', '.join(read)}"
