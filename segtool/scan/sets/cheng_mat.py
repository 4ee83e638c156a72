"""The Cheng (figshare) T1-CE set as published: ``N.mat`` with a struct ``cjdata``, and ``cvind.mat``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segtool.case import CaseSource, Source
from segtool.errors import UnreadableFileError, UsageError
from segtool.limits import DEFAULT_LIMITS
from segtool.scan.sets.base import Item, Listing, Recognition, Tree, line, not_in, only_channel, unique_stems
from segtool.spec import ModelSpec

if TYPE_CHECKING:
    import h5py

CLASSES = {1: "meningioma", 2: "glioma", 3: "pituitary"}

_FOLDS = "cvind.mat"
_SAME_PERSON = re.compile(r"(.*\d)[A-Z]", re.IGNORECASE)
"""A letter behind a number counts the visits of one patient."""
_MOST_NUMBERS = 2**20
"""Of a label, a name or the folds of a set."""
_REMEDY = "Copy the file again, or take it out."


@dataclass(frozen=True)
class _Slice:
    """What a file says about itself."""

    patient_id: str
    group: str

    @property
    def person(self) -> str:
        return same_person(self.patient_id)


def recognise(tree: Tree) -> Recognition | None:
    """Certain where the first numbered ``.mat`` file holds the struct, likely where it cannot be read."""
    files = _files(tree)
    if not files or not (tree.root / files[0]).is_file():
        return None
    try:
        _read(tree.root / files[0])
    except (OSError, RuntimeError):
        return Recognition("cheng_mat", "possible", f"{len(files)} files N.mat, the first of them unreadable")
    except (KeyError, ValueError):
        return None
    return Recognition("cheng_mat", "certain", f"{len(files)} files N.mat with a struct cjdata")


def list_items(tree: Tree, spec: ModelSpec | None) -> Listing:
    """One item a file. ``PID`` without a letter at its end is the patient, and only ever seen as a number.

    Raises:
        UsageError: No such file, or folds of another number of files.
    """
    files = _files(tree)
    if not files:
        raise not_in(
            "cheng_mat",
            tree,
            "files 1.mat, 2.mat, ... with a struct cjdata, none is there",
            "Give the folder into which the set was unpacked.",
        )
    known: dict[str, _Slice] = {}
    broken = []
    for file in files:
        try:
            known[file] = _read(tree.root / file)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            broken.append(line(file, f"holds no whole struct cjdata ({error})", _REMEDY))
    folds, notes = _folds(tree, files)
    # Ids of hospitals shall stand in no file that a run leaves behind.
    numbers = {person: number for number, person in enumerate(sorted({one.person for one in known.values()}), start=1)}
    merged = len({one.patient_id for one in known.values()}) - len(numbers)
    if merged:
        notes += (f"{merged} patient ids differ from another one in the letter at their end: the same person",)
    channel, names = only_channel(spec), unique_stems(files)
    items = []
    for file, name, fold in zip(files, names, folds, strict=True):
        if file in known:
            both = Source("matlab", (tree.root / file,))
            patient = f"patient-{numbers[known[file].person]:03d}"
            items.append(Item(CaseSource(name, {channel: both}, both), patient, known[file].group, fold))
    return Listing(tuple(items), notes, tuple(broken))


def same_person(patient_id: str) -> str:
    """The id without the letter that counts visits: ``MR048294B`` and ``MR048294`` are one person."""
    match = _SAME_PERSON.fullmatch(patient_id)
    return match[1] if match else patient_id


def _files(tree: Tree) -> list[str]:
    return [file for file in tree.ending(".mat") if file.rpartition("/")[2][: -len(".mat")].isdecimal()]


def _read(path: Path) -> _Slice:
    """Label and patient of one file.

    Raises:
        OSError: Not HDF5, or truncated.
        RuntimeError: Damaged inside.
        KeyError: No struct, or a field is missing.
        ValueError: A field makes no sense.
    """
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        struct = {name.removeprefix("cjdata/"): one for name, one in _datasets(file, path).items()}
        for field in ("image", "tumorMask"):
            if field not in struct:
                raise KeyError(f"it has no {field}")
        label = int(_numbers(struct["label"])[0])
        # MATLAB stores a text as one number a letter.
        patient_id = "".join(chr(int(letter)) for letter in _numbers(struct["PID"])).strip("\0 ")
    if label not in CLASSES:
        raise ValueError(f"its label is {label}, wanted 1, 2 or 3")
    return _Slice(patient_id, CLASSES[label])


def _datasets(file: "h5py.File", path: Path) -> dict[str, "h5py.Dataset"]:
    """What the file itself holds, by path: what lies in other files is never opened.

    Raises:
        ValueError: No sound file.
    """
    from segtool.formats.hdf5_walk import contained

    try:
        return contained(file, path, DEFAULT_LIMITS).datasets
    except UnreadableFileError as error:
        raise ValueError(error.problem) from error


def _numbers(dataset: "h5py.Dataset") -> list[Any]:
    import numpy as np

    if not 0 < dataset.size <= _MOST_NUMBERS:
        raise ValueError(f"{dataset.name} has {dataset.size} numbers, wanted 1 to {_MOST_NUMBERS}")
    values: list[Any] = np.asarray(dataset[()]).ravel().tolist()
    return values


def _folds(tree: Tree, files: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The official fold of each file: entry N - 1 of ``cvind`` is that of ``N.mat``."""
    found = next((file for file in tree.ending(_FOLDS) if file.rpartition("/")[2].lower() == _FOLDS), None)
    if found is None:
        return [""] * len(files), (f"{_FOLDS} is not there: the official folds are unknown",)
    values = _read_folds(tree.root / found)
    numbers = [int(file.rpartition("/")[2][: -len(".mat")]) for file in files]
    if min(numbers) < 1 or max(numbers) > len(values):
        raise UsageError(
            f"{found}: {len(values)} folds, and files up to {max(numbers)}.mat",
            f"Take the set's own {_FOLDS}, or remove it and split by share.",
        )
    return [str(values[number - 1]) for number in numbers], ()


def _read_folds(path: Path) -> list[int]:
    """``cvind`` from a file of MATLAB's version 7.3 or an older one."""
    import h5py
    import numpy as np
    from scipy.io import loadmat

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r", locking=False) as file:
                values = np.asarray(_numbers(_datasets(file, path)["cvind"]))
        else:
            values = loadmat(path)["cvind"]
        return [int(value) for value in values.ravel()]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise UsageError(
            f"{path}: cannot be read as the official folds ({error})", "Copy it again, or remove it."
        ) from error
