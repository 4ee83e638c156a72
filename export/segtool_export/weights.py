"""Which of a run's weights are meant: its best ones, or those of the last epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from segtool.errors import ModelError, UsageError
from segtool.spec import ModelSpec
from segtool_export.confidence import with_confidence
from segtool_export.learning import with_learnt
from segtool_export.statistics import with_statistics
from segtool_train.initial import build_network
from segtool_train.run_folder import RunFolder

Which = Literal["best", "last"]


@dataclass(frozen=True)
class RunWeights:
    """Some weights of a run."""

    run: RunFolder
    which: Which = "best"

    @classmethod
    def at(cls, path: Path) -> "RunWeights":
        """From the folder of a run, which means its best weights, or from one of the two files of weights in it.

        Raises:
            UsageError: Another file.
        """
        if not path.is_file():
            return cls(RunFolder(path))
        run = RunFolder(path.parent)
        known: dict[Path, Which] = {run.best_file: "best", run.last_file: "last"}
        if path not in known:
            names = " or ".join(file.name for file in known)
            raise UsageError(f"{path}: not a file of a training run", f"Give the run's folder, or its {names}.")
        return cls(run, known[path])

    @property
    def file(self) -> Path:
        """Where they lie."""
        return self.run.best_file if self.which == "best" else self.run.last_file

    def spec(self) -> ModelSpec:
        """What they promise. What was learnt on validation holds for the best weights alone.

        Raises:
            UsageError: No epoch has ended yet.
        """
        spec = with_statistics(self.run, self.run.read_spec())
        if self.which == "best":
            return with_confidence(self.run, with_learnt(self.run, spec))
        epoch = {"epoch": self._checkpoint()["epoch"] + 1}
        return spec.model_copy(update={"provenance": {**spec.provenance, "validation": epoch}})

    def network(self) -> nn.Module:
        """The run's network with these weights, in inference mode.

        Raises:
            UsageError: Not a run that has ended an epoch.
            ModelError: The weights do not fit the recipe's network.
        """
        network = build_network(self.run.read_recipe())
        states: dict[Which, Callable[[], dict[str, torch.Tensor]]] = {"best": self.run.read_best, "last": self._last}
        try:
            network.load_state_dict(states[self.which]())
        except RuntimeError as error:
            first_line = str(error).splitlines()[0]
            raise ModelError(
                f"{self.file}: does not fit the network of {self.run.recipe_file.name} ({first_line})",
                "Train again, or restore the folder.",
            ) from error
        return network.eval()

    def _checkpoint(self) -> dict[str, Any]:
        self.run.check_last()
        checkpoint: dict[str, Any] = torch.load(self.run.last_file, map_location="cpu", weights_only=True)
        return checkpoint

    def _last(self) -> dict[str, torch.Tensor]:
        """The averaged weights where the recipe averages, as validation saw them."""
        state = self._checkpoint()["state_dict"]
        prefix = "averaged." if any(key.startswith("averaged.") for key in state) else "network."
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
