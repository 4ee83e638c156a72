"""Lines about scans reach the report and the terminal, and a run's figures are as before."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from heads import head, model
from PIL import Image
from tiny import write_model

from segtool.commands.show import case_warnings
from segtool.pipeline import PredictOptions, predict_folder


def test_a_doubtful_scan_is_done_and_told_of_in_the_report(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    sound = head(0).astype(np.uint8)
    for name, pixels in {"inverted": 255 - sound, "sound": sound}.items():
        Image.fromarray(pixels).save(scans / f"{name}.png")
    options = PredictOptions(model=write_model(tmp_path / "m.onnx", model("t1")), output=tmp_path / "out", device="cpu")
    predict_folder([scans], options)
    cases = {case["name"]: case for case in json.loads((tmp_path / "out" / "report.json").read_text())["cases"]}
    assert all(case["status"] == "done" for case in cases.values())
    assert "warnings" not in cases["sound"]
    (line,) = [line for line in cases["inverted"]["warnings"] if line.startswith("t1:")]
    assert line == "t1: the background is as bright as the head (MONOCHROME1 perhaps): invert the grey values"
    assert "check" in cases["sound"]["seconds"]


def test_lines_that_differ_in_their_numbers_alone_are_counted_together() -> None:
    cases = [
        SimpleNamespace(name=name, warnings=warnings)
        for name, warnings in {
            "a": ("t1: noise (neighbours differ by 0.41, wanted below 0.35): check the file",),
            "b": ("t1: noise (neighbours differ by 0.44, wanted below 0.35): check the file",),
            "c": ("mask: fills the head (71% of it, wanted at most 60%): do not use it unseen",),
        }.items()
    ]
    assert list(case_warnings(SimpleNamespace(cases=cases))) == [
        "2 cases: t1: noise: check the file",
        "c: mask: fills the head (71% of it, wanted at most 60%): do not use it unseen",
    ]


def test_lines_that_are_the_same_keep_what_was_found() -> None:
    line = "grid: the slices' distance is missing (or a thin slab: 9x9x2 voxels of 1 x 1 x 1 mm): check the header"
    cases = [SimpleNamespace(name=name, warnings=(line,)) for name in "ab"]
    assert list(case_warnings(SimpleNamespace(cases=cases))) == [f"2 cases: {line}"]


def test_the_bundled_model_knows_its_training() -> None:
    from segtool.bundled import default_model
    from segtool.model_file import read_spec

    statistics = read_spec(default_model()).statistics
    assert statistics is not None
    assert statistics.cases == 1672
    assert statistics.channels[0].values == (0.0, 255.0)


def test_the_figures_are_measured_by_one_command(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(os.fspath(Path(__file__).parents[1]))
    from benchmarks.reliability_checks import run

    found = run(0.02)
    scans, masks = found["test"]["scans"], found["test"]["masks"]
    assert scans["inverted grey values"]["share"] == scans["blank"]["share"] == 1.0
    assert masks["empty"]["share"] == masks["all of the head"]["share"] == 1.0
    assert found["channels"]["one_picture"]["FLAIR given twice"]["share"] == 1.0
    assert found["volumes"]["spacing missing (1 x 1 x 1 mm)"]["share"] == 1.0
