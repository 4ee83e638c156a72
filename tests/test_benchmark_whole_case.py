"""The result of the benchmark of whole cases: networks beside each other, and the table of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common, whole_case
from benchmarks.readme import whole_case as tables


def network(seconds: float) -> dict[str, Any]:
    """A result with two rows."""
    row = {"seconds": {"median": seconds}, "network_s": 2.0, "peak_mb": 100.0, "times_the_first": 1.0}
    return {
        "machine": {"cores": 2, "processor": "a processor"},
        "versions": {"torch": "2.13"},
        "network": {"spec": "net", "patch": [8, 8, 8], "weights": "random"},
        "rows": {
            "a": {**row, "what": "first", "dice_to_first": 1.0},
            "b": {**row, "what": "second", "dice_to_first": None},
        },
    }


def test_a_network_joins_those_measured_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (common, whole_case):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    (tmp_path / "whole_case.json").write_text(json.dumps({"what": "an old one", "rows": {}}))
    for name, seconds in (("light", 3.0), ("wide", 9.0), ("light", 4.0)):
        file = whole_case.keep(name, network(seconds))
    found = json.loads(file.read_text())
    assert list(found) == ["networks"]
    assert {name: one["rows"]["a"]["seconds"]["median"] for name, one in found["networks"].items()} == {
        "light": 4.0,
        "wide": 9.0,
    }
    text = tables(found)
    assert "**light** (`net`, random weights, windows of 8x8x8):" in text
    assert "| first | 9.0 | 2.0 | 100 MB | 1.00 | 1.0000 |" in text
    assert text.count("| second | ") == 2
    assert text.count("2 cores of a processor, medians; torch 2.13.") == 2


def test_the_first_round_does_not_count() -> None:
    answers = [
        {"seconds": 9.0, "peak_mb": 300.0, "stages": {"infer": 8.0}},
        {"seconds": 3.0, "peak_mb": 200.0, "stages": {"infer": 2.0}},
        {"seconds": 5.0, "peak_mb": 100.0, "stages": {"infer": 3.0, "read": 1.0}},
    ]
    theirs, ours = whole_case.row_of("nnunet", answers), whole_case.row_of("segtool-cpu", answers)
    assert (theirs["seconds"]["median"], theirs["network_s"], theirs["peak_mb"]) == (4.0, 2.5, 300.0)
    assert "stages" not in theirs
    assert ours["stages"] == {"infer": 3.0, "read": 1.0}
    assert ours["command"].startswith("segtool predict CASE")
