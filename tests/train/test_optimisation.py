import pytest
import torch
from torch import nn

from segtool_train.encoder import Encoder
from segtool_train.optimisation import OPTIMISERS, make_optimiser, make_plateau, make_schedule
from segtool_train.recipe import TrainingRecipe


def network() -> nn.Sequential:
    """An encoder of two stages, then a decoder."""
    stages = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))
    return nn.Sequential(stages, nn.Conv2d(2, 1, 1))


def training(**values: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate({"lr": 1.0, **values})


def rates(schedule: dict[str, object], steps: int) -> list[float]:
    """Rate of every step."""
    recipe = training(schedule=schedule, optimiser="sgd")
    optimiser = make_optimiser(network(), None, recipe)
    moving = make_schedule(optimiser, recipe, steps)
    assert moving is not None
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        moving.step()
    return [*found, optimiser.param_groups[0]["lr"]]


def test_cosine_poly_and_onecycle_by_hand():
    assert rates({"name": "poly", "power": 1.0}, 4) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert rates({"name": "poly", "power": 2.0}, 2) == pytest.approx([1, 0.25, 0])
    assert rates({"name": "cosine", "floor": 0.2}, 2) == pytest.approx([1, 0.6, 0.2])
    assert max(rates({"name": "onecycle", "warmup": 0.5}, 9)[:-1]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("schedule", "goodness", "expected"),
    [
        ({"factor": 0.1, "patience": 3}, [0.5, 0.5, 0.4, 0.5, 0.3], [1, 1, 1, 1, 0.1]),
        ({"factor": 0.5, "patience": 0, "floor": 0.3}, [-1.0, -0.9, -0.95, -0.95], [1, 1, 0.5, 0.3]),  # losses
    ],
)
def test_a_plateau_lowers_the_rate_of_all_groups(schedule: dict[str, float], goodness: list[float], expected: list):
    module = network()
    recipe = training(schedule={"name": "plateau", **schedule}, encoder_lr=1.0)
    optimiser = make_optimiser(module, module[0], recipe)
    plateau = make_plateau(optimiser, recipe)
    assert plateau is not None
    assert make_schedule(optimiser, recipe, 9) is None
    found = []
    for value in goodness:
        plateau.step(value)
        found.append([group["lr"] for group in optimiser.param_groups])
    assert found == [pytest.approx([rate, rate]) for rate in expected]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_encoder_with_a_rate_of_its_own_is_a_group_of_its_own(name: str):
    module = network()
    both = make_optimiser(module, module[0], training(optimiser=name, encoder_lr=0.01)).param_groups
    assert [group["lr"] for group in both] == [1.0, 0.01]
    assert [len(group["params"]) for group in both] == [2, 6]
    (one,) = make_optimiser(module, module[0], training(optimiser=name)).param_groups
    assert len(one["params"]) == 8


@pytest.mark.parametrize(
    ("values", "epoch", "learning"),
    [
        ({"freeze_encoder_epochs": 2}, 1, [False, False]),
        ({"freeze_encoder_epochs": 2}, 2, [True, True]),
        ({"freeze_encoder_epochs": 2, "unfreeze_from": 1}, 1, [False, False]),
        ({"freeze_encoder_epochs": 2, "unfreeze_from": 1}, 2, [False, True]),
        ({"unfreeze_from": 1}, 0, [False, True]),
        ({}, 0, [True, True]),
    ],
)
def test_an_encoder_thaws_whole_or_from_a_stage(values: dict[str, int], epoch: int, learning: list[bool]):
    module = network()
    encoder = Encoder(module[0], tuple(module[0]))
    encoder.thaw(epoch, training(epochs=9, **values))
    assert [stage.training for stage in module[0]] == learning
    assert [all(p.requires_grad for p in stage.parameters()) for stage in module[0]] == learning
    assert module[1].training
    assert module[1].weight.requires_grad


def test_what_stands_still_keeps_its_running_statistics():
    module = network()
    Encoder(module[0], tuple(module[0])).thaw(0, training(epochs=9, freeze_encoder_epochs=9))
    module(torch.rand(2, 1, 4, 4))
    assert module[0][1][1].num_batches_tracked == 0


def test_a_one_cycle_of_ten_steps_with_a_rise_of_one_falls_from_its_highest_rate():
    # 0.1 * 10 is exactly 1, a length by which torch would divide less one.
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    moving = make_schedule(optimiser, TrainingRecipe(schedule={"name": "onecycle", "warmup": 0.1}), 10)
    assert moving is not None
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1.0, abs=0.01)
