import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.data.split import Split
from segtool_train.folds import FoldsOutcome, run_folds, to_markdown
from segtool_train.recipe import Recipe, parse_recipe
from segtool_train.training import Options


def read(values: dict[str, Any]) -> Recipe:
    return parse_recipe(RECIPE, "discs", "discs.toml", {"training.epochs": 1, "network.width": 2, **values})


def make_model(run: Path) -> None:
    """Stands for the export."""
    (run / "model.onnx").touch()


@pytest.fixture(scope="module")
def folded(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FoldsOutcome]:
    folder = tmp_path_factory.mktemp("folds")
    return folder, run_folds(read, 3, Options(discs, folder, device="cpu"), lambda _line: None, make_model)


def test_every_patient_is_held_out_in_exactly_one_fold(folded: tuple[Path, FoldsOutcome]):
    folder, _ = folded
    held_out = [Split.read(folder / f"fold-{fold}" / "split.json").test_patients for fold in range(3)]
    assert sorted(patient for patients in held_out for patient in patients) == sorted(str(n) for n in range(10))


def test_mean_and_spread_are_over_folds_and_by_class(folded: tuple[Path, FoldsOutcome]):
    folder, outcome = folded
    for name in ("dice", "dice_glioma"):
        values = [row[name] for row in outcome.rows if name in row]
        assert outcome.mean[name] == pytest.approx(sum(values) / len(values))
        assert outcome.spread[name] == pytest.approx(statistics.stdev(values))
    rows = list(csv.DictReader((folder / "folds.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["fold"] for row in rows] == ["0", "1", "2", "mean", "sd"]
    assert float(rows[3]["dice"]) == pytest.approx(outcome.mean["dice"], abs=1e-5)
    stored = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
    assert len(stored["folds"]) == 3
    assert stored["sd"]["dice"] == outcome.spread["dice"]


def test_the_models_of_the_folds_are_named_for_an_ensemble(folded: tuple[Path, FoldsOutcome]):
    folder, outcome = folded
    assert outcome.models == tuple(folder / f"fold-{fold}" / "model.onnx" for fold in range(3))


def test_folds_resume_without_training_again_and_refuse_another_recipe(discs: Path, folded: tuple[Path, FoldsOutcome]):
    folder, outcome = folded
    options = Options(discs, folder, device="cpu", resume=True)
    lines: list[str] = []
    assert run_folds(read, 3, options, lines.append, make_model) == outcome
    assert not any(line.startswith("epoch") for line in lines)
    # Stopped between its last epoch and its scores.
    (folder / "fold-1" / "fold.json").unlink()
    assert run_folds(read, 3, options, lines.append, make_model) == outcome
    assert not any(line.startswith("epoch") for line in lines)
    with pytest.raises(UsageError, match="Pass --resume"):
        run_folds(read, 3, Options(discs, folder, device="cpu"), lines.append)
    with pytest.raises(UsageError, match="Resume with the same recipe"):
        run_folds(read, 2, options, lines.append)


def test_the_table_has_a_column_a_fold_and_leaves_out_what_a_fold_lacks():
    files = (Path("a"), Path("b"), Path("c"))
    rows = ({"dice": 0.5, "dice_glioma": 0.25, "iou_glioma": 0.2}, {"dice": 0.7})
    outcome = FoldsOutcome(rows, {"dice": 0.6, "dice_glioma": 0.25, "iou_glioma": 0.2}, {"dice": 0.1414}, files, ())
    assert to_markdown(outcome).splitlines() == [
        "| held out | fold 0 | fold 1 | mean ± sd |",
        "| --- | --- | --- | --- |",
        "| dice | 0.5000 | 0.7000 | 0.6000 ± 0.1414 |",
        "| dice_glioma | 0.2500 |  | 0.2500 |",
    ]
