"""What ``segtool inspect MODEL`` says of rules by label and of flips."""

from pathlib import Path

import pytest
from shell import segtool
from tiny import bright_spec, write_model

from segtool.spec import LabelRules, LabelSpec, PostprocessSpec


def test_thresholds_rules_and_flips_are_shown_where_there_are_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = bright_spec(
        labels=(LabelSpec(name="core", value=1, threshold=0.35), LabelSpec(name="rim", value=2)),
        postprocess=PostprocessSpec(largest_component=True, labels={"rim": LabelRules(fill_holes=True)}),
        test_time_flips=("horizontal", "vertical"),
        description="turns\x1b[31mred",
    )
    answer = segtool(capsys, "inspect", write_model(tmp_path / "m.onnx", spec))
    assert answer.lines("label") == [
        "1 core  (any reference value but 0), threshold 0.35",
        "2 rim  (any reference value but 0)",
    ]
    general, rim = answer.lines("post")
    assert "largest_component True" in general
    assert rim.startswith("rim: ")
    assert "fill_holes True" in rim
    assert answer.lines("flips") == ["horizontal vertical: the mean of 4 passes"]
    assert "\x1b" not in answer.out


def test_a_plain_model_says_nothing_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = segtool(capsys, "inspect", write_model(tmp_path / "m.onnx", bright_spec()))
    assert len(answer.lines("post")) == 1
    assert not answer.lines("flips")
