"""What a run's best weights reach on a part that trains nothing, on the network's own grid.

This is the measure of the validation columns, for tables that compare runs. A model's own figures come from
``segtool evaluate``, on the scans' grids.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segtool.errors import UsageError
from segtool.sliding_window import slide, window_extent
from segtool.spec import ModelSpec
from segtool_train.data.cache import read_cache
from segtool_train.data.dataset import Batch, WholeSamples, loader
from segtool_train.data.listing import listed
from segtool_train.initial import build_network
from segtool_train.run_folder import RunFolder
from segtool_train.scores import Scores, count_overlap, decided, summarise
from segtool_train.training import Options

Array = npt.NDArray[Any]
Side = Literal["test", "validation"]


def score_test(run: RunFolder, options: Options, side: Side = "test") -> Scores:
    """Score the best weights of ``run`` on its test part, in full precision.

    Args:
        run: A trained run whose cache is still there.
        options: Where the data lie and what computes, as for training.
        side: The part to score.

    Raises:
        UsageError: No epoch has ended, the cache is gone, or the split leaves nothing on that side.
    """
    recipe, split = run.read_recipe(), run.read_split()
    cache = read_cache(Path(json.loads(run.data_file.read_text(encoding="utf-8"))["cache"]))
    indices = cache.indices(split.test if side == "test" else split.validation)
    if not indices:
        raise UsageError(f"{run.path}: its split leaves no {side} samples", f"Set [data.split] {side} in the recipe.")
    device = torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")
    network = build_network(recipe)
    network.load_state_dict(run.read_best())
    network.to(device).eval()
    groups = {item.name: item.group for item in listed(recipe, options.data).items}
    batch = 1 if recipe.spec.input.rank == 3 else recipe.training.batch
    samples, counts = [], []
    for part in loader(WholeSamples(cache), indices, batch, options.workers):
        counts.append(_overlap(network, part, recipe.spec, device))
        samples += part.samples.tolist()
    return summarise(samples, torch.cat(counts), [groups[sample.item] for sample in cache.samples], recipe.spec)


@torch.no_grad()
def _overlap(network: nn.Module, batch: Batch, spec: ModelSpec, device: torch.device) -> torch.Tensor:
    """``(N, L, 3)`` counts of pixels of a batch, on the CPU."""

    def run(window: Array) -> Array:
        answer: Array = network(torch.from_numpy(window).to(device)).float().cpu().numpy()
        return answer

    if spec.input.rank == 2:
        logits = network(batch.image.to(device)).float()
    else:
        blended = [
            slide(volume, run, window_extent(volume.shape[1:], spec), spec.input.overlap)
            for volume in batch.image.numpy()
        ]
        logits = torch.from_numpy(np.stack(blended))
    return count_overlap(decided(logits, spec), batch.target.to(logits.device)).cpu()
