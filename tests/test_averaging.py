"""Means of probabilities: of models and of flips."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import bright_spec, volume_spec

from segtool.backends.averaging import AveragingBackend, View, averaged


class Answers:
    """A backend whose logits are a function of its input."""

    name, version, device, precision = "numpy", "1", "cpu", "fp32"
    why = note = ""
    xp: types.ModuleType = np

    def __init__(self, function, precision: str = "fp32") -> None:
        self._function, self.precision = function, precision

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert batch.flags.c_contiguous
        return self._function(batch).astype(np.float32)


def constant(*logits: float) -> Answers:
    """``logits`` in every pixel, one a channel."""
    values = np.array(logits).reshape(1, -1, 1, 1)
    return Answers(lambda batch: np.broadcast_to(values, (len(batch), len(logits), *batch.shape[2:])))


def odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


IMAGE = np.zeros((1, 1, 4, 4), np.float32)


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def test_sigmoid_gives_the_logit_of_the_mean_probability() -> None:
    specs = [bright_spec()] * 3
    backend = averaged([constant(odds(p)) for p in (0.2, 0.6, 0.7)], specs)
    np.testing.assert_allclose(probabilities_of(backend.run(IMAGE)), 0.5, rtol=1e-6)


def test_softmax_gives_the_logarithm_of_the_mean_probabilities() -> None:
    spec = bright_spec(activation="softmax")
    backend = averaged([constant(*np.log([0.9, 0.1]) + 5), constant(*np.log([0.2, 0.8]))], [spec, spec])
    np.testing.assert_allclose(np.exp(backend.run(IMAGE))[0, :, 0, 0], [0.55, 0.45], rtol=1e-6)


@settings(deadline=None)
@given(st.sampled_from(["sigmoid", "softmax"]), st.integers(0, 99))
def test_one_model_averaged_with_itself_answers_as_before(activation: str, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 8, (2, 3, 4, 5)).astype(np.float32)
    backend = AveragingBackend([View(Answers(lambda _: logits), (), 0.5)] * 2, activation)
    answer = backend.run(IMAGE)
    if activation == "softmax":
        # A constant a pixel means nothing to softmax.
        answer, logits = (array - array[:, :1] for array in (answer, logits))
    np.testing.assert_allclose(answer, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_sure_models_give_no_infinities(activation: str) -> None:
    spec = bright_spec(activation=activation)
    models = [constant(1e4, -1e4), constant(1e4, -1e4)]
    assert np.isfinite(averaged(models, [spec, spec]).run(IMAGE)).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_model_that_breaks_is_not_averaged_away(activation: str, broken: float) -> None:
    spec = bright_spec(activation=activation)
    answer = averaged([constant(0, broken), constant(0, 1)], [spec, spec]).run(IMAGE)
    assert np.isnan(answer).any()


def test_one_model_without_flips_is_not_wrapped() -> None:
    backend = constant(0)
    assert averaged([backend], [bright_spec()]) is backend


def test_models_of_two_precisions_are_both_named() -> None:
    models = [Answers(lambda batch: batch), Answers(lambda batch: batch, "fp16")]
    assert averaged(models, [bright_spec()] * 2).precision == "fp32+fp16"


def columns(batch: np.ndarray) -> np.ndarray:
    """A model that sees the tumour in the first column, whatever is in the picture."""
    logits = np.full(batch.shape, -80.0)
    logits[..., 0] = 80.0
    return logits


def test_a_flip_is_undone_before_the_mean() -> None:
    spec = bright_spec(test_time_flips=("horizontal",))
    share = probabilities_of(averaged([Answers(columns)], [spec]).run(IMAGE))
    np.testing.assert_allclose(share[0, 0], [[0.5, 0, 0, 0.5]] * 4, atol=1e-6)


def test_two_axes_are_four_views_and_three_are_eight() -> None:
    for spec, count in (
        (bright_spec(test_time_flips=("horizontal", "vertical")), 4),
        (volume_spec(test_time_flips=("horizontal", "vertical", "depth")), 8),
    ):
        seen = []
        image = np.arange(4.0**spec.input.rank, dtype=np.float32).reshape(1, 1, *[4] * spec.input.rank)
        answer = averaged([Answers(lambda batch, seen=seen: seen.append(batch.ravel()[0]) or batch)], [spec]).run(image)
        assert len(set(seen)) == len(seen) == count
        np.testing.assert_allclose(answer, image, rtol=1e-4, atol=1e-4)


def test_models_weigh_the_same_however_many_flips_they_have() -> None:
    flipped, plain = bright_spec(test_time_flips=("horizontal", "vertical")), bright_spec()
    backend = averaged([constant(odds(0.9)), constant(odds(0.1))], [flipped, plain])
    np.testing.assert_allclose(probabilities_of(backend.run(IMAGE)), 0.5, rtol=1e-5)
