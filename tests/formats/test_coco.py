"""COCO annotations: outlines drawn by hand, and files that are wrong."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.case import Source
from segtool.errors import UnreadableFileError
from segtool.formats import label_reader
from segtool.formats.coco import read_annotations
from segtool.formats.coco_shapes import box_mask, polygon_mask, read_runs, runs_mask


def drawn(mask):
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


def polygon(*corners, shape=(4, 6)):
    return drawn(polygon_mask(np.array(corners, float), shape))


def saved(folder, objects, **changes):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": [{"id": n, "image_id": 1, "category_id": 1, **row} for n, row in enumerate(objects)],
        "categories": [{"id": 0, "name": "all"}, {"id": 1, "name": "core"}, {"id": 2, "name": "rim"}],
        **changes,
    }
    (folder / "c.json").write_text(json.dumps(content))
    return Source("coco", (folder / "c.json",), dataset="a.png")


def read(source):
    return label_reader("coco").read_labels(source)


@pytest.mark.parametrize(
    ("corners", "wanted"),
    [
        pytest.param([(1, 1), (4, 1), (4, 3), (1, 3)], ["......", ".###..", ".###..", "......"], id="whole pixels"),
        pytest.param([(1, 3), (4, 3), (4, 1), (1, 1)], ["......", ".###..", ".###..", "......"], id="the other way"),
        pytest.param([(1.4, 0), (4.6, 0), (4.6, 1), (1.4, 1)], [".####.", *["......"] * 3], id="holds centres"),
        pytest.param([(1.6, 0), (4.4, 0), (4.4, 1), (1.6, 1)], ["..##..", *["......"] * 3], id="does not"),
        pytest.param([(0, 0), (4, 0), (0, 4)], ["###...", "##....", "#.....", "......"], id="triangle"),
        pytest.param([(-9, -9), (99, -9), (99, 99), (-9, 99)], ["######"] * 4, id="beyond the picture"),
        pytest.param([(9, 0), (12, 0), (12, 4)], ["......"] * 4, id="outside"),
        pytest.param([(1, 1), (1, 1), (1, 1)], ["......"] * 4, id="a point"),
        pytest.param(
            [(0, 0), (6, 0), (6, 4), (0, 4), (0, 0), (2, 1), (2, 3), (4, 3), (4, 1), (2, 1)],
            ["######", "##..##", "##..##", "######"],
            id="a hole by the even-odd rule",
        ),
    ],
)
def test_a_pixel_is_inside_where_its_centre_is(corners, wanted):
    assert polygon(*corners) == wanted


corner = st.tuples(st.integers(0, 24), st.integers(0, 24))


@settings(max_examples=60, deadline=None)
@given(st.lists(corner, min_size=3, max_size=3, unique=True), corner)
def test_two_triangles_share_no_pixel_along_their_common_edge(triangle, apex):
    """Cut a triangle at an inner point of an edge: its parts are disjoint and make up the whole."""
    (ax, ay), (bx, by), c = triangle
    middle = ((ax + bx) / 2, (ay + by) / 2)
    parts = [polygon_mask(np.array([p, middle, c], float), (24, 24)) for p in ((ax, ay), (bx, by))]
    whole = polygon_mask(np.array(triangle, float), (24, 24))
    assert not (parts[0] & parts[1]).any()
    np.testing.assert_array_equal(parts[0] | parts[1], whole)


def test_a_box_is_its_corners():
    assert drawn(box_mask([1, 1, 3, 2], (4, 6))) == ["......", ".###..", ".###..", "......"]


def test_run_lengths_go_down_the_columns_and_begin_with_background():
    assert drawn(runs_mask([1, 2, 2, 1, 0], (2, 3))) == [".#.", "#.#"]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("61", [6, 1], id="a letter a number"),
        pytest.param("X1", [40], id="8 + 32 * 1"),
        pytest.param("61X1", [6, 1, 40], id="the third is still itself"),
        pytest.param("61X13", [6, 1, 40, 4], id="the fourth is a difference: 1 + 3"),
        pytest.param("61X13mN", [6, 1, 40, 4, 5], id="29 + 32 * 30 - 1024 = -35, and 40 - 35"),
        pytest.param("61X13mN000`0", [6, 1, 40, 4, 5, 4, 5, 4, 21], id="the format's own example"),
    ],
)
def test_compressed_run_lengths(text, counts):
    assert read_runs(text) == counts


@pytest.mark.parametrize("text", ["X", "6 1", "é", "p"])
def test_letters_that_are_no_run_lengths_are_refused(text):
    with pytest.raises(ValueError, match="run lengths"):
        read_runs(text)


@pytest.mark.parametrize(
    "outline",
    [
        {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        {"segmentation": [[1, 1, 4, 1, 4, 2, 1, 2], [1, 2, 4, 2, 4, 3, 1, 3]]},
        {"bbox": [1, 1, 3, 2]},
        {"segmentation": [], "bbox": [1, 1, 3, 2]},
        {"segmentation": {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]}},
        {"segmentation": {"size": [4, 6], "counts": "5220007"}},
    ],
)
def test_every_kind_of_outline_gives_the_same_mask(tmp_path, outline):
    labels = read(saved(tmp_path, [outline])).labels
    assert labels.dtype == np.uint8
    assert drawn(labels) == ["......", ".###..", ".###..", "......"]


def test_many_objects_take_their_category_s_value_and_the_later_one_wins(tmp_path):
    source = saved(tmp_path, [{"bbox": [0, 0, 4, 4]}, {"bbox": [3, 1, 3, 1], "category_id": 2}])
    assert read(source).labels.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 2, 2, 2], *[[1, 1, 1, 1, 0, 0]] * 2]


def test_where_a_category_has_the_id_0_all_values_are_one_more(tmp_path):
    source = saved(tmp_path, [{"bbox": [0, 0, 1, 1], "category_id": 0}, {"bbox": [1, 0, 1, 1], "category_id": 2}])
    assert read(source).labels[0].tolist() == [1, 3, 0, 0, 0, 0]
    assert read_annotations(source.path).values == {0: 1, 2: 3}


def test_a_picture_without_objects_is_background_and_one_unlisted_has_no_reference(tmp_path):
    source = saved(tmp_path, [])
    assert not read(source).labels.any()
    assert read(Source("coco", source.paths, dataset="b.png")) is None


def test_a_file_is_parsed_once_and_again_when_it_changes(tmp_path):
    source = saved(tmp_path, [])
    first = read_annotations(source.path)
    assert read_annotations(source.path) is first
    saved(tmp_path, [{"bbox": [0, 0, 1, 1]}])
    assert read(source).labels.any()


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"images": None}, "images is no list.*Export"),
        ({"images": [{"id": 1}]}, "no file_name in a row of images"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, "no height and width. Add both"),
        (
            {"images": [{"id": 1, "file_name": "a.png", "height": 10**6, "width": 10**6}]},
            "--limit drawn_pixels=1000000000000",
        ),
        ({"images": [{"id": n, "file_name": "a.png"} for n in (1, 2)]}, "'a.png' is listed twice.*Mend it"),
        ({"images": [{"id": n, "file_name": f"{i}"} for i, n in enumerate((1, 2, 2))]}, "id 2, the second .* is '2'"),
        ({"annotations": [{"image_id": 1}]}, "no category_id in a row of annotations.*Export"),
        ({"annotations": [{"image_id": 1, "category_id": "core"}]}, "id of a category is 'core'"),
        ({"annotations": [{"image_id": 1, "category_id": -2}]}, "category ids from -2"),
        ({"annotations": [[]]}, "a row of annotations is no object"),
    ],
)
def test_a_file_that_is_no_coco_is_one_line_with_a_remedy(tmp_path, changes, remedy):
    source = saved(tmp_path, [], **changes)
    with pytest.raises(UnreadableFileError, match=remedy) as caught:
        read(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("outline", "problem"),
    [
        ({}, "neither an outline nor a box"),
        ({"bbox": [1, 2, 3]}, "wanted x, y, width, height"),
        ({"bbox": [1, 2, float("nan"), 3]}, "wanted x, y, width, height"),
        ({"bbox": [3, 3, -2, -2]}, "wanted x, y, width, height"),
        ({"bbox": [1e308, 0, 1e308, 1]}, "wanted x, y, width, height"),
        ({"bbox": "1234"}, "bbox is no list"),
        ({"segmentation": [[-1e308, 0, 1e308, 0, 1e308, 1]]}, "outside any picture"),
        ({"segmentation": [[1, 1, float("nan"), 1, 4, 3]]}, "no number"),
        ({"segmentation": [[1, 1, 4, 1]]}, "at least three x, y pairs"),
        ({"segmentation": [[1, 1, 4, 1, 4, 3, 1]]}, "at least three x, y pairs"),
        ({"segmentation": [["a"] * 6]}, "annotation 0"),
        ({"segmentation": "5220007"}, "segmentation is no list"),
        ({"segmentation": {"size": [6, 4], "counts": [24]}}, "for \\[6, 4\\] pixels"),
        ({"segmentation": {"size": [4, 6], "counts": [23]}}, "add up to 23 pixels, the picture has 24"),
        ({"segmentation": {"size": [4, 6], "counts": [25, -1]}}, "a run length is -1"),
        ({"segmentation": {"size": 4, "counts": [24]}}, "for 4 pixels"),
        ({"segmentation": {"size": [4, 6], "counts": "X"}}, "end inside a number"),
        ({"segmentation": {"size": [4, 6]}}, "counts is no list"),
    ],
)
def test_an_outline_that_cannot_be_drawn_names_its_annotation(tmp_path, outline, problem):
    source = saved(tmp_path, [outline])
    with pytest.raises(UnreadableFileError, match=problem) as caught:
        read(source)
    assert "annotation 0 of 'a.png' cannot be drawn" in str(caught.value)
    assert "Mend it" in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"7"])
def test_a_file_that_is_no_json_is_one_line_with_a_remedy(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="again"):
        read_annotations(path)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    source = saved(tmp_path, [{"bbox": [0, 0, 1, 1]}])
    source.path.write_text(source.path.read_text(), encoding="utf-8-sig")
    assert read(source).labels.any()


def test_a_broken_file_is_not_parsed_for_every_picture_again(tmp_path, monkeypatch):
    path = tmp_path / "c.json"
    path.write_text("{")
    with pytest.raises(UnreadableFileError):
        read_annotations(path)
    monkeypatch.setattr("segtool.formats.coco.json.loads", pytest.fail)
    with pytest.raises(UnreadableFileError, match="truncated or corrupt"):
        read_annotations(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"gone\.json"):
        read_annotations(tmp_path / "gone.json")
