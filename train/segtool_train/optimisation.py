"""Optimisers and learning rates, by name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, PolynomialLR, ReduceLROnPlateau

from segtool_train.recipe import TrainingRecipe

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "sgd": torch.optim.SGD,
}


def make_optimiser(network: nn.Module, encoder: nn.Module | None, training: TrainingRecipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of all parameters; the encoder's stand in a group of their own where they have a rate."""
    extra = {"momentum": 0.9, "nesterov": True} if training.optimiser == "sgd" else {}
    return OPTIMISERS[training.optimiser](
        _groups(network, encoder, training), lr=training.lr, weight_decay=training.weight_decay, **extra
    )


def _groups(network: nn.Module, encoder: nn.Module | None, training: TrainingRecipe) -> list[dict[str, Any]]:
    if encoder is None or training.encoder_lr is None:
        return [{"params": list(network.parameters())}]
    inside = {id(parameter) for parameter in encoder.parameters()}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    return [{"params": rest}, {"params": list(encoder.parameters()), "lr": training.encoder_lr}]


def make_schedule(optimiser: torch.optim.Optimizer, training: TrainingRecipe, steps: int) -> LRScheduler | None:
    """The schedule that moves every step, None where none does.

    Args:
        optimiser: Its groups' rates are the ones to start from, or for ``onecycle`` to rise to.
        training: Names the schedule.
        steps: Of the optimiser in the whole training.
    """
    schedule = training.schedule
    if schedule.name == "onecycle":
        highest = [group["lr"] for group in optimiser.param_groups]
        # A rise of one step is none, and torch would divide by its length of 0.
        warmup = schedule.warmup / 2 if schedule.warmup * steps == 1 else schedule.warmup
        return OneCycleLR(optimiser, highest, total_steps=steps, pct_start=warmup)
    if schedule.name == "cosine":
        return CosineAnnealingLR(optimiser, steps, eta_min=schedule.floor)
    if schedule.name == "poly":
        return PolynomialLR(optimiser, steps, power=schedule.power)
    return None


def make_plateau(optimiser: torch.optim.Optimizer, training: TrainingRecipe) -> ReduceLROnPlateau | None:
    """The schedule that looks at the monitored measure every epoch, None where the recipe has another."""
    schedule = training.schedule
    if schedule.name != "plateau":
        return None
    return ReduceLROnPlateau(
        optimiser,
        "max",  # of TrainingRecipe.goodness
        schedule.factor,
        schedule.patience,
        threshold=0.0,
        min_lr=schedule.floor,
    )
