from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from tiny import bright_spec, disc, write_model, write_pictures

from segtool.case import CaseSource, Source
from segtool.errors import OutputError, UsageError
from segtool.model_file import sha256
from segtool_export.evaluation import Evaluation, evaluate_items
from segtool_export.figures import draw_cases
from segtool_export.results import notes_on_cases
from segtool_train.data.base import Item


def picture_items(folder: Path, count: int) -> list[Item]:
    write_pictures(folder, count)
    return [
        Item(
            CaseSource(
                f"slice_{i}",
                {"t1ce": Source("png", (folder / f"slice_{i}.png",))},
                reference=Source("png", (folder / f"slice_{i}_mask.png",)),
            ),
            patient=f"p{i // 2}",
            group="glioma" if i % 2 else "meningioma",
        )
        for i in range(count)
    ]


def evaluate(tmp_path: Path, items: list[Item]) -> tuple[Path, Evaluation]:
    model = write_model(tmp_path / "model.onnx", bright_spec())
    return model, evaluate_items(model, items, tmp_path / "labels", "cpu", lambda _line: None)


def test_pictures_are_scored_in_the_order_of_the_items_whoever_is_ready_first(tmp_path: Path):
    items = picture_items(tmp_path / "scans", 6)
    model, evaluation = evaluate(tmp_path, items)
    assert [row.item for row in evaluation.rows] == [item.name for item in items]
    assert [(row.patient, row.group) for row in evaluation.rows[:3]] == [
        ("p0", "meningioma"),
        ("p0", "glioma"),
        ("p1", "meningioma"),
    ]
    # The tiny model labels what is bright, which is the disc.
    assert all(row.scores["tumour"].dice == 1.0 for row in evaluation.rows)
    # Its probability there is sigmoid(1 - 0.5), so that the soft precision is far below one.
    assert all(0.1 < row.scores["tumour"].soft_dice < 0.9 for row in evaluation.rows)
    report = evaluation.report(model, "test").as_dict()
    assert report["model_sha256"] == sha256(model)
    assert report["intervals"] == {"draw": "patients", "from": 3}


def test_a_stack_gives_a_row_and_a_picture_a_slice(tmp_path: Path):
    masks = np.stack([disc(centre=(12, 18)), disc(centre=(20, 12))])
    with h5py.File(tmp_path / "scans.h5", "w") as file:
        file["x"] = np.where(masks, 200, 30).astype(np.uint8)
        file["y"] = masks.astype(np.uint8)
    paths = (tmp_path / "scans.h5",)
    source = CaseSource("scans", {"t1ce": Source("hdf5", paths, "x")}, reference=Source("hdf5", paths, "y"))
    items = [Item(source, "p")]
    _, evaluation = evaluate(tmp_path, items)
    assert [row.name for row in evaluation.rows] == ["scans[0]", "scans[1]"]
    assert [row.scores["tumour"].dice for row in evaluation.rows] == [1.0, 1.0]
    labels = {"scans": evaluation.labels / str(evaluation.cases[0].output)}
    pictures = draw_cases(evaluation.rows, {"scans": items[0]}, labels, bright_spec(), tmp_path / "pictures")
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(picture.path) as opened:
            assert opened.size == (32, 32)


def test_a_case_without_a_reference_fails_alone(tmp_path: Path):
    items = picture_items(tmp_path / "scans", 2)
    items[0] = Item(CaseSource("bare", items[0].source.channels), "p")
    _, evaluation = evaluate(tmp_path, items)
    assert [case.status for case in evaluation.cases] == ["failed", "done"]
    assert "Add its mask" in str(evaluation.failures[0].error)
    assert len(evaluation.rows) == 1


def test_nothing_scored_is_an_error(tmp_path: Path):
    items = picture_items(tmp_path / "scans", 1)
    (tmp_path / "scans" / "slice_0.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="none of 1 cases could be scored"):
        evaluate(tmp_path, items)


def test_a_disk_that_takes_no_label_maps_is_no_fault_of_a_case(tmp_path: Path):
    items = picture_items(tmp_path / "scans", 2)
    (tmp_path / "labels").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        evaluate(tmp_path, items)


def test_what_reading_the_cases_had_to_decide_is_told_once_for_all(tmp_path: Path):
    """For the card: two of three references are JPEG."""
    items = picture_items(tmp_path / "scans", 3)
    for item in items[:2]:
        mask = item.source.reference
        assert mask is not None
        Image.open(mask.path).save(tmp_path / "scans" / f"{item.name}_mask.jpg", quality=90)
    lossy = [
        Item(replace(item.source, reference=Source("png", (tmp_path / "scans" / f"{item.name}_mask.jpg",))), "p")
        for item in items[:2]
    ]
    _, evaluation = evaluate(tmp_path, [*lossy, items[2]])
    said = "2 of 3 measured cases: mask compressed with losses: cut at 128 into labelled and not"
    assert notes_on_cases(evaluation) == [said]
