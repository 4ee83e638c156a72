"""One network from several: the mean of the weights of runs that started from one another.

Fine-tuned copies of a network lie in one basin of the loss, and their mean often generalises better than any of them,
at the cost of one. Source: Wortsman et al., Model soups, ICML 2022.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from segtool.errors import UsageError
from segtool_train.held_out import score_test
from segtool_train.run_folder import RunFolder
from segtool_train.training import Options

COPIED = ("recipe.toml", "split.json", "data.json", "versions.json", "metrics.csv")
"""Files of the last run that hold for the mean as well."""


def average_runs(runs: Sequence[Path], output: Path, options: Options) -> float:
    """Write a run folder whose best weights are the mean of those of ``runs``.

    Args:
        runs: Of one network and one split; recipe and metrics are taken from the last.
        output: The new folder.
        options: Where the data lie and what computes, to score the mean on the validation part.

    Returns:
        Validation Dice of the mean, on the network's grid.

    Raises:
        UsageError: ``output`` is there, or the runs differ in network, input or split.
    """
    folders = [RunFolder(path) for path in runs]
    if output.exists():
        raise UsageError(f"{output}: is there already", "Name another folder.")
    last = folders[-1]
    for other in folders[:-1]:
        _check_alike(other, last)
    output.mkdir(parents=True)
    for name in COPIED:
        shutil.copyfile(last.path / name, output / name)
    mean = RunFolder(output)
    states = [run.read_best() for run in folders]
    spec = last.read_spec()
    mean.write_best({key: _mean([state[key] for state in states]) for key in states[0]}, spec)
    scores = score_test(mean, replace(options, run=output), "validation")
    reached = [run.read_spec().provenance["validation"]["val_dice"] for run in folders]
    validation = {
        "measure": spec.provenance["validation"]["measure"],
        "weights": f"mean of {len(runs)} runs, each started from the one before",
        "val_dice_of_each": reached,
        "val_dice": round(scores.mean["dice"], 4),
        **{f"val_dice_{group}": round(means["dice"], 4) for group, means in scores.by_group.items()},
    }
    provenance = {**spec.provenance, "validation": validation}
    mean.write_best(mean.read_best(), spec.model_copy(update={"provenance": provenance}))
    return scores.mean["dice"]


def _check_alike(one: RunFolder, other: RunFolder) -> None:
    recipes, splits = [run.read_recipe() for run in (one, other)], [run.read_split() for run in (one, other)]
    if recipes[0].network != recipes[1].network or recipes[0].spec.input != recipes[1].spec.input:
        raise UsageError(
            f"{one.path} and {other.path}: different networks or inputs", "Average runs that started from one another."
        )
    if (splits[0].train, splits[0].validation, splits[0].test) != (
        splits[1].train,
        splits[1].validation,
        splits[1].test,
    ):
        # A patient that tests one of them may have trained the other.
        raise UsageError(f"{one.path} and {other.path}: different splits", "Average runs of one split.")


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of float tensors; of counters the last."""
    if not tensors[0].is_floating_point():
        return tensors[-1]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)
