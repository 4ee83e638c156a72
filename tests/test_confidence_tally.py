"""How sure a model is of a case: entropy, expected Dice and disagreement, worked out by hand."""

import types

import device_arrays
import numpy as np
import pytest
from tiny import bright_spec, volume_spec

from segtool.backends.averaging import VOTES, AveragingBackend, View, answers_of, averaged
from segtool.case import Case
from segtool.geometry import Geometry
from segtool.postprocess import SliceAssembler, VolumeAssembler, background_logits, confidence
from segtool.postprocess.confidence import Tally, entropy, tally, together
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.sliding_window import Windows
from segtool.spec import ConfidenceSpec, LabelSpec, ModelSpec

TWO = (LabelSpec(name="whole", value=1), LabelSpec(name="core", value=2))


def odds(*shares: float) -> np.ndarray:
    """Logits of probabilities, one a voxel of one label."""
    p = np.array(shares)
    return np.log(p / (1 - p)).astype(np.float32)[np.newaxis]


def softmax_spec(labels: int = 1) -> ModelSpec:
    return bright_spec(activation="softmax", labels=TWO[:labels])


def warm(spec: ModelSpec, temperature: float) -> ModelSpec:
    return spec.model_copy(update={"confidence": ConfidenceSpec(temperature=temperature)})


def bits(p: float) -> float:
    return float(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


def numbers(logits: np.ndarray, spec: ModelSpec, votes: np.ndarray | None = None) -> dict[str, float]:
    return tally(logits, spec, 0.5, votes).numbers()


@pytest.mark.parametrize(("p", "expected"), [(0.5, 1.0), (0.25, 0.811278), (0.9, 0.468996), (0.001, 0.011408)])
def test_the_entropy_of_a_label_is_in_bits(p: float, expected: float) -> None:
    assert entropy(odds(p), bright_spec())[0] == pytest.approx(expected, abs=1e-5)


def test_four_classes_alike_are_two_bits() -> None:
    spec = bright_spec(activation="softmax", labels=(*TWO, LabelSpec(name="rim", value=3)))
    assert entropy(np.full((4, 1), 7.0, np.float32), spec)[0] == pytest.approx(2.0)


def test_logits_beyond_all_doubt_have_no_entropy_and_no_warning() -> None:
    assert entropy(np.array([[1e4, -1e4]], np.float32), bright_spec()).tolist() == [0, 0]
    assert entropy(np.array([[1e4], [-1e4]], np.float32), softmax_spec()).tolist() == [0]


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_logits_of_any_size_give_numbers_without_a_warning(size: float) -> None:
    logits = np.array([[size, -size], [-size, size]], np.float32)
    for spec in (bright_spec(labels=TWO), softmax_spec()):
        found = numbers(logits, spec)
        assert found["mean_entropy"] == 0
        assert found["expected_dice"] == 1
    assert numbers(np.full((1, 3), -size, np.float32), bright_spec()) == {"mean_entropy": 0, "expected_dice": 1}


def test_two_labels_under_sigmoid_count_alike() -> None:
    logits = np.concatenate([odds(0.5), odds(0.9)])
    assert entropy(logits, bright_spec(labels=TWO))[0] == pytest.approx((1 + bits(0.9)) / 2)


def test_mean_entropy_is_that_of_the_mask_alone() -> None:
    found = numbers(odds(0.9, 0.75, 0.4, 0.001), bright_spec())
    assert found["mean_entropy"] == pytest.approx((bits(0.9) + bits(0.75)) / 2, abs=1e-6)


def test_expected_dice_counts_what_lies_in_and_beside_the_mask() -> None:
    # Two voxels marked, in them 1.7 voxels expected; 0.4 more beside them; what is below 0.05 is noise.
    found = numbers(odds(0.9, 0.8, 0.4, 0.01), bright_spec())
    assert found["expected_dice"] == pytest.approx(2 * 1.7 / (2 + 2.1), abs=1e-6)


def test_a_missed_lesion_shows_in_an_empty_mask() -> None:
    near, far = (numbers(odds(p, 0.001), bright_spec()) for p in (0.45, 0.002))
    assert near["expected_dice"] == pytest.approx(0.55, abs=1e-6)
    assert near["mean_entropy"] == pytest.approx(bits(0.45), abs=1e-6)
    assert far["expected_dice"] == pytest.approx(0.998, abs=1e-6)
    assert far["mean_entropy"] == pytest.approx(bits(0.002), abs=1e-6)


def test_two_classes_of_softmax_are_what_one_label_of_sigmoid_is() -> None:
    one = odds(0.9, 0.7, 0.3, 0.02)
    two = np.concatenate([np.full_like(one, 3), one + 3])
    assert numbers(two, softmax_spec()) == pytest.approx(numbers(one, bright_spec()), abs=1e-6)


def test_a_label_that_is_absent_counts_by_its_highest_probability() -> None:
    logits = np.concatenate([odds(0.9, 0.001), odds(0.2, 0.001)])
    whole, core = 2 * 0.9 / 1.9, 0.8
    assert numbers(logits, bright_spec(labels=TWO))["expected_dice"] == pytest.approx((whole + core) / 2, abs=1e-6)


def test_the_temperature_divides_logits_for_confidence_and_never_moves_a_mask() -> None:
    logits = odds(0.9, 0.6, 0.3)
    hot = tally(logits, warm(bright_spec(), 2.0), 0.5)
    cold = tally(logits / 2, bright_spec(), 0.5)
    assert hot.numbers() == pytest.approx(cold.numbers())
    # At another threshold than a half, smaller logits would mark other voxels.
    assert tally(odds(0.6), warm(bright_spec(), 3.0), 0.55).marked.tolist() == [1]
    assert tally(odds(0.6) / 3, bright_spec(), 0.55).marked.tolist() == [0]


def test_a_low_threshold_leaves_no_marked_voxel_out() -> None:
    assert tally(odds(0.02, 0.015, 0.001), bright_spec(), 0.01).voxels == 2
    spec = softmax_spec(2)
    # Neither label has 0.03 by itself, their sum has.
    logits = np.log(np.array([[0.96], [0.02], [0.02]], np.float32))
    assert tally(logits, spec, 0.03).voxels == 1


def test_parts_of_a_case_add_up() -> None:
    logits = odds(0.9, 0.6, 0.3, 0.48, 0.01, 0.002)
    votes = np.array([[1, 1, 0.5, 0.5, 0, 0], [1, 1, 0, 0, 0, 0]], np.float32)
    parts = [tally(logits[:, part], bright_spec(), 0.5, votes[:, part]) for part in (slice(0, 2), slice(2, 5), [5])]
    whole = together(parts)
    assert isinstance(whole, Tally)
    assert whole.numbers() == pytest.approx(numbers(logits, bright_spec(), votes))
    assert together([]) is None


class Answers:
    """A backend of fixed logits ``(K, h, w)``."""

    name, version, device, precision = "numpy", "1", "cpu", "fp32"
    why = note = ""
    xp: types.ModuleType = np

    def __init__(self, logits: np.ndarray) -> None:
        self._logits = logits.astype(np.float32)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return np.repeat(self._logits[np.newaxis], len(batch), axis=0)

    def close(self) -> None:
        pass


def voted(masks: list[list[int]], spec: ModelSpec | None = None) -> float:
    """Disagreement of members that mark these voxels of a row."""
    spec = spec or bright_spec()
    members = [Answers(np.where(np.array(mask, bool), 4.0, -4.0)[np.newaxis, np.newaxis]) for mask in masks]
    run, channels = answers_of(averaged(members, [spec] * len(members)))
    (answer,) = run(np.zeros((1, 1, 1, len(masks[0])), np.float32))
    assert (channels, len(answer)) == (VOTES, 1 + VOTES)
    return numbers(answer[:1], spec, answer[1:])["disagreement"]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], 0.0),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], 0.0),
        ([[1, 1, 0, 0], [0, 0, 1, 1]], 1.0),
        ([[1, 1, 0, 0], [0, 1, 1, 0]], 0.5),  # 2 * 1 / (2 + 2)
        ([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]], 1 - (2 + 2 + 0) / (4 + 4 + 2)),  # three pairs
        ([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], 1.0),  # the mean marks nothing, a member does
    ],
)
def test_disagreement_is_one_minus_the_dice_of_pairs(masks: list[list[int]], expected: float) -> None:
    assert voted(masks) == pytest.approx(expected, abs=1e-6)


def test_members_of_softmax_disagree_about_labels_too() -> None:
    one, other = (np.eye(3)[[kind]].T.reshape(3, 1, 1) * 9 for kind in (1, 2))
    spec = softmax_spec(2)
    (answer,) = averaged([Answers(one), Answers(other)], [spec, spec]).run_with_votes(
        np.zeros((1, 1, 1, 1), np.float32)
    )
    assert answer[3:].ravel().tolist() == [1.0, 0.0]  # both mark the voxel, with labels that differ


def test_votes_change_no_logit() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (3, 5, 5))
    for activation in ("sigmoid", "softmax"):
        backend = AveragingBackend([View(Answers(logits), (), 0.5), View(Answers(-logits), (-1,), 0.5)], activation)
        batch = np.zeros((2, 1, 5, 5), np.float32)
        np.testing.assert_array_equal(backend.run_with_votes(batch)[:, :3], backend.run(batch))


def test_one_model_has_no_votes() -> None:
    backend = Answers(odds(0.5)[:, np.newaxis])
    assert answers_of(backend)[0](np.zeros((1, 1, 1, 1), np.float32)).shape == (1, 1, 1, 1)
    assert answers_of(backend)[1] == 0


def test_every_picture_of_a_stack_has_its_own_numbers() -> None:
    spec = bright_spec()
    case = Case("stack", np.random.default_rng(0).random((1, 2, 32, 32)), Geometry.of_pixels((2, 32, 32)))
    assembler = SliceAssembler(SlicedCase(case, spec), spec, 0.5)
    for index, p in enumerate((0.6, 0.9)):
        assembler.add(index, np.full((1, 32, 32), odds(p)[0, 0]))
    whole, pictures = assembler.confidence()
    assert whole == {}
    assert [one["expected_dice"] for one in pictures.values()] == pytest.approx([2 * 0.6 / 1.6, 2 * 0.9 / 1.9])


def test_many_plausible_voxels_are_counted_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = bright_spec()
    logits = np.random.default_rng(0).normal(0, 2, (1, 40, 25)).astype(np.float32)
    votes = np.stack([logits[0] > 0, logits[0] > 1]).astype(np.float32)
    at_once = tally(logits, spec, 0.5, votes).numbers()
    monkeypatch.setattr(confidence, "_AT_ONCE", 7)
    assert tally(logits, spec, 0.5, votes).numbers() == pytest.approx(at_once, rel=1e-12)


def test_slices_that_come_in_another_order_give_the_same_numbers_to_the_last_bit() -> None:
    spec = bright_spec(labels=(LabelSpec(name="a", value=1), LabelSpec(name="b", value=2)))
    random = np.random.default_rng(0)
    case = Case("head", random.random((1, 8, 32, 32)), Geometry.of_volume((8, 32, 32), np.diag([5.0, 1, 1, 1])))
    # Nothing is marked, and all slices are as near to marking the first label, but not the second.
    logits = -random.uniform(2, 9, (8, 2, 32, 32)).astype(np.float32)
    logits[:, 0, 0, 0] = -1
    found = []
    for order in (range(8), range(7, -1, -1), random.permutation(8)):
        assembler = SliceAssembler(SlicedCase(case, spec), spec, 0.5)
        for index in order:
            assembler.add(int(index), logits[index])
        found.append(assembler.confidence()[0])
    assert found[0] == found[1] == found[2]


def test_padding_around_a_slice_counts_for_nothing() -> None:
    spec = bright_spec()
    case = Case("wide", np.random.default_rng(0).random((1, 16, 32)), Geometry.of_pixels((16, 32)))
    assembler = SliceAssembler(SlicedCase(case, spec), spec, 0.5)
    frame = np.full((1, 32, 32), 9.0, np.float32)  # the picture is rows 8 to 24
    frame[:, 8:24] = odds(0.6)[0, 0]
    assembler.add(0, frame)
    assert assembler.confidence()[0]["expected_dice"] == pytest.approx(2 * 0.6 / 1.6, abs=1e-6)


def test_windows_of_a_volume_pass_on_votes_and_kept_logits_are_background_outside_the_crop() -> None:
    spec = volume_spec(8, divisor=8)
    spec = spec.model_copy(update={"input": spec.input.model_copy(update={"crop_to_nonzero": True})})
    image = np.zeros((1, 24, 16, 16))
    image[0, 4:20] = np.random.default_rng(0).random((16, 16, 16)) + 0.1
    prepared = WindowedCase(Case("head", image, Geometry.of_volume((24, 16, 16), np.eye(4))), spec)
    views = [View(Answers(np.full((1, 8, 8, 8), odds(p)[0, 0])), (), 0.5) for p in (0.8, 0.4)]
    run, votes = answers_of(AveragingBackend(views, "sigmoid"))
    assembler = VolumeAssembler(prepared, spec, 0.5, keep_logits=True)
    windows = Windows(prepared.tensor, (8, 8, 8), 0.5)
    for slab in windows.slabs(run, background=background_logits(spec, votes)):
        assembler.add(slab.logits)
    label_map, _ = assembler.finish()
    assert label_map.labels[4:20].all()
    found = assembler.confidence()[0]
    # The mean is 0.6 everywhere, and one member of two marks all of it.
    assert found == pytest.approx(
        {"mean_entropy": bits(0.6), "expected_dice": 1.2 / 1.6, "disagreement": 1.0}, abs=1e-4
    )
    assert assembler.logits is not None
    np.testing.assert_allclose(assembler.logits[0, 4:20], odds(0.6)[0, 0], rtol=2e-3)
    assert (assembler.logits[0, :4] == -30).all()


@pytest.mark.parametrize("spec", [bright_spec(), softmax_spec(2)], ids=["sigmoid", "softmax"])
def test_logits_and_votes_may_lie_on_a_gpu(spec: ModelSpec) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (spec.output_channels, 3, 8, 8)).astype(np.float32)
    votes = random.random((2, 3, 8, 8)).astype(np.float32)
    there = tally(device_arrays.asarray(logits), spec, 0.5, device_arrays.asarray(votes))
    assert there.numbers() == pytest.approx(tally(logits, spec, 0.5, votes).numbers(), rel=1e-5)
