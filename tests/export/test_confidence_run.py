"""The temperature of a trained run: learnt on validation, measured on test, in file, results and card."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from finished_run import Finished

from segtool.errors import ModelError
from segtool.model_file import read_spec
from segtool_export import confidence
from segtool_export.card import believed
from segtool_export.confidence import CONFIDENCE, learn_confidence, ranked, with_confidence
from segtool_export.exporting import export_run
from segtool_export.figures import draw_reliability
from segtool_train.run_folder import RunFolder


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "cache"))
    return RunFolder(tmp_path / "run")


def results(finished: Finished) -> dict:
    return json.loads((finished.run / "evaluation" / "results.json").read_text(encoding="utf-8"))["confidence"]


def test_file_results_and_card_agree(finished: Finished) -> None:
    spec, found = read_spec(finished.run / "model.onnx"), results(finished)
    assert spec.confidence is not None
    validation = found["sides"]["validation"]
    assert spec.confidence.temperature == found["temperature"]
    assert (spec.confidence.ece_before, spec.confidence.ece_after) == tuple(
        validation[which]["ece"] for which in ("before", "after")
    )
    assert spec.confidence.cases == validation["cases"] == found["sides"]["test"]["cases"] == 10
    assert spec.provenance["calibration"] == {key: found[key] for key in ("temperature", "sides", "ranking")}
    card = (finished.run / "card.md").read_text(encoding="utf-8")
    assert "\n\n".join(believed(found)) in card
    assert f"![reliability diagram]({found['picture']})" in card
    assert (finished.run / found["picture"]).read_bytes().startswith(b"\x89PNG")


def test_the_temperature_lowers_the_likelihoods_loss_where_it_was_learnt(finished: Finished) -> None:
    validation = results(finished)["sides"]["validation"]
    assert validation["after"]["nll"] <= validation["before"]["nll"]
    assert sum(count for count, _, _ in validation["after"]["bins"]) == validation["voxels"]


def test_the_report_of_the_evaluation_has_confidence_by_case(finished: Finished) -> None:
    report = json.loads((finished.run / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert all("expected_dice" in case["confidence"] for case in report["cases"])


def test_a_later_export_of_the_same_weights_carries_it(run: RunFolder, finished: Finished, tmp_path: Path) -> None:
    spec = export_run(run.path, tmp_path / "again.onnx", None, 17).spec
    assert spec.confidence == read_spec(finished.run / "model.onnx").confidence


def test_other_weights_do_not_and_a_damaged_file_is_refused(run: RunFolder) -> None:
    path = run.path / CONFIDENCE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights_sha256": "0" * 64}), encoding="utf-8")
    assert with_confidence(run, run.read_spec()) == run.read_spec()
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="Remove it"):
        with_confidence(run, run.read_spec())


def test_where_no_case_has_a_label_none_is_learnt(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence, "segment", lambda *_arguments, **_options: "no engine")
    lines: list[str] = []
    assert learn_confidence(run, run.path / "model.onnx", [], "cpu", lines.append) is None
    assert lines[0].startswith("learn   no temperature: ")
    assert not (run.path / CONFIDENCE).exists()


def test_rankings_by_hand() -> None:
    dice = [0.1 * place for place in range(20)]
    perfect = ranked([-one for one in dice], dice)
    assert perfect == {"cases": 20, "spearman": 1.0, "worst_tenth_in_first_fifth": 1.0}
    assert ranked(dice, dice) == {"cases": 20, "spearman": -1.0, "worst_tenth_in_first_fifth": 0.0}
    # The two worst are cases 0 and 1; case 1 is doubted least.
    doubt = [-one for one in dice]
    doubt[1] = -99.0
    assert ranked(doubt, dice)["worst_tenth_in_first_fifth"] == 0.5
    assert ranked([1.0] * 20, dice)["spearman"] is None


def test_the_diagram_skips_empty_bins(tmp_path: Path) -> None:
    bins = [[5, 0.02, 0.1], [0, 0.0, 0.0], [7, 0.9, 0.5]]
    side = {"cases": 1, "before": {"ece": 0.1, "bins": bins}, "after": {"ece": 0.05, "bins": bins}}
    draw_reliability({"validation": side, "test": side}, 1.5, tmp_path / "diagram.png")
    from PIL import Image

    with Image.open(tmp_path / "diagram.png") as picture:
        assert np.asarray(picture).shape[1] > np.asarray(picture).shape[0]
