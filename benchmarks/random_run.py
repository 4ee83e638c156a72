"""Runs whose weights are random, for what does not depend on them: how long a network takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.export_matrix import OPSET, warmed_up
from segtool.atomic import write_text
from segtool.spec import ModelSpec
from segtool_export.onnx_file import smallest_extent, write_onnx
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface
from segtool_train.recipe import find_recipe, read_recipe
from segtool_train.run_folder import RunFolder


def write_random_run(
    name: str, folder: Path, model: str = "model.onnx", changes: Mapping[str, Any] | None = None
) -> ModelSpec:
    """A run's folder with the network of a shipped recipe, and its export beside it.

    The network has the running statistics of a few passes over noise.

    Args:
        name: Of the recipe.
        folder: Is made.
        model: Name of the exported file inside.
        changes: Of the recipe, such as ``{"network.width": 4}``.

    Returns:
        The model's spec.
    """
    folder.mkdir()
    untrained = {"network.pretrained": False} if "resnet" in name else {}
    recipe = read_recipe(find_recipe(name), {**untrained, **(changes or {})})
    spec, rank = recipe.spec, recipe.spec.input.rank
    torch.manual_seed(0)
    network = get_network(recipe.network.name, recipe.network.options).build(Interface.of(spec))
    network = warmed_up(network, len(spec.channels), smallest_extent(spec), rank)
    run = RunFolder(folder)
    write_text(run.recipe_file, recipe.to_toml())
    run.write_best(network.state_dict(), spec)
    write_onnx(network, spec, folder / model, OPSET)
    return spec
