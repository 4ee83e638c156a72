"""The soak at small scale: what it counts is counted, and nothing is left behind."""

import sys

import pytest

from benchmarks.reliability_soak import run, slope


def test_the_slope_is_that_of_least_squares() -> None:
    assert slope([0, 1, 2, 3], [5.0, 7.0, 9.0, 11.0]) == 2
    assert slope([1], [4.0]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_small_soak_leaves_nothing_behind() -> None:
    found = run(0.002)
    assert found["failed"] == 0
    assert sum(phase["cases"] for phase in found["phases"].values()) == found["slices"] + found["volumes"]
    assert set(found["left_behind"].values()) == {0}
