"""Candidates are tried in turn; one that no engine takes makes room for the next."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from openvino_here import openvino_or_skip
from tiny import bright_spec, write_model

from segtool.backends import load_backend
from segtool.backends.openvino_engine import computes_bf16
from segtool.errors import ModelError
from segtool_export.cases import Sample
from segtool_export.parity import Original
from segtool_export.proving import Candidate, prove, prove_on_openvino


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_model(tmp_path / "good.onnx", bright_spec())


@pytest.fixture
def original(good: Path, tmp_path: Path) -> Original:
    (tmp_path / "candidates").mkdir()
    return Original(load_backend(good, "cpu", threads=1).run, "the original", tmp_path / "candidates")


def sample() -> Sample:
    image = np.zeros((1, 32, 32), np.float32)
    image[0, 8:20, 8:20] = 1
    return Sample("disc", image)


def broken(path: Path) -> None:
    path.write_bytes(b"no model")


def test_a_candidate_that_cannot_be_loaded_makes_room_for_the_next(good: Path, original: Original) -> None:
    rounds = [
        [Candidate("broken", broken, {})],
        [Candidate("good", partial(shutil.copyfile, good), {})],
    ]
    proof = prove(original, rounds, bright_spec(), [sample()], "fp32", Path("model.onnx"))
    assert proof.chosen.candidate.name == "good"


def test_where_none_can_be_loaded_the_line_says_why_and_names_the_model(original: Original) -> None:
    rounds = [[Candidate("broken", broken, {}), Candidate("broken too", broken, {})]]
    with pytest.raises(ModelError, match=r"^model\.onnx: not written, broken: it: .*; broken too: .*--opset") as caught:
        prove(original, rounds, bright_spec(), [sample()], "fp32", Path("model.onnx"))
    assert "candidate-" not in str(caught.value)


def test_a_file_in_fp32_is_tried_in_bf16_on_openvino(good: Path, original: Original) -> None:
    openvino_or_skip()
    if not computes_bf16():
        pytest.skip("this processor does not compute in bf16")
    (row,) = prove_on_openvino(original, good, bright_spec(), [sample()], "fp32")
    assert (row.engine, row.computing, row.passed) == ("openvino", "bf16", True)
    facts = row.to_provenance()
    assert facts["parity"]["gate_mean_over_labels"] == 0.999
    assert facts["parity"]["engine"].endswith("cpu bf16")


def test_masks_that_bf16_moves_are_not_proved(good: Path, original: Original) -> None:
    openvino_or_skip()
    if not computes_bf16():
        pytest.skip("this processor does not compute in bf16")
    # On the border of the label: half of these round up to it, half down.
    near = 0.5 + np.random.default_rng(0).uniform(-1e-3, 1e-3, (1, 32, 32)).astype(np.float32)
    (row,) = prove_on_openvino(original, good, bright_spec(), [Sample("near", near)], "fp32")
    assert not row.passed


def test_fp16_files_are_not_for_openvino(good: Path, original: Original) -> None:
    assert prove_on_openvino(original, good, bright_spec(), [sample()], "fp16") == ()
