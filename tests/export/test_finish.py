import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from finished_run import Finished
from PIL import Image

from segtool.errors import OutputError, UsageError
from segtool.model_file import read_spec, sha256, write_spec
from segtool_export.finish import _without_paths, finish_run
from segtool_export.run_card import run_card
from segtool_train.finishing import finish
from segtool_train.run_folder import RunFolder


def results_of(run: Path) -> dict:
    return json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """The run as training left it."""
    left_out = shutil.ignore_patterns("evaluation", "card.md", "model.onnx", "learnt.json")
    shutil.copytree(finished.run, tmp_path / "run", ignore=left_out)
    return tmp_path / "run"


def test_a_finished_run_holds_model_figures_pictures_and_card(finished: Finished):
    found = {path.relative_to(finished.run).as_posix() for path in finished.run.rglob("*") if path.is_file()}
    labels = {path for path in found if path.startswith("evaluation/labels/")}
    assert len(labels) == 10  # five test patients with two slices each
    assert {
        "model.onnx",
        "card.md",
        "learnt.json",
        "evaluation/report.json",
        "evaluation/report.csv",
        "evaluation/results.json",
        "evaluation/histograms_tumour.png",
        "evaluation/pictures/best-1.png",
        "evaluation/pictures/worst-1.png",
    } <= found


def test_the_figures_are_of_the_test_cases_alone(finished: Finished):
    split = RunFolder(finished.run).read_split()
    with (finished.run / "evaluation" / "report.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == set(split.test)
    dice = np.mean([float(row["dice"]) for row in rows])
    tumour = results_of(finished.run)["structures"]["all"]["tumour"]
    assert tumour["dice_mean_with_reference"] == pytest.approx(dice, abs=1e-6)
    assert dice > 0.8


def test_label_maps_have_the_scans_own_size(finished: Finished):
    for path in (finished.run / "evaluation" / "labels").iterdir():
        with Image.open(path) as picture:
            assert picture.size == (64, 64)
            assert set(np.unique(np.asarray(picture))) <= {0, 1}


def test_classes_add_up_to_all(finished: Finished):
    groups = results_of(finished.run)["structures"]
    assert list(groups) == ["all", "glioma", "meningioma"]
    cases = {name: rows["tumour"]["n"] for name, rows in groups.items()}
    assert cases["all"] == cases["glioma"] + cases["meningioma"]


def test_the_card_states_what_was_measured_and_of_which_file(finished: Finished):
    card = (finished.run / "card.md").read_text(encoding="utf-8")
    tumour = results_of(finished.run)["structures"]["all"]["tumour"]
    assert sha256(finished.run / "model.onnx") in card
    assert f"{tumour['dice_mean_with_reference']:.4f}" in card
    assert f"{tumour['soft_iou_mean_with_reference']:.4f}" in card
    assert "**Not a medical device.**" in card
    assert "No patient is on two sides" in card
    assert "set `[spec.provenance] licence`" in card
    pictures = [part.partition(")")[0] for part in card.split("](")[1:]]
    assert len(pictures) > 3
    assert all((finished.run / picture).is_file() for picture in pictures)


def test_the_card_says_that_the_set_is_named_by_the_recipe_alone(finished: Finished, tmp_path: Path):
    model = tmp_path / "model.onnx"
    spec = read_spec(finished.run / "model.onnx")
    named = spec.model_copy(update={"provenance": {**spec.provenance, "data": "Discs"}})
    write_spec(finished.run / "model.onnx", named, model)
    card = run_card(RunFolder(finished.run), model, results_of(finished.run))
    assert "Discs, licence not stated. So the recipe says" in card
    # The recipe of this run named none.
    assert "was not checked" not in (finished.run / "card.md").read_text(encoding="utf-8")


def test_the_report_names_the_file_as_it_is_now(finished: Finished):
    report = json.loads((finished.run / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert report["model_sha256"] == sha256(finished.run / "model.onnx")
    assert report["options"] == {"side": "test"}
    assert report["intervals"] == {"draw": "patients", "from": 5}
    assert report["counts"] == {"cases": 10, "done": 10, "failed": 0, "skipped": 0}


def test_the_model_file_knows_its_figures(finished: Finished):
    spec = read_spec(finished.run / "model.onnx")
    tumour = results_of(finished.run)["structures"]["all"]["tumour"]
    stored = spec.provenance["metrics"]["test"]["tumour"]
    assert stored["dice"] == pytest.approx(tumour["dice_mean_with_reference"], abs=1e-6)


def test_nothing_says_whose_scans_they_are(finished: Finished):
    # The patients of the tiny set are called 0 to 24, its cases 0000 to 0049.
    for row in json.loads((finished.run / "evaluation" / "report.json").read_text(encoding="utf-8"))["cases"]:
        assert "patient" not in row


def test_finishing_again_gives_the_same_figures_without_the_cache(finished: Finished, copied: Path):
    where = json.loads((copied / "data.json").read_text(encoding="utf-8")) | {"cache": "gone"}
    (copied / "data.json").write_text(json.dumps(where), encoding="utf-8")
    finish_run(copied, device="cpu", log=lambda _line: None)
    again, before = results_of(copied), results_of(finished.run)
    del again["elapsed_s"], before["elapsed_s"]
    assert again == before


def test_without_test_patients_the_validation_patients_are_measured_and_the_card_says_so(copied: Path):
    split = json.loads((copied / "split.json").read_text(encoding="utf-8"))
    (copied / "split.json").write_text(json.dumps(split | {"test": [], "test_patients": []}), encoding="utf-8")
    facts = finish_run(copied, learn=False, device="cpu", log=lambda _line: None)
    assert facts["side"] == "validation"
    card = (copied / "card.md").read_text(encoding="utf-8")
    assert "the **validation** patients" in card
    assert "no figure here is independent" in card
    assert not (copied / "learnt.json").exists()


def test_a_run_without_held_out_cases_gets_its_model_alone(copied: Path):
    split = json.loads((copied / "split.json").read_text(encoding="utf-8"))
    nobody = {f"{side}{what}": [] for side in ("test", "validation") for what in ("", "_patients")}
    (copied / "split.json").write_text(json.dumps(split | nobody), encoding="utf-8")
    lines: list[str] = []
    assert list(finish_run(copied, device="cpu", log=lines.append)) == ["model"]
    assert (copied / "model.onnx").is_file()
    assert not (copied / "card.md").exists()
    assert "no card is written" in lines[-1]


def test_patients_on_two_sides_are_said_plainly(finished: Finished):
    results = results_of(finished.run) | {"patients_on_two_sides": 7, "patients_leaking": 7, "split_rule": "by slice"}
    card = run_card(RunFolder(finished.run), finished.run / "model.onnx", results)
    assert "**7 patients are on two sides**" in card
    assert "nothing here says how it does on new patients" in card
    card = run_card(RunFolder(finished.run), finished.run / "model.onnx", results | {"patients_leaking": 0})
    assert "7 patients are on two sides, none of them among those measured here" in card
    assert "new patients" not in card


def test_where_the_data_lies_is_not_published(finished: Finished):
    data = json.loads((finished.run / "data.json").read_text(encoding="utf-8"))["data"]
    assert _without_paths([f"{data}: 3 folders"], RunFolder(finished.run)) == ["discs: 3 folders"]
    for name in ("card.md", "evaluation/results.json", "evaluation/report.json"):
        assert data not in (finished.run / name).read_text(encoding="utf-8")


def test_missed_cases_and_unmeasured_ones_are_limits(finished: Finished):
    results = results_of(finished.run)
    results["structures"]["all"]["tumour"]["n_dice_0"] = 3
    card = run_card(RunFolder(finished.run), finished.run / "model.onnx", results | {"failures": 2})
    assert "tumour was not found (Dice 0) in 3 of 10 slices" in card
    assert "2 cases could not be measured" in card


def test_a_case_that_cannot_be_read_fails_alone(copied: Path, tmp_path: Path):
    data = Path(json.loads((copied / "data.json").read_text(encoding="utf-8"))["data"])
    shutil.copytree(data, tmp_path / "data")
    name = RunFolder(copied).read_split().test[0]
    (tmp_path / "data" / "images" / f"{name}.png").write_bytes(b"no picture")
    where = json.loads((copied / "data.json").read_text(encoding="utf-8")) | {"data": str(tmp_path / "data")}
    (copied / "data.json").write_text(json.dumps(where), encoding="utf-8")
    lines: list[str] = []
    finish_run(copied, learn=False, device="cpu", log=lines.append)
    assert [line for line in lines if line.startswith(f"failed  {name}")]
    assert results_of(copied)["failures"] == 1
    assert results_of(copied)["cases"] == 9


def test_what_stops_the_finish_leaves_the_run_and_is_one_line(copied: Path, tmp_path: Path):
    before = {path: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    where = json.loads((copied / "data.json").read_text(encoding="utf-8")) | {"data": str(tmp_path / "gone")}
    (copied / "data.json").write_text(json.dumps(where), encoding="utf-8")
    with pytest.raises(
        OutputError, match=r"trained, but not finished.*no such folder.*segtool export .* --card"
    ) as caught:
        finish(copied, learn=True, device="cpu", log=lambda _line: None)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != "data.json")


def test_cases_that_are_gone_are_named(copied: Path):
    split = json.loads((copied / "split.json").read_text(encoding="utf-8"))
    (copied / "split.json").write_text(json.dumps(split | {"test": ["9999"]}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"1 of 1 test cases .*'9999'.*Restore the data"):
        finish_run(copied, device="cpu", log=lambda _line: None)


def test_the_export_package_hooks_into_training():
    from importlib.metadata import entry_points

    from segtool_train.finishing import GROUP

    assert [point.value for point in entry_points(group=GROUP)] == ["segtool_export.finish:finish_run"]
