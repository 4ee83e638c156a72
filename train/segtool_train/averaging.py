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
    mean = RunFolder(output)
    for file in (last.recipe_file, last.split_file, last.data_file, last.versions_file, last.metrics_file):
        shutil.copyfile(file, output / file.name)
    states = [run.read_best() for run in folders]
    spec = last.read_spec()
    # Until it is scored, the mean must not carry the last run's figures.
    unscored = {key: value for key, value in spec.provenance.items() if key != "validation"}
    mean.write_best(
        {key: _mean([state[key] for state in states]) for key in states[0]},
        spec.model_copy(update={"provenance": unscored}),
    )
    scores = score_test(mean, replace(options, run=output), "validation")
    reached = [run.read_spec().provenance["validation"]["val_dice"] for run in folders]
    validation = {
        "measure": spec.provenance["validation"]["measure"],
        "weights": f"mean of {len(runs)} runs, each started from the one before",
        "val_dice_of_each": reached,
        "val_dice": round(scores.mean["dice"], 4),
        **{f"val_dice_{group}": round(means["dice"], 4) for group, means in scores.by_group.items()},
    }
    mean.write_spec(spec.model_copy(update={"provenance": {**unscored, "validation": validation}}))
    return scores.mean["dice"]


def _check_alike(one: RunFolder, other: RunFolder) -> None:
    recipes, splits = [run.read_recipe() for run in (one, other)], [run.read_split() for run in (one, other)]
    if recipes[0].network != recipes[1].network or recipes[0].spec.input != recipes[1].spec.input:
        raise UsageError(
            f"{one.path} and {other.path}: different networks or inputs", "Average runs that started from one another."
        )
    if any(getattr(splits[0], side) != getattr(splits[1], side) for side in ("train", "validation", "test")):
        # A patient that tests one of them may have trained the other.
        raise UsageError(f"{one.path} and {other.path}: different splits", "Average runs of one split.")


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of float tensors; of counters the last."""
    if not tensors[0].is_floating_point():
        return tensors[-1]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)
