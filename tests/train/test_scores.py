import math

import pytest
import torch

from segtool.spec import ModelSpec
from segtool_train.recipe import find_recipe, read_recipe
from segtool_train.scores import Scores, count_overlap, decided, measure, summarise

SPEC = read_recipe(find_recipe("cheng-lite0")).spec
SPEC_3D = read_recipe(find_recipe("brats3d-light")).spec


def test_overlap_and_its_measures_by_hand():
    masks = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool).view(2, 1, 1, 4)
    target = torch.tensor([[0.6, 0.4, 0.2, 0.5], [0, 0, 0, 0]]).view(2, 1, 1, 4)  # at least a half counts
    counts = count_overlap(masks, target)
    assert counts.tolist() == [[[1, 3, 2]], [[0, 0, 0]]]
    values = measure(counts)
    one = {name: float(value[0, 0]) for name, value in values.items()}
    assert one == pytest.approx({"dice": 2 / 5, "iou": 1 / 4, "precision": 1 / 3, "recall": 1 / 2})
    assert all(math.isnan(value[1, 0]) for value in values.values())


def test_decisions_follow_the_specs_activation():
    assert decided(torch.tensor([-0.1, 0.1]).view(1, 1, 1, 2), SPEC).flatten().tolist() == [False, True]
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).view(1, 4, 1, 1, 1)  # class 2 of background and three labels
    assert decided(logits, SPEC_3D).flatten().tolist() == [False, True, False]


def test_the_threshold_of_the_spec_counts():
    strict: ModelSpec = SPEC.model_copy(update={"threshold": 0.9})
    logits = torch.tensor([2.0, 2.3]).view(1, 1, 1, 2)  # log(9) is 2.197
    assert decided(logits, strict).flatten().tolist() == [False, True]


def counts_of(*rows: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(rows).unsqueeze(1)


def test_scores_are_means_over_samples_and_by_class():
    # Dice 0.5, 1, undefined and 0.8
    counts = counts_of((1, 2, 2), (3, 3, 3), (0, 0, 0), (2, 2, 3))
    scores = summarise([0, 1, 2, 3], counts, ["a", "b", "a", "b"], SPEC)
    assert scores.mean["dice"] == pytest.approx((0.5 + 1 + 0.8) / 3)
    assert scores.by_group["a"]["dice"] == pytest.approx(0.5)
    assert scores.by_group["b"] == pytest.approx({"dice": 0.9, "iou": 5 / 6, "precision": 1.0, "recall": 5 / 6})


def test_several_labels_are_averaged_a_sample_and_have_means_of_their_own():
    labels = torch.tensor([[[1, 5, 5], [0, 0, 0], [3, 5, 5]]])  # Dice 0.2, undefined, 0.6
    scores = summarise([0], labels, [""], SPEC_3D)
    assert scores.mean["dice"] == pytest.approx(0.4)
    assert scores.by_group["NCR"]["dice"] == pytest.approx(0.2)
    assert math.isnan(scores.by_group["ED"]["dice"])


def test_what_is_monitored_is_better_where_it_is_higher():
    scores = Scores({"dice": 0.7}, {}, 0.25)
    assert (scores.goodness("val_dice"), scores.goodness("val_loss")) == (0.7, -0.25)
    assert Scores.none().goodness("val_dice") == -math.inf
