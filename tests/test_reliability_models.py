"""The figures of hostile models, at a small scale: nothing is let in."""

import pytest


def test_no_hostile_and_no_exchanged_model_is_let_in() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("cryptography", reason="signatures need it; pip install 'segtool[sign]'")
    from benchmarks.reliability_models import run

    result = run(0.02)
    assert result["tried"] == 240
    assert (result["survived"], result["lost"]) == (240, 0)
    assert len(result["what"]) == 5
