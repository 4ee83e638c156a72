"""The figures of reliability: each part adds up, and the README has what the files say."""

import json

import pytest

from benchmarks import readme, reliability
from benchmarks.common import RESULTS

WHOLE = json.loads((RESULTS / "reliability.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", list(reliability.PARTS))
def test_every_part_lies_beside_the_whole_and_is_in_it(part: str) -> None:
    _, name, tell = reliability.PARTS[part]
    alone = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert WHOLE["parts"][part] == alone
    assert all(row in WHOLE["rows"] for row in (tell(alone) if tell else []))


def test_what_was_tried_either_survived_or_is_lost_and_nothing_is_lost() -> None:
    assert all(row["tried"] == row["survived"] + row["lost"] for row in WHOLE["rows"])
    assert WHOLE["lost"] == sum(row["lost"] for row in WHOLE["rows"]) == 0


@pytest.mark.parametrize("name", ["reliability", "reliability_checks", "reliability_confidence"])
def test_the_readme_has_the_table_of_the_file(name: str) -> None:
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert readme.TABLES[name](found) in readme.README.read_text(encoding="utf-8")


def test_a_finding_of_fuzzing_is_a_loss() -> None:
    target = {"inputs": 10, "findings": [], "slowest_s": 0.1, "largest_growth_mb": 1.0, "fixed": ["a", "b"]}
    figures = {"inputs": 10, "targets": {"png": target, "tiff": target | {"inputs": 5, "findings": ["hangs"]}}}
    (row,) = reliability.fuzzing(figures)
    assert (row["tried"], row["survived"], row["lost"]) == (15, 14, 1)
    assert "2 kinds of file, 1 of them with 10 inputs" in row["more"]
    assert "4 faults were found and mended" in row["more"]


def test_a_case_that_is_neither_there_nor_named_is_a_loss() -> None:
    (row,) = reliability.faults({"tried": 2, "cases": 20, "survived": 12, "lost": 3})
    assert (row["tried"], row["survived"], row["lost"]) == (20, 17, 3)


def test_a_run_with_other_bytes_is_a_loss() -> None:
    variants = {"batch 1": {"other_results": 0}, "batch 2": {"other_results": 4}}
    held = {"slices": {"device": "cpu", "precision": "fp32", "variants": variants}, "gpu": {"not_here": "no GPU"}}
    (row,) = reliability.determinism({"held": held})
    assert (row["tried"], row["survived"], row["lost"]) == (2, 1, 1)
    assert row["more"].endswith("onnxruntime fp32")
