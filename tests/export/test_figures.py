import math
from pathlib import Path

import numpy as np
from evaluation_rows import row
from PIL import Image
from tiny import bright_spec, write_pictures

from segtool.case import CaseSource, Source
from segtool_export.figures import choose, draw_cases, draw_histograms, mean_dice
from segtool_train.data.base import Item


def test_the_best_come_first_and_the_worst_last():
    rows = [row(str(i), i / 10) for i in (3, 9, 1, 7, 5, 8, 2, 6, 4)]
    chosen = choose(rows)
    assert {what: one.item for what, one in chosen.items()} == {
        "best-1": "9",
        "best-2": "8",
        "best-3": "7",  # the upper quartile is the same case
        "worst-3": "3",
        "worst-2": "2",
        "worst-1": "1",
    }


def test_quartiles_of_many_cases():
    chosen = choose([row(str(i), i / 100) for i in range(101)])
    assert chosen["upper-quartile"].item == "75"
    assert chosen["lower-quartile"].item == "25"


def test_few_cases_are_shown_once():
    assert [one.item for one in choose([row("a", 0.2), row("b", 0.4)]).values()] == ["b", "a"]
    assert choose([row("a", math.nan, in_reference=False)]) == {}


def test_a_row_without_any_structure_has_no_dice():
    assert math.isnan(mean_dice(row("a", math.nan, in_reference=False)))


def test_a_histogram_of_every_measure_is_one_picture(tmp_path: Path):
    draw_histograms([row("a", 0.2), row("b", 0.4)], "tumour", tmp_path / "histograms.png")
    with Image.open(tmp_path / "histograms.png") as picture:
        assert picture.size[0] > 1000
        # Dice, IoU, precision, recall and HD95 above, soft Dice below
        assert picture.size[1] > 300


def test_pictures_show_both_contours(tmp_path: Path):
    (mask,) = write_pictures(tmp_path, 1)
    scan, reference = Source("png", (tmp_path / "slice_0.png",)), Source("png", (tmp_path / "slice_0_mask.png",))
    item = Item(CaseSource("slice_0", {"t1ce": scan}, reference=reference), "p")
    labels = tmp_path / "labels" / "slice_0.png"
    labels.parent.mkdir()
    Image.fromarray(np.roll(mask, 3, axis=1).astype(np.uint8)).save(labels)
    rows = [row("slice_0", 0.5)]
    (picture,) = draw_cases(rows, {"slice_0": item}, {"slice_0": labels}, bright_spec(), tmp_path / "pictures")
    assert picture.path == tmp_path / "pictures" / "best-1.png"
    with Image.open(picture.path) as opened:
        colours = {tuple(pixel) for pixel in np.asarray(opened.convert("RGB")).reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (0, 255, 0)} <= colours
