"""Lines about the grid of a volume, and about the mask in it."""

import numpy as np
import pytest
from heads import head, lesion, model, picture, volume

from segtool.case import Case, LabelMap
from segtool.geometry import Geometry
from segtool.quality import Quality
from segtool.quality.grids import grid_warnings
from segtool.quality.learning import StatisticsLearner
from segtool.quality.masks import mask_facts
from segtool.spec_statistics import GridStatistics


def lines_of(shape: tuple[int, ...], spacing: tuple[float, ...], known: GridStatistics | None = None) -> list[str]:
    grid = Geometry.of_volume(shape, np.diag([*spacing, 1.0]))
    return list(grid_warnings(grid, known, "axial"))


@pytest.mark.parametrize(
    "shape, spacing, line",
    [
        ((240, 240, 155), (1, 1, 1), None),  # BraTS
        ((512, 512, 30), (0.47, 0.47, 5), None),
        ((30, 512, 512), (5, 0.47, 0.47), None),  # sagittal
        ((160, 160, 24), (1.4, 1.4, 3), None),
        ((192, 256, 256), (1, 0.9, 0.9), None),
        ((130, 160, 140), (1, 1, 1), None),  # the brain's box
        ((512, 512, 20), (1, 1, 1), "grid: the slices' distance is missing (or a thin slab: 512x512x20 voxels"),
        (
            (512, 512, 30),
            (5, 0.5, 0.5),
            "grid: axes and spacings look permuted (512x512x30 voxels of 5 x 0.5 x 0.5 mm)",
        ),
        ((240, 256, 30), (1, 2, 0.5), "grid: axes and spacings look permuted"),
        ((240, 240, 155), (0.05, 0.05, 0.05), "grid: voxels of no head (0.05 x 0.05 x 0.05 mm"),
        ((240, 240, 155), (1000, 1000, 1000), "grid: voxels of no head"),
        ((240, 240, 20), (0.9, 0.9, 10), None),
        ((240, 240, 100), (0.4, 0.4, 9), "grid: voxels of no head (0.4 x 0.4 x 9 mm, sides that differ more than 20"),
        ((512, 512, 1), (1, 1, 1), "grid: a field of no head (512 x 512 x 1 mm"),  # one slice has no distance
        ((256, 256, 1), (1, 1, 1), None),
        ((240, 240, 155), (0.3, 0.3, 0.3), "grid: a field of no head (72 x 72 x 46 mm"),
        ((256, 256, 155), (3, 3, 3), "grid: a field of no head (768 x 768 x 465 mm"),
    ],
)
def test_a_grid_that_no_head_has_is_told(shape: tuple[int, ...], spacing: tuple[float, ...], line: str | None) -> None:
    found = lines_of(shape, spacing)
    if line is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(line)
        assert found[0].endswith("check the header with `segtool inspect`")


def test_pictures_have_no_size_to_doubt() -> None:
    assert list(grid_warnings(Geometry.of_pixels((4, 4000)), None)) == []


KNOWN = GridStatistics(
    spacing_mm=((0.5, 1.0), (0.5, 1.0), (5.0, 6.0)), extent_mm=((100, 150), (200, 250), (200, 250)), planes=("coronal",)
)


def test_a_spacing_or_plane_that_training_never_had_is_told() -> None:
    thin, plane = lines_of((240, 240, 150), (1, 1, 1), KNOWN)
    assert thin.startswith("grid: widest spacing unlike training (1 mm, training 5 to 6 mm)")
    assert plane.startswith("grid: axial slices (training had coronal)")


def test_training_volumes_give_spacing_extent_and_planes() -> None:
    learner = StatisticsLearner(model("t1"))
    for seed in range(20):
        learner.add(volume([head(seed, size=64)] * 16, (2.0, 3.0, 5.0 + seed % 2)))
    grid = learner.finish().grid
    assert grid is not None
    assert grid.spacing_mm == ((2.0, 2.0), (3.0, 3.0), (5.0, 6.0))
    assert grid.extent_mm[0] == (80.0, 96.0)
    assert grid.planes == ("axial",)


# Masks


@pytest.fixture(scope="module")
def quality() -> Quality:
    spec, learner = model("t1"), StatisticsLearner(model("t1"))
    for seed in range(30):
        learner.add(picture(head(seed), mask=lesion()))
    return Quality(spec.model_copy(update={"statistics": learner.finish()}))


def _told(quality: Quality, case: Case, mask: np.ndarray) -> list[str]:
    return quality.of_result(case, quality.of_scan(case), LabelMap(mask, case.geometry))


CASE = picture(head(200))
HEAD = CASE.data[0] > 30


@pytest.mark.parametrize(
    "mask, line",
    [
        (lesion(), None),
        (lesion(radius=3), None),
        (np.zeros((96, 96), np.uint8), "mask: empty (as 0% of 30 training references were)"),
        (HEAD.astype(np.uint8), "mask: fills the head (9"),
        (lesion(radius=14), "mask: larger than those of the training (13% of the head, training at most 5.3%)"),
    ],
)
def test_a_mask_unlike_the_trainings_is_told(quality: Quality, mask: np.ndarray, line: str | None) -> None:
    found = _told(quality, CASE, mask)
    assert found == [] if line is None else len(found) == 1 and found[0].startswith(line)


def test_without_statistics_an_empty_mask_may_be_right_and_a_full_one_is_not() -> None:
    quality = Quality(model("t1"))
    assert _told(quality, CASE, np.zeros((96, 96), np.uint8)) == []
    assert _told(quality, CASE, HEAD.astype(np.uint8))[0].startswith(
        "mask: fills the head (97% of it, wanted at most 60%"
    )


def test_without_statistics_a_volume_in_which_nothing_is_marked_is_told() -> None:
    case = volume([head(seed) for seed in range(200, 208)])
    assert _told(Quality(model("t1")), case, np.zeros(case.geometry.shape, np.uint8)) == [
        "mask: empty (how often training references were, the model does not say): "
        "check that the scan shows what the model looks for"
    ]


def test_pictures_of_a_stack_have_a_scale_each_and_none_of_their_masks_lies_in_the_air() -> None:
    data = np.stack([head(seed) * (30 if seed % 3 else 1) for seed in range(200, 212)])
    case = Case("stack", data[np.newaxis], Geometry.of_pixels(data.shape))
    assert _told(Quality(model("t1")), case, np.stack([lesion()] * 12)) == []
    air = np.zeros(data.shape, np.uint8)
    air[:, :4, :] = 1
    assert _told(Quality(model("t1")), case, air)[0].startswith("mask: lies outside of the head (100% of it")


def test_a_mask_in_the_air_is_told_and_one_in_a_dark_cavity_is_not() -> None:
    quality, air = Quality(model("t1")), np.zeros((96, 96), np.uint8)
    air[:4, :] = 1
    assert _told(quality, CASE, air) == [
        "mask: lies outside of the head (100% of it, wanted at most 20%): check the scan with `segtool inspect`"
    ]
    hollow = CASE.data[0].copy()
    hollow[lesion() > 0] = 0
    assert _told(quality, picture(hollow), lesion()) == []


def test_hundreds_of_pieces_are_counted_exactly_and_a_ragged_mask_is_none() -> None:
    dots = np.zeros((96, 96), np.uint8)
    dots[8:88:6, 8:88:6] = 1  # 14 x 14
    case = picture(head(200))
    facts = mask_facts(case, dots, 20.0)
    assert facts.pieces == 196
    joined = dots.copy()
    joined[8, 8:87] = joined[8:87:1, 8] = 1  # joins 27 of them
    assert mask_facts(case, joined, 20.0).pieces == 196 - 26
    comb = np.zeros((96, 96), np.uint8)
    comb[10:90:2, 10:90] = comb[10:90, 10] = 1
    assert mask_facts(case, comb, 20.0).pieces == 0


def test_a_stack_says_in_how_many_of_its_pictures_the_mask_is_empty(quality: Quality) -> None:
    data = np.stack([head(seed) for seed in range(200, 204)])
    case = Case("stack", data[np.newaxis], Geometry.of_pixels(data.shape))
    mask = np.stack([lesion(), lesion() * 0, lesion(), lesion() * 0])
    assert _told(quality, case, mask) == [
        "mask: empty (in 2 of 4 pictures, as 0% of 30 training references were): "
        "check that the scan shows what the model looks for"
    ]
