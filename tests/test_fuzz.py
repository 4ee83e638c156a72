"""The harness of fuzzing finds what it is for; and a few inputs of every target, as a full run tries 100,000."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fuzz_stand_ins import Faulty

from benchmarks.fuzz import TARGETS, __main__, campaign
from benchmarks.fuzz.choices import Seeded
from benchmarks.fuzz.mutations import Field, havoc, odd_number, set_field, shuffle
from benchmarks.fuzz.target import damaged, load
from segtool.errors import SegtoolError

TESTS = Path(__file__).parent
ONLY_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured through /proc")


@ONLY_LINUX
@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_every_kind_of_fault_is_a_finding_with_its_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str
) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
    monkeypatch.setattr(campaign, "engines", lambda: (engine,))
    found = campaign.fuzz(["fuzz_stand_ins:Faulty"], 120, findings=tmp_path)["targets"]["fuzz_stand_ins:Faulty"]
    assert found["inputs"] == 120
    assert found["accepted"] > 0
    assert found["refused"] > 0
    kept = {}
    for path in (tmp_path / "fuzz_stand_ins:Faulty").glob("*.json"):
        kind = json.loads(path.read_text(encoding="utf-8"))["kind"]
        # libFuzzer ends a process that dies with a code of its own.
        kind = kind.replace("died with 77", "died with -11")
        kept[kind.partition(" at")[0]] = path.with_suffix(".bin").read_bytes()
    assert kept == {
        "KeyError": b"raises",
        "memory asked before the check": b"asks",
        "the process died with -11": b"dies",
        "large": b"large",
        "MemoryError": b"large claim",
    }
    assert found["largest_growth_mb"] >= 500


def test_a_target_that_is_itself_broken_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No module named 'nowhere'"):
        campaign.fuzz(["nowhere:Target"], 1, findings=tmp_path)


TELL_AND_GO_ON = ("dataset_json", "dicomdir")
"""What lies beside scans: whatever is wrong with it becomes a line of the report, and the scans are found."""


@pytest.mark.filterwarnings("ignore")  # as of the process that fuzzes: doubts of libraries are no findings
@pytest.mark.parametrize("name", TARGETS)
def test_a_few_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    target = load(name)
    for seed in target.seeds():
        target.read(target.place(tmp_path, seed))
    refused = 0
    for number in range(20):
        choices = Seeded(number)
        path = target.place(tmp_path, damaged(target, choices.one(target.seeds()), choices))
        try:
            target.read(path)
        except SegtoolError:
            refused += 1
    assert refused > 0 or name in TELL_AND_GO_ON


def test_changes_are_those_of_their_seed_and_fit_their_fields() -> None:
    data = bytes(range(40))
    for number in range(300):
        assert havoc(data, Seeded(number)) == havoc(data, Seeded(number))
        assert isinstance(shuffle([b"a", b"bc"], Seeded(number)), list)
        for code in ("<h", ">H", "<i", "<q", "<Q", "<f", "<d", "<B"):
            changed = set_field(data, Field(3, code), Seeded(number))
            assert changed is not None
            assert len(changed) == len(data)
            assert changed[:3] == data[:3]
            odd_number(Seeded(number), code)
    assert set_field(data, Field(39, "<h"), Seeded(0)) is None


def test_figures_of_runs_are_put_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = {"inputs": 3, "findings": ["a fault"], "fixed": ["b"], "elapsed_s": 1.0}
    for name in ("png", "coco"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"settings": {}, "targets": {name: one}}))
    monkeypatch.setattr(__main__, "RESULTS", tmp_path)
    monkeypatch.setattr(__main__, "save", lambda name, found: (tmp_path / f"{name}.json").write_text(json.dumps(found)))
    monkeypatch.setattr(
        sys, "argv", ["fuzz", "--output", "all", "--merge", *(str(tmp_path / f"{n}.json") for n in ("coco", "png"))]
    )
    __main__.main()
    found = json.loads((tmp_path / "all.json").read_text())
    assert list(found["targets"]) == ["png", "coco"]
    assert (found["inputs"], found["findings"], found["fixed"], found["elapsed_s"]) == (6, 2, 2, 2.0)


def test_stand_ins_are_sound_where_they_say_so(tmp_path: Path) -> None:
    target = Faulty()
    assert target.read(target.place(tmp_path, b"sound")) is None
