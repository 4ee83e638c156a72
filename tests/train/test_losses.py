import math

import pytest
import torch

from segtool.spec import ModelSpec
from segtool_train.losses import LOSSES, SOFTMAX_LOSSES
from segtool_train.recipe import find_recipe, read_recipe
from segtool_train.scores import decided, dice_per_sample, summarise

SPEC = read_recipe(find_recipe("cheng-lite0")).spec
SPEC_3D = read_recipe(find_recipe("brats3d-light")).spec


def test_bce_and_dice_by_hand():
    logits = torch.zeros(1, 1, 1, 2)  # probabilities a half
    target = torch.tensor([[[[1.0, 0.0]]]])
    assert float(LOSSES["bce"](logits, target)) == pytest.approx(math.log(2))
    # overlap 0.5, sizes 1 and 1, smoothed by 1: 1 - (2 * 0.5 + 1) / (2 + 1)
    assert float(LOSSES["dice"](logits, target)) == pytest.approx(1 / 3)
    assert float(LOSSES["bce_dice"](logits, target)) == pytest.approx(math.log(2) + 1 / 3)


def test_cross_entropy_and_softmax_dice_by_hand():
    logits = torch.zeros(2, 2, 1, 1)  # two images of one pixel, two classes, probabilities a half
    target = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)  # a label's pixel, and a background pixel
    assert float(LOSSES["ce"](logits, target)) == pytest.approx(math.log(2))
    # per class over the batch: overlap 0.5, sizes 1 and 1, smoothed by 1
    assert float(LOSSES["ce_dice"](logits, target)) == pytest.approx(0.3 * math.log(2) + 0.7 / 3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_as_the_answer_gets_better_and_has_a_gradient(name: str):
    target = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    sign = torch.cat([1 - 2 * target, 2 * target - 1], dim=1) if name in SOFTMAX_LOSSES else 2 * target - 1
    losses = []
    for confidence in (-3.0, 0.0, 3.0):
        logits = (confidence * sign).requires_grad_()
        loss = LOSSES[name](logits, target)
        loss.backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        losses.append(float(loss.detach()))
    assert losses[0] > losses[1] > losses[2]


def test_dice_of_masks_by_hand_and_nan_where_both_are_empty():
    masks = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool).view(2, 1, 1, 4)
    target = torch.tensor([[0.6, 0.4, 0.5, 0], [0, 0, 0, 0]]).view(2, 1, 1, 4)
    dice = dice_per_sample(masks, target)
    assert float(dice[0, 0]) == pytest.approx(2 * 1 / (2 + 2))
    assert math.isnan(float(dice[1, 0]))


def test_decisions_follow_the_specs_activation():
    assert decided(torch.tensor([-0.1, 0.1]).view(1, 1, 1, 2), SPEC).flatten().tolist() == [False, True]
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).view(1, 4, 1, 1, 1)  # class 2 of background and three labels
    assert decided(logits, SPEC_3D).flatten().tolist() == [False, True, False]


def test_scores_are_means_over_samples_by_class_and_by_label():
    rows = [(0, [0.5]), (1, [1.0]), (2, [math.nan]), (3, [0.9])]
    scores = summarise(rows, ["a", "b", "a", "b"], SPEC)
    assert scores.mean == pytest.approx(0.8)
    assert scores.by_group == pytest.approx({"a": 0.5, "b": 0.95})
    labels = summarise([(0, [0.2, math.nan, 0.6])], [""], SPEC_3D)
    assert labels.mean == pytest.approx(0.4)
    assert labels.by_group["NCR"] == pytest.approx(0.2)
    assert math.isnan(labels.by_group["ED"])


def test_the_threshold_of_the_spec_counts():
    strict: ModelSpec = SPEC.model_copy(update={"threshold": 0.9})
    logits = torch.tensor([2.0, 2.3]).view(1, 1, 1, 2)  # log(9) is 2.197
    assert decided(logits, strict).flatten().tolist() == [False, True]
