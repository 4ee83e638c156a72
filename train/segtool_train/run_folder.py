"""The folder of one training run: what lies in it and under which names."""

import json
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from segtool.atomic import atomic_path, write_text
from segtool.errors import ModelError, UsageError
from segtool.spec import ModelSpec
from segtool_train.data.split import Split
from segtool_train.recipe import Recipe, read_recipe

_NO_CHECKPOINT = (
    RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error,
    pickle.UnpicklingError,
)  # fmt: skip
"""What torch's reader of tensors raises on files that are damaged or would run code, as 30,000 of them showed."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The recipe as resolved."""
        return self.path / "recipe.toml"

    @property
    def split_file(self) -> Path:
        """Who trains, validates and tests."""
        return self.path / "split.json"

    @property
    def versions_file(self) -> Path:
        """Software that trained."""
        return self.path / "versions.json"

    @property
    def metrics_file(self) -> Path:
        """One row an epoch."""
        return self.path / "metrics.csv"

    @property
    def curves_file(self) -> Path:
        """The same as a picture."""
        return self.path / "curves.png"

    @property
    def bars_file(self) -> Path:
        """The best epoch's validation, class by class."""
        return self.path / "bars.png"

    @property
    def tensorboard_folder(self) -> Path:
        """The rows once more, for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def best_file(self) -> Path:
        """Weights of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def spec_file(self) -> Path:
        """What the best weights promise, with their provenance."""
        return self.path / "spec.json"

    @property
    def last_file(self) -> Path:
        """Everything that ``--resume`` needs."""
        return self.path / "last.ckpt"

    @property
    def data_file(self) -> Path:
        """Where the data and the cache lie on this machine."""
        return self.path / "data.json"

    def read_recipe(self) -> Recipe:
        """The recipe as resolved.

        Raises:
            UsageError: The folder is not of a run.
        """
        self._require(self.recipe_file)
        return read_recipe(self.recipe_file)

    def read_split(self) -> Split:
        """The split.

        Raises:
            UsageError: The folder is not of a run.
        """
        self._require(self.split_file)
        return Split.read(self.split_file)

    def read_spec(self) -> ModelSpec:
        """The spec of the best weights.

        Raises:
            UsageError: No epoch has ended yet.
            ModelError: Not a spec.
        """
        self._require(self.spec_file)
        return ModelSpec.from_json(self.spec_file.read_bytes(), str(self.spec_file))

    def write_best(self, state: dict[str, torch.Tensor], spec: ModelSpec) -> None:
        """Store the best weights and what they promise.

        Raises:
            OutputError: They cannot be written.
        """
        # Not by save_file, whose files their owner alone may read.
        content = save({key: value.contiguous().cpu() for key, value in state.items()})
        with atomic_path(self.best_file) as temporary:
            temporary.write_bytes(content)
        self.write_spec(spec)

    def write_spec(self, spec: ModelSpec) -> None:
        """Store what the best weights promise."""
        write_text(self.spec_file, json.dumps(json.loads(spec.to_json()), indent=1, ensure_ascii=False) + "\n")

    def read_best(self) -> dict[str, torch.Tensor]:
        """The best weights.

        Raises:
            UsageError: No epoch has ended yet.
            ModelError: The file is damaged.
        """
        self._require(self.best_file)
        try:
            return load_file(self.best_file)
        except SafetensorError as error:
            raise ModelError(f"{self.best_file}: damaged ({error})", "Train again, or restore the folder.") from error

    def check_last(self) -> None:
        """See that the checkpoint can be read.

        Raises:
            UsageError: It is damaged.
        """
        try:
            torch.load(self.last_file, map_location="cpu", weights_only=True, mmap=True)
        except _NO_CHECKPOINT as error:
            raise UsageError(
                f"{self.last_file}: damaged, nothing can go on from it",
                "Restore it, or train into another folder.",
            ) from error

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Store a small table."""
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _require(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(
                f"{self.path}: not the folder of a training run with an epoch behind it ({path.name} is missing)",
                "Give the folder that `segtool train -o` wrote.",
            )
