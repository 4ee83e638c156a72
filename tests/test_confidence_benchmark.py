"""The figures of confidence: made by one command, and the bundled model's card, spec and checksums hold together."""

from pathlib import Path

import pytest

from segtool.bundled import bundled_models
from segtool.model_file import read_spec
from segtool_export.card import believed

ROOT = Path(__file__).resolve().parent.parent


def test_a_small_share_of_the_benchmark_runs(real_data: Path) -> None:
    pytest.importorskip("onnxruntime")
    from benchmarks.reliability_confidence import run

    result = run(0.001)
    for side in ("validation", "test"):
        assert set(result[side]) == {"as_shipped", "with_flips", "without_temperature"}
        assert all(one["slices"] == 4 for one in result[side].values())
        shipped, plain = (result[side][setting] for setting in ("as_shipped", "without_temperature"))
        assert shipped["mean_dice"] == plain["mean_dice"]  # a temperature moves no mask
        assert shipped["mean_expected_dice"] != plain["mean_expected_dice"]
    assert 0 < result["cost"]["share_of_predict"] < 1


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_card_and_spec_of_a_bundled_model_say_the_same_of_its_probabilities(name: str) -> None:
    spec = read_spec(bundled_models()[name])
    calibration = spec.provenance["calibration"]
    assert spec.confidence is not None
    assert spec.confidence.temperature == calibration["temperature"]
    assert spec.confidence.ece_after == calibration["sides"]["validation"]["after"]["ece"]
    card = (ROOT / "model_cards" / f"{name}.md").read_text(encoding="utf-8")
    assert "\n\n".join(believed(calibration)) in card
    assert (ROOT / "model_cards" / f"{name}-reliability.png").is_file()


def test_on_test_patients_the_temperature_makes_probabilities_more_honest() -> None:
    for model in bundled_models().values():
        test = read_spec(model).provenance["calibration"]["sides"]["test"]
        assert test["after"]["ece"] < test["before"]["ece"]
        assert test["after"]["nll"] < test["before"]["nll"]
