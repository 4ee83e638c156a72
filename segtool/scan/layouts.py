"""Data sets whose files are named by convention: nnU-Net, Decathlon and kaggle_3m; and everything else."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from segtool.case import UNNAMED
from segtool.scan.dataset_json import FILE_NAME, read_channel_names
from segtool.scan.found import Entry, Problem
from segtool.scan.names import ChannelNames, folder_role
from segtool.spec import ModelSpec

_PACKING = frozenset({"nifti", "hdf5", "matlab"})
"""Kinds of files that hold several channels; the colours of a picture are something else."""

Reading = tuple[str, Mapping[str, int | None], tuple[str, ...]]
"""Base of a file's name, its channels with their position in the file (None: the whole file), and notes."""

_NUMBERED = re.compile(r"(.+)_(\d{4})", re.DOTALL)
_MOST_CHANNELS = 8
"""Higher numbers than any scan has channels count patients."""

_KAGGLE_3M = re.compile(r"TCGA_[A-Z0-9]{2}_[A-Z0-9]{4}_\d{8}_\d+")
_KAGGLE_3M_CHANNELS = {"t1": 0, "flair": 1, "t1ce": 2}
"""Red is the pre-contrast, green the FLAIR and blue the post-contrast image (Buda et al., 2019)."""


class Layouts:
    """Reads the name of a file in the light of its folder.

    Args:
        images: All files that are not references; nnU-Net's numbers show only when seen together.
        names: How channels are told from names.
        spec: The model, whose order of channels counts where numbers have no names.
        problems: Where to note a ``dataset.json`` that cannot be understood.
    """

    def __init__(
        self,
        images: Sequence[Entry],
        names: ChannelNames,
        spec: ModelSpec | None,
        problems: list[Problem],
    ) -> None:
        self._names = names
        self._spec = spec
        self._problems = problems
        self._declared: dict[str, tuple[str, ...] | None] = {}
        self._numbers: dict[str, dict[str, set[int]]] = {}
        self._plain: set[str] = set()
        for entry in images:
            match = _NUMBERED.fullmatch(entry.stem)
            if match:
                self._numbers.setdefault(entry.directory, {}).setdefault(match[1], set()).add(int(match[2]))
            else:
                self._plain.add(entry.directory)

    def read(self, entry: Entry) -> Reading:
        """What the name of ``entry`` says."""
        if entry.suffix in (".tif", ".tiff") and _KAGGLE_3M.fullmatch(entry.stem):
            return entry.stem, _KAGGLE_3M_CHANNELS, ()
        declared = self._channel_names(entry)
        match = _NUMBERED.fullmatch(entry.stem)
        if match and self._is_numbered(entry, declared):
            return self._numbered(match[1], int(match[2]), declared)
        base, channel = self._names.split(entry.stem)
        if channel == UNNAMED and declared and entry.format in _PACKING:
            return self._packed(base, declared)
        return base, {channel: None}, ()

    def _channel_names(self, entry: Entry) -> tuple[str, ...] | None:
        """Names from the ``dataset.json`` of the folder or the one above it."""
        directory = entry.directory
        if directory not in self._declared:
            folders = [directory]
            above, _, name = directory.rpartition("/")
            if entry.folder or folder_role(name):
                folders.append(above)
            self._declared[directory] = next(filter(None, map(self._read_json, folders)), None)
        return self._declared[directory]

    def _read_json(self, folder: str) -> tuple[str, ...] | None:
        path = Path(folder, FILE_NAME)
        if not path.is_file():
            return None
        names = read_channel_names(path)
        if isinstance(names, Problem):
            if names not in self._problems:
                self._problems.append(names)
            return None
        if not names:
            return None
        resolved = tuple(self._names.resolve(name) for name in names)
        # nnU-Net 2 abuses the field to choose a normalisation ("noNorm" twice): then the names name nothing.
        return resolved if len(set(resolved)) == len(resolved) else None

    def _is_numbered(self, entry: Entry, declared: tuple[str, ...] | None) -> bool:
        """True where ``_0000`` is a channel and not the number of a slice."""
        numbers = self._numbers[entry.directory].values()
        if declared:
            return max(map(max, numbers)) < len(declared)
        if folder_role(entry.directory.rpartition("/")[2]) in (("image", "tr"), ("image", "ts")):
            return max(map(max, numbers)) < _MOST_CHANNELS and min(map(min, numbers)) == 0
        # A folder for nnU-Net's prediction: every file is numbered, every case has the same channels from 0.
        wanted = set(range(len(self._spec.channels) if self._spec else 0))
        return (
            entry.format == "nifti" and entry.directory not in self._plain and all(found == wanted for found in numbers)
        )

    def _numbered(self, base: str, number: int, declared: tuple[str, ...] | None) -> Reading:
        if declared and len(declared) == 1 and self._names.known(declared[0]) is None:
            return base, {UNNAMED if number == 0 else f"{number:04}": None}, ()
        if declared and number < len(declared):
            return base, {declared[number]: None}, ()
        if declared or not self._spec or number >= len(self._spec.channels):
            return base, {f"{number:04}": None}, ()
        order = ", ".join(self._spec.channel_names)
        notes = (f"no dataset.json names the channels; 0000 onwards were taken as {order}",)
        return base, {self._spec.channel_names[number]: None}, notes if len(self._spec.channels) > 1 else ()

    def _packed(self, base: str, declared: tuple[str, ...]) -> Reading:
        """A Decathlon file: all channels in one 4D image, in the order of ``modality``."""
        if len(declared) > 1:
            return base, {name: index for index, name in enumerate(declared)}, ()
        return base, {declared[0] if self._names.known(declared[0]) else UNNAMED: None}, ()
