import math

import pytest
import torch

from segtool.errors import UsageError
from segtool_train.losses import LOSSES, get_loss


def loss(name: str, logits: torch.Tensor, target: torch.Tensor, **options: float) -> float:
    return float(get_loss(name, options).build()(logits, target))


HALVES = torch.zeros(1, 1, 1, 2)  # logits of probabilities a half
ONE_OF_TWO = torch.tensor([[[[1.0, 0.0]]]])


@pytest.mark.parametrize(
    ("name", "options", "answer"),
    [
        ("bce", {}, math.log(2)),
        # overlap 0.5, sizes 1 and 1, smoothed by 1: 1 - (2 * 0.5 + 1) / (2 + 1)
        ("dice", {}, 1 / 3),
        ("dice", {"epsilon": 1e-6}, 1 / 2),
        ("bce_dice", {}, math.log(2) + 1 / 3),
        ("focal", {"gamma": 0}, math.log(2)),
        ("focal", {"gamma": 2}, math.log(2) / 4),  # each pixel is half wrong, so that it counts a quarter
        ("focal", {"gamma": 2, "alpha": 0.5}, math.log(2) / 8),
        # overlap 0.5, wrongly labelled 0.5, missed 0.5: 1 - 0.5 / (0.5 + 0.5 alpha + 0.5 beta)
        ("tversky", {"alpha": 0.5, "beta": 0.5, "epsilon": 1e-9}, 1 / 2),
        ("tversky", {"alpha": 1, "beta": 3, "epsilon": 1e-9}, 1 - 0.5 / 2.5),
    ],
)
def test_losses_of_sigmoids_by_hand(name: str, options: dict[str, float], answer: float):
    assert loss(name, HALVES, ONE_OF_TWO, **options) == pytest.approx(answer, rel=1e-5)


def test_dice_sums_over_the_batch_where_asked():
    target = torch.cat([ONE_OF_TWO, torch.zeros(1, 1, 1, 2)])  # the second image shows nothing
    logits = torch.zeros(2, 1, 1, 2)
    # an image: overlap 0.5 of 1 and 1, and overlap 0 of 1 and 0; together: 0.5 of 2 and 1
    assert loss("dice", logits, target, epsilon=1e-9) == pytest.approx((1 / 2 + 1) / 2)
    assert loss("dice", logits, target, epsilon=1e-9, batch=True) == pytest.approx(1 - 1 / 3)


def test_losses_of_the_softmax_by_hand():
    logits = torch.zeros(2, 2, 1, 1)  # two images of one pixel, two classes, probabilities a half
    target = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)  # a label's pixel, and a background pixel
    assert loss("ce", logits, target) == pytest.approx(math.log(2))
    # per class over the batch: overlap 0.5, sizes 1 and 1, smoothed by 1
    assert loss("softmax_dice", logits, target) == pytest.approx(1 / 3)
    assert loss("softmax_dice", logits, target, epsilon=1e-6) == pytest.approx(1 / 2)
    assert loss("ce_dice", logits, target) == pytest.approx(0.3 * math.log(2) + 0.7 / 3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_as_the_answer_gets_better_and_has_a_gradient(name: str):
    target = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    softmax = LOSSES[name].activation == "softmax"
    sign = torch.cat([1 - 2 * target, 2 * target - 1], dim=1) if softmax else 2 * target - 1
    losses = []
    for confidence in (-3.0, 0.0, 3.0):
        logits = (confidence * sign).requires_grad_()
        value = LOSSES[name]().build()(logits, target)
        value.backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        losses.append(float(value.detach()))
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize(
    ("name", "options", "remedy"),
    [
        ("hinge", {}, "Name one of: bce, dice"),
        ("dice", {"smooth": 1}, "It takes: epsilon, batch"),
        ("dice", {"epsilon": 0}, "It takes: epsilon, batch"),
        ("bce", {"epsilon": 1}, "It takes: none"),
    ],
)
def test_a_wrong_loss_or_option_names_those_there_are(name: str, options: dict[str, float], remedy: str):
    with pytest.raises(UsageError, match=remedy):
        get_loss(name, options)
