"""Lines about scans: each says what was found, and sound scans get none."""

from collections.abc import Callable

import numpy as np
import pytest
from heads import head, lesion, model, picture, volume

from segtool.case import Case
from segtool.quality import Quality
from segtool.quality.learning import FEWEST, StatisticsLearner
from segtool.spec import ModelSpec

RNG = np.random.default_rng(0)


def learnt(spec: ModelSpec, cases: list[Case]) -> ModelSpec:
    learner = StatisticsLearner(spec)
    for case in cases:
        learner.add(case)
    return spec.model_copy(update={"statistics": learner.finish()})


@pytest.fixture(scope="module")
def t1() -> Quality:
    return Quality(learnt(model("t1"), [picture(head(seed), mask=lesion()) for seed in range(100)]))


@pytest.fixture(scope="module")
def three() -> Quality:
    names = ("t1", "t2", "flair")
    return Quality(learnt(model(*names), [picture(*(head(seed, n) for n in names)) for seed in range(60)]))


def test_sound_scans_of_other_heads_get_no_line(t1: Quality) -> None:
    assert [t1.of_scan(picture(head(seed))).lines for seed in range(200, 300)].count([]) >= 98


@pytest.mark.parametrize("change", [lambda x: x * 17, lambda x: x + 500, lambda x: (x * 0.9).astype(np.int16)])
def test_the_unit_in_which_intensities_are_stored_does_not_matter(
    t1: Quality, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert t1.of_scan(picture(change(head(200)))).lines == []


FAULTS = {
    "t1: the background is as bright as the head": lambda x: x.max() - x,
    "t1: CT perhaps": lambda x: np.where(x < 20, -1000, x / 4).astype(np.int16),
    "t1: noise": lambda x: RNG.normal(100, 20, x.shape),
    "t1: nothing to be seen": lambda x: np.zeros_like(x),
    "t1: a mask or drawing perhaps": lambda x: np.digitize(x, [10, 60, 90, 120, 150]) * 10,
}


@pytest.mark.parametrize("line", FAULTS)
@pytest.mark.parametrize("known", [True, False])
def test_faults_that_need_no_statistics_are_told_with_and_without(t1: Quality, line: str, known: bool) -> None:
    quality = t1 if known else Quality(model("t1"))
    (found,) = quality.of_scan(picture(FAULTS[line](head(200)))).lines
    assert found.startswith(line)
    assert "): " in found  # what was found stands in brackets, what to do behind


@pytest.mark.parametrize("other", ["t2", "flair"])
def test_another_sequence_is_unlike_the_training(t1: Quality, other: str) -> None:
    (line,) = t1.of_scan(picture(head(200, other))).lines
    assert "unlike those of the training" in line
    assert "`segtool inspect`" in line
    assert Quality(model("t1")).of_scan(picture(head(200, other))).lines == []


def test_a_volume_is_held_against_eight_training_pictures_together(t1: Quality) -> None:
    assert t1.of_scan(volume([head(seed) for seed in range(300, 324)])).lines == []
    (line,) = t1.of_scan(volume([head(seed, "flair") for seed in range(300, 324)])).lines
    assert "unlike those of the training" in line


@pytest.mark.parametrize(
    "given, line",
    [
        ("t1 t2 flair", None),
        ("t1 flair t2", "channels exchanged: t2 looks like flair, flair looks like t2"),
        ("t2 t1 flair", "channels exchanged: t1 looks like t2, t2 looks like t1"),
        ("flair t1 t2", "channels exchanged: t1 looks like flair, t2 looks like t1, flair looks like t2"),
        ("t1 t2 t2", "t2 and flair hold the same image"),
    ],
)
def test_channels_in_another_order_are_named(three: Quality, given: str, line: str | None) -> None:
    lines = three.of_scan(picture(*(head(200, name) for name in given.split()))).lines
    assert lines == [] if line is None else lines[0].startswith(line) and len(lines) == 1


def test_channels_that_hold_one_image_are_named_without_statistics() -> None:
    same = head(0)
    lines = Quality(model("t1", "t2")).of_scan(picture(same, same)).lines
    assert lines == ["t1 and t2 hold the same image: give each its own file, or pass --channel NAME=PATTERN"]
    assert Quality(model("t1", "t2")).of_scan(picture(same, head(1))).lines == []


def test_channels_that_show_nothing_are_not_said_to_hold_one_image(three: Quality) -> None:
    blank = np.zeros((96, 96), np.float32)
    lines = three.of_scan(picture(head(200), blank, blank)).lines
    assert [line.partition(" (")[0] for line in lines] == ["t2: nothing to be seen", "flair: nothing to be seen"]


def test_a_broken_channel_is_not_said_to_be_another(three: Quality) -> None:
    t1, t2, flair = (head(200, name) for name in ("t1", "t2", "flair"))
    assert three.of_scan(picture(t1, t2.max() - t2, flair)).lines == [
        "t2: the background is as bright as the head (MONOCHROME1 perhaps): invert the grey values"
    ]


@pytest.mark.parametrize("value", [1e30, -1e30, 3e38, -3e38])
@pytest.mark.parametrize("side", [1, 20])
def test_voxels_beyond_all_bounds_make_no_look_undefined(three: Quality, value: float, side: int) -> None:
    broken = head(200, "t2")
    broken[40 : 40 + side, 40 : 40 + side] = value
    case = picture(head(200), broken, head(200, "flair"))
    for look in three.of_scan(case).looks:
        assert look is None or np.isfinite(look.features).all()


@pytest.mark.parametrize("scale", [1e-43, 1e-30, 1e34, 1e36])
def test_the_least_and_the_largest_unit_is_as_good_as_any(three: Quality, scale: float) -> None:
    channels = [(head(200, name) * np.float32(scale)).astype(np.float32) for name in ("t1", "t2", "flair")]
    looks = three.of_scan(picture(*channels)).looks
    assert all(look is not None and np.isfinite(look.features).all() for look in looks)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (5, 5), (7, 6), (2000, 3)])
def test_tiny_pictures_are_looked_at_without_an_error(t1: Quality, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    case = picture(pixels)
    lines = t1.of_scan(case).lines
    assert len(lines) <= 1
    assert all("): " in line for line in lines)


def test_one_picture_is_not_held_against_the_means_of_eight() -> None:
    volumes = [volume([head(seed * 8 + i) for i in range(8)]) for seed in range(30)]
    quality = Quality(learnt(model("t1"), volumes))
    assert [quality.of_scan(picture(head(seed))).lines for seed in range(1000, 1050)] == [[]] * 50
    (line,) = quality.of_scan(volume([head(seed, "flair") for seed in range(300, 308)])).lines
    assert "unlike those of the training" in line


def test_a_grey_picture_for_a_model_of_colours_is_no_image_given_thrice() -> None:
    same = head(0)
    assert Quality(model("red", "green", "blue")).of_scan(picture(same, same, same)).lines == []


def test_a_screenshot_of_a_scan_is_told_where_training_had_more_than_bytes() -> None:
    quality = Quality(learnt(model("t1"), [picture(head(seed, scale=3000.0)) for seed in range(40)]))
    assert quality.of_scan(picture(head(100, scale=3000.0))).lines == []
    (line,) = quality.of_scan(picture(head(100).astype(np.uint8))).lines
    assert line.startswith("t1: stored in 8 bits (training had values up to 2")


def test_statistics_of_few_cases_are_refused_with_what_is_needed() -> None:
    from segtool.errors import UsageError

    with pytest.raises(UsageError, match=rf"of 3 cases.*needed {FEWEST}.*Give more"):
        learnt(model("t1"), [picture(head(seed)) for seed in range(3)])


def test_a_training_case_that_shows_nothing_is_left_out() -> None:
    cases = [picture(head(seed)) for seed in range(FEWEST)]
    spec = learnt(model("t1"), [*cases, picture(np.zeros((96, 96), np.float32))])
    assert spec.statistics is not None
    assert spec.statistics.cases == FEWEST


def test_statistics_go_through_json_and_raise_the_schema(t1: Quality) -> None:
    spec = learnt(model("t1"), [picture(head(seed), mask=lesion()) for seed in range(30)])
    assert spec.schema_version == 5
    assert model("t1").schema_version == 1
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_statistics_of_looks_that_this_version_does_not_take_are_no_spec(t1: Quality) -> None:
    spec = learnt(model("t1"), [picture(head(seed)) for seed in range(30)])
    raw = spec.model_dump(mode="json")
    raw["statistics"]["channels"][0]["histogram"] = [0.0, 1.0]
    with pytest.raises(ValueError, match="looks of 33 numbers, 2 of a histogram: not 33 and 16"):
        ModelSpec.model_validate(raw)


def test_statistics_of_another_number_of_channels_are_no_spec() -> None:
    spec = learnt(model("t1"), [picture(head(seed)) for seed in range(30)])
    with pytest.raises(ValueError, match="statistics of 1 channels"):
        ModelSpec.model_validate(model("t1", "t2").model_dump() | {"statistics": spec.statistics})
